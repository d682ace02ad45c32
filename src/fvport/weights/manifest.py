# SPDX-License-Identifier: Apache-2.0
"""Names, shapes, dtypes and byte ranges of safetensors files, read from their headers alone (standard library only).

A header is somebody else's bytes: whatever is wrong with it ends as one sentence that names the file, never as a
traceback, and never costs memory out of proportion to the header's own length, which is bounded.
"""

from __future__ import annotations

import json
import os
import re
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from fvport.errors import BlockedError

MAX_HEADER = 100_000_000  # bytes; the format's own bound
MAX_JSON = 64 << 20  # bytes of an index or a config
MAX_RANK = 64
BITS = {  # every dtype of the format, in bits an element
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E5M2FNUZ": 8,
    "F8_E4M3FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "I64": 64,
    "U64": 64,
    "F64": 64,
    "C64": 64,
}
(LFS,) = struct.unpack("<Q", b"version ")
AGAIN = "Fetch the file again"


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file: `start` and `end` are byte offsets from the beginning of the file.

    In a pickled file several tensors may share a `storage` (its key in the file), and one may be a view whose values do
    not lie one after the other: then `stride` (in elements) says how, and `start` to `end` is the range it touches.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int
    storage: str = ""
    stride: tuple[int, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of its values, without what lies between them."""
        return self.elements * BITS[self.dtype] // 8 if self.stride else self.end - self.start

    @property
    def elements(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True)
class Header:
    """What one file says of itself."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str] = field(default_factory=dict)
    containers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Weights:
    """The weights of one component: `files[name] = {tensor: TensorInfo}`, and what is odd about the set of files."""

    files: dict[str, dict[str, TensorInfo]]
    concerns: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)  # of all files together
    containers: tuple[str, ...] = ()  # prefixes that a pickled file's nested dicts made

    @property
    def tensors(self) -> dict[str, TensorInfo]:
        return {name: info for tensors in self.files.values() for name, info in tensors.items()}

    def file_of(self) -> dict[str, str]:
        """{tensor: name of the file that holds it}"""
        return {tensor: file for file, tensors in self.files.items() for tensor in tensors}


def read_header(file: Path | str) -> dict[str, TensorInfo]:
    """{name: TensorInfo} of one safetensors file, in the file's order. BlockedError says what is wrong with it."""
    return _parse(Path(file))[0]


def read_any(file: Path | str) -> dict[str, TensorInfo]:
    """{name: TensorInfo} of a safetensors or a `torch.save` file (.pt .pth .ckpt .bin), from headers alone.

    A pickled file's names are dotted paths through its dicts ("state_dict.model.conv.weight"). It is never run.
    """
    return read_file(file).tensors


def read_file(file: Path | str, located: bool = True) -> Header:
    """The header of a safetensors or a `torch.save` file; for `located` see `pickled.read`."""
    file = Path(file)
    if file.suffix == ".safetensors":
        return Header(*_parse(file))
    from fvport.weights import pickled

    found = pickled.read(file, located)
    return Header(found.tensors, {}, found.containers)


def read_metadata(file: Path | str) -> dict[str, str]:
    """The `__metadata__` of one safetensors file; {} when it has none."""
    return _parse(Path(file))[1]


