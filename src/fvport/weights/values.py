# SPDX-License-Identifier: Apache-2.0
"""Coverage by value: every native tensor against the official sources that it claims, bit for bit.

A loader's word is no proof: some report names that they never copied, fill what is missing with zeros, or skip.
Bytes are
compared in pieces, so memory stays small whatever the checkpoint's size; a merge along dimension 0 is a
concatenation of
bytes. A wider float on the native side (bf16 -> f32) must hold exactly the source's values; a narrower one is a fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fvport.errors import UsageError
from fvport.weights import manifest
from fvport.weights.mapping import Mapped, Placed, produced
from fvport.weights.operations import Tensor

PIECE = 1 << 24  # bytes compared at a time
NUMPY = {  # numpy's name for a dtype; bf16 is read as its bits
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "u2", "I16": "i2", "U32": "u4", "I32": "i4", "U64": "u8", "I64": "i8",
    "F16": "f2", "F32": "f4", "F64": "f8", "BF16": "u2",
}  # fmt: skip
WIDER = {("BF16", "F32"), ("BF16", "F64"), ("F16", "F32"), ("F16", "F64"), ("F32", "F64")}
TORCH = {  # torch's and numpy's names -> the format's
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64", "float16": "F16",
    "bfloat16": "BF16", "float32": "F32", "float64": "F64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "uint16": "U16", "uint32": "U32", "uint64": "U64", "half": "F16", "float": "F32", "double": "F64", "long": "I64",
}  # fmt: skip


def dtype_name(word: Any) -> str:
    """`torch.float32`, `float32`, numpy's dtype or `F32` -> `F32`; an unknown one is given back as text."""
    text = str(word).removeprefix("torch.")
    return TORCH.get(text, text)


