# SPDX-License-Identifier: Apache-2.0
"""The official code's clone: made once at the pinned commit, never written over, and refused when it is anything else.

It lies beside the port's files under the repository's name, and is never committed. A clone that is there is only
looked at: its remote, its commit, and whether its files are those of that commit.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from fvport.errors import BlockedError, FvportError, UsageError
from fvport.models import kept
from fvport.progress import beat
from fvport.redact import redact
from fvport.spec import Port
from fvport.workspace import git

FULL = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
SHORT = re.compile(r"[0-9a-f]{7,64}")
# Untracked files that decide what the code does; anything else that lies about (figures, weights) is only mentioned.
DECIDES = (".py", ".pyx", ".so", ".pyd", ".cu", ".cpp", ".json", ".yaml", ".yml", ".toml", ".pth")
LITTER = ("__pycache__/", ".egg-info/", ".pyc", ".pytest_cache/")


@dataclass(frozen=True)
class Clone:
    """A clone that is what port.toml pins. `folder` is relative to the port's root; `commit` has all its digits."""

    folder: str
    remote: str
    commit: str
    made: bool = False
    notes: tuple[str, ...] = field(default=())

    def text(self) -> str:
        word = "cloned now" if self.made else "already there, left as it is"
        lines = [f"official code: {self.folder} ({word}); remote {self.remote}; HEAD {self.commit}"]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def ensure(port: Port) -> Clone | None:
    """The clone as port.toml pins it, made where it is missing; None where the official code is an installed package.

    Raises UsageError for a pin that is none (no commit, a branch, an ambiguous start), BlockedError where the clone is
    another one, at another commit or changed, or cannot be had; nothing that exists is ever changed.
    """
    if not port.official.repo:
        return None
    _declaration(port)
    place = _place(port)
    if place.exists() or place.is_symlink():
        return check(port)
    scratch = port.state / "tmp" / f"reference-{place.name}"
    with kept.alone(scratch):
        if not place.exists():
            _make(port, place, scratch)
    found = check(port)
    return Clone(found.folder, found.remote, found.commit, True, found.notes)


def check(port: Port) -> Clone:
    """Look at the clone that is there. BlockedError says in one sentence why it is not what port.toml pins."""
    _declaration(port)
    place = _place(port)
    name = place.name
    if not place.exists():
        what = f"the official code ({redact(port.official.repo)} at {port.official.commit}) is not cloned yet"
        raise BlockedError(what, where=str(place), todo="Run: fvport prep")
    if git.top_level(place) != place.resolve():
        what = f"is there and is no clone of {redact(port.official.repo)}; it is not overwritten"
        raise BlockedError(what, where=str(place), todo="Move it away, then run: fvport prep")
    remote = git.run(place, "config", "--get", "remote.origin.url").stdout.decode(errors="replace").strip()
    head_run = git.run(place, "rev-parse", "-q", "--verify", "HEAD^{commit}")
    head = head_run.stdout.decode().strip()
    if not same_address(remote, _address(port), place):
        what = f"is a clone of {redact(remote) or 'nothing (it has no remote origin)'} at {head or 'no commit'}, "
        what += f"and port.toml says {redact(port.official.repo)}; it is left as it is"
        raise BlockedError(what, where=str(place), todo="Move it away, or correct official.repo; then: fvport prep")
    if not head:
        raise BlockedError("has no commit checked out (an interrupted clone?)", where=str(place), todo=_again(port))
    pinned = resolve(place, port.official.commit, port)
    if head != pinned:
        what = f"is at {head}, and port.toml pins {pinned} (remote {redact(remote)}); it is left as it is"
        raise BlockedError(what, where=str(place), todo=f"Run: git -C {name} checkout {pinned}; then: fvport prep")
    notes = _unchanged(place, name, pinned)
    if not FULL.fullmatch(port.official.commit.lower()):
        notes.insert(0, f'the pin "{port.official.commit}" is short; write official.commit = "{pinned}"')
    return Clone(name, redact(remote), head, False, tuple(notes))


def resolve(place: Path, pin: str, port: Port) -> str:
    """All digits of a pinned commit. Says whether it is missing or stands for several."""
    pin = pin.lower()
    listed = git.run(place, "rev-parse", f"--disambiguate={pin}").stdout.decode().split()
    commits = [name for name in listed if git.run(place, "cat-file", "-t", name).stdout.strip() == b"commit"]
    if len(commits) > 1:
        what = f'"{pin}" begins {len(commits)} commits of {redact(port.official.repo)}: {", ".join(sorted(commits))}'
        raise UsageError(what, where=f"{port.file}: official.commit", todo="Write all 40 digits of the one you mean")
    if not commits:
        todo = f"Run: git -C {place.name} fetch origin {pin} && git -C {place.name} checkout {pin}; then: fvport prep"
        raise BlockedError(f"does not have the commit {pin} that port.toml pins", where=str(place), todo=todo)
    return commits[0]


def same_address(one: str, other: str, base: Path) -> bool:
    """Do two addresses name one repository? https, ssh and git forms of one host and path are the same."""
    return bool(one) and _plain(one, base) == _plain(other, base)


