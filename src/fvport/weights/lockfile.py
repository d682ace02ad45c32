# SPDX-License-Identifier: Apache-2.0
"""`port.lock.json`: which bytes the official side is. Written by `prep`, and what differs from it is refused.

For each component its files with size, blake3, metadata and tensors (`"BF16 [8, 4]"` by name); the release's own files
that choose between them; where it all came from. A file is hashed again only when its size, time or inode changed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fvport import evidence as ev
from fvport import progress
from fvport.errors import BlockedError
from fvport.spec import Component, Port
from fvport.weights import external, manifest, sides

SCHEMA = 1
PIECE = 1 << 24
WHOLE_FILES = ("monolithic", "raw_official", "mixed", "custom")  # layouts where a component may be a part of a file
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
RULING = (".json", ".yaml", ".yml", ".toml")  # files at a release's top that choose between the others
SMALL = 8 << 20


class Hashes:
    """blake3 by file, kept in `.fvport/cache/weights.json` with size, time and inode."""

    def __init__(self, port: Port) -> None:
        self.path = port.state / "cache" / "weights.json"
        self.dirty, self.moved = False, progress.Moved("hash")
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
            self.table = data if isinstance(data, dict) else {}
        except (OSError, ValueError):
            self.table = {}

    def expect(self, files: Iterable[Path]) -> None:
        """These will be asked for: what of them has to be read is the whole that progress is a part of."""
        self.moved.total += sum(f.stat().st_size for f in set(files) if f.is_file() and not self._known(f))

    def _known(self, file: Path) -> str:
        kept = self.table.get(str(file))
        return str(kept[1]) if isinstance(kept, list) and len(kept) == 2 and kept[0] == _stamp(file) else ""

    def hash(self, file: Path, name: str) -> str:
        """`blake3:...` of a file's bytes, read only where they may be others than last time."""
        if known := self._known(file):
            return known
        stamp = _stamp(file)  # before it is read: a file that changes meanwhile is read again next time
        value = blake3(file, name, self.moved)
        self.table[str(file)], self.dirty = [stamp, value], True
        return value

    def put(self, file: Path, value: str) -> None:
        """A hash that was taken while the bytes streamed (a download, a copy, a conversion)."""
        self.table[str(file)], self.dirty = [_stamp(file), value], True

    def save(self) -> None:
        progress.clear()
        if self.dirty:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write(self.path, self.table)


def _stamp(file: Path) -> list[int]:
    try:
        stat = file.stat()
    except OSError as error:
        raise BlockedError(f"cannot be read ({error.strerror or error})", where=str(file)) from None
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def blake3(file: Path, name: str, moved: progress.Moved | None = None) -> str:
    """`blake3:...` of a file, on all cores; says how far it is, of this file or of all that `moved` counts."""
    import blake3 as b3

    moved = moved or progress.Moved(f"hash {name}", file.stat().st_size)
    state = b3.blake3(max_threads=b3.blake3.AUTO)
    try:
        with file.open("rb") as stream:
            while piece := stream.read(PIECE):
                state.update(piece)
                moved.add(len(piece))
    except OSError as error:
        raise BlockedError(f"cannot be read ({error.strerror or error})", where=str(file)) from None
    return f"blake3:{state.hexdigest()}"


# --- what is locked --------------------------------------------------------------------------------------------------


def folders_of(component: Component) -> list[str]:
    """The component's folders in the release: its own, and its tokenizer's."""
    return [sides.folder_of(component), *([component.tokenizer] if component.tokenizer else [])]


def files_of(port: Port, component: Component) -> list[tuple[str, Path]]:
    """[(name in the release, file)] that decide what a component is: its folders, its file, or the files it is part of.

    BlockedError where the release has nothing of the name.
    """
    found: dict[str, Path] = {}
    if port.official.needs_conversion and port.official_weights.is_dir():  # the declaration may take from any of them
        return [(file.relative_to(port.official_weights).as_posix(), file) for file in tree(port.official_weights)]
    for name in folders_of(component):
        place = port.official_weights / name
        if place.is_dir() and place.resolve() != port.official_weights.resolve():
            found |= {f"{name}/{file.relative_to(place).as_posix()}": file for file in tree(place)}
        elif place.is_file():
            found[name] = place
        elif port.official.layout in WHOLE_FILES and top_files(port.official_weights):
            found |= {file.name: file for file in top_files(port.official_weights)}
        else:
            what = f'"{name}" of {component.name} is not in the release'
            raise BlockedError(what, where=str(place), todo="Fetch the whole release, or correct port.toml")
    if component.hybrid:  # the other library's model decides as much as the connector
        base = port.official_weights
        found |= {file.relative_to(base).as_posix(): file for file in tree(external.folder(base, component))}
    return sorted(found.items())


def tree(folder: Path) -> list[Path]:
    """Every file below a folder but hidden ones, in order."""
    found = (file for file in folder.rglob("*") if file.is_file())
    return sorted(f for f in found if not any(part.startswith(".") for part in f.relative_to(folder).parts))


def top_files(folder: Path) -> list[Path]:
    """The files at a release's top, in order; the release may be one file."""
    if folder.is_file():
        return [folder]
    return sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith("."))