def _parse(file: Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    size, raw = _header_bytes(file)
    header = load_json(raw, file, "its header", strict=True)
    if not isinstance(header, dict):
        _bad(file, "its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or any(not isinstance(value, str) for value in metadata.values()):
        _bad(file, "its __metadata__ is not a table of strings")
    begin = 8 + len(raw)
    tensors = {name: _tensor(file, name, entry, size - begin) for name, entry in header.items()}
    _check_ranges(file, tensors, size - begin)
    shifted = {n: TensorInfo(t.dtype, t.shape, t.start + begin, t.end + begin) for n, t in tensors.items()}
    return shifted, metadata


def _header_bytes(file: Path) -> tuple[int, bytes]:
    try:
        with file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size < 8:
                _bad(file, f"is truncated: {size} bytes, not even a header's length")
            (length,) = struct.unpack("<Q", stream.read(8))
            if length == LFS:
                raise BlockedError(
                    "is a Git LFS pointer: the file itself was not fetched", where=str(file), todo="Run: git lfs pull"
                )
            if length > MAX_HEADER:
                _bad(file, f"claims a header of {length} bytes (at most {MAX_HEADER}); is it a safetensors file?")
            if 8 + length > size:
                _bad(file, f"is truncated: its header needs {8 + length} bytes, the file has {size}")
            raw = stream.read(length)
    except OSError as error:
        raise BlockedError(f"cannot be read ({error.strerror or error})", where=str(file)) from None
    if not raw.startswith(b"{"):
        _bad(file, "its header does not begin with a JSON object; is it a safetensors file?")
    return size, raw


def _tensor(file: Path, name: str, entry: Any, available: int) -> TensorInfo:
    shown = repr(name[:120])
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        _bad(file, f"the name of tensor {shown} is not valid Unicode")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        _bad(file, f"tensor {shown} must have dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        _bad(file, f"tensor {shown} has an unknown dtype {str(dtype)[:40]!r}")
    if not _counts(shape) or len(shape) > MAX_RANK:
        _bad(file, f"the shape of tensor {shown} is not a list of sizes")
    if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        _bad(file, f"the data_offsets of tensor {shown} are not a range")
    if offsets[1] > available:
        _bad(file, f"is truncated: tensor {shown} ends at byte {offsets[1]}, the data has {available}")
    info = TensorInfo(dtype, tuple(shape), offsets[0], offsets[1])
    if info.elements * BITS[dtype] != info.nbytes * 8:
        _bad(file, f"tensor {shown} of shape {list(shape)} and dtype {dtype} does not fit its {info.nbytes} bytes")
    return info


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _check_ranges(file: Path, tensors: dict[str, TensorInfo], available: int) -> None:
    """The format wants the data covered exactly: no hole, no overlap, nothing after the last tensor."""
    reached, before = 0, ""
    for name, info in sorted(tensors.items(), key=lambda pair: (pair[1].start, pair[1].end)):
        if info.start < reached:
            _bad(file, f"tensors {before[:120]!r} and {name[:120]!r} overlap")
        if info.start > reached:
            _bad(file, f"there are {info.start - reached} bytes before tensor {name[:120]!r} that belong to no tensor")
        reached, before = info.end, name
    if reached != available:
        _bad(file, f"its tensors end at byte {reached} of the data, which has {available}")


def load_json(raw: bytes, file: Path, what: str = "it", strict: bool = False) -> Any:
    """Parse JSON that somebody else wrote. `strict` refuses a name given twice and NaN, which configs are allowed."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(items)
        if len(table) != len(items):
            seen: set[str] = set()
            twice = next(key for key, _ in items if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise ValueError(f"the name {twice[:120]!r} is there twice")
        return table

    def constant(word: str) -> NoReturn:
        raise ValueError(f"{word} is not JSON")

    try:
        hooks: dict[str, Any] = {"object_pairs_hook": pairs, "parse_constant": constant} if strict else {}
        return json.loads(raw.decode("utf-8"), **hooks)
    except RecursionError:
        _bad(file, f"{what} is nested too deeply")
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        _bad(file, f"{what} is not valid JSON ({str(error)[:200]})")


def read_json(file: Path, strict: bool = False) -> dict[str, Any]:
    """A JSON object from a file; BlockedError when it is missing or is something else."""
    try:
        with open(file, "rb") as stream:
            raw = stream.read(MAX_JSON + 1)
    except OSError as error:
        raise BlockedError(f"cannot be read ({error.strerror or error})", where=str(file)) from None
    if len(raw) > MAX_JSON:
        _bad(file, f"has more than {MAX_JSON} bytes, which no index or config has")
    value = load_json(raw, file, strict=strict)
    if not isinstance(value, dict):
        _bad(file, "is not a JSON object")
    return value


def _bad(file: Path, what: str) -> NoReturn:
    raise BlockedError(what, where=str(file), todo=AGAIN)


# --- the files of one component --------------------------------------------------------------------------------------

SHARD = re.compile(r"-\d{5}-of-\d{5}\.safetensors$")
DEFAULT_NAMES = ("diffusion_pytorch_model", "model")


def read_index(index: Path, located: bool = True) -> Weights:
    """All shards that an `*.index.json` names; a missing shard, or a key that is not there, is refused."""
    table = read_json(index, strict=True).get("weight_map")
    if not isinstance(table, dict) or not table or any(not isinstance(v, str) for v in table.values()):
        _bad(index, "has no weight_map of {tensor: file}")
    headers: dict[str, Header] = {}
    for shard in sorted(set(table.values())):
        if Path(shard).name != shard or shard in ("", ".", ".."):
            _bad(index, f"names {shard[:120]!r}, which is not a file beside it")
        if not (index.parent / shard).is_file():
            _bad(index, f"names the shard {shard[:120]!r}, which is not there")
        headers[shard] = read_file(index.parent / shard, located)
    weights = together(index, headers)
    absent = [name for name, shard in table.items() if name not in weights.files[shard]]
    if absent:
        more = f" (and {len(absent) - 1} more)" if len(absent) > 1 else ""
        _bad(index, f"says that {absent[0][:120]!r} is in {table[absent[0]]}, which does not hold it{more}")
    unlisted = sorted(name for tensors in weights.files.values() for name in tensors if name not in table)
    if not unlisted:
        return weights
    words = f"{index.name} leaves out {len(unlisted)} tensors of its shards, such as {unlisted[0]}"
    return replace(weights, concerns=(words,))


def together(where: Path, headers: dict[str, Header]) -> Weights:
    """Several files as one set of tensors. BlockedError for a name that two of them have."""
    files = {name: header.tensors for name, header in headers.items()}
    _no_duplicates(where, files)
    metadata = {key: value for header in headers.values() for key, value in header.metadata.items()}
    containers = {container: None for header in headers.values() for container in header.containers}
    return Weights(files, (), metadata, tuple(containers))


def _no_duplicates(where: Path, files: dict[str, dict[str, TensorInfo]]) -> None:
    owner: dict[str, str] = {}
    for file, tensors in files.items():
        for name in tensors:
            if name in owner:
                _bad(where, f"tensor {name[:120]!r} is in {owner[name]} and in {file}")
            owner[name] = file


def read_weights(folder: Path) -> Weights:
    """The weights of one component's folder, as its library chooses them; Weights({}) where no safetensors file is."""
    found = sorted(path.name for path in folder.glob("*.safetensors"))
    indexes = sorted(path.name for path in folder.glob("*.safetensors.index.json"))
    if not found and not indexes:
        return Weights({})
    index = _default([name.removesuffix(".safetensors.index.json") for name in indexes])
    single = _default([name.removesuffix(".safetensors") for name in found if not SHARD.search(name)])
    if index is not None:
        weights = read_index(folder / f"{index}.safetensors.index.json")
    elif single is not None:
        name = f"{single}.safetensors"
        weights = together(folder, {name: read_file(folder / name)})
    else:
        weights = together(folder, {name: read_file(folder / name) for name in found})
        if len(found) > 1:
            weights = replace(weights, concerns=(f"{len(found)} safetensors files and no index",))
    others = [name for name in found if name not in weights.files]
    if not others:
        return weights
    words = f"also holds {', '.join(others)}, which a loader that reads every *.safetensors file takes as well"
    return replace(weights, concerns=(*weights.concerns, words))


def _default(stems: list[str]) -> str | None:
    """The stem a library loads when told nothing: a default name, else the one with no variant (`.fp16`), or None."""
    for stem in DEFAULT_NAMES:
        if stem in stems:
            return stem
    plain = [stem for stem in stems if "." not in stem]
    return plain[0] if len(plain) == 1 else None
