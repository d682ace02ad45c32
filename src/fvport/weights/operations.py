# SPDX-License-Identifier: Apache-2.0
"""What a conversion may do to tensors: named operations with their meaning on shapes, and an inverse where one exists.

An operation takes a list of tensors and gives a list of tensors; a chain of them turns the sources of a rule into its
targets. Here tensors are dtype and shape only: nothing is read and nothing heavy is imported. A declaration and JSON
spell an operation as a list that begins with its name:

    ["split", dim, 3]  ["split", dim, [sizes]]  ["split", dim, 3, index]   one tensor into parts, or one of the parts
    ["fuse", dim]  ["fuse", dim, [order]]                                  several into one, in their or another order
    ["transpose", [dims]]                                                  axes in another order
    ["reshape", [shape]]                                                   the same values in another shape; one -1
    ["cast", dtype]                                                        another dtype, rounded to nearest even
    ["scale", factor]                                                      every value times a number
    ["skip", reason]                                                       nothing loads it, and why
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fvport.errors import UsageError, did_you_mean
from fvport.weights.manifest import BITS

WORDS = {"float": "F32", "float32": "F32", "float16": "F16", "half": "F16", "bfloat16": "BF16", "float64": "F64"}
FLOATS = ("F16", "BF16", "F32", "F64")


class Tensor(NamedTuple):
    """What an operation sees of a tensor: the format's dtype (`F32`) and the shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bits(self) -> int:
        return self.elements * BITS[self.dtype]


