# SPDX-License-Identifier: Apache-2.0
"""The official weights: linked or fetched, then locked. What is locked is what every check may read.

`port.lock.json` gets, for each component, its files with size and blake3 and a digest of its tensors' names, shapes and
dtypes; `verify` refuses weights that differ. A file is hashed again only when its size or time changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from fvport import evidence as ev
from fvport.errors import BlockedError, FvportError
from fvport.spec import Component, Port
from fvport.weights import manifest, show, sides

SCHEMA = 1
PIECE = 1 << 24
TOKENS = ("HF_TOKEN", "HUGGINGFACE_HUB_TOKEN", "HF_API_KEY")  # names of variables; a value is never read here
VERSIONS = ("diffusers", "transformers", "torch", "safetensors", "fastvideo")


@dataclass
class Prepared:
    """What `run` did. `changed`: locked files whose bytes are others than before."""

    weights: str
    components: dict[str, dict[str, Any]]
    changed: list[str] = field(default_factory=list)
    load_tree: str = ""
    open: str = ""  # what hinders the load tree, where something does

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))

    def text(self) -> str:
        rows: list[tuple[str, ...]] = [("component", "files", "bytes")]
        for name, entry in self.components.items():
            rows.append((name, str(len(entry["files"])), show.size(sum(file["size"] for file in entry["files"]))))
        lines = [f"locked: {self.weights}", show.table(rows)]
        lines += [f"changed since it was locked: {name}" for name in self.changed]
        lines.append(f"load tree: {self.load_tree}" if self.load_tree else f"no load tree yet: {self.open}")
        return "\n".join(lines)


def run(port: Port) -> Prepared:
    """Fetch what is missing, lock it, and make the load tree. Running it twice changes nothing.

    Raises BlockedError naming what is missing and the command that gets it.
    """
    from fvport.weights import convert

    folder = port.official_weights
    if not folder.exists():
        _fetch(port, folder)
    lock = ev.lock(port)
    before = {name: _hashes(entry) for name, entry in lock.get("components", {}).items()}
    cache = _Cache(port)
    entries = {c.name: _entry(port, c, cache) for c in port.components.values() if c.mode != "external"}
    cache.save()
    changed = [
        file
        for name, entry in entries.items()
        for file, value in _hashes(entry).items()
        if name in before and before[name].get(file, value) != value
    ]
    versions = {name: version for name in VERSIONS if (version := _version(name))}
    lock |= {"schema": lock.get("schema", SCHEMA), "components": entries, "versions": versions}
    _write(port.folder / "port.lock.json", lock)
    result = Prepared(port.official.weights, entries, changed)
    try:
        result.load_tree = str(convert.build_load_tree(port, verify=False).relative_to(port.root))
    except FvportError as error:  # the weights are locked all the same; `conversion` says this as a finding
        result.open = str(error)
    return result


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _hashes(entry: Any) -> dict[str, str]:
    files = entry.get("files", []) if isinstance(entry, dict) else []
    return {file["name"]: file.get("blake3", "") for file in files if isinstance(file, dict) and "name" in file}


def _entry(port: Port, component: Component, cache: _Cache) -> dict[str, Any]:
    files: list[dict[str, Any]] = []
    tensors: dict[str, manifest.TensorInfo] = {}
    for name in folders_of(component):
        folder = port.official_weights / name
        if not folder.is_dir():
            what = f'"{name}" of {component.name} is not in the release'
            raise BlockedError(what, where=str(folder), todo="Fetch the whole release, or correct port.toml")
        for file in _files(folder):
            relative = f"{name}/{file.relative_to(folder).as_posix()}"
            files.append({"name": relative, "size": file.stat().st_size, "blake3": cache.hash(file, relative)})
        tensors |= manifest.read_weights(folder).tensors
    table = sorted((name, info.dtype, list(info.shape)) for name, info in tensors.items())
    digest = "sha256:" + hashlib.sha256(json.dumps(table).encode()).hexdigest()
    return {"files": files, "tensors": {"count": len(tensors), "digest": digest}}


def folders_of(component: Component) -> list[str]:
    """The component's folders in the release: its own, and its tokenizer's."""
    return [sides.folder_of(component), *([component.tokenizer] if component.tokenizer else [])]


def _files(folder: Path) -> list[Path]:
    found = (file for file in folder.rglob("*") if file.is_file())
    return sorted(f for f in found if not any(part.startswith(".") for part in f.relative_to(folder).parts))


def _write(path: Path, lock: dict[str, Any]) -> None:
    text = json.dumps(lock, indent=1, sort_keys=True) + "\n"
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8", newline="\n")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


# --- refusing what differs -------------------------------------------------------------------------------------------


def verify(port: Port, names: tuple[str, ...] = ()) -> None:
    """BlockedError unless the official files are those of port.lock.json (all components, or `names`)."""
    todo = "Put the locked weights back, or lock these: fvport prep"
    locked = ev.lock(port).get("components", {})
    cache = _Cache(port)
    for component in port.components.values():
        if component.mode == "external" or (names and component.name not in names):
            continue
        entry = locked.get(component.name)
        if not isinstance(entry, dict) or any(not value for value in _hashes(entry).values()) or not _hashes(entry):
            what = f"the weights of {component.name} are not locked"
            raise BlockedError(what, where=str(port.folder / "port.lock.json"), todo="Run: fvport prep")
        for file in entry["files"]:
            _verify_file(port, cache, file, todo)
        _no_strangers(port, component, entry, todo)
    cache.save()


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


def _verify_file(port: Port, cache: _Cache, file: dict[str, Any], todo: str) -> None:
    path = port.official_weights / file["name"]
    if not path.is_file():
        raise BlockedError("is locked and not there", where=str(path), todo=todo)
    if path.stat().st_size != file["size"]:
        what = f"has {path.stat().st_size} bytes, port.lock.json says {file['size']}"
        raise BlockedError(what, where=str(path), todo=todo)
    if cache.hash(path, file["name"]) != file["blake3"]:
        raise BlockedError("differs from port.lock.json", where=str(path), todo=todo)


def _no_strangers(port: Port, component: Component, entry: dict[str, Any], todo: str) -> None:
    """A file more can decide as much as another one: an index of shards, tokens that are added."""
    known = set(_hashes(entry))
    for name in folders_of(component):
        folder = port.official_weights / name
        for file in _files(folder):
            if f"{name}/{file.relative_to(folder).as_posix()}" not in known:
                raise BlockedError("is not in port.lock.json", where=str(file), todo=todo)


class _Cache:
    """blake3 by file, kept in `.fvport/cache/weights.json` with size, time and inode; a changed file is hashed
    again.
    """

    def __init__(self, port: Port) -> None:
        self.path = port.state / "cache" / "weights.json"
        self.dirty = False
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
            self.table = data if isinstance(data, dict) else {}
        except (OSError, ValueError):
            self.table = {}

    def hash(self, file: Path, name: str) -> str:
        stat = file.stat()
        stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        key = str(file)
        kept = self.table.get(key)
        if isinstance(kept, list) and len(kept) == 2 and kept[0] == stamp:
            return kept[1]
        value = _blake3(file, name)
        self.table[key], self.dirty = [stamp, value], True
        return value

    def save(self) -> None:
        if self.dirty:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _write(self.path, self.table)


def _blake3(file: Path, name: str) -> str:
    """`blake3:...` of a file's bytes; says how far it is when that takes longer than five seconds."""
    import blake3

    total, done, started, said = file.stat().st_size, 0, time.monotonic(), 0.0
    state = blake3.blake3()
    try:
        with file.open("rb") as stream:
            while piece := stream.read(PIECE):
                state.update(piece)
                done += len(piece)
                if time.monotonic() - started > 5 and time.monotonic() - said > 2:
                    said = time.monotonic()
                    print(f"  {name}: {done * 100 // max(total, 1)} % of {show.size(total)}", file=sys.stderr)
    except OSError as error:
        raise BlockedError(f"cannot be read ({error.strerror or error})", where=str(file)) from None
    return "blake3:" + state.hexdigest()


