# SPDX-License-Identifier: Apache-2.0
"""What a torch pickle's globals stand for: records of storages and tensors, and which globals are data at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Copy = Callable[[Any], list[Any]]  # makes a list of a container, within bounds
STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
    "ComplexFloatStorage": "C64",
    "UntypedStorage": "",
}
DTYPES = {
    "float64": "F64",
    "double": "F64",
    "float32": "F32",
    "float": "F32",
    "float16": "F16",
    "half": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "long": "I64",
    "int32": "I32",
    "int": "I32",
    "int16": "I16",
    "short": "I16",
    "int8": "I8",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "bool": "BOOL",
    "complex64": "C64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "float8_e8m0fnu": "F8_E8M0",
}


class Malformed(Exception):
    """These bytes are no pickle, or one that nobody's library writes."""


class Global(NamedTuple):
    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class Opaque:
    """A value that is not looked into. `unreadable` says why it matters where it stands for a tensor."""

    unreadable: str = ""


@dataclass(eq=False, slots=True)
class Table:
    """A dict as its pairs, in order: keys are never hashed, since they are somebody else's."""

    pairs: list[tuple[Any, Any]] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Storage:
    key: str
    dtype: str  # "" for an untyped one, whose size counts bytes
    size: int


@dataclass(eq=False, slots=True)
class Tensor:
    storage: Storage
    dtype: str
    offset: int  # in elements
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def storage(given: Any) -> Storage:
    """('storage', its class, key, device, number of elements[, view])"""
    if not (isinstance(given, tuple) and len(given) >= 5 and given[0] == "storage"):
        raise Malformed("a persistent id is no storage")
    _, kind, key, _, size = given[:5]
    name = kind.name if isinstance(kind, Global) else ""
    if name not in STORAGES:
        raise Malformed(f"a storage of the type {name[:60]!r} is not known here")
    if not isinstance(key, (str, int)) or isinstance(key, bool) or type(size) is not int or size < 0:
        raise Malformed("a storage's key or size is none")
    view = given[5] if len(given) > 5 else None
    if view is not None:
        raise Malformed("its storages are views of one another (torch before 0.4)")
    return Storage(str(key), STORAGES[name], size)


# --- what is known of globals ----------------------------------------------------------------------------------------

_BUILTINS = {
    "set",
    "frozenset",
    "list",
    "tuple",
    "dict",
    "bytearray",
    "complex",
    "int",
    "float",
    "str",
    "bool",
    "bytes",
}
_PLAIN = {
    "collections": {"OrderedDict", "defaultdict", "Counter"},
    "builtins": _BUILTINS | {"bytes", "slice", "range"},
    "__builtin__": _BUILTINS | {"unicode", "long"},
    "torch": {"Size", "device", "Tensor", "strided", "preserve_format", "contiguous_format", "channels_last"},
    "torch.nn.parameter": {"Parameter", "Buffer"},
    "torch.serialization": {"_get_layout"},
    "_codecs": {"encode"},
    "numpy": {"dtype", "ndarray"},
    "numpy.core.multiarray": {"scalar", "_reconstruct"},
    "numpy._core.multiarray": {"scalar", "_reconstruct"},
    "datetime": {"datetime", "timedelta", "date"},
}
_UNREADABLE = {
    "_rebuild_qtensor": "is quantised",
    "_rebuild_sparse_tensor": "is sparse",
    "_rebuild_sparse_csr_tensor": "is sparse",
    "_rebuild_nested_tensor": "is a nested tensor",
    "_rebuild_meta_tensor_no_storage": "has no values (meta device)",
    "_rebuild_wrapper_subclass": "is of a tensor class of its own",
    "_rebuild_device_tensor_from_numpy": "was saved from a device without storages",
    "_rebuild_device_tensor_from_cpu_tensor": "was saved from a device without storages",
}


