# SPDX-License-Identifier: Apache-2.0
"""Names, shapes, dtypes and byte ranges of `torch.save` files (.pt .pth .ckpt .bin), without torch and without running
them.

Both of torch's formats are read: the zip archive (since 1.6) and the stream of pickles before it. What is read is the
pickle and the archive's directory, never a tensor's bytes; a stream that gives out no more than `MAX_READ` bytes in all
keeps that promise whatever the file says of itself.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from fvport.errors import BlockedError
from fvport.weights import pickle_vm as vm
from fvport.weights.manifest import BITS, TensorInfo

MAX_READ = 256 << 20  # bytes read of one file
TAIL = 1 << 17
MAX_PICKLE = 64 << 20  # bytes of the pickle that describes the tensors
MAX_TENSORS = 500_000
MAX_VISITS = 1_000_000
MAX_DEPTH = 64
MAX_TENSOR = 1 << 46  # bytes; a stride of 0 lets four bytes claim any size
LOOKED_INTO = (vm.Tensor, vm.Opaque, vm.Table, list, tuple)
MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the format before 1.6
SAVE_ANEW = "Load it where you trust it and save the plain state dict anew, best as safetensors"


@dataclass(frozen=True)
class Pickled:
    """What a `torch.save` file holds. Names are the dotted path of dict keys and list places down to the tensor.

    `containers`: the dotted paths of the dicts and lists on the way ("state_dict", "ema.shadow_params"), so that a
    prefix which the file's nesting made can be told from one in a tensor's own name.
    """

    tensors: dict[str, TensorInfo]
    containers: tuple[str, ...] = ()
    form: str = "zip"  # or "legacy"


def read(file: Path, located: bool = True, stream: Any = None) -> Pickled:
    """Read one file, or a `stream` of it. BlockedError where it is broken, holds no tensor, or needs code (which is
    named).

    `located=False` leaves `start` and `end` counted from the tensor's storage instead of the file: it spares a read for
    each storage, which matters where a read is a request.
    """
    if stream is not None:
        return _read(file, Sparing(stream, file), located)
    try:
        with file.open("rb") as raw:
            return _read(file, Sparing(raw, file), located)
    except OSError as error:
        raise BlockedError(f"cannot be read ({error.strerror or error})", where=str(file)) from None


def _read(file: Path, stream: Sparing, located: bool) -> Pickled:
    head = stream.read(16)
    stream.seek(0)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _Reader(file, stream, located).read_zip()
    if head[:1] == b"\x80":
        return _Reader(file, stream, located).read_legacy()
    raise no_checkpoint(file, head)


def no_checkpoint(file: Path, head: bytes) -> BlockedError:
    """The sentence for a file whose first bytes are of another kind than its name says."""
    if head.startswith(b"GGUF"):
        what, todo = "is GGUF: quantised weights, which no native class loads", "Use the safetensors release"
    elif head.startswith(b"version https"):
        what, todo = "is a Git LFS pointer: the file itself was not fetched", "Run: git lfs pull"
    elif head[8:9] == b"{":
        what, todo = "looks like a safetensors file under another ending", "Rename it to .safetensors"
    elif head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")):
        what, todo = "is compressed", "Unpack it first"
    elif not head:
        what, todo = "is empty", "Fetch the file again"
    else:
        what, todo = "is not a torch.save file (neither a zip archive nor a pickle)", "Fetch the file again"
    return BlockedError(what, where=str(file), todo=todo)


class Sparing:
    """A stream that refuses to give out more than `MAX_READ` bytes: a length in a file is somebody else's word."""

    def __init__(self, raw: BinaryIO, file: Path) -> None:
        self.raw, self.file, self.left = raw, file, MAX_READ

    def read(self, size: int | None = -1) -> bytes:
        size = TAIL if size is None or size < 0 else size  # zipfile reads "the rest" at the end of the file only
        if size > self.left:
            raise BlockedError(
                f"wants {size} bytes read to describe its tensors; at most {MAX_READ} are", where=str(self.file)
            )
        data = self.raw.read(size)
        self.left -= len(data)
        return data

    def readline(self, size: int | None = -1) -> bytes:
        line = self.raw.readline(size if size is not None and 0 <= size <= self.left else self.left)
        self.left -= len(line)
        return line

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.raw.seek(offset, whence)

    def tell(self) -> int:
        return self.raw.tell()

    def seekable(self) -> bool:
        return True