@dataclass(frozen=True)
class Operation:
    """One operation by name; `arguments` are plain values (lists as tuples), checked when it is made."""

    name: str
    arguments: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in CHECKS:
            raise UsageError(f'unknown operation "{self.name}" ({", ".join(CHECKS)}).{did_you_mean(self.name, CHECKS)}')
        CHECKS[self.name](self)

    def __str__(self) -> str:
        return f"{self.name}({', '.join(str(_plain(word)) for word in self.arguments)})"

    def to_json(self) -> list[Any]:
        return [self.name, *(_plain(word) for word in self.arguments)]

    @classmethod
    def from_json(cls, data: Any) -> Operation:
        """From `["split", 0, 3]`. UsageError for anything that is no operation."""
        if not isinstance(data, (list, tuple)) or not data or not isinstance(data[0], str):
            raise UsageError(f'{data!r} is no operation; write it as a list, such as ["split", 0, 3]')
        return cls(data[0], tuple(_frozen(word) for word in data[1:]))

    def apply(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """What comes out, by dtype and shape. UsageError says why it cannot be done to these."""
        return SHAPES[self.name](self, list(tensors))

    def moves_bytes(self, tensors: Sequence[Tensor]) -> bool:
        """True where the result's bytes are ranges of the sources' bytes: nothing has to be computed."""
        if self.name == "split":
            tensor = tensors[0]
            parts = self.apply(tensors)
            outer = math.prod(tensor.shape[: self.axis(tensor)])
            return outer == 1 and all(part.bits % 8 == 0 for part in parts)
        if self.name == "fuse":
            outer = math.prod(tensors[0].shape[: self.axis(tensors[0])])
            return outer == 1 and all(tensor.bits % 8 == 0 for tensor in tensors)
        if self.name == "transpose":  # axes of one element may go anywhere
            return all(_order(tensor.shape, self.arguments[0]) for tensor in tensors)
        if self.name == "cast":
            return all(tensor.dtype == self.dtype for tensor in tensors)
        return self.name in ("reshape", "skip") or (self.name == "scale" and self.arguments[0] == 1)

    def inverse(self, tensors: Sequence[Tensor]) -> Operation | None:
        """The operation that gives these tensors back from the result, or None where there is none."""
        if self.name == "split" and len(self.arguments) == 2:
            return Operation("fuse", (self.axis(tensors[0]),))
        if self.name == "fuse" and self.order(len(tensors)) == tuple(range(len(tensors))):
            dim = self.axis(tensors[0])
            return Operation("split", (dim, tuple(tensor.shape[dim] for tensor in tensors)))
        if self.name == "transpose":
            dims = _positive(self.arguments[0])
            return Operation("transpose", (tuple(dims.index(axis) for axis in range(len(dims))),))
        if self.name == "reshape" and len({tensor.shape for tensor in tensors}) == 1:
            return Operation("reshape", (tensors[0].shape,))
        if self.name == "cast" and len({tensor.dtype for tensor in tensors}) == 1:
            exact = tensors[0].dtype == self.dtype or (tensors[0].dtype, self.dtype) in WIDENS
            return Operation("cast", (tensors[0].dtype,)) if exact else None
        if self.name == "scale" and math.log2(abs(self.arguments[0])).is_integer():  # exact both ways
            return Operation("scale", (1 / self.arguments[0],))
        return None

    # what the arguments say

    @property
    def dtype(self) -> str:
        """Of `cast`: the dtype as the format spells it."""
        return dtype_word(self.arguments[0])

    def axis(self, tensor: Tensor) -> int:
        """Of `split` and `fuse`: the dimension, counted from the front. UsageError where the tensor has none such."""
        dim: int = self.arguments[0]
        if not -len(tensor.shape) <= dim < len(tensor.shape):
            raise UsageError(f"{self} does not fit the shape {list(tensor.shape)}: it has no dimension {dim}")
        return dim % len(tensor.shape)

    def sizes(self, tensor: Tensor) -> tuple[int, ...]:
        """Of `split`: the sizes of all parts along the dimension."""
        parts, whole = self.arguments[1], tensor.shape[self.axis(tensor)]
        if isinstance(parts, int):
            if whole % parts:
                raise UsageError(f"{self}: {whole} (of shape {list(tensor.shape)}) is no multiple of {parts}")
            return (whole // parts,) * parts
        if sum(parts) != whole:
            raise UsageError(f"{self}: {whole} (of shape {list(tensor.shape)}) is not {' + '.join(map(str, parts))}")
        found: tuple[int, ...] = parts
        return found

    def order(self, count: int) -> tuple[int, ...]:
        """Of `fuse`: which source comes when."""
        order = self.arguments[1] if len(self.arguments) == 2 else tuple(range(count))
        if sorted(order) != list(range(count)):
            raise UsageError(f"{self}: the order must name each of {count} tensors once, counted from 0")
        return order


WIDENS = {("BF16", "F32"), ("BF16", "F64"), ("F16", "F32"), ("F16", "F64"), ("F32", "F64")}


def chain(operations: Sequence[Operation], tensors: Sequence[Tensor]) -> list[Tensor]:
    """What a chain makes of these tensors."""
    found = list(tensors)
    for operation in operations:
        found = operation.apply(found)
    return found


def moves_bytes(operations: Sequence[Operation], tensors: Sequence[Tensor]) -> bool:
    """True where the whole chain is byte ranges."""
    found = list(tensors)
    for operation in operations:
        if not operation.moves_bytes(found):
            return False
        found = operation.apply(found)
    return True


def inverse(operations: Sequence[Operation], tensors: Sequence[Tensor]) -> list[Operation] | None:
    """The chain back, or None where one step has no inverse."""
    found, back = list(tensors), []
    for operation in operations:
        step = operation.inverse(found)
        if step is None:
            return None
        back.append(step)
        found = operation.apply(found)
    return back[::-1]


def dtype_word(word: str) -> str:
    """`float32`, `torch.float32` or `F32` -> `F32`."""
    text = word.removeprefix("torch.")
    return WORDS.get(text, text)


# --- shapes ----------------------------------------------------------------------------------------------------------


def _one(operation: Operation, tensors: list[Tensor]) -> Tensor:
    if len(tensors) != 1:
        raise UsageError(f"{operation} takes one tensor, and there are {len(tensors)} here: fuse them first")
    return tensors[0]


def _split(operation: Operation, tensors: list[Tensor]) -> list[Tensor]:
    tensor = _one(operation, tensors)
    dim = operation.axis(tensor)
    parts = [
        Tensor(tensor.dtype, (*tensor.shape[:dim], size, *tensor.shape[dim + 1 :])) for size in operation.sizes(tensor)
    ]
    return parts if len(operation.arguments) == 2 else [parts[operation.arguments[2]]]


def _fuse(operation: Operation, tensors: list[Tensor]) -> list[Tensor]:
    if not tensors:
        raise UsageError(f"{operation} needs at least one tensor")
    first, dim = tensors[0], operation.axis(tensors[0])
    operation.order(len(tensors))
    rest = [(tensor.dtype, tensor.shape[:dim], tensor.shape[dim + 1 :]) for tensor in tensors]
    if len(set(rest)) > 1 or any(len(tensor.shape) != len(first.shape) for tensor in tensors):
        shapes = " + ".join(f"{tensor.dtype} {list(tensor.shape)}" for tensor in tensors)
        raise UsageError(f"{operation} cannot join {shapes}")
    whole = sum(tensor.shape[dim] for tensor in tensors)
    return [Tensor(first.dtype, (*first.shape[:dim], whole, *first.shape[dim + 1 :]))]


def _transpose(operation: Operation, tensors: list[Tensor]) -> list[Tensor]:
    dims = operation.arguments[0]
    for tensor in tensors:
        if len(dims) != len(tensor.shape):
            raise UsageError(f"{operation} names {len(dims)} axes, the shape {list(tensor.shape)} is of another rank")
    order = _positive(dims)
    return [Tensor(tensor.dtype, tuple(tensor.shape[axis] for axis in order)) for tensor in tensors]


def _reshape(operation: Operation, tensors: list[Tensor]) -> list[Tensor]:
    return [Tensor(tensor.dtype, _shape(operation, tensor)) for tensor in tensors]


def _shape(operation: Operation, tensor: Tensor) -> tuple[int, ...]:
    shape: tuple[int, ...] = operation.arguments[0]
    known = math.prod(size for size in shape if size != -1)
    if -1 in shape and known and tensor.elements % known == 0:
        shape = tuple(tensor.elements // known if size == -1 else size for size in shape)
    if -1 in shape or math.prod(shape) != tensor.elements:
        raise UsageError(f"{operation}: the shape {list(tensor.shape)} has {tensor.elements} values, which do not fit")
    return shape


def _cast(operation: Operation, tensors: list[Tensor]) -> list[Tensor]:
    for tensor in tensors:
        if tensor.dtype not in FLOATS and tensor.dtype != operation.dtype:
            raise UsageError(f"{operation}: {tensor.dtype} is no floating dtype ({', '.join(FLOATS)})")
    return [Tensor(operation.dtype, tensor.shape) for tensor in tensors]


def _scale(operation: Operation, tensors: list[Tensor]) -> list[Tensor]:
    for tensor in tensors:
        if tensor.dtype not in FLOATS:
            raise UsageError(f"{operation}: {tensor.dtype} is no floating dtype ({', '.join(FLOATS)})")
    return tensors


SHAPES: dict[str, Callable[[Operation, list[Tensor]], list[Tensor]]] = {
    "split": _split,
    "fuse": _fuse,
    "transpose": _transpose,
    "reshape": _reshape,
    "cast": _cast,
    "scale": _scale,
    "skip": lambda operation, tensors: [],
}


# --- arguments -------------------------------------------------------------------------------------------------------


def _need(operation: Operation, fits: bool, form: str) -> None:
    if not fits:
        raise UsageError(f"{operation} is not written as {operation.name} is: {form}")


def _check_split(op: Operation) -> None:
    count = len(op.arguments[1]) if len(op.arguments) > 1 and _ints(op.arguments[1]) else None
    if len(op.arguments) > 1 and _int(op.arguments[1]):
        count = op.arguments[1]
    sizes = () if count is None or _int(op.arguments[1]) else op.arguments[1]
    fits = count is not None and count > 0 and _int(op.arguments[0]) and len(op.arguments) <= 3
    fits = fits and all(size > 0 for size in sizes)
    if fits and len(op.arguments) == 3:
        fits = _int(op.arguments[2]) and 0 <= op.arguments[2] < (count or 0)
    _need(op, bool(fits), '["split", dim, count or [sizes]], and an index where one part is meant')


def _check_fuse(op: Operation) -> None:
    fits = len(op.arguments) in (1, 2) and _int(op.arguments[0]) and all(map(_ints, op.arguments[1:]))
    _need(op, fits, '["fuse", dim] or ["fuse", dim, [order]]')


def _check_transpose(op: Operation) -> None:
    fits = len(op.arguments) == 1 and _ints(op.arguments[0])
    fits = fits and sorted(_positive(op.arguments[0])) == list(range(len(op.arguments[0])))
    _need(op, fits, '["transpose", [dims]], each axis once')


def _check_reshape(op: Operation) -> None:
    fits = len(op.arguments) == 1 and _ints(op.arguments[0])
    fits = fits and all(size >= -1 for size in op.arguments[0]) and op.arguments[0].count(-1) <= 1
    _need(op, fits, '["reshape", [shape]], at most one of it -1')


def _check_cast(op: Operation) -> None:
    fits = len(op.arguments) == 1 and isinstance(op.arguments[0], str) and dtype_word(op.arguments[0]) in FLOATS
    _need(op, fits, f'["cast", dtype], one of {", ".join(FLOATS)}')


def _check_scale(op: Operation) -> None:
    fits = len(op.arguments) == 1 and (_int(op.arguments[0]) or isinstance(op.arguments[0], float))
    _need(op, fits and math.isfinite(op.arguments[0]) and op.arguments[0] != 0, '["scale", factor], not 0')


def _check_skip(op: Operation) -> None:
    fits = len(op.arguments) == 1 and isinstance(op.arguments[0], str) and op.arguments[0].strip()
    _need(op, bool(fits), '["skip", reason]')


CHECKS: dict[str, Callable[[Operation], None]] = {
    "split": _check_split,
    "fuse": _check_fuse,
    "transpose": _check_transpose,
    "reshape": _check_reshape,
    "cast": _check_cast,
    "scale": _check_scale,
    "skip": _check_skip,
}


def _int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _ints(value: Any) -> bool:
    return isinstance(value, tuple) and all(_int(word) for word in value)


def _positive(dims: Sequence[int]) -> tuple[int, ...]:
    return tuple(axis + len(dims) if axis < 0 else axis for axis in dims)


def _order(shape: tuple[int, ...], dims: Sequence[int]) -> bool:
    """True where the axes of more than one element stay in their order."""
    moved = [axis for axis in _positive(dims) if shape[axis] != 1]
    return moved == sorted(moved)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(word) for word in value) if isinstance(value, (list, tuple)) else value


def _plain(value: Any) -> Any:
    return [_plain(word) for word in value] if isinstance(value, tuple) else value
