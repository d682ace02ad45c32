# SPDX-License-Identifier: Apache-2.0
"""A pickle's values without its code: a machine of its own for the opcodes, which imports nothing and calls nothing.

What a global would make is described instead of made: storages and tensors as records, plain containers as containers,
everything else as `Opaque`. Globals that are not on the list below are collected by name, so that the caller can refuse
the file and say which code it needs. All work is bounded by the bytes read and by `MAX_OPS`.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple, cast

MAX_OPS = 5_000_000  # a checkpoint of 10,000 tensors with its optimiser takes some 400,000
MAX_LINE = 65_536  # bytes of one text argument
OPCODES = {op.code.encode("latin-1"): op for op in pickletools.opcodes}

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


@dataclass(eq=False)
class Opaque:
    """A value that is not looked into. `unreadable` says why it matters where it stands for a tensor."""

    unreadable: str = ""


@dataclass(eq=False)
class Table:
    """A dict as its pairs, in order: keys are never hashed, since they are somebody else's."""

    pairs: list[tuple[Any, Any]] = field(default_factory=list)


@dataclass(eq=False)
class Storage:
    key: str
    dtype: str  # "" for an untyped one, whose size counts bytes
    size: int


@dataclass(eq=False)
class Tensor:
    storage: Storage
    dtype: str
    offset: int  # in elements
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Loaded(NamedTuple):
    value: Any
    needs: tuple[str, ...]  # globals that only code could answer


def load(stream: BinaryIO) -> Loaded:
    """Read one pickle from where `stream` stands. Malformed when it is none; `needs` names what it wants to run."""
    machine, lines = _Machine(), cast(BinaryIO, _Lines(stream))
    for _ in range(MAX_OPS):
        op = OPCODES.get(stream.read(1))
        if op is None:
            raise Malformed("it breaks off, or an opcode is none" + machine.wanted())
        try:
            argument = op.arg.reader(lines) if op.arg else None
            if op.name == "STOP":
                return Loaded(machine.pop(), tuple(machine.needs))
            machine.step(op.name, argument)
        except (ValueError, IndexError, TypeError, OverflowError, UnicodeError) as error:
            raise Malformed(f"{op.name}: {str(error)[:120]}{machine.wanted()}") from None
    raise Malformed(f"it has more than {MAX_OPS} steps" + machine.wanted())