def entry(port: Port, component: Component, hashes: Hashes) -> dict[str, Any]:
    """A component's entry: its files with what is in them, and a digest of its tensors' names, shapes and dtypes."""
    files: list[dict[str, Any]] = []
    tensors: dict[str, tuple[str, list[int]]] = {}
    for name, file in files_of(port, component):
        said: dict[str, Any] = {"name": name, "size": file.stat().st_size, "blake3": hashes.hash(file, name)}
        held, metadata = contents(file)
        if held:
            said["tensors"] = {key: f"{dtype} {shape}" for key, (dtype, shape) in sorted(held.items())}
        if metadata:
            said["metadata"] = metadata
        tensors |= held
        files.append(said)
    table = sorted((name, dtype, shape) for name, (dtype, shape) in tensors.items())
    digest = "sha256:" + hashlib.sha256(json.dumps(table).encode()).hexdigest()
    return {"files": files, "tensors": {"count": len(tensors), "digest": digest}}


def contents(file: Path) -> tuple[dict[str, tuple[str, list[int]]], dict[str, str]]:
    """({tensor: (dtype, shape)}, metadata) of a weight file, from its header; ({}, {}) of any other file."""
    if file.suffix in PICKLES:
        return _pickled(file), {}
    if file.suffix != ".safetensors":
        return {}, {}
    held = {name: (info.dtype, list(info.shape)) for name, info in manifest.read_header(file).items()}
    return held, manifest.read_metadata(file)


def _pickled(file: Path) -> dict[str, tuple[str, list[int]]]:
    """The tensors of a `.pt .pth .ckpt .bin` file; {} of one that cannot be read as weights: its bytes are locked."""
    try:
        return {name: (info.dtype, list(info.shape)) for name, info in manifest.read_any(file).items()}
    except BlockedError:
        return {}


def ruling(port: Port, hashes: Hashes) -> list[dict[str, Any]]:
    """The small files at the release's top that say which component is what, such as model_index.json."""
    chosen = [f for f in top_files(port.official_weights) if f.suffix in RULING and f.stat().st_size <= SMALL]
    return [{"name": f.name, "size": f.stat().st_size, "blake3": hashes.hash(f, f.name)} for f in chosen]


def hashes_in(entry: Any) -> dict[str, str]:
    """{file: blake3} of an entry, whoever wrote it; '' for a file that was listed and never hashed."""
    files = entry.get("files", []) if isinstance(entry, dict) else []
    return {file["name"]: file.get("blake3", "") for file in files if isinstance(file, dict) and "name" in file}


def write(path: Path, value: dict[str, Any]) -> None:
    """Write beside and rename; a file that says the same already is not touched."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    if path.is_file() and path.read_text(encoding="utf-8", errors="replace") == text:
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8", newline="\n")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


# --- refusing what differs -------------------------------------------------------------------------------------------

TODO = "Put the locked weights back, or lock these: fvport prep"


def locked_here(component: Component) -> bool:
    """Whether a component's files are in port.lock.json: all but an external one that the release has nothing of.

    A part is loaded with the whole that its `weights` name, so those files decide its numbers.
    """
    return component.mode != "external" or component.hybrid or bool(component.part)


def unlocked(port: Port) -> list[str]:
    """Components whose files are not in port.lock.json with their digests: a bake knows the sizes only."""
    held = ev.lock(port).get("components", {})
    return [c.name for c in port.components.values() if locked_here(c) and not _has_digests(held.get(c.name))]


def _has_digests(found: Any) -> bool:
    return isinstance(found, dict) and bool(hashes_in(found)) and all(hashes_in(found).values())


def verify(port: Port, names: tuple[str, ...] = ()) -> None:
    """BlockedError unless the official files are those of port.lock.json (all components, or `names`)."""
    lock = ev.lock(port)
    locked, hashes = lock.get("components", {}), Hashes(port)
    for component in port.components.values():
        if not locked_here(component) or (names and component.name not in names):
            continue
        found = locked.get(component.name)
        if not _has_digests(found):
            what = f"the weights of {component.name} are not locked"
            raise BlockedError(what, where=str(port.lock_file), todo="Run: fvport prep")
        hashes.expect(port.official_weights / file["name"] for file in found["files"])
        for file in found["files"]:
            _same(port, hashes, file)
        known = set(hashes_in(found))
        for name, path in files_of(port, component):
            # A file more can decide as much as another one: an index of shards, tokens that are added.
            if name not in known:
                raise BlockedError("is not in port.lock.json", where=str(path), todo=TODO)
    for file in lock.get("release", {}).get("files", []) if isinstance(lock.get("release"), dict) else []:
        _same(port, hashes, file)
    hashes.save()


def difference(port: Port, name: str) -> str:
    """How a component's official files differ from port.lock.json, in a sentence without machine paths; or ''."""
    if name not in port.components:
        return ""
    try:
        verify(port, (name,))
    except BlockedError as error:
        where = error.where.removeprefix(f"{port.official_weights}/").removeprefix(f"{port.root}/")
        return f"{where} {error.what}"
    return ""


def _same(port: Port, hashes: Hashes, file: dict[str, Any]) -> None:
    whole = port.official_weights
    path = whole if whole.is_file() and whole.name == file["name"] else whole / file["name"]
    if not path.is_file():
        raise BlockedError("is locked and not there", where=str(path), todo=TODO)
    if path.stat().st_size != file["size"]:
        what = f"has {path.stat().st_size} bytes, port.lock.json says {file['size']}"
        raise BlockedError(what, where=str(path), todo=TODO)
    if hashes.hash(path, file["name"]) != file["blake3"]:
        raise BlockedError("differs from port.lock.json", where=str(path), todo=TODO)
