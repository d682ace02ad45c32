# SPDX-License-Identifier: Apache-2.0
"""What several processes keep in one folder, by a digest in the name: made once, read safely, removed when unused.

    with kept.alone(place):            one process at a time makes `place`; who waited finds it made
        if not kept.hold(place):       held: nobody removes it while this process lives
            ... make a folder beside it ...
            kept.settle(part, place)   rename; "it is there already" is success
            kept.prune_folders(place, "official")

A file or folder of a process that is at work has no digest in its name, and is never touched by another one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DIGEST = r"[0-9a-f]{24,64}"
_held: dict[Path, Any] = {}  # open files whose shared lock lasts as long as the process


def _lock_file(place: Path, kind: str) -> Any:
    folder = place.parent.parent / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / f"{place.parent.name}.{place.name}.{kind}").open("a")


@contextlib.contextmanager
def alone(place: Path) -> Iterator[None]:
    """Only one process at a time is inside for one `place`; the others wait."""
    with _lock_file(place, "make") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def hold(place: Path) -> bool:
    """Is the folder there? Then nobody removes it as long as this process lives."""
    if place not in _held:
        stream = _lock_file(place, "use")
        fcntl.flock(stream, fcntl.LOCK_SH)
        _held[place] = stream
    return place.is_dir()


def settle(part: Path, place: Path) -> None:
    """Give a finished folder its name. One that is there already was made from the same things: it stays."""
    try:
        os.replace(part, place)
    except OSError:
        if not place.is_dir():
            raise
        shutil.rmtree(part, ignore_errors=True)


def prune_folders(newest: Path, start: str) -> None:
    """Remove folders `start.<digest>` beside `newest` that no living process holds."""
    for old in newest.parent.glob(f"{start}.*"):
        if old == newest or not re.fullmatch(rf"{re.escape(start)}\.{DIGEST}", old.name):
            continue
        with _lock_file(old, "use") as stream, contextlib.suppress(BlockingIOError):
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(old, ignore_errors=True)


def prune_files(newest: Path, start: str) -> None:
    """Remove files `start.<digest>.json` beside `newest`; a reader that comes too late asks again."""
    for old in newest.parent.glob(f"{start}.*.json"):
        if old != newest and re.fullmatch(rf"{re.escape(start)}\.{DIGEST}\.json", old.name):
            old.unlink(missing_ok=True)