def known(name: Global) -> bool:
    if name.module == "torch" and (name.name in STORAGES or name.name in DTYPES):
        return True
    if name.module == "torch.storage" and name.name == "UntypedStorage":
        return True
    return name.name in _PLAIN.get(name.module, ()) or name in _BUILDERS or _unreadable(name) is not None


def _unreadable(name: Global) -> str | None:
    return _UNREADABLE.get(name.name) if name.module == "torch._utils" else None


def call(copy: Copy, target: Any, arguments: tuple[Any, ...]) -> Any:
    if not isinstance(target, Global):
        return Opaque()
    if target in _BUILDERS:
        return _BUILDERS[target](copy, *arguments)
    if target.name in ("OrderedDict", "defaultdict", "Counter", "dict") and known(target):
        return _table(copy, arguments)
    if target.name in ("list", "tuple", "set", "frozenset", "Size") and known(target):
        items = arguments[0] if arguments else ()
        made = copy(items) if isinstance(items, (list, tuple)) else []
        return tuple(made) if target.name in ("tuple", "Size") else made
    return Opaque(_unreadable(target) or "")


def _table(copy: Copy, arguments: tuple[Any, ...]) -> Table:
    """`OrderedDict()`, `OrderedDict([(key, value), ...])`, `defaultdict(factory, table)`"""
    given = next((a for a in reversed(arguments) if isinstance(a, (Table, list))), [])
    if isinstance(given, Table):
        return Table(copy(given.pairs))
    pairs = [pair for pair in copy(given) if isinstance(pair, (list, tuple)) and len(pair) == 2]
    return Table([(key, value) for key, value in pairs])


def _sizes(value: Any) -> tuple[int, ...]:
    if not isinstance(value, (tuple, list)) or len(value) > 64 or any(type(item) is not int for item in value):
        raise Malformed("a tensor's shape is no list of sizes")
    return tuple(value)


def _tensor(copy: Copy, storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor | Opaque:
    """torch._utils._rebuild_tensor and its second version; `rest` is about gradients and hooks."""
    if not isinstance(storage, Storage):
        raise Malformed("a tensor is built on no storage")
    shape, steps = _sizes(size), _sizes(stride)
    if type(offset) is not int or len(shape) != len(steps) or min((offset, *shape, *steps)) < 0:
        raise Malformed("a tensor's offset, shape and stride do not fit one another")
    if not storage.dtype:
        raise Malformed("a tensor of no type is built on a storage of no type")
    return Tensor(storage, storage.dtype, offset, shape, steps)


def _typed_tensor(
    copy: Copy, storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *rest: Any
) -> Tensor | Opaque:
    """torch._utils._rebuild_tensor_v3: an untyped storage and the dtype beside it."""
    name = dtype.name if isinstance(dtype, Global) and dtype.module == "torch" else ""
    if not isinstance(storage, Storage) or name not in DTYPES:
        return Opaque(f"has the dtype {name[:40] or 'of nobody'}, which safetensors does not have")
    typed = _tensor(copy, Storage(storage.key, DTYPES[name], storage.size), offset, size, stride)
    assert isinstance(typed, Tensor)
    return Tensor(storage, typed.dtype, typed.offset, typed.shape, typed.stride)


def _inner(copy: Copy, data: Any = None, *rest: Any) -> Any:
    """A parameter is the tensor in it."""
    return data


def _from_type(copy: Copy, builder: Any = None, cls: Any = None, arguments: Any = (), *rest: Any) -> Any:
    """torch._tensor._rebuild_from_type_v2: a tensor, then its Python class."""
    return call(copy, builder, arguments if isinstance(arguments, tuple) else ())


_BUILDERS: dict[Global, Callable[..., Any]] = {
    Global("torch._utils", "_rebuild_tensor"): _tensor,
    Global("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Global("torch._utils", "_rebuild_tensor_v3"): _typed_tensor,
    Global("torch._utils", "_rebuild_parameter"): _inner,
    Global("torch._utils", "_rebuild_parameter_with_state"): _inner,
    Global("torch._tensor", "_rebuild_from_type_v2"): _from_type,
}