@dataclass
class Store:
    """Tensors by name, in files or in memory: `info(name)` and `piece(name, start, stop)` (bytes within the tensor)."""

    files: dict[str, tuple[Path, manifest.TensorInfo]] = field(default_factory=dict)
    arrays: dict[str, tuple[str, tuple[int, ...], memoryview]] = field(default_factory=dict)
    _open: dict[Path, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of_file(cls, file: Path | str) -> Store:
        file = Path(file)
        return cls(files={name: (file, info) for name, info in manifest.read_header(file).items()})

    @classmethod
    def of_folder(cls, folder: Path, weights: manifest.Weights | None = None) -> Store:
        weights = weights or manifest.read_weights(folder)
        held = ((name, folder / file, info) for file, table in weights.files.items() for name, info in table.items())
        return cls(files={name: (file, info) for name, file, info in held})

    @classmethod
    def of_arrays(cls, tensors: Mapping[str, Any]) -> Store:
        """From numpy arrays or torch tensors (on the CPU)."""
        return cls(arrays={name: _array(value) for name, value in tensors.items()})

    def __contains__(self, name: str) -> bool:
        return name in self.files or name in self.arrays

    def names(self) -> list[str]:
        return [*self.files, *self.arrays]

    def info(self, name: str) -> tuple[str, tuple[int, ...], int]:
        """(dtype, shape, bytes)"""
        if name in self.arrays:
            dtype, shape, data = self.arrays[name]
            return dtype, shape, len(data)
        info = self.files[name][1]
        return info.dtype, info.shape, info.nbytes

    def piece(self, name: str, start: int, stop: int) -> bytes | memoryview:
        if name in self.arrays:
            return self.arrays[name][2][start:stop]
        file, info = self.files[name]
        if file not in self._open:
            self._open[file] = file.open("rb")
        stream = self._open[file]
        stream.seek(info.start + start)
        read: bytes = stream.read(stop - start)
        return read

    def values(self, name: str) -> Any:
        """The whole tensor as a numpy array of float64 (or its own integer type). For diagnosis only."""
        dtype, shape, size = self.info(name)
        return _numbers(self.piece(name, 0, size), dtype).reshape(shape)

    def close(self) -> None:
        for stream in self._open.values():
            stream.close()
        self._open.clear()


def _array(value: Any) -> tuple[str, tuple[int, ...], memoryview]:
    dtype, shape = dtype_name(value.dtype), tuple(value.shape)
    if hasattr(value, "detach"):
        import torch

        value = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return dtype, shape, memoryview(value.tobytes())


def _numbers(data: bytes | memoryview, dtype: str) -> Any:
    import numpy as np

    raw = np.frombuffer(data, dtype=NUMPY[dtype])
    if dtype == "BF16":
        return (raw.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return raw.astype(np.float64) if dtype in ("F16", "F32", "F64") else raw


@dataclass(frozen=True)
class Fault:
    """One native tensor that does not hold what it claims. `problem`: see `PROBLEMS`."""

    name: str
    problem: str
    message: str
    sources: tuple[str, ...] = ()


PROBLEMS = ("missing", "uncovered", "shape", "dtype", "zero_filled", "swapped", "transposed", "rounded", "differs")


@dataclass
class Coverage:
    compared: int = 0
    bytes: int = 0
    faults: list[Fault] = field(default_factory=list)


def compare(official: Store, mapped: Mapped, native: Store, free: Sequence[str] = ()) -> Coverage:
    """Every native tensor of `native` against its sources. `free`: native names that nothing needs to load."""
    found = Coverage()
    targets = mapped.targets()
    for name in native.names():
        if name not in targets:
            if name not in free:
                what = f"{name} is in the native model and no official tensor goes there"
                found.faults.append(Fault(name, "uncovered", what))
            continue
        found.compared += 1
        found.bytes += native.info(name)[2]
        fault = _one(official, targets[name], native, name)
        if fault:
            found.faults.append(fault)
    for name, items in targets.items():
        if name not in native:
            sources = tuple(item.source for item in items)
            what = f"{', '.join(sources)} should be in {name}, which the loaded model does not have"
            found.faults.append(Fault(name, "missing", what, sources))
    return found


def _one(official: Store, items: list[Placed], native: Store, name: str) -> Fault | None:
    sources = tuple(item.source for item in items)
    dtype, shape, _ = native.info(name)
    infos = [official.info(source) for source in sources]
    if any(item.operations for item in items):
        return _worked(official, items, native, name)
    want = joined([info[1] for info in infos])
    if want != shape:
        shapes = " + ".join(str(list(info[1])) for info in infos)
        return Fault(name, "shape", f"{name} is {list(shape)}, its sources {', '.join(sources)} are {shapes}", sources)
    for source, (theirs, _, _) in zip(sources, infos, strict=True):
        if theirs != dtype and (theirs, dtype) not in WIDER:
            what = f"{name} is {dtype}, {source} is {theirs}: values were rounded or reinterpreted"
            return Fault(name, "dtype", what, sources)
    if all(_equal(*pair, dtype) for pair in _pairs(official, infos, sources, native, name)):
        return None
    return _diagnose(official, sources, native, name)


def _worked(official: Store, items: list[Placed], native: Store, name: str) -> Fault | None:
    """A tensor that operations make: made again from the official values, whole, and compared bit for bit."""
    import numpy as np

    sources = tuple(item.source for item in items)
    said = " + ".join("".join([item.source, *(f" | {step}" for step in item.operations)]) for item in items)
    dtype, shape, size = native.info(name)
    try:
        tensor = produced(items, [Tensor(*official.info(source)[:2]) for source in sources])
    except UsageError as error:
        return Fault(name, "shape", f"{name}: {error}", sources)
    if tensor.shape != shape:
        return Fault(name, "shape", f"{name} is {list(shape)}, {said} gives {list(tensor.shape)}", sources)
    if tensor.dtype != dtype and (tensor.dtype, dtype) not in WIDER:
        return Fault(name, "dtype", f"{name} is {dtype}, {said} gives {tensor.dtype}", sources)
    ours = np.ascontiguousarray(_made(official, items))
    if _equal(ours.tobytes(), tensor.dtype, native.piece(name, 0, size), dtype):
        return None
    have = native.values(name) if dtype in NUMPY else None
    if have is not None and not have.any():
        what = f"{name} should hold {said}, and is all zeros: it was filled, not loaded"
        return Fault(name, "zero_filled", what, sources)
    return Fault(name, "differs", f"{name} should hold {said}, and does not, bit for bit", sources)


def _made(official: Store, items: list[Placed]) -> Any:
    """What the operations make of the sources, bf16 as its bits."""
    import numpy as np

    from fvport.weights.verify import plainly

    parts, axis = [], 0
    for item in items:
        dtype, shape, size = official.info(item.source)
        held = [np.frombuffer(official.piece(item.source, 0, size), NUMPY[dtype]).reshape(shape)]
        for step in item.operations:
            if step.name == "fuse":
                axis = step.arguments[0]
            else:
                held, dtype = plainly(step, held, dtype)
        parts += held
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=axis)


def joined(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape of a concatenation along dimension 0; () joined with more than itself fits nothing."""
    if len(shapes) == 1:
        return shapes[0]
    if any(not shape or shape[1:] != shapes[0][1:] for shape in shapes):
        return (-1,)
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


Piece = bytes | memoryview


def _pairs(
    official: Store, infos: list[Any], sources: tuple[str, ...], native: Store, name: str
) -> Iterator[tuple[Piece, str, Piece]]:
    """(source's bytes, source's dtype, the native bytes they should be), piece by piece."""
    width = manifest.BITS[native.info(name)[0]]
    base = 0
    for source, (dtype, _, size) in zip(sources, infos, strict=True):
        scale = width // manifest.BITS[dtype]
        for start in range(0, size, PIECE):
            stop = min(size, start + PIECE)
            yield (
                official.piece(source, start, stop),
                dtype,
                native.piece(name, base + start * scale, base + stop * scale),
            )
        base += size * scale


def _equal(ours: Piece, dtype: str, theirs: Piece, native_dtype: str) -> bool:
    if dtype == native_dtype:
        return bytes(ours) == bytes(theirs)
    import numpy as np

    return bool(np.array_equal(_numbers(ours, dtype), _numbers(theirs, native_dtype), equal_nan=True))


def _diagnose(official: Store, sources: tuple[str, ...], native: Store, name: str) -> Fault:
    """Say what the wrong tensor holds instead: zeros, another official tensor, a transposed or a rounded one."""
    import numpy as np

    dtype, shape, _ = native.info(name)
    if dtype not in NUMPY:
        return Fault(name, "differs", f"{name} does not hold the bytes of {', '.join(sources)}", sources)
    have = native.values(name)
    want = np.concatenate([np.atleast_1d(official.values(source)) for source in sources]).reshape(shape)
    claim = f"{name} should hold {' + '.join(sources)}"
    if not have.any():
        return Fault(name, "zero_filled", f"{claim}, and is all zeros: it was filled, not loaded", sources)
    turned = _turned(official, sources, have)
    if turned:
        return Fault(name, "transposed", f"{claim}, and holds it {turned}", sources)
    if want.dtype == np.float64 and _rounded(want, have):
        return Fault(name, "rounded", f"{claim}, and holds it rounded to a narrower float", sources)
    other = _other(official, sources, have, shape)
    if other:
        return Fault(name, "swapped", f"{claim}, and holds {other}", sources)
    wrong = int((have != want).sum())
    what = f"{claim}, and differs from it in {wrong} of {have.size} values: it was not copied, or changed after"
    return Fault(name, "differs", what, sources)


def _turned(official: Store, sources: tuple[str, ...], have: Any) -> str:
    import numpy as np

    if len(sources) == 1 and have.ndim == 2:
        theirs = official.values(sources[0])
        if theirs.T.shape == have.shape and np.array_equal(theirs.T, have):
            return "transposed"
    if 1 < len(sources) <= 4 and have.ndim:
        import itertools

        parts = [official.values(source) for source in sources]
        for order in itertools.permutations(range(len(parts))):
            if np.array_equal(np.concatenate([parts[n] for n in order]), have):
                return "joined in the order " + ", ".join(sources[n] for n in order)
    return ""


def _rounded(want: Any, have: Any) -> bool:
    """Every value differs by no more than bf16's rounding, and all that were exact stayed exact."""
    import numpy as np

    bits = want.astype(np.float32).view(np.uint32).astype(np.uint64)
    bf16 = (((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) << 16).astype(np.uint32).view(np.float32)
    with np.errstate(over="ignore"):
        candidates = (bf16, want.astype(np.float16).astype(np.float64), want.astype(np.float32).astype(np.float64))
    return any(np.array_equal(item, have) for item in candidates)


def _other(official: Store, sources: tuple[str, ...], have: Any, shape: tuple[int, ...]) -> str:
    """Another official tensor of this shape with exactly these values; looked for among at most 2,000 of them."""
    import numpy as np

    alike = [n for n in official.names() if official.info(n)[1] == shape and n not in sources]
    for name in alike[:2000]:
        if official.info(name)[0] in NUMPY and np.array_equal(official.values(name), have):
            return name
    return ""