class _Lines:
    """What pickletools' readers need of a stream, with bounded lines."""

    def __init__(self, stream: BinaryIO) -> None:
        self.read = stream.read
        self.stream = stream

    def readline(self) -> bytes:
        return self.stream.readline(MAX_LINE)


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.needs: dict[str, None] = {}
        self.copied = 0

    def copy(self, items: Any) -> list[Any]:
        """A container made of another, such as OrderedDict(pairs); bytes that say it again and again are refused."""
        self.copied += len(items)
        if self.copied > MAX_OPS:
            raise Malformed("it copies its containers over and over")
        return list(items)

    def wanted(self) -> str:
        return f" (it also wants to run {', '.join(list(self.needs)[:3])})" if self.needs else ""

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            raise Malformed("its stack runs empty")
        return self.stack.pop()

    def to_mark(self) -> list[Any]:
        if not self.marks:
            raise Malformed("a mark is missing")
        items, self.stack = self.stack, self.marks.pop()
        return items

    def step(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self.push(argument)
        elif name in _STEPS:
            _STEPS[name](self, argument)
        else:
            raise Malformed(f"the opcode {name} has no place in a checkpoint")

    def remember(self, index: int) -> None:
        if not self.stack:
            raise Malformed("its stack runs empty")
        self.memo[index] = self.stack[-1]

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise Malformed("it recalls what it never kept")
        self.push(self.memo[index])

    def call(self, target: Any, arguments: Any) -> None:
        self.push(_call(self, target, arguments if isinstance(arguments, tuple) else ()))

    def find(self, module: Any, name: Any) -> Global:
        if not isinstance(module, str) or not isinstance(name, str):
            raise Malformed("a global is named by something else than words")
        found = Global(module, name)
        if not _known(found):
            self.needs.setdefault(str(found)[:200])
        return found

    def extend(self, items: list[Any]) -> None:
        """APPEND(S), ADDITEMS: onto whatever lies on top; what is no list keeps nothing."""
        if not self.stack:
            raise Malformed("its stack runs empty")
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def fill(self, items: list[Any]) -> None:
        """SETITEM(S)"""
        if not self.stack or len(items) % 2:
            raise Malformed("a dict is given half a pair")
        if isinstance(self.stack[-1], Table):
            self.stack[-1].pairs.extend(zip(items[::2], items[1::2], strict=True))

    def persistent(self, given: Any) -> None:
        self.push(_storage(given))


def _storage(given: Any) -> Storage:
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


def _known(name: Global) -> bool:
    if name.module == "torch" and (name.name in STORAGES or name.name in DTYPES):
        return True
    if name.module == "torch.storage" and name.name == "UntypedStorage":
        return True
    return name.name in _PLAIN.get(name.module, ()) or name in _BUILDERS or _unreadable(name) is not None


def _unreadable(name: Global) -> str | None:
    return _UNREADABLE.get(name.name) if name.module == "torch._utils" else None


def _call(machine: _Machine, target: Any, arguments: tuple[Any, ...]) -> Any:
    if not isinstance(target, Global):
        return Opaque()
    if target in _BUILDERS:
        return _BUILDERS[target](machine, *arguments)
    if target.name in ("OrderedDict", "defaultdict", "Counter", "dict") and _known(target):
        return _table(machine, arguments)
    if target.name in ("list", "tuple", "set", "frozenset", "Size") and _known(target):
        items = arguments[0] if arguments else ()
        made = machine.copy(items) if isinstance(items, (list, tuple)) else []
        return tuple(made) if target.name in ("tuple", "Size") else made
    return Opaque(_unreadable(target) or "")


def _table(machine: _Machine, arguments: tuple[Any, ...]) -> Table:
    """`OrderedDict()`, `OrderedDict([(key, value), ...])`, `defaultdict(factory, table)`"""
    given = next((a for a in reversed(arguments) if isinstance(a, (Table, list))), [])
    if isinstance(given, Table):
        return Table(machine.copy(given.pairs))
    pairs = [pair for pair in machine.copy(given) if isinstance(pair, (list, tuple)) and len(pair) == 2]
    return Table([(key, value) for key, value in pairs])


def _sizes(value: Any) -> tuple[int, ...]:
    if not isinstance(value, (tuple, list)) or len(value) > 64 or any(type(item) is not int for item in value):
        raise Malformed("a tensor's shape is no list of sizes")
    return tuple(value)


def _tensor(machine: _Machine, storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor | Opaque:
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
    machine: _Machine, storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *rest: Any
) -> Tensor | Opaque:
    """torch._utils._rebuild_tensor_v3: an untyped storage and the dtype beside it."""
    name = dtype.name if isinstance(dtype, Global) and dtype.module == "torch" else ""
    if not isinstance(storage, Storage) or name not in DTYPES:
        return Opaque(f"has the dtype {name[:40] or 'of nobody'}, which safetensors does not have")
    typed = _tensor(machine, Storage(storage.key, DTYPES[name], storage.size), offset, size, stride)
    assert isinstance(typed, Tensor)
    return Tensor(storage, typed.dtype, typed.offset, typed.shape, typed.stride)


def _inner(machine: _Machine, data: Any = None, *rest: Any) -> Any:
    """A parameter is the tensor in it."""
    return data


def _from_type(machine: _Machine, builder: Any = None, cls: Any = None, arguments: Any = (), *rest: Any) -> Any:
    """torch._tensor._rebuild_from_type_v2: a tensor, then its Python class."""
    return _call(machine, builder, arguments if isinstance(arguments, tuple) else ())


_BUILDERS: dict[Global, Callable[..., Any]] = {
    Global("torch._utils", "_rebuild_tensor"): _tensor,
    Global("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Global("torch._utils", "_rebuild_tensor_v3"): _typed_tensor,
    Global("torch._utils", "_rebuild_parameter"): _inner,
    Global("torch._utils", "_rebuild_parameter_with_state"): _inner,
    Global("torch._tensor", "_rebuild_from_type_v2"): _from_type,
}

# --- opcodes ---------------------------------------------------------------------------------------------------------

_VALUES = set(
    """INT BININT BININT1 BININT2 LONG LONG1 LONG4 STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8
    BYTEARRAY8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 FLOAT BINFLOAT""".split()  # noqa: SIM905 - a table
)


def _protocol(machine: _Machine, argument: int) -> None:
    if argument > 5:
        raise Malformed(f"its protocol {argument} is not known")


def _instance(machine: _Machine, argument: str) -> None:
    module, _, name = argument.partition(" ")
    items = machine.to_mark()
    machine.call(machine.find(module, name), tuple(items))


def _object(machine: _Machine, argument: Any) -> None:
    items = machine.to_mark()
    if not items:
        raise Malformed("an object of no class")
    machine.call(items[0], tuple(items[1:]))


def _global(machine: _Machine, argument: str) -> None:
    module, _, name = argument.partition(" ")
    machine.push(machine.find(module, name))


def _stack_global(machine: _Machine, argument: Any) -> None:
    name, module = machine.pop(), machine.pop()
    machine.push(machine.find(module, name))


def _reduce(machine: _Machine, argument: Any) -> None:
    arguments, target = machine.pop(), machine.pop()
    machine.call(target, arguments)


def _new_extended(machine: _Machine, argument: Any) -> None:
    _, arguments, target = machine.pop(), machine.pop(), machine.pop()
    machine.call(target, arguments)


def _mark(machine: _Machine, argument: Any) -> None:
    machine.marks.append(machine.stack)
    machine.stack = []


def _pairs(machine: _Machine, argument: Any) -> None:
    value, key = machine.pop(), machine.pop()
    machine.fill([key, value])


def _tuple_of(count: int) -> Callable[[_Machine, Any], None]:
    def make(machine: _Machine, argument: Any) -> None:
        items = [machine.pop() for _ in range(count)]
        machine.push(tuple(reversed(items)))

    return make


def _table_of_marked(machine: _Machine, argument: Any) -> None:
    items = machine.to_mark()
    machine.push(Table())
    machine.fill(items)


_STEPS: dict[str, Callable[[_Machine, Any], Any]] = {
    "PROTO": _protocol,
    "FRAME": lambda m, a: None,
    "NONE": lambda m, a: m.push(None),
    "NEWTRUE": lambda m, a: m.push(True),
    "NEWFALSE": lambda m, a: m.push(False),
    "MARK": _mark,
    "POP": lambda m, a: m.pop() if m.stack else m.to_mark(),
    "POP_MARK": lambda m, a: m.to_mark(),
    "DUP": lambda m, a: m.push(m.stack[-1]),
    "EMPTY_LIST": lambda m, a: m.push([]),
    "EMPTY_TUPLE": lambda m, a: m.push(()),
    "EMPTY_DICT": lambda m, a: m.push(Table()),
    "EMPTY_SET": lambda m, a: m.push([]),
    "LIST": lambda m, a: m.push(m.to_mark()),
    "FROZENSET": lambda m, a: m.push(m.to_mark()),
    "TUPLE": lambda m, a: m.push(tuple(m.to_mark())),
    "DICT": _table_of_marked,
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "APPEND": lambda m, a: m.extend([m.pop()]),
    "APPENDS": lambda m, a: m.extend(m.to_mark()),
    "ADDITEMS": lambda m, a: m.extend(m.to_mark()),
    "SETITEM": _pairs,
    "SETITEMS": lambda m, a: m.fill(m.to_mark()),
    "PUT": lambda m, a: m.remember(a),
    "BINPUT": lambda m, a: m.remember(a),
    "LONG_BINPUT": lambda m, a: m.remember(a),
    "MEMOIZE": lambda m, a: m.remember(len(m.memo)),
    "GET": lambda m, a: m.recall(a),
    "BINGET": lambda m, a: m.recall(a),
    "LONG_BINGET": lambda m, a: m.recall(a),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "NEWOBJ_EX": _new_extended,
    "INST": _instance,
    "OBJ": _object,
    "BUILD": lambda m, a: m.pop(),
    "BINPERSID": lambda m, a: m.persistent(m.pop()),
}
