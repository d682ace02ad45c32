# SPDX-License-Identifier: Apache-2.0
"""Writing a converted release: beside its place, file by file, and renamed when it is whole.

Killed at any moment, the old tree is there or none, and the next run goes on where this one stood: files that are done
lie in `.<name>.part` under their own names. A tree that was not made here is never touched.

Everything is handed to the system as `cp` hands it over; `sync` waits until it is on the disk. Without, a loss of power
can cost files of a new tree, which then have other sizes than its marker says, or an empty marker, and are made again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fvport.errors import BlockedError, FvportError
from fvport.weights import fill, show
from fvport.weights.conversion import Conversion
from fvport.weights.declaration import Part
from fvport.weights.fill import Options, Written

MARKER = ".fvport-conversion.json"
FORMAT = 3  # raised when the same plan is written otherwise than before
AT_FDCWD, EXCHANGE = -100, 2


def digest(plan: Conversion, options: Options) -> str:
    """What the tree is made from: the declaration, and name, size and time of every file of the release."""
    stamps = [f"{file.relative_to(plan.root).as_posix()} {_stamp(file)}" for file in _release_files(plan)]
    parts = [str(FORMAT), str(options.link), json.dumps(plan.declaration.raw, sort_keys=True), *stamps]
    return "sha256:" + hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _release_files(plan: Conversion) -> list[Path]:
    files = [plan.root / name for name in plan.headers]
    for part in plan.declaration.parts.values():
        files += [plan.root / part.folder / name for name in fill.copied_files(plan, part)]
        if isinstance(part.config, tuple) and part.config:
            files.append(plan.root / part.config[0])
    return sorted(set(files))


def _stamp(file: Path) -> str:
    stat = file.stat()
    return f"{stat.st_size} {stat.st_mtime_ns}"


def is_current(target: Path, plan: Conversion, options: Options) -> bool:
    """True where the tree is the one that this plan makes, and no file of it was changed since."""
    held = read_marker(target)
    return held.get("digest") == digest(plan, options) and not changed(target)


def read_marker(target: Path) -> dict[str, Any]:
    """What the tree says of itself; {} where it is none of ours."""
    try:
        text = (target / MARKER).read_text(encoding="utf-8")
        held = json.loads(text) if text else {"made_by": "fvport"}  # its bytes never reached the disk
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) and held.get("made_by") == "fvport" else {}


def changed(target: Path) -> str:
    """The first file of a tree that is not as it was written, gone, or new; '' where all is as it was."""
    files = read_marker(target).get("files", {})
    there = {path.relative_to(target).as_posix() for path in target.rglob("*") if not path.is_dir()} - {MARKER}
    for name in sorted(there | set(files)):
        if name not in files or name not in there or files[name] != _told(target / name):
            return name
    return ""


def _told(file: Path) -> list[Any]:
    if file.is_symlink():
        return ["link", os.readlink(file)]
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns]


# --- the run ---------------------------------------------------------------------------------------------------------


def write(plan: Conversion, target: Path, options: Options, said: Callable[[int, int], None]) -> Written:
    """Make the tree, or find it as it should be. `said(done, total)` is told of bytes.

    Raises BlockedError for a full disk or an unreadable file, FvportError where something else is in its place.
    """
    if target.is_symlink() or (target.exists() and not read_marker(target)):
        raise FvportError("was not made by fvport and is not overwritten", where=str(target), todo="Move it away")
    with _alone(target):
        _put_back(target)
        if read_marker(target) and is_current(target, plan, options):
            held = read_marker(target)
            return Written(target, False, _sizes(held), nan=held.get("nan", {}), notes=list(plan.notes))
        part = _beside(target, "part")
        result = Written(target, True, nan=_begin(part, plan, options), notes=list(plan.notes))
        try:
            fill.fill(plan, part, options, said, result)
            _settle(part, target, plan, options, result)
        except OSError as error:
            raise _refused(error, target, part) from None
        result.files = _sizes(read_marker(target))
        return result


def _sizes(held: dict[str, Any]) -> dict[str, int]:
    return {name: told[0] if told[0] != "link" else 0 for name, told in held.get("files", {}).items()}


def _beside(target: Path, word: str) -> Path:
    return target.with_name(f".{target.name}.{word}")


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Two conversions to one place would write the same files."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(_beside(target, "lock"), "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            what = "another conversion is at work here"
            raise BlockedError(what, where=str(target), todo="Wait for it to end") from None
        yield


def _put_back(target: Path) -> None:
    """A run that ended between the two renames of `_exchange` left the old tree beside its place."""
    old = _beside(target, "old")
    if old.exists() and target.exists():
        shutil.rmtree(old, ignore_errors=True)
    elif old.exists():
        os.rename(old, target)


def _begin(part: Path, plan: Conversion, options: Options) -> dict[str, int]:
    """What an earlier run of the same plan finished stays, with the NaN {tensor: how many} that it had found if it
    ended right before its last step; anything else goes. A disk too small is said here."""
    old, now = part / MARKER, digest(plan, options)
    held = read_marker(part)
    if now not in (held.get("begun"), held.get("digest")):
        shutil.rmtree(part, ignore_errors=True)
        held = {}
    nan: dict[str, int] = held.get("nan", {})
    try:
        part.mkdir(exist_ok=True)
        fill.text(old, {"made_by": "fvport", "begun": now, "nan": nan})
        there = sum(file.stat().st_size for file in part.rglob("*") if file.is_file())
        free = shutil.disk_usage(part).free
    except OSError as error:
        raise _refused(error, part, part) from None
    need = plan.bytes + sum(_copied_bytes(plan, item, options) for item in plan.declaration.parts.values()) - there
    if need > free:
        what = f"needs {show.size(need)}, and {show.size(free)} are free"
        raise BlockedError(what, where=str(part.parent), todo="Make room, then run again; nothing was changed")
    return nan


def _copied_bytes(plan: Conversion, part: Part, options: Options) -> int:
    if options.link:
        return 0
    return sum((plan.root / part.folder / name).stat().st_size for name in fill.copied_files(plan, part))


def _refused(error: OSError, target: Path, part: Path) -> BlockedError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        todo = f"Make room and run again: it goes on with what is done ({part.name} beside it may also be deleted)"
        return BlockedError("the disk is full; the tree that was there is as it was", where=str(target), todo=todo)
    return BlockedError(f"could not be written ({error.strerror or error})", where=str(target))


def _settle(part: Path, target: Path, plan: Conversion, options: Options, result: Written) -> None:
    notes = list(part.rglob(".*.nan"))  # in the marker before they go: a run that ends here must not forget them
    there = [path for path in part.rglob("*") if not path.is_dir() and path not in notes and path != part / MARKER]
    files = {name: _told(part / name) for name in sorted(path.relative_to(part).as_posix() for path in there)}
    held = {"made_by": "fvport", "digest": digest(plan, options), "files": files, "nan": result.nan}
    fill.text(part / MARKER, held | {"link": options.link, "declaration": plan.declaration.digest()})
    for note in notes:
        note.unlink()
    if options.sync:
        for path in (*part.rglob("*"), part):
            _sync(path)
    if target.exists():
        _exchange(part, target)
        shutil.rmtree(part, ignore_errors=True)
    else:
        os.rename(part, target)
    if options.sync:
        _sync(target.parent)


def _exchange(part: Path, target: Path) -> None:
    """Both change places at once where the system can; else the old tree goes first, and there is none for a moment."""
    try:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        done = libc.renameat2(AT_FDCWD, os.fsencode(part), AT_FDCWD, os.fsencode(target), EXCHANGE)
    except (OSError, AttributeError):
        done = -1
    if done:
        old = _beside(target, "old")
        shutil.rmtree(old, ignore_errors=True)
        os.rename(target, old)
        os.rename(part, target)
        shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if path.is_symlink():
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
