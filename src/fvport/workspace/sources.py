# SPDX-License-Identifier: Apache-2.0
"""Where a workspace comes from: the installed wheel (in place), a worktree beside a checkout, or a clone.

Each step looks at what is there and does what is missing, so a run after an interruption goes on where the last one
stopped. What a run has begun is written to `.fvport/workspace.json` at the port's root before it begins.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fvport import spec
from fvport.errors import BlockedError, FvportError, UsageError
from fvport.spec import Port
from fvport.workspace import git, tree

REGISTRY = "fastvideo/registry.py"


@dataclass
class Place:
    """A workspace that is or will be: `ready` when complete, `started` when an earlier run began it."""

    root: Path
    source: str
    branch: str
    base: str = ""  # the commit it starts from, or the wheel's version
    ready: bool = False
    started: bool = False
    origin: str = ""  # checkout or address
    notes: list[str] = field(default_factory=list)


def locate(port: Port, checkout: Path | None = None) -> Place:
    """The workspace that this port has, or the one to make. Nothing is written."""
    begun = _records(port).get(port.slug)
    if begun and not begun["done"] and (checkout is None or begun["source"] == "worktree"):
        names = {f.name for f in dataclasses.fields(Place)}
        place = Place(**{key: value for key, value in begun.items() if key in names} | {"root": Path(begun["root"])})
        place.started = True
        return place
    root = ready_root(port)
    if root is not None and (checkout is None or root != port.root.resolve() or _same_repository(root, checkout)):
        source = begun["source"] if begun else port.fastvideo.source
        return Place(root, source, git.branch(root), (begun or {}).get("base", ""), ready=True)
    source = "worktree" if checkout else port.fastvideo.source
    stamp = _stamp()
    branch = f"{port.fastvideo.branch_prefix}/{port.slug}-{stamp}"
    if source == "wheel":
        return _wheel_place(port, branch)
    if source == "worktree":
        return _worktree_place(port, checkout, branch, stamp)
    return _clone_place(port, branch, stamp)


def _same_repository(root: Path, checkout: Path) -> bool:
    """Is `root` a worktree of `checkout` already?"""
    answers = [
        git.run(folder, "rev-parse", "--path-format=absolute", "--git-common-dir") for folder in (root, checkout)
    ]
    return all(a.returncode == 0 for a in answers) and answers[0].stdout == answers[1].stdout


def ready_root(port: Port) -> Path | None:
    """The complete FastVideo tree that holds this port, or None."""
    begun = _records(port).get(port.slug)
    if begun and not begun["done"]:
        return None
    roots = [Path(begun["root"])] if begun else []
    mine = port.file.relative_to(port.root).as_posix()
    for root in (*roots, port.root.resolve()):
        if git.top_level(root) == root.resolve() and git.has(root, "HEAD", REGISTRY) and git.has(root, "HEAD", mine):
            return root.resolve()
    return None


def port_at(port: Port, root: Path) -> Port:
    """The same port as it lies in the workspace."""
    if root == port.root.resolve():
        return port
    return spec.parse(root / port.file.relative_to(port.root))


def build(port: Port, place: Place) -> list[str]:
    """Make (or finish) the tree and commit the pure template on it; gives the commits as `id subject`."""
    if place.source == "wheel":
        return _build_wheel(port, place)
    files = {path: port.root / path for path in tree.port_files(port)}
    if place.source == "worktree":
        _check_against(Path(place.origin), place.base, files)
        _begin(port, place)
        _add_worktree(Path(place.origin), place)
    else:
        _clone(port, place, files)
    tree.refuse(tree.collisions(files, place.root), "the port", place.root)
    git.exclude(place.root, tree.excluded(port))
    tree.copy(files, place.root)
    return _commit(place.root, list(files), f"Template of {port.port.model}", "template")


def finish(port: Port, place: Place) -> None:
    _begin(port, place, done=True)
    shutil.rmtree(port.root / ".fvport" / "tmp", ignore_errors=True)


# --- wheel ------------------------------------------------------------------------------------------------------------


def _wheel_place(port: Port, branch: str) -> Place:
    root = port.root.resolve()
    place = Place(root, "wheel", branch, f"fastvideo {port.fastvideo.version} (wheel)")
    if not (root / ".git").exists():
        return place
    if git.has(root, "HEAD", REGISTRY):  # a FastVideo tree already, where a port was put down: a second one, most often
        place.branch, place.base = git.branch(root), git.git(root, "rev-parse", "HEAD")
        return place
    raise UsageError(
        "is a git repository of its own without FastVideo in it, and its history is not touched",
        where=str(root),
        todo='Move its .git away, or set fastvideo.source = "worktree" with a FastVideo checkout',
    )


def _build_wheel(port: Port, place: Place) -> list[str]:
    root, mine = place.root, port.file.relative_to(port.root).as_posix()
    born = (root / ".git").exists()
    if born and git.has(root, "HEAD", REGISTRY) and (git.has(root, "HEAD", mine) or not place.started):
        _begin(port, place)
        git.exclude(root, tree.excluded(port))  # a clone of the tree has no such lines: weights stay out all the same
        new = [path for path in git.untracked(root) if _belongs(path, port)]
        return _commit(root, new, f"Template of {port.port.model}", "template") if new else []
    fastvideo = tree.wheel_files(port.fastvideo.version)
    tree.refuse(tree.collisions(fastvideo, root), "FastVideo", root)
    template = tree.port_files(port, but=fastvideo)
    _begin(port, place)
    if not born:
        git.git(root, "init", "-q", "--template=")
        git.git(root, "symbolic-ref", "HEAD", f"refs/heads/{place.branch}")
    git.exclude(root, tree.excluded(port))
    tree.copy(fastvideo, root)
    commits = []
    if not git.has(root, "HEAD", REGISTRY):
        commits += _commit(root, list(fastvideo), f"FastVideo {port.fastvideo.version}, from the wheel", "FastVideo")
    return commits + _commit(root, template, f"Template of {port.port.model}", "template")


def _belongs(path: str, port: Port) -> bool:
    """Is an untracked file of a shared tree this port's? The longest port slug in its path owns it."""
    slugs = {file.parent.name for file in port.root.glob("tests/local_tests/*/port.toml")} | {port.slug}
    owners = [slug for slug in slugs if any(slug in part for part in Path(path).parts)]
    return max(owners, key=len, default="") == port.slug


