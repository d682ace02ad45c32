# SPDX-License-Identifier: Apache-2.0
"""Files of a port and of FastVideo: which there are, which collide, and copying that never leaves half a file."""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from fvport.errors import BlockedError, UsageError
from fvport.spec import Port, reference_name

NEVER = {".git", ".fvport", "official_weights", "converted_weights"}
LITTER = {
    "__pycache__",
    ".nox",
    ".venv",
    ".pytest_cache",
    ".ruff_cache",
    ".mypy_cache",
    ".ipynb_checkpoints",
    ".DS_Store",
}
WHEEL_PARTS = ("fastvideo/", "tests/local_tests/", "examples/")


def reference_clone(port: Port) -> str:
    """Folder that a clone of the official repository gets beside the port's files, or ''."""
    return reference_name(port.official.repo)


def excluded(port: Port) -> list[str]:
    """Lines for .git/info/exclude: what a port writes and never commits."""
    lines = [".fvport/", "official_weights/", "converted_weights/", "__pycache__/", ".pytest_cache/", ".nox/"]
    lines += ["/outputs/", "/gate-out/", "/collected/"]  # what the example and a CI run leave behind
    return lines + ([f"/{reference_clone(port)}/"] if reference_clone(port) else [])


def port_files(port: Port, but: Iterable[str] = ()) -> list[str]:
    """Every file at the port's root that is the port's (relative, POSIX), without `but`."""
    skip, found, root = set(but), [], port.root
    never = NEVER | ({reference_clone(port)} - {""})
    for folder, dirs, files in os.walk(root):
        here = Path(folder).relative_to(root)
        top = here == Path(".")
        dirs[:] = sorted(d for d in dirs if d not in LITTER and not (top and d in never))
        for name in sorted([*files, *(d for d in dirs if Path(folder, d).is_symlink())]):
            path = (here / name).as_posix()
            wanted = name not in LITTER and not name.endswith((".pyc", ".pyo")) and not (top and name in never)
            if wanted and path not in skip:
                found.append(path)
        dirs[:] = [d for d in dirs if not Path(folder, d).is_symlink()]
    return found


def wheel_files(version: str) -> dict[str, Path]:
    """relative path -> file of the installed FastVideo of exactly this version; FastVideo is not imported."""
    todo = f"Run make env, or: uv pip install fastvideo=={version}"
    try:
        wheel = metadata.distribution("fastvideo")
    except metadata.PackageNotFoundError:
        raise BlockedError(f"fastvideo {version} is not installed in this environment", todo=todo) from None
    if wheel.version != version:
        raise BlockedError(f"port.toml asks for fastvideo {version}, but {wheel.version} is installed", todo=todo)
    found = {}
    for item in wheel.files or ():
        path = item.as_posix()
        if path.startswith(WHEEL_PARTS) and not path.endswith((".pyc", ".pyo")) and ".." not in item.parts:
            found[path] = Path(str(wheel.locate_file(item)))
    if "fastvideo/registry.py" not in found:
        raise BlockedError("the installed fastvideo lists no files (an editable install?)", todo=todo)
    gone = [path for path, file in found.items() if not file.is_file()]
    if gone:
        raise BlockedError(
            f"the installed fastvideo lacks {gone[0]} and {len(gone) - 1} more", todo=f"Reinstall it: {todo}"
        )
    return found


def refuse(collisions: list[str], what: str, root: Path) -> None:
    """Stop with the whole list; nothing has been written yet."""
    if not collisions:
        return
    raise UsageError(
        f"{len(collisions)} file(s) of {what} exist with other content: {', '.join(collisions)}",
        where=str(root),
        todo="Nothing was written. Rename or move these, or bake with another model_slug",
    )


def collisions(sources: dict[str, Path], root: Path) -> list[str]:
    """Paths of `sources` that exist under `root` with other bytes, or that a file or folder stands in the way of."""
    found = []
    for path, source in sources.items():
        target = root / path
        if target.is_symlink() or target.exists():
            if not target.is_file() or not filecmp.cmp(source, target, shallow=False):
                found.append(path)
        elif any(up.is_file() for up in target.parents if root in up.parents):
            found.append(path)
    return found


def copy(sources: dict[str, Path], root: Path) -> None:
    """Copy what is not there yet. Each file appears whole: it is written beside and then renamed."""
    spare_folder = root / ".fvport" / "tmp"
    spare_folder.mkdir(parents=True, exist_ok=True)
    for path, source in sources.items():
        target = root / path
        if target.is_symlink() or target.exists():
            continue  # equal bytes: `collisions` has looked
        target.parent.mkdir(parents=True, exist_ok=True)
        spare = spare_folder / f"{os.getpid()}.part"
        if source.is_symlink():
            target.symlink_to(os.readlink(source))
            continue
        shutil.copyfile(source, spare)
        spare.chmod(source.stat().st_mode & 0o755 | 0o200)
        os.replace(spare, target)
