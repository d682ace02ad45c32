# SPDX-License-Identifier: Apache-2.0
"""Computing the tensors that are no byte ranges: transposed, cast, scaled, cut or joined inside. numpy only.

Layout operations become views of mapped files and elementwise ones a list; the views are then written in tiles whose
runs are long on both sides, and pages are let go after each tile, so that memory stays small whatever the tensor's
size. A reshape that is no view goes through memory where it is small and through a scratch file where it is not.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from fvport.errors import BlockedError, FvportError
from fvport.weights.conversion import Made, Source
from fvport.weights.manifest import BITS
from fvport.weights.operations import Operation, Tensor
from fvport.weights.stream import unreadable

TILE = 1 << 22  # elements computed at once
RUN = 1 << 11  # elements in a row that make a run long enough on either side
LET_GO = 1 << 26  # mapped bytes after which pages are let go
IN_MEMORY = 1 << 26
PAD, STRIP = 24, 64  # elements
NUMPY = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "u2", "I16": "i2", "U32": "u4", "I32": "i4", "U64": "u8", "I64": "i8",
    "F16": "f2", "F32": "f4", "F64": "f8", "BF16": "u2", "F8_E5M2": "u1", "F8_E4M3": "u1", "F8_E8M0": "u1",
    "F8_E5M2FNUZ": "u1", "F8_E4M3FNUZ": "u1", "C64": "c8",
}  # fmt: skip


@dataclass
class Lazy:
    """A tensor of which nothing was read: pieces that tile it, each (where it begins, a view of a mapped file)."""

    shape: tuple[int, ...]
    pieces: list[tuple[tuple[int, ...], Any]]


@dataclass
class Workbench:
    """Maps the release's files, and keeps scratch files beside the result; `close` drops them all."""

    root: Path
    scratch: Path
    _maps: list[mmap.mmap] = field(default_factory=list, repr=False)

    def close(self) -> None:
        self._maps.clear()  # unmapped with the last view

    def let_go(self) -> None:
        """Give the mapped pages back; what was written stays in the files."""
        for held in self._maps:
            held.madvise(mmap.MADV_DONTNEED)

    def view(self, file: Path, start: int, tensor: Tensor, *, write: bool = False) -> Any:
        """A numpy view of bytes of a file, as `tensor`."""
        import numpy as np

        if tensor.dtype not in NUMPY:
            raise FvportError(f"{tensor.dtype} cannot be computed with: only whole ranges of it can be moved")
        if not tensor.elements:
            return np.empty(tensor.shape, NUMPY[tensor.dtype])
        base = start - start % mmap.ALLOCATIONGRANULARITY
        access = mmap.ACCESS_WRITE if write else mmap.ACCESS_READ
        try:
            with open(file, "r+b" if write else "rb") as stream:
                held = mmap.mmap(stream.fileno(), start - base + tensor.bits // 8, access=access, offset=base)
        except (OSError, ValueError) as error:
            raise unreadable(file, OSError(getattr(error, "errno", 0) or 0, str(error))) from None
        self._maps.append(held)
        dtype = np.dtype(NUMPY[tensor.dtype])
        return np.frombuffer(held, np.uint8, tensor.bits // 8, start - base).view(dtype).reshape(tensor.shape)

    def room(self, tensor: Tensor) -> Any:
        """An array for what lies between two operations: memory where it is small, else a scratch file."""
        import numpy as np

        size = tensor.bits // 8
        if size <= IN_MEMORY:
            return np.empty(tensor.shape, NUMPY[tensor.dtype])
        with tempfile.TemporaryFile(dir=self.scratch) as stream:
            os.posix_fallocate(stream.fileno(), 0, size)
            held = mmap.mmap(stream.fileno(), size)
        self._maps.append(held)
        return np.frombuffer(held, NUMPY[tensor.dtype]).reshape(tensor.shape)


def compute(bench: Workbench, made: Made, target: Path, start: int) -> int:
    """Write one tensor into its room in `target`. Gives how many NaN it holds. The room must be allocated on disk."""
    lazy, steps = _chain(bench, made)
    out = bench.view(target, start, made.tensor, write=True)
    first = made.sources[0].info.dtype
    dtypes = {source.info.dtype for source in made.sources}
    if len(dtypes) > 1:  # fuse refuses it; a chain without fuse has one source
        raise FvportError(f"{made.name} is made of {', '.join(sorted(dtypes))}")
    count = _write(bench, lazy, out, first, steps, made.tensor.dtype)
    bench.let_go()
    bench.close()
    return count


def _chain(bench: Workbench, made: Made) -> tuple[Lazy, list[Operation]]:
    """(views of where every value lies, what is done to each value): layout and values do not touch one another."""
    held = [_lazy(bench, source) for source in made.sources]
    steps = []
    for operation in made.operations:
        if operation.name in ("cast", "scale"):
            steps.append(operation)
        else:
            held = _layout(bench, operation, held, made.sources[0].info.dtype)
    return held[made.output], steps


def _lazy(bench: Workbench, source: Source) -> Lazy:
    view = bench.view(bench.root / source.file, source.info.start, source.tensor)
    return Lazy(source.info.shape, [((0,) * len(source.info.shape), view)])


def _layout(bench: Workbench, operation: Operation, held: list[Lazy], dtype: str) -> list[Lazy]:
    tensors = [Tensor(dtype, lazy.shape) for lazy in held]
    after = operation.apply(tensors)
    if operation.name == "split":
        return _split(operation, held[0], tensors[0])
    if operation.name == "fuse":
        axis, order = operation.axis(tensors[0]), operation.order(len(held))
        pieces, at = [], 0
        for number in order:
            lazy = held[number]
            pieces += [(_moved(offset, axis, at), view) for offset, view in lazy.pieces]
            at += lazy.shape[axis]
        return [Lazy(after[0].shape, pieces)]
    if operation.name == "transpose":
        dims = [axis % len(tensors[0].shape) for axis in operation.arguments[0]]
        return [
            Lazy(tensor.shape, [(tuple(offset[d] for d in dims), view.transpose(dims)) for offset, view in lazy.pieces])
            for tensor, lazy in zip(after, held, strict=True)
        ]
    return [_reshaped(bench, lazy, tensor) for lazy, tensor in zip(held, after, strict=True)]


def _moved(offset: tuple[int, ...], axis: int, by: int) -> tuple[int, ...]:
    return (*offset[:axis], offset[axis] + by, *offset[axis + 1 :])


def _split(operation: Operation, lazy: Lazy, tensor: Tensor) -> list[Lazy]:
    axis, at, found = operation.axis(tensor), 0, []
    for size in operation.sizes(tensor):
        pieces = []
        for offset, view in lazy.pieces:
            first, last = max(at - offset[axis], 0), min(at + size - offset[axis], view.shape[axis])
            if first < last:
                where = (slice(None),) * axis + (slice(first, last),)
                begin = (*offset[:axis], offset[axis] + first - at, *offset[axis + 1 :])
                pieces.append((begin, view[where]))
        found.append(Lazy((*lazy.shape[:axis], size, *lazy.shape[axis + 1 :]), pieces))
        at += size
    return found if len(operation.arguments) == 2 else [found[operation.arguments[2]]]


def _reshaped(bench: Workbench, lazy: Lazy, tensor: Tensor) -> Lazy:
    import numpy as np

    zero = (0,) * len(tensor.shape)
    if len(lazy.pieces) == 1:
        try:
            return Lazy(tensor.shape, [(zero, np.reshape(lazy.pieces[0][1], tensor.shape, copy=False))])
        except (ValueError, TypeError):  # no view of it has this shape (or a numpy that cannot say so)
            pass
    room = bench.room(Tensor(tensor.dtype, lazy.shape))
    _write(bench, lazy, room, tensor.dtype, [], tensor.dtype)
    return Lazy(tensor.shape, [(zero, room.reshape(tensor.shape))])


# --- writing in tiles ------------------------------------------------------------------------------------------------


def _write(bench: Workbench, lazy: Lazy, out: Any, dtype: str, steps: Sequence[Operation], final: str) -> int:
    nans = touched = 0
    for offset, view in lazy.pieces:
        place = out[tuple(slice(at, at + size) for at, size in zip(offset, view.shape, strict=True))]
        axis, same = _fastest(view), _fastest(view) == _fastest(place)
        for tile in tiles(view, place):
            values = computed(view[tile], dtype, steps)
            nans += count_nan(values, final)
            if same:
                place[tile] = values
            else:
                _turn(place[tile], values, axis)
            touched += 2 * values.nbytes
            if touched > LET_GO:
                bench.let_go()
                touched = 0
    return nans


def _turn(place: Any, values: Any, axis: int) -> None:
    """Copy between arrays of which the one is contiguous along `axis` and the other is not.

    Rows whose distance is a power of two fall on the same lines of a cache: the values go through a buffer whose rows
    are a little longer, and from there in strips that a cache holds.
    """
    import numpy as np

    ahead = np.moveaxis(values, axis, -1)
    buffer = np.empty((*ahead.shape[:-1], ahead.shape[-1] + PAD), values.dtype)[..., : ahead.shape[-1]]
    buffer[...] = ahead
    source, target = np.moveaxis(buffer, -1, 0), np.moveaxis(place, axis, 0)
    for at in range(0, source.shape[0], STRIP):
        target[at : at + STRIP] = source[at : at + STRIP]


def tiles(source: Any, target: Any) -> Iterator[tuple[slice, ...]]:
    """Slices that cover the array, of at most TILE elements, with long runs in the source and in the target."""
    shape = source.shape
    if not source.size:
        return
    extents = [1] * len(shape)
    fast = [_fastest(source), _fastest(target)]
    rest = sorted(range(len(shape)), key=lambda axis: abs(source.strides[axis]))
    for axis in (*fast, *fast[:1], *rest):
        others = TILE // max(1, _product(extents) // extents[axis])
        first = fast[0] != fast[1] and axis in fast and extents[axis] == 1
        extents[axis] = max(extents[axis], min(shape[axis], RUN if first else TILE, max(others, 1)))
    for corner in product(*(range(0, size, extent) for size, extent in zip(shape, extents, strict=True))):
        yield tuple(slice(at, at + extent) for at, extent in zip(corner, extents, strict=True))


def _fastest(array: Any) -> int:
    axes = [axis for axis in range(array.ndim) if array.shape[axis] > 1] or list(range(array.ndim))
    return min(axes, key=lambda axis: abs(array.strides[axis]), default=0)


def _product(numbers: Sequence[int]) -> int:
    total = 1
    for number in numbers:
        total *= number
    return total


# --- values ----------------------------------------------------------------------------------------------------------


def computed(values: Any, dtype: str, steps: Sequence[Operation]) -> Any:
    """Values of the format's `dtype` (bf16 as its bits) through casts and scales, each rounded to nearest even.

    A half float is scaled in float32 and rounded once, as torch does.
    """
    for step in steps:
        if step.name == "cast":
            values, dtype = cast(values, dtype, step.dtype), step.dtype
        else:
            wide = "F64" if dtype == "F64" else "F32"
            number = NUMPY[wide]
            scaled = cast(values, dtype, wide) * _scalar(number, step.arguments[0])
            values = cast(scaled, wide, dtype)
    return values


def _scalar(number: str, factor: float) -> Any:
    import numpy as np

    return np.dtype(number).type(factor)


def cast(values: Any, dtype: str, wanted: str) -> Any:
    """Between F16, BF16, F32 and F64. What is too large becomes infinite, as in torch; a NaN stays one."""
    import numpy as np

    if dtype == wanted:
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype == "BF16":
            values, dtype = (values.astype(np.uint32) << 16).view(np.float32), "F32"
        if wanted != "BF16":
            return values.astype(NUMPY[wanted])
        return _to_bf16(values.astype(np.float32))


def _to_bf16(values: Any) -> Any:
    import numpy as np

    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


LARGEST = {
    "BF16": 0x7F80,
    "F16": 0x7C00,
    "F32": 0x7F800000,
    "F64": 0x7FF0000000000000,
    "F8_E5M2": 0x7C,
    "F8_E4M3": 0x7E,
}


def count_nan(values: Any, dtype: str) -> int:
    """How many of the values are NaN, from their bits."""
    if dtype not in LARGEST or not values.size:
        return 0
    width, largest = BITS[dtype], LARGEST[dtype]
    bits, half = values.view(f"u{width // 8}"), 1 << (width - 1)
    if int(values.view(f"i{width // 8}").max()) <= largest and int(bits.max()) <= half + largest:
        return 0
    return int(((bits & bits.dtype.type(half - 1)) > largest).sum())


def need_numpy() -> None:
    """BlockedError where numpy is not installed."""
    try:
        import numpy  # noqa: F401
    except ImportError:
        what = "this conversion transposes, casts or cuts inside tensors, which needs numpy"
        raise BlockedError(what, todo="Install it: uv pip install numpy") from None
