# SPDX-License-Identifier: Apache-2.0
"""The clean branch: what of a port goes upstream, and that FastVideo's own files differ by the registration only."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from fvport import spec
from fvport.errors import BlockedError, UsageError
from fvport.spec import Port
from fvport.workspace import git, names, registration

FILES = ("100644", "100755")  # git's modes of a file; 120000 is a link, 160000 a submodule
UPSTREAM = ("fastvideo/", "scripts/checkpoint_conversion/", "tests/local_tests/", "examples/", "docs/")


@dataclass
class Made:
    """The branch's one commit on `base`: files that are new, files of FastVideo that it edits, and what stayed away."""

    base: str
    commit: str = ""
    new: list[str] = field(default_factory=list)
    edited: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def make(port: Port, name: str, onto: str, also: tuple[str, ...], message: str) -> Made:
    """Write the commit and point the branch at it. Nothing of the working tree, the index or another branch moves."""
    root, start = port.root, base(port)
    made = Made(_commit(root, onto) if onto else start)
    changed, gone = _changes(port, start)
    _refuse_links(root, changed)
    there = git.tree_files(root, made.base)
    _refuse_other_ports(there, onto, root)
    files: dict[str, bytes] = {}
    for path, old in changed.items():
        if not old and path.startswith(UPSTREAM):
            files[path] = _blob(root, "HEAD", path)
            made.new.append(path)
        elif not old:
            made.left_out.append(path)
    _refuse_collisions(root, files, there, onto)
    edits = _registered(port, made.base, files)
    mine = _registered(port, start, files) if onto else edits
    now = _without_other_ports(port, [path for path, old in changed.items() if old])
    was = {path: _blob(root, start, path) for path in now}
    foreign = [path for path, data in now.items() if data != mine.get(path, was[path])]
    _refuse_foreign([p for p in [*foreign, *gone] if p not in also], also, onto, root)
    edits |= {path: _blob(root, "HEAD", path) for path in foreign}
    made.edited = sorted(edits)
    made.commit = _write(root, name, made.base, files | edits, [p for p in gone if p in also], message)
    return made


def base(port: Port) -> str:
    """The commit of FastVideo that the port was put on: the one before the commit that brought port.toml."""
    mine = port.file.relative_to(port.root).as_posix()
    brought = git.git(port.root, "log", "--diff-filter=A", "--format=%H", "--", mine).split()
    before = git.run(port.root, "rev-parse", "-q", "--verify", f"{brought[-1]}^") if brought else None
    if before is None or before.returncode:
        what = f"no commit comes before the one that brought {mine}, so nobody can tell what the port adds"
        raise BlockedError(
            what,
            where=str(port.root),
            todo="Put FastVideo's files into a commit of their own below it (docs/gate/boundary.md)",
        )
    return before.stdout.decode().strip()


def _commit(root: Path, ref: str) -> str:
    done = git.run(root, "rev-parse", "-q", "--verify", f"{ref}^{{commit}}")
    commit = done.stdout.decode().strip()
    if done.returncode or not git.has(root, commit, names.REGISTRY):
        raise BlockedError(f'"{ref}" is no commit of FastVideo here', where=str(root), todo="Fetch it, then --onto it")
    return commit


def _changes(port: Port, start: str) -> tuple[dict[str, bool], list[str]]:
    """({path: whether FastVideo had it}, paths of FastVideo that the port deletes), without other ports' files."""
    from fvport.checks import _sources

    mine = set(_sources.paths(port))
    words = git.git(port.root, "diff", "--no-renames", "--name-status", "-z", start, "HEAD").split("\0")
    changed, gone = {}, []
    for status, path in zip(words[::2], words[1::2], strict=False):
        if path not in mine and status == "A":
            continue
        if status == "D":
            gone.append(path)
        else:
            changed[path] = status != "A"
    return changed, gone


def _registered(port: Port, commit: str, files: dict[str, bytes]) -> dict[str, bytes]:
    """FastVideo's files at `commit` with this port's registration in them, computed in a scratch tree."""
    with tempfile.TemporaryDirectory(prefix="fvport-pr-") as folder:
        scratch = Path(folder)
        for path, data in files.items():
            _put(scratch / path, data)
        there = spec.parse(scratch / port.file.relative_to(port.root))
        wanted = {target.path for target in names.of_all(there, scratch)} | {"fastvideo/configs/pipelines/base.py"}
        for path in wanted:
            shown = git.run(port.root, "cat-file", "blob", f"{commit}:{path}")
            if shown.returncode == 0:
                _put(scratch / path, shown.stdout)
        registration.apply(scratch, there)
        changed = {}
        for path in wanted:
            if (scratch / path).is_file() and (scratch / path).read_bytes() != _blob(port.root, commit, path):
                changed[path] = (scratch / path).read_bytes()
        return changed


