# SPDX-License-Identifier: Apache-2.0
"""Writing safetensors files as a header and byte ranges of other files, copied in the kernel.

A renamed tensor, and every part or whole along the first dimension, is bytes that lie somewhere already: they go from
file to file by `copy_file_range`, else `sendfile`, else in pieces, and are never held here. Tensors that have to be
computed are left as room that `arithmetic.py` fills.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fvport.errors import BlockedError
from fvport.weights.conversion import Made, Source
from fvport.weights.operations import Operation, Tensor

STEP = 1 << 26  # bytes handed to the kernel at once: short enough to stop in, long enough to cost nothing
PIECE = 1 << 20
PAGE = 1 << 12
NOT_HERE = (errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM)


@dataclass(frozen=True)
class Range:
    """Bytes `start` to `stop` of a file, relative to the release."""

    file: str
    start: int
    stop: int


@dataclass
class Shard:
    """One file to write: tensors in order, `starts` their offsets in the file, `header` the bytes before them."""

    name: str
    tensors: list[Made]
    metadata: dict[str, str]
    header: bytes = b""
    starts: list[int] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return len(self.header) + sum(made.tensor.bits // 8 for made in self.tensors)


def shards(made: list[Made], stem: str, metadata: Mapping[str, str], limit: int) -> list[Shard]:
    """One file, or several of at most `limit` bytes of tensors each where it would be larger."""
    groups: list[list[Made]] = [[]]
    filled = 0
    for item in made:
        size = item.tensor.bits // 8
        if groups[-1] and filled + size > limit:
            groups.append([])
            filled = 0
        groups[-1].append(item)
        filled += size
    names = [f"{stem}-{n:05d}-of-{len(groups):05d}.safetensors" for n in range(1, len(groups) + 1)]
    names = names if len(groups) > 1 else [f"{stem}.safetensors"]
    found = [Shard(name, group, dict(metadata)) for name, group in zip(names, groups, strict=True)]
    for shard in found:
        _head(shard)
    return found


def index(files: Iterable[Shard]) -> dict[str, object]:
    """`*.safetensors.index.json` of several shards."""
    files = list(files)
    total = sum(made.tensor.bits // 8 for shard in files for made in shard.tensors)
    table = {made.name: shard.name for shard in files for made in shard.tensors}
    return {"metadata": {"total_size": total}, "weight_map": dict(sorted(table.items()))}


def _head(shard: Shard) -> None:
    header: dict[str, object] = {"__metadata__": shard.metadata} if shard.metadata else {}
    offsets = list(_offsets(shard))
    for made, offset in zip(shard.tensors, offsets, strict=True):
        span = [offset, offset + made.tensor.bits // 8]
        header[made.name] = {"dtype": made.tensor.dtype, "shape": list(made.tensor.shape), "data_offsets": span}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * _padding(len(text), shard)
    shard.header = struct.pack("<Q", len(text)) + text
    shard.starts = [len(shard.header) + offset for offset in offsets]


def _padding(length: int, shard: Shard) -> int:
    """Spaces after a header of `length` bytes: tensors begin at a multiple of 8, and where that can be as far into a
    page of memory as the first one that moves does in its own file: whole pages are copied faster than parts of two.
    """
    for made, offset in zip(shard.tensors, _offsets(shard), strict=True):
        if made.moves_bytes and made.tensor.bits:
            wanted = (ranges(made)[0].start - offset - 8) % PAGE
            if wanted % 8 == 0:
                return (wanted - length) % PAGE
            break
    return -length % 8


def _offsets(shard: Shard) -> Iterator[int]:
    return itertools.accumulate((made.tensor.bits // 8 for made in shard.tensors[:-1]), initial=0)


# --- which bytes -----------------------------------------------------------------------------------------------------


def ranges(made: Made) -> list[Range]:
    """The bytes of a tensor that moves, in order. Only for `made.moves_bytes`."""
    held = [(source.tensor, [_whole(source)]) for source in made.sources]
    for operation in made.operations:
        held = _through(operation, held)
    return held[made.output][1]


def _whole(source: Source) -> Range:
    return Range(source.file, source.info.start, source.info.end)


Held = list[tuple[Tensor, list[Range]]]


def _through(operation: Operation, held: Held) -> Held:
    tensors = operation.apply([tensor for tensor, _ in held])
    if operation.name == "split":
        whole, bytes_ = held[0]
        width = whole.bits // 8 // max(whole.shape[operation.axis(whole)], 1)
        found, at = [], 0
        for size in operation.sizes(whole):
            found.append(cut(bytes_, at * width, (at + size) * width))
            at += size
        if len(operation.arguments) == 3:
            found = [found[operation.arguments[2]]]
        return list(zip(tensors, found, strict=True))
    if operation.name == "fuse":
        order = operation.order(len(held))
        return [(tensors[0], [piece for number in order for piece in held[number][1]])]
    return [(tensor, pieces) for tensor, (_, pieces) in zip(tensors, held, strict=True)]


def cut(pieces: list[Range], start: int, stop: int) -> list[Range]:
    """The part of a list of ranges that is bytes `start` to `stop` of all of them."""
    found, at = [], 0
    for piece in pieces:
        size = piece.stop - piece.start
        first, last = max(start - at, 0), min(stop - at, size)
        if first < last:
            found.append(Range(piece.file, piece.start + first, piece.start + last))
        at += size
    return found


def joined(pieces: Iterable[tuple[int, Range]]) -> Iterator[tuple[int, Range]]:
    """(place in the target, range) with neighbours in both files as one: a renamed file is one range."""
    last: tuple[int, Range] | None = None
    for place, piece in pieces:
        if last is not None:
            at, before = last
            if before.file == piece.file and before.stop == piece.start and at + before.stop - before.start == place:
                last = at, Range(piece.file, before.start, piece.stop)
                continue
            yield last
        last = place, piece
    if last is not None:
        yield last


def moves(shard: Shard) -> Iterator[tuple[int, Range]]:
    """(place in the file, range of the release) of everything that moves, neighbours joined."""

    def each() -> Iterator[tuple[int, Range]]:
        for made, start in zip(shard.tensors, shard.starts, strict=True):
            if made.moves_bytes:
                for piece in ranges(made):
                    yield start, piece
                    start += piece.stop - piece.start

    return joined(each())


# --- copying ---------------------------------------------------------------------------------------------------------


@dataclass
class Copier:
    """Copies ranges of the release's files; each file is opened once. `said(bytes)` is told what was done."""

    root: Path
    said: Callable[[int], None] = field(default=lambda done: None)
    _open: dict[str, int] = field(default_factory=dict, repr=False)

    def source(self, file: str) -> int:
        if file not in self._open:
            try:
                self._open[file] = os.open(self.root / file, os.O_RDONLY)
            except OSError as error:
                raise unreadable(self.root / file, error) from None
        return self._open[file]

    def close(self) -> None:
        for number in self._open.values():
            os.close(number)
        self._open.clear()

    def copy(self, target: int, place: int, piece: Range) -> None:
        """Put the bytes at `place` of an open file. BlockedError says which source cannot be read; OSError: writing."""
        source, start = self.source(piece.file), piece.start
        while start < piece.stop:
            count = min(STEP, piece.stop - start)
            done = _some(source, target, start, place, count, self.root / piece.file)
            if not done:
                what = f"ended at byte {start}, its header says {piece.stop}: it was cut while it was read"
                raise BlockedError(what, where=str(self.root / piece.file), todo="Fetch the file again")
            start, place = start + done, place + done
            self.said(done)