@dataclass
class _Reader:
    file: Path
    stream: Sparing
    located: bool
    found: dict[str, vm.Tensor] = field(default_factory=dict)
    containers: dict[str, None] = field(default_factory=dict)
    places: dict[str, tuple[int, int]] = field(default_factory=dict)  # storage key -> (first byte, bytes)

    def load(self, stream: Any, what: str) -> vm.Loaded:
        """One pickle; refused with the names of what it wants to run."""
        try:
            loaded = vm.load(stream)
        except vm.Malformed as error:
            self.bad(f"{what} cannot be read: {error}")
        if loaded.needs:
            shown = ", ".join(loaded.needs[:5]) + (
                f" and {len(loaded.needs) - 5} more" if len(loaded.needs) > 5 else ""
            )
            self.bad(f"needs code to be read, which is never run here: {shown}", SAVE_ANEW)
        return loaded

    def bad(self, what: str, todo: str = "Fetch the file again") -> NoReturn:
        raise BlockedError(what, where=str(self.file), todo=todo)

    # --- the tensors in what was loaded

    def walk(self, value: Any) -> dict[str, vm.Storage]:
        """Fill `found` and `containers`; gives {key: storage}. Shared and circular containers are bounded."""
        pending: list[tuple[tuple[str, ...], Any, tuple[int, ...]]] = [((), value, ())]
        visits = 0
        while pending:
            path, item, above = pending.pop()
            visits += 1
            if isinstance(item, vm.Tensor):
                self.keep(path, item)
            elif isinstance(item, vm.Opaque):
                if item.unreadable:
                    self.bad(f"its tensor {'.'.join(path)[:120]!r} {item.unreadable}", SAVE_ANEW)
            elif isinstance(item, (vm.Table, list, tuple)) and id(item) not in above and len(path) < MAX_DEPTH:
                held = item.pairs if isinstance(item, vm.Table) else list(enumerate(item))
                visits += len(held)
                inner = [(_word(k, n), v) for n, (k, v) in enumerate(held) if isinstance(v, LOOKED_INTO)]
                pending += [((*path, word), v, (*above, id(item))) for word, v in reversed(inner)]
            if visits > MAX_VISITS or len(self.found) > MAX_TENSORS:
                self.bad("holds its containers within one another too many times to be a checkpoint")
        if not self.found:
            self.bad("holds no tensor", "Is it a checkpoint?")
        return {tensor.storage.key: tensor.storage for tensor in self.found.values()}

    def keep(self, path: tuple[str, ...], tensor: vm.Tensor) -> None:
        name = ".".join(path)
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            self.bad(f"the name of tensor {name[:120]!r} is not valid Unicode")
        if name in self.found:
            self.bad(f"holds the tensor {name[:120]!r} twice")
        self.found[name or "tensor"] = tensor
        for length in range(1, len(path)):
            self.containers[".".join(path[:length])] = None

    def done(self, form: str) -> Pickled:
        infos = {name: self.info(name, tensor) for name, tensor in self.found.items()}
        return Pickled(infos, tuple(self.containers), form)

    def info(self, name: str, tensor: vm.Tensor) -> TensorInfo:
        width = BITS[tensor.dtype] // 8
        begin, size = self.places[tensor.storage.key]
        span, plain = _span(tensor.shape, tensor.stride)
        start = begin + tensor.offset * width
        if start + span * width > begin + size:
            self.bad(f"tensor {name[:120]!r} goes beyond its storage of {size} bytes")
        info = TensorInfo(
            tensor.dtype,
            tensor.shape,
            start,
            start + span * width,
            storage=tensor.storage.key,
            stride=() if plain else tensor.stride,
        )
        if info.nbytes > MAX_TENSOR:
            self.bad(f"tensor {name[:120]!r} claims {info.nbytes} bytes")
        return info

    # --- the zip archive

    def read_zip(self) -> Pickled:
        try:
            archive = zipfile.ZipFile(self.stream)
            entries = {info.filename: info for info in archive.infolist()}
        except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
            self.bad(f"is truncated, or no zip archive ({str(error)[:80]})")
        pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            self.bad("is a zip archive without the one data.pkl that torch.save writes", "Is it a checkpoint?")
        top = pickles[0].removesuffix("data.pkl")
        if any(name.startswith(f"{top}code/") for name in entries):
            self.bad("is a TorchScript archive, which is a program", SAVE_ANEW)
        if f"{top}byteorder" in entries and self.extract(archive, entries[f"{top}byteorder"]) != b"little":
            self.bad("holds its values in big-endian order", SAVE_ANEW)
        loaded = self.load(io.BytesIO(self.extract(archive, entries[pickles[0]])), "its data.pkl")
        for storage in self.walk(loaded.value):
            info = entries.get(f"{top}data/{storage}")
            if info is None:
                self.bad(f"names the storage {storage[:60]!r}, which is not in the archive")
            if info.compress_type != zipfile.ZIP_STORED:
                self.bad(f"its storage {storage[:60]!r} is compressed inside the archive", SAVE_ANEW)
            self.places[storage] = (self.begin(info) if self.located else 0, info.file_size)
        return self.done("zip")

    def extract(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
        if info.file_size > MAX_PICKLE:
            self.bad(
                f"{info.filename[:60]} would take {info.file_size} bytes; at most {MAX_PICKLE} are read", SAVE_ANEW
            )
        try:
            if info.compress_type == zipfile.ZIP_STORED:  # read as it is: torch can be told to write no checksums
                self.stream.seek(self.begin(info))
                return self.stream.read(info.file_size)
            with archive.open(info) as entry:
                return entry.read(MAX_PICKLE + 1)
        except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, EOFError, struct.error) as error:
            self.bad(f"{info.filename[:60]} in it cannot be read ({str(error)[:80]})")
        except Exception as error:  # noqa: BLE001 - zlib.error and its like have no common base
            self.bad(f"{info.filename[:60]} in it cannot be unpacked ({type(error).__name__})")

    def begin(self, info: zipfile.ZipInfo) -> int:
        """The first byte of an entry's data: its local header may be longer than the directory says."""
        self.stream.seek(info.header_offset)
        head = self.stream.read(30)
        if len(head) < 30 or head[:4] != b"PK\x03\x04":
            self.bad(f"is damaged: {info.filename[:60]} does not begin where the archive says")
        name, extra = struct.unpack("<HH", head[26:30])
        start = info.header_offset + 30 + name + extra
        if start + info.compress_size > os.stat(self.file).st_size:
            self.bad(f"is truncated: {info.filename[:60]} goes beyond the file's end")
        return int(start)

    # --- the stream of pickles

    def read_legacy(self) -> Pickled:
        if self.load(self.stream, "its first pickle").value != MAGIC:
            self.bad("is a pickle, but not one that torch.save wrote", SAVE_ANEW)
        version = self.load(self.stream, "its version").value
        system = self.load(self.stream, "its system").value
        if type(version) is not int or version != 1001:
            self.bad("is of a version of torch's format that is not known")
        pairs = system.pairs if isinstance(system, vm.Table) else []
        if any(key == "little_endian" and value is not True for key, value in pairs):
            self.bad("holds its values in big-endian order", SAVE_ANEW)
        sizes = self.walk(self.load(self.stream, "its main pickle").value)
        keys = self.load(self.stream, "its list of storages").value
        plain = isinstance(keys, list) and all(isinstance(key, (str, int)) for key in keys)
        if not plain or sorted(map(str, keys)) != sorted(sizes):
            self.bad("lists other storages than its tensors use")
        at, end = self.stream.tell(), os.stat(self.file).st_size
        for key in map(str, keys):
            storage = sizes[key]
            size = storage.size * BITS.get(storage.dtype, 8) // 8
            if at + 8 + size > end or (self.located and self.count(at) != storage.size):
                self.bad(f"is truncated: the storage {key[:60]!r} of {size} bytes is not there")
            self.places[key] = (at + 8 if self.located else 0, size)
            at += 8 + size
        return self.done("legacy")

    def count(self, at: int) -> int:
        """The number of elements that a storage says of itself."""
        self.stream.seek(at)
        head = self.stream.read(8)
        return struct.unpack("<q", head)[0] if len(head) == 8 else -1


def _word(key: Any, place: int) -> str:
    """A dict key or a list place as part of a name."""
    if isinstance(key, bytes):
        key = key.decode("utf-8", "backslashreplace")
    return str(key) if isinstance(key, (str, int)) and not isinstance(key, bool) else str(place)


def _span(shape: tuple[int, ...], stride: tuple[int, ...]) -> tuple[int, bool]:
    """(elements from the first to the last of a view, whether they lie one after the other in row-major order)"""
    if 0 in shape:
        return 0, True
    expected, plain = 1, True
    for size, step in zip(reversed(shape), reversed(stride), strict=True):
        plain = plain and (size == 1 or step == expected)
        expected *= size
    return 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True)), plain