def _blob(root: Path, commit: str, path: str) -> bytes:
    return git.run(root, "cat-file", "blob", f"{commit}:{path}").stdout


def _modes(root: Path) -> dict[str, str]:
    """{path: mode} of everything in HEAD, such as 100644."""
    listed = (entry.partition("\t") for entry in git.git(root, "ls-tree", "-r", "-z", "HEAD").split("\0") if entry)
    return {path: head.split()[0] for head, _, path in listed}


def _refuse_links(root: Path, changed: dict[str, bool]) -> None:
    """What goes upstream is what HEAD holds: a link's target is a file of this machine, whatever it is."""
    modes = _modes(root)
    links = [p for p, old in changed.items() if (old or p.startswith(UPSTREAM)) and modes.get(p) not in FILES]
    if links:
        what = f"{len(links)} path(s) of the port are links or submodules: {', '.join(sorted(links)[:4])}"
        raise UsageError(what, where=str(root), todo="Commit the files themselves; a link goes nowhere upstream")


def _without_other_ports(port: Port, paths: list[str]) -> dict[str, bytes]:
    """These files as they are, without the registration of ports that share the tree."""
    with tempfile.TemporaryDirectory(prefix="fvport-pr-") as folder:
        scratch = Path(folder)
        others = [f for f in sorted(port.root.glob("tests/local_tests/*/port.toml")) if f.parent.name != port.slug]
        configs = (f"fastvideo/configs/pipelines/{name}.py" for name in ("base", *(f.parent.name for f in others)))
        modes = _modes(port.root)
        for path in (*paths, *configs):
            if modes.get(path) in FILES:
                _put(scratch / path, _blob(port.root, "HEAD", path))
        for file in others:
            registration.undo(scratch, spec.parse(file))
        return {path: (scratch / path).read_bytes() for path in paths}


def _refuse_other_ports(there: dict[str, str], onto: str, root: Path) -> None:
    """A base that holds another port is no FastVideo to open a pull request on."""
    found = sorted(p.split("/")[2] for p in there if p.startswith("tests/local_tests/") and p.endswith("/port.toml"))
    if found and not onto:
        what = f"the port was put on a tree that holds another one ({', '.join(found)})"
        raise UsageError(what, where=str(root), todo="Name a commit of FastVideo without it: fvport pr --onto COMMIT")


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _refuse_collisions(root: Path, files: dict[str, bytes], there: dict[str, str], onto: str) -> None:
    hashed = {p: git.git(root, "hash-object", "--no-filters", "--stdin", stdin=files[p]) for p in files if p in there}
    taken = [path for path, blob in hashed.items() if there[path] != blob]
    if taken:
        what = f"{onto} has {len(taken)} of the port's files with other content: {', '.join(sorted(taken)[:4])}"
        raise UsageError(what, where=str(root), todo="Rename them in the port, or choose another --onto")


def _refuse_foreign(foreign: list[str], also: tuple[str, ...], onto: str, root: Path) -> None:
    if foreign:
        what = f"the port changes {len(foreign)} file(s) of FastVideo beyond its registration: "
        todo = "Take the change back, or carry it on purpose: " + " ".join(f"--with {path}" for path in foreign[:4])
        raise UsageError(what + ", ".join(sorted(foreign)[:4]), where=str(root), todo=todo)
    if also and onto:
        raise UsageError("--with carries whole files, which --onto another commit would put back in time")


def _write(root: Path, name: str, start: str, files: dict[str, bytes], gone: list[str], message: str) -> str:
    """One commit with `files` on `start`, and the branch on it; index and working tree are not asked."""
    who = git.git(root, *git.identity(root), "var", "GIT_COMMITTER_IDENT").encode()
    said = message.encode()
    stream = [b"commit refs/heads/%s\ncommitter %s\ndata %d\n%s\n" % (name.encode(), who, len(said), said)]
    stream.append(b"from %s\n" % start.encode())
    modes = _modes(root)
    for path in sorted(files):
        if "\n" in path or path.startswith('"'):
            raise UsageError(f"{path!r} is no name for a file that goes upstream", where=str(root))
        mode = modes.get(path, "100644").encode()
        stream.append(b"M %s inline %s\ndata %d\n" % (mode, path.encode(), len(files[path])) + files[path] + b"\n")
    stream += [b"D %s\n" % path.encode() for path in gone]
    git.git(root, "fast-import", "--quiet", "--force", "--done", stdin=b"".join([*stream, b"done\n"]))
    return git.git(root, "rev-parse", f"refs/heads/{name}")