def _plain(address: str, base: Path) -> str:
    address = address.strip()
    if found := re.fullmatch(r"[a-z][a-z0-9+.-]*://(?:[^/@]*@)?([^/:]+)(?::\d+)?/(.*)", address, re.IGNORECASE):
        host, path = found[1], found[2]
        if address.lower().startswith("file:"):
            return os.path.realpath("/" + path)
    elif (found := re.fullmatch(r"(?:[^@/\s]+@)?([^:/\s]+):(?!/)(.*)", address)) and not (base / address).exists():
        host, path = found[1], found[2]
    else:
        return os.path.realpath(base / address.removeprefix("file://"))
    return f"{host.lower()}/{path.strip('/').removesuffix('.git').lower()}"


def _address(port: Port) -> str:
    """What git is given: a folder beside or below the port as an absolute path, else the address as it is."""
    local = port.root / port.official.repo
    return str(local.resolve()) if local.is_dir() else port.official.repo


def _place(port: Port) -> Path:
    place = port.reference
    assert place is not None
    return place


def _declaration(port: Port) -> None:
    repo, pin, where = port.official.repo, port.official.commit, str(port.file)
    if re.search(r"://[^/@\s]*:[^/@\s]*@", repo):
        todo = "Take it out, and let git's credential helper know it"
        raise UsageError("official.repo holds a password or token", where=where, todo=todo)
    if repo.startswith("-") or not repo.isprintable():
        raise UsageError("official.repo is no address", where=where)
    if not pin:
        raise UsageError("official.commit is not set: official code is pinned", where=where, todo=_suggest(port, ""))
    if not SHORT.fullmatch(pin.lower()):
        what = f'official.commit is "{pin}", which is no commit (a branch or tag moves)'
        raise UsageError(what, where=where, todo=_suggest(port, pin))


def _suggest(port: Port, name: str) -> str:
    """The line to write, where the remote says what the name (or its HEAD) is now."""
    done = git.run(port.root, "ls-remote", _address(port), name or "HEAD", f"{name}^{{}}" if name else "HEAD")
    lines = done.stdout.decode(errors="replace").split("\n") if done.returncode == 0 else []
    found = [line.split("\t")[0] for line in lines if line]
    if not found:
        return 'Write official.commit = "<all 40 digits of the commit>"'
    return f'Now that would be: commit = "{found[-1]}"'


def _again(port: Port) -> str:
    return f"Move it away, then run: fvport prep ({port.official.repo})"


# --- making one -------------------------------------------------------------------------------------------------------


def _make(port: Port, place: Path, scratch: Path) -> None:
    """Clone into scratch and check out there; the folder appears when it is whole."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    pin, address = port.official.commit.lower(), _address(port)
    try:
        with beat(f"cloning {redact(port.official.repo)}"):
            git.git(scratch, "init", "-q", "--template=")
            git.git(scratch, "remote", "add", "origin", address)
            _fetch(scratch, pin)
            git.git(scratch, "checkout", "-q", "--detach", resolve(scratch, pin, port))
            _submodules(scratch)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.rename(scratch, place)
    except (UsageError, BlockedError) as error:
        _say(error, place)
    except FvportError as error:
        what = f"{redact(port.official.repo)} could not be cloned ({redact(error.what)})"
        command = f"git clone {redact(port.official.repo)} {place.name} && git -C {place.name} checkout {pin}"
        todo = f"With network and access, at the port's root: {command}; then: fvport prep"
        raise BlockedError(what, where=str(place), todo=todo) from None
    except OSError as error:
        raise BlockedError(f"could not be written ({error.strerror or error})", where=str(place)) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _say(error: FvportError, place: Path) -> NoReturn:
    """The same error about the place that the user knows, not about scratch."""
    if isinstance(error, UsageError):
        raise error from None
    what = "the remote " + error.what if error.what.startswith("does not have") else error.what
    raise BlockedError(what, where=str(place), todo="Is official.commit right, and reachable from a branch?") from None


def _fetch(scratch: Path, pin: str) -> None:
    """The one commit where the server gives single commits; else all branches and tags."""
    if FULL.fullmatch(pin) and git.run(scratch, "fetch", "-q", "--depth", "1", "origin", pin).returncode == 0:
        return
    git.git(scratch, "fetch", "-q", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*")


def _submodules(scratch: Path) -> None:
    if (scratch / ".gitmodules").is_file():
        git.run(scratch, "submodule", "update", "-q", "--init", "--recursive", "--depth", "1")


def _unchanged(place: Path, name: str, commit: str) -> list[str]:
    """BlockedError where files are not those of the commit; gives notes on what else lies there."""
    listed = git.git(place, "status", "--porcelain", "-z", "--untracked-files=all").split("\0")
    entries = [(line[:2], line[3:]) for line in listed if len(line) > 3]
    entries = [(how, path) for how, path in entries if not any(part in path for part in LITTER)]
    changed = [path for how, path in entries if how != "??" or path.endswith(DECIDES)]
    if changed:
        shown = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
        what = f"has files that are not those of commit {commit}: {shown}"
        todo = f"Keep them elsewhere (git -C {name} stash -u), then run: fvport prep"
        raise BlockedError(what, where=str(place), todo=todo)
    notes = [f"{len(entries)} untracked file(s) lie in the clone, such as {entries[0][1]}"] if entries else []
    missing = [line.split()[1] for line in _submodule_status(place) if line.startswith("-")]
    if missing:
        notes.append(f"submodules are not there: {', '.join(missing)} (git -C {name} submodule update --init)")
    return notes


def _submodule_status(place: Path) -> list[str]:
    if not (place / ".gitmodules").is_file():
        return []
    return git.run(place, "submodule", "status", "--recursive").stdout.decode(errors="replace").splitlines()
