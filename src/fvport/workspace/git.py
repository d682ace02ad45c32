# SPDX-License-Identifier: Apache-2.0
"""git as plain calls: no hooks, no signing, no prompts, no line-ending magic, an identity where none is configured."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from fvport.errors import BlockedError, FvportError

OURS = ("-c", "commit.gpgsign=false", "-c", f"core.hooksPath={os.devnull}", "-c", "core.autocrlf=false")
QUIET = (
    "-c",
    "advice.detachedHead=false",
    "-c",
    "gc.auto=0",
    "-c",
    "core.safecrlf=false",
    "-c",
    "core.fsmonitor=false",
)
# Variables that a calling git (a hook, `git rebase --exec`) sets and that would point us at another repository.
FOREIGN: tuple[str, ...] = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_PREFIX",
    "GIT_OBJECT_DIRECTORY",
    "GIT_COMMON_DIR",
)
# Others that change what history or a blob is taken for.
FOREIGN += ("GIT_GRAFT_FILE", "GIT_SHALLOW_FILE", "GIT_REPLACE_REF_BASE", "GIT_ATTR_SOURCE")


def run(root: Path, *args: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """One git command in `root`; the caller looks at the return code."""
    env = {key: value for key, value in os.environ.items() if key not in FOREIGN}
    env |= {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", "GIT_LFS_SKIP_SMUDGE": "1", "GIT_OPTIONAL_LOCKS": "0"}
    env["GIT_NO_REPLACE_OBJECTS"] = "1"  # a commit is what it says: `git replace` could show another one
    command = ["git", *OURS, *QUIET, "-C", str(root), *args]
    try:
        return subprocess.run(command, input=stdin, capture_output=True, env=env, check=False)
    except FileNotFoundError:
        raise BlockedError("git is not installed", todo="Install git and run again") from None


def git(root: Path, *args: str, stdin: bytes | None = None) -> str:
    """Standard output of a git command that must succeed. Raises FvportError with git's own last words."""
    done = run(root, *args, stdin=stdin)
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise FvportError(f"git {args[0]} failed: {words[-1]}", where=str(root))
    return done.stdout.decode(errors="surrogateescape").rstrip("\n")


def top_level(folder: Path) -> Path | None:
    """The work tree that `folder` is in, or None."""
    if not folder.is_dir():
        return None
    done = run(folder, "rev-parse", "--show-toplevel")
    if b"dubious ownership" in done.stderr:
        todo = f"If you trust it: git config --global --add safe.directory {folder}"
        raise BlockedError("belongs to another user, so git refuses to look into it", where=str(folder), todo=todo)
    return (
        Path(os.fsdecode(done.stdout.rstrip(b"\n"))).resolve() if done.returncode == 0 and done.stdout.strip() else None
    )


def has(root: Path, revision: str, path: str) -> bool:
    """Does `revision` hold `path`? False for an unborn branch, too."""
    return run(root, "cat-file", "-e", f"{revision}:{path}").returncode == 0


def branch(root: Path) -> str:
    """The current branch, also an unborn one; '' when detached."""
    return (
        git(root, "symbolic-ref", "--short", "HEAD") if run(root, "symbolic-ref", "-q", "HEAD").returncode == 0 else ""
    )


def identity(root: Path) -> tuple[str, ...]:
    """Options that give a name to the commits where the user has configured none."""
    named = all(run(root, "config", key).stdout.strip() for key in ("user.name", "user.email"))
    given = all(os.environ.get(f"GIT_{who}_{what}") for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL"))
    return () if named or given else ("-c", "user.name=fvport", "-c", "user.email=fvport@localhost")


def commit(root: Path, paths: Iterable[str], message: str) -> str:
    """Commit exactly these paths (ignored ones too); '' when they hold nothing new, else the commit."""
    listed = "\0".join(sorted(paths)).encode(errors="surrogateescape")
    if not listed:
        return ""
    git(root, "add", "-f", "--pathspec-from-file=-", "--pathspec-file-nul", stdin=listed)
    if run(root, "rev-parse", "-q", "--verify", "HEAD").returncode == 0:
        staged = git(root, "diff", "--cached", "--name-only", "-z").split("\0")
        if not set(staged) & set(listed.decode(errors="surrogateescape").split("\0")):
            return ""
    only = ("commit", "-q", "--no-verify", "-m", message, "--pathspec-from-file=-", "--pathspec-file-nul")
    done = run(root, *identity(root), *only, stdin=listed)
    if done.returncode:
        words = (done.stdout + done.stderr).decode(errors="replace").strip().splitlines()
        raise FvportError(f"git commit failed: {words[-1] if words else 'no message'}", where=str(root))
    return git(root, "rev-parse", "HEAD")


def tree_files(root: Path, revision: str) -> dict[str, str]:
    """path -> blob id of everything in a revision."""
    found = {}
    for entry in git(root, "ls-tree", "-r", "-z", revision).split("\0"):
        if entry:
            head, _, path = entry.partition("\t")
            found[path] = head.split()[2]
    return found


def blob_ids(root: Path, files: list[Path]) -> list[str]:
    """Blob ids that these files would have, bytes as they are."""
    return [git(root, "hash-object", "--no-filters", "--stdin", stdin=file.read_bytes()) for file in files]


def untracked(root: Path) -> list[str]:
    listed = git(root, "ls-files", "--others", "--exclude-standard", "-z")
    return [path for path in listed.split("\0") if path]


def exclude(root: Path, lines: Iterable[str]) -> None:
    """Add lines to the repository's own exclude file, once each. Committed .gitignore files are never touched."""
    path = Path(git(root, "rev-parse", "--git-path", "info/exclude"))
    path = path if path.is_absolute() else root / path
    old = path.read_text(encoding="utf-8") if path.is_file() else ""
    new = [line for line in lines if line not in old.splitlines()]
    if new:
        path.parent.mkdir(parents=True, exist_ok=True)
        gap = "" if not old or old.endswith("\n") else "\n"
        path.write_text(old + gap + "\n".join(new) + "\n", encoding="utf-8")
