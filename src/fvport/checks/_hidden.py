# SPDX-License-Identifier: Apache-2.0
"""What git can be told not to show, found by looking at the files themselves.

The index (skip-worktree, assume-unchanged), ignore files, filters, grafts and a rewritten history all decide what
`git diff` and `git ls-files` say. Here the bytes on disk are compared with the commit, and the commit with the wheel.
"""

from __future__ import annotations

import difflib
import fnmatch
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import tomllib

from fvport.checks._rules import Finding
from fvport.spec import Port
from fvport.workspace import git, tree

CODE = (".py", ".pyc", ".so", ".pyd", ".pth")  # what Python can import, or reads when it starts
GENERATED = {"fastvideo", "tests", "examples", "scripts", "docs", "docker", "noxfile"}  # root names of a port's layout
WEIGHTS = {"official_weights", "converted_weights"}
MOST = 20  # findings of one kind that are listed one by one

Lines = dict[str, frozenset[int] | None]


def changed(root: Path, base: str) -> Lines:
    """FastVideo's Python files whose bytes differ from the commit's, and files under fastvideo/ that it does not have.

    A file that is there and not in the commit has None, a file that is gone has no line.
    """
    committed = _committed(root, base, "fastvideo")
    found: Lines = {}
    for path, blob in committed.items():
        file = root / path
        if not file.is_file():
            found[path] = frozenset()
        elif path.endswith(".py") and blob not in _ids(data := file.read_bytes(), len(blob)):
            found[path] = _lines(git.run(root, "cat-file", "blob", blob).stdout, data)
    return found | {path: None for path in _on_disk(root) if path not in committed}


def _committed(root: Path, base: str, under: str) -> dict[str, str]:
    """{path: blob} of the regular files of a commit below `under`."""
    found = {}
    for entry in git.git(root, "ls-tree", "-r", "-z", base, "--", f"{under}/").split("\0"):
        head, _, path = entry.partition("\t")
        if head.startswith("100"):
            found[path] = head.split()[2]
    return found


def _ids(data: bytes, digits: int) -> set[str]:
    """The blob ids that these bytes can have, as they are and with the line ends of a checkout turned back."""
    made: Callable[[bytes], hashlib._Hash] = hashlib.sha256 if digits == 64 else hashlib.sha1
    plain = data.replace(b"\r\n", b"\n")
    return {made(b"blob %d\0" % len(each) + each).hexdigest() for each in {data, plain}}


def _lines(old: bytes, new: bytes) -> frozenset[int]:
    before, after = (data.decode(errors="replace").splitlines() for data in (old, new))
    blocks = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    return frozenset(n + 1 for tag, _, _, first, last in blocks if tag != "equal" for n in range(first, last))


def _on_disk(root: Path) -> Iterator[str]:
    """Files under fastvideo/, ignored or not, but for what Python caches and what a test run leaves beside tests."""
    for folder, dirs, files in os.walk(root / "fastvideo"):
        here = Path(folder).relative_to(root)
        links = [name for name in dirs if Path(folder, name).is_symlink()]
        dirs[:] = [name for name in dirs if name != ".git"]
        for name in [*files, *links]:
            cached = here.name == "__pycache__" and name.endswith(".pyc")
            left = here.as_posix().startswith("fastvideo/tests") and not name.endswith(CODE)
            if not cached and not left:
                yield (here / name).as_posix()


def findings(port: Port, base: str, registration: tuple[str, ...]) -> Iterator[Finding]:
    """Where git was told to look away, where the commit is not the wheel's FastVideo, what lies at the root."""
    yield from _flags(port.root, base)
    yield from _grafts(port.root)
    yield from _first(list(_not_the_wheel(port, base, registration)))
    yield from _root_entries(port, base)


def _flags(root: Path, base: str) -> Iterator[Finding]:
    words = {"S": "skip-worktree", "h": "assume-unchanged", "s": "skip-worktree and assume-unchanged"}
    for entry in git.git(root, "ls-files", "-v", "-z").split("\0"):
        tag, _, path = entry.partition(" ")
        hidden = tag == "S" or tag.islower()
        if hidden and (path.startswith("fastvideo/") or (root / path).exists()):
            what = f"is marked {words.get(tag, 'unchanged')} in git's index, so git does not see a change of it"
            todo = f"Run: git update-index --no-skip-worktree --no-assume-unchanged {path}"
            yield Finding(path, what, todo)