# --- worktree ---------------------------------------------------------------------------------------------------------


def _worktree_place(port: Port, checkout: Path | None, branch: str, stamp: str) -> Place:
    named = checkout or (Path(port.fastvideo.repo) if port.fastvideo.repo else None)
    if named is None:
        todo = "Name it: fvport workspace --at DIR, or fastvideo.repo in port.toml"
        raise UsageError("a worktree needs a FastVideo checkout", where=str(port.file), todo=todo)
    folder = named if named.is_absolute() or checkout else port.root / named
    top = git.top_level(folder.expanduser())
    if top is None:
        raise BlockedError(
            "is no git checkout", where=str(folder), todo="Clone FastVideo there, or name another folder"
        )
    ref = port.fastvideo.ref or "HEAD"
    done = git.run(top, "rev-parse", "-q", "--verify", f"{ref}^{{commit}}")
    if done.returncode:
        raise BlockedError(f'has no commit "{ref}"', where=str(top), todo="Fetch it there, or change fastvideo.ref")
    base = done.stdout.decode().strip()
    _must_be_fastvideo(top, base)
    place = Place(_free(top.parent, port.slug, stamp), "worktree", branch, base, origin=str(top))
    if git.git(top, "status", "--porcelain"):
        place.notes.append(f"{top} has uncommitted changes: they stay there and are not in the workspace")
    return place


def _add_worktree(checkout: Path, place: Place) -> None:
    """`git worktree add`, or what an interrupted one left undone. Files that exist are never written over."""
    if not place.root.exists():
        known = git.run(checkout, "rev-parse", "-q", "--verify", f"refs/heads/{place.branch}").returncode == 0
        what = ("-f", str(place.root), place.branch) if known else ("-b", place.branch, str(place.root), place.base)
        git.git(checkout, "worktree", "add", "-q", *what)
    elif git.top_level(place.root) != place.root.resolve():
        raise BlockedError(
            "is what an interrupted run left, and is no worktree",
            where=str(place.root),
            todo="Move it away and run again",
        )
    elif place.started:
        if not git.git(place.root, "ls-files", "-z"):
            git.git(place.root, "read-tree", "HEAD")
        gone = git.git(place.root, "ls-files", "--deleted", "-z")
        git.git(place.root, "checkout-index", "-q", "-z", "--stdin", stdin=gone.encode(errors="surrogateescape"))