# --- fetching --------------------------------------------------------------------------------------------------------


def _fetch(port: Port, folder: Path) -> None:
    """Fetch a hub release. The hub's client finds a token by its variable's name; it is never read or shown here."""
    if not port.hub_id:
        todo = f"Put the release there, or link it: ln -s RELEASE {port.official.weights}"
        raise BlockedError("the official weights are not there", where=str(folder), todo=todo)
    command = f"hf download {port.hub_id} --revision {port.official.revision} --local-dir official_weights/{port.slug}"
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
    except ImportError:
        raise BlockedError(
            "huggingface_hub is not installed", todo=f"Install it, or run elsewhere: {command}"
        ) from None
    part = folder.with_name(f".{folder.name}.part")  # kept when interrupted: the next run resumes
    try:
        snapshot_download(port.hub_id, revision=port.official.revision, local_dir=str(part))
    except GatedRepoError:
        todo = f"Ask for access, set {TOKENS[0]}, then run: fvport prep (or: {command})"
        raise BlockedError(f"{port.hub_id} is gated", todo=todo) from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        what = f"{port.hub_id} at {port.official.revision} could not be fetched ({type(error).__name__})"
        todo = f"With a network run: {command}, then: fvport prep"
        raise BlockedError(what, where=str(folder), todo=todo) from None
    os.replace(part, folder)