def unreadable(file: Path, error: OSError) -> BlockedError:
    return BlockedError(f"cannot be read ({error.strerror or error})", where=str(file), todo="Fetch the file again")


def _some(source: int, target: int, start: int, place: int, count: int, file: Path) -> int:
    """Copy at most `count` bytes; gives how many. In the kernel where it can, else through a small buffer."""
    if hasattr(os, "copy_file_range"):
        try:
            return os.copy_file_range(source, target, count, start, place)
        except OSError as error:
            if error.errno not in NOT_HERE:
                raise _whose(error, source, start, file) from None
    try:
        os.lseek(target, place, os.SEEK_SET)
        return os.sendfile(target, source, start, count)
    except OSError as error:
        if error.errno not in NOT_HERE:
            raise _whose(error, source, start, file) from None
    try:
        data = os.pread(source, min(count, PIECE), start)
    except OSError as error:
        raise unreadable(file, error) from None
    view = memoryview(data)
    while view:
        written = os.pwrite(target, view, place)
        view, place = view[written:], place + written
    return len(data)


def _whose(error: OSError, source: int, start: int, file: Path) -> Exception:
    """A copy in the kernel fails for its source or for its target: reading one byte tells which."""
    try:
        os.pread(source, 1, start)
    except OSError as reading:
        return unreadable(file, reading)
    return unreadable(file, error) if error.errno == errno.EIO else error