def _check_against(repo: Path, base: str, files: dict[str, Path]) -> None:
    """Refuse when a file of the port is in `base` with other bytes, or a file and a folder would need one name."""
    there = git.tree_files(repo, base)
    folders = {up.as_posix() for path in there for up in Path(path).parents}
    both = [path for path in files if path in there]
    ids = git.blob_ids(repo, [files[path] for path in both])
    found = [path for path, blob in zip(both, ids, strict=True) if there[path] != blob]
    found += [path for path in files if path in folders or any(up.as_posix() in there for up in Path(path).parents)]
    tree.refuse(sorted(set(found)), "the port", repo)


def _must_be_fastvideo(repo: Path, commit: str) -> None:
    if not git.has(repo, commit, REGISTRY):
        raise BlockedError(f"{commit[:12]} holds no {REGISTRY}: it is no FastVideo", where=str(repo))


# --- clone ------------------------------------------------------------------------------------------------------------


def _clone_place(port: Port, branch: str, stamp: str) -> Place:
    if not port.fastvideo.repo:
        raise UsageError("a clone needs fastvideo.repo", where=str(port.file), todo='Set repo = "https://..."')
    local = port.root / port.fastvideo.repo
    origin = str(local.resolve()) if local.is_dir() else port.fastvideo.repo
    return Place(
        _free(port.root.resolve().parent, port.slug, stamp), "clone", branch, port.fastvideo.ref, origin=origin
    )


def _clone(port: Port, place: Place, files: dict[str, Path]) -> None:
    """Clone into scratch, look there for collisions, then move it into place: the folder exists only when whole."""
    _begin(port, place)
    if place.root.exists():
        return
    scratch = port.root / ".fvport" / "tmp" / "clone"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.parent.mkdir(parents=True, exist_ok=True)
    try:
        git.git(scratch.parent, "clone", "-q", "--no-checkout", place.origin, str(scratch))
        wanted = (place.base or "HEAD", f"origin/{place.base}")
        tried = [git.run(scratch, "rev-parse", "-q", "--verify", f"{ref}^{{commit}}") for ref in wanted]
        commit = next((done.stdout.decode().strip() for done in tried if done.returncode == 0), "")
        if not commit:
            raise BlockedError(f'has no commit "{place.base}"', where=place.origin, todo="Change fastvideo.ref")
        _must_be_fastvideo(scratch, commit)
        _check_against(scratch, commit, files)
        git.git(scratch, "checkout", "-q", "--no-track", "-b", place.branch, commit)
    except FvportError as error:
        shutil.rmtree(scratch, ignore_errors=True)
        _forget(port)
        if isinstance(error, BlockedError | UsageError):
            raise
        raise BlockedError(error.what, where=place.origin, todo="Is fastvideo.repo right and reachable?") from None
    place.base = commit
    _begin(port, place)
    os.replace(scratch, place.root)


# --- shared -----------------------------------------------------------------------------------------------------------


def _commit(root: Path, paths: list[str], message: str, word: str) -> list[str]:
    made = git.commit(root, paths, message)
    return [f"{made[:12]} {word}"] if made else []


def _stamp() -> str:
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d-%H%M%S")


def _free(parent: Path, slug: str, stamp: str) -> Path:
    """`FastVideo-<slug>-<stamp>` in `parent`; a name that is taken is never used."""
    folder = parent / f"FastVideo-{slug}-{stamp}"
    if folder.exists():
        raise UsageError("exists already", where=str(folder), todo="Run again in a second")
    return folder


def _record_file(port: Port) -> Path:
    return port.root / ".fvport" / "workspace.json"


def _records(port: Port) -> dict[str, dict[str, Any]]:
    """slug -> what was begun. A record whose tree is gone does not count."""
    path = _record_file(port)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise UsageError("is not JSON", where=str(path), todo="Delete it and run: fvport workspace") from None
    return {slug: item for slug, item in found.items() if not item["done"] or Path(item["root"]).is_dir()}


def _begin(port: Port, place: Place, done: bool = False) -> None:
    item = {key: str(value) for key, value in dataclasses.asdict(place).items() if isinstance(value, str | Path)}
    _save(port, _records(port) | {port.slug: {**item, "done": done}})


def _forget(port: Port) -> None:
    _save(port, {slug: item for slug, item in _records(port).items() if slug != port.slug})


def _save(port: Port, records: dict[str, Any]) -> None:
    path = _record_file(port)
    path.parent.mkdir(parents=True, exist_ok=True)
    spare = path.with_suffix(f".{os.getpid()}.part")
    spare.write_text(json.dumps(records, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(spare, path)