def _grafts(root: Path) -> Iterator[Finding]:
    path = Path(git.git(root, "rev-parse", "--git-path", "info/grafts"))
    path = path if path.is_absolute() else root / path
    if path.is_file() and path.read_bytes().strip():
        yield Finding(".git/info/grafts", "changes which commit comes before which", "Remove the file")


def _first(found: list[Finding]) -> Iterator[Finding]:
    yield from found[:MOST]
    if len(found) > MOST:
        yield Finding("fastvideo/", f"{len(found) - MOST} more files differ from the wheel", found[0].todo)


def _not_the_wheel(port: Port, base: str, registration: tuple[str, ...]) -> Iterator[Finding]:
    """Python files of the commit before the port that are not those of the wheel. Raises BlockedError without it."""
    if port.fastvideo.source != "wheel":
        return
    version = port.fastvideo.version
    wheel = {path: file for path, file in tree.wheel_files(version).items() if path.startswith("fastvideo/")}
    wheel = {path: file for path, file in wheel.items() if path.endswith(".py")}
    committed = {p: blob for p, blob in _committed(port.root, base, "fastvideo").items() if p.endswith(CODE)}
    slugs, edits = _other_ports(port, base)
    patterns = registration if slugs else ()
    todo = f"Put the port on FastVideo {version} as it is in the wheel: fvport workspace"
    for path in sorted(wheel.keys() | {p for p in committed if p.endswith(".py")}):
        if path in edits or any(slug in path for slug in slugs) or any(fnmatch.fnmatch(path, p) for p in patterns):
            continue
        blob = committed.get(path)
        if blob is None:
            yield Finding(path, f"is in FastVideo {version} and not in the commit before the port", todo)
        elif path not in wheel:
            yield Finding(path, f"lies in the commit before the port and is not of FastVideo {version}", todo)
        elif blob not in _ids(wheel[path].read_bytes(), len(blob)):
            yield Finding(path, f"is in the commit before the port other than in FastVideo {version}", todo)


def _other_ports(port: Port, base: str) -> tuple[set[str], set[str]]:
    """Slugs of the ports that the commit held already, and the FastVideo files that they declare as edited."""
    slugs, edits = set(), set()
    for path in _committed(port.root, base, "tests/local_tests"):
        if path.endswith("/port.toml"):
            text = git.run(port.root, "cat-file", "blob", f"{base}:./{path}").stdout.decode(errors="replace")
            try:
                data = tomllib.loads(text)
            except tomllib.TOMLDecodeError:
                continue
            slugs.add(path.split("/")[-2])
            edits |= set(data.get("fastvideo", {}).get("edits", {}))
    return slugs, edits


def _root_entries(port: Port, base: str) -> Iterator[Finding]:
    """The root is first on the import path: what lies there is imported before any installed package of its name."""
    listed = git.git(port.root, "ls-tree", "--name-only", "-z", base).split("\0")
    known = GENERATED | WEIGHTS | {name.partition(".")[0] for name in listed}
    clone = tree.reference_clone(port)
    for entry in sorted(port.root.iterdir()):
        name = entry.name.partition(".")[0]
        if name in known or not name.isidentifier() or (entry.name == clone and (entry / ".git").exists()):
            continue
        what = ""
        if entry.is_file() and entry.name.endswith(CODE):
            what = f"is imported as {name} by whatever runs at the root, before an installed package of that name"
        elif entry.is_dir() and "." not in entry.name and _importable(entry):
            what = f"is a package at the root: import {name} finds it before an installed one"
        if what:
            todo = "Move it to where FastVideo keeps such code, under fastvideo/, or out of the tree"
            yield Finding(entry.name, what, todo)


def _importable(folder: Path) -> bool:
    """Whether Python files lie in a folder; a virtual environment's do not count, for its folder is no package."""
    if any(_module(file.name) for file in folder.iterdir()):
        return True
    if (folder / "pyvenv.cfg").is_file():
        return False
    return any(_module(file) for _, _, files in os.walk(folder) for file in files)


def _module(name: str) -> bool:
    """A file that an import finds; what Python keeps of a source is not (nox leaves noxfile.cpython-311.pyc)."""
    return name.endswith(CODE) and not (name.endswith(".pyc") and "." in name.removesuffix(".pyc"))
