# SPDX-License-Identifier: Apache-2.0
"""A release from the hub, through huggingface_hub: resumable to the byte, hashed as it streams, with its progress.

Files are written to a folder beside the release's place, each under a name of its own until it is whole; the folder is
renamed when all are there. What an interrupted run left is continued. The client's own snapshot download deletes a part
of a file when it is interrupted and reads no hash from the stream, so its single-file parts are used here instead:
the listing, the metadata, the authorised stream with its retries.

A token is found by huggingface_hub itself, by its variable's name; it is never read, shown or written here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from fvport import progress
from fvport.errors import BlockedError
from fvport.redact import token_advice, token_name
from fvport.weights import show

MARKER = ".cache/fvport/fetched.json"
WORKERS = 4  # files at a time
ROOM = 64 << 20  # bytes that stay free on the disk


@dataclass(frozen=True)
class Release:
    """What is asked for. `commit` pins a revision that moves: the lock's, so that another machine gets the same."""

    hub_id: str
    revision: str
    allow: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    commit: str = ""

    @property
    def command(self) -> str:
        """What a person runs elsewhere, without the folder."""
        words = ["hf", "download", self.hub_id, "--revision", self.commit or self.revision]
        words += [word for pattern in self.allow for word in ("--include", pattern)]
        words += [word for pattern in self.ignore for word in ("--exclude", pattern)]
        return shlex.join(words)


@dataclass
class Fetched:
    """What came: the commit of the hub, and blake3 by path relative to the release for each file that streamed now."""

    commit: str
    hashes: dict[str, str] = field(default_factory=dict)
    files: int = 0
    bytes: int = 0


def fetch(release: Release, folder: Path, shown: str) -> Fetched:
    """Get the release into `folder`, or what it lacks of the release. `shown`: the folder as messages call it.

    Raises BlockedError (exit 3) naming what is missing and the command that gets it; nothing that is there is lost.
    """
    with _telling(release, folder, shown):
        from huggingface_hub import HfApi

        api = HfApi(library_name="fvport")
        sha = api.repo_info(release.hub_id, revision=release.commit or release.revision).sha or ""
        _same_release(release, sha, folder)
        wanted = _wanted(api, release, sha)
        target = folder if folder.exists() else folder.with_name(f".{folder.name}.part")
        target.mkdir(parents=True, exist_ok=True)
        result = Fetched(sha, files=len(wanted), bytes=sum(size for size, _ in wanted.values()))
        _room(target, wanted, release, shown)
        with _one_line():
            _all(api, release, sha, wanted, target, result)
        _mark(target, release, sha)
        if target != folder:
            os.replace(target, folder)
        return result


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """One line for the whole release instead of the client's bar for each file; a person's own setting of it stays."""
    from huggingface_hub import constants, utils

    bars = constants.HF_HUB_DISABLE_PROGRESS_BARS is None and not utils.are_progress_bars_disabled()
    if bars:
        utils.disable_progress_bars()
    try:
        yield
    finally:
        if bars:
            utils.enable_progress_bars()


def record(folder: Path) -> dict[str, Any]:
    """What an earlier run fetched into a folder; {} where it was not fetched here."""
    try:
        found = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def commit_of(folder: Path) -> str:
    """The hub's commit that a folder was fetched at: by an earlier run, or by the hub's own command line; '' else."""
    if found := record(folder).get("commit"):
        return str(found)
    commits = set()
    for file in (folder / ".cache/huggingface/download").rglob("*.metadata"):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            commits.add(file.read_text(encoding="utf-8").partition("\n")[0].strip())
    only = commits.pop() if len(commits) == 1 else ""
    return only if re.fullmatch(r"[0-9a-f]{40}", only) else ""


def is_whole(release: Release, folder: Path) -> bool:
    """Does the folder hold what is asked for, so that no network is needed? A folder of the user's own always does."""
    found = record(folder)
    asked = (release.hub_id, release.revision, list(release.allow), list(release.ignore))
    return not found or asked == tuple(found.get(key) for key in ("hub_id", "revision", "allow", "ignore"))


def _same_release(release: Release, sha: str, folder: Path) -> None:
    found = record(folder)
    if found and (found.get("hub_id"), found.get("commit")) != (release.hub_id, sha):
        what = f"holds {found.get('hub_id')} at {found.get('commit')}, and port.toml asks for {release.hub_id} at {sha}"
        raise BlockedError(what, where=str(folder), todo="Move it away, then run: fvport prep")


def _mark(target: Path, release: Release, sha: str) -> None:
    words = {"hub_id": release.hub_id, "revision": release.revision, "commit": sha}
    words |= {"allow": list(release.allow), "ignore": list(release.ignore)}  # type: ignore[dict-item]
    (target / MARKER).parent.mkdir(parents=True, exist_ok=True)
    (target / MARKER).write_text(json.dumps(words, indent=1) + "\n", encoding="utf-8")


def _wanted(api: Any, release: Release, sha: str) -> dict[str, tuple[int, str]]:
    """{path: (bytes, blob id)} of the files to have."""
    from huggingface_hub.hf_api import RepoFile
    from huggingface_hub.utils import filter_repo_objects

    listed = api.list_repo_tree(release.hub_id, recursive=True, revision=sha)
    files = {entry.path: (entry.size, entry.blob_id) for entry in listed if isinstance(entry, RepoFile)}
    chosen = filter_repo_objects(files, allow_patterns=release.allow or None, ignore_patterns=release.ignore or None)
    wanted = {path: files[path] for path in chosen}
    if not wanted:
        what = f"{release.hub_id} at {sha} has {len(files)} files, and official.allow and official.ignore leave none"
        raise BlockedError(what, todo="Correct the patterns in port.toml")
    for path in wanted:
        parts = PurePosixPath(path)
        if parts.is_absolute() or ".." in parts.parts or "\\" in path or parts.parts[0] == ".cache":
            raise BlockedError(f"{release.hub_id} names a file {path!r}, which would lie outside its folder")
    return wanted


def _room(target: Path, wanted: dict[str, tuple[int, str]], release: Release, shown: str) -> None:
    need = sum(size for size, _ in wanted.values()) - _there(target, wanted)
    free = shutil.disk_usage(target).free
    if need + ROOM > free:
        what = f"{release.hub_id} needs {show.size(need)} more, and the disk has {show.size(free)} free"
        raise BlockedError(what, where=shown, todo="Make room or link another disk's folder; then: fvport prep")


def _there(target: Path, wanted: dict[str, tuple[int, str]]) -> int:
    """Bytes of what is wanted that are there already, whole files and what an earlier run left of others."""
    whole = sum((target / path).stat().st_size for path in wanted if (target / path).is_file())
    return whole + sum(f.stat().st_size for f in (target / MARKER).parent.glob("*.incomplete"))


def _all(api: Any, release: Release, sha: str, wanted: dict[str, tuple[int, str]], target: Path, done: Fetched) -> None:
    """Every file that is not there yet, a few at a time; the first failure stops the rest at their next chunk."""
    stop = threading.Event()
    total = sum(size for size, _ in wanted.values())
    moved = progress.Moved("fetch", total, done=_there(target, wanted))

    def one(path: str) -> None:
        size, blob = wanted[path]
        if not ((target / path).is_file() and (target / path).stat().st_size == size):
            value = _one(api, release, sha, path, blob, target, stop, moved)
            done.hashes |= {path: value} if value else {}

    pool = ThreadPoolExecutor(WORKERS)
    running: list[Future[None]] = []
    try:
        running = [pool.submit(one, path) for path in sorted(wanted, key=lambda path: -wanted[path][0])]
        wait(running, return_when=FIRST_EXCEPTION)
    finally:
        stop.set() if any(not future.done() or future.exception() for future in running) else None
        pool.shutdown(wait=True, cancel_futures=True)
        progress.clear()
    errors = [error for future in running if not future.cancelled() and (error := future.exception())]
    for error in sorted(errors, key=lambda error: isinstance(error, _Stopped)):
        raise error


class _Stopped(Exception):
    """Another file failed; what this one has stays for the next run."""


def _one(
    api: Any,
    release: Release,
    sha: str,
    path: str,
    blob: str,
    target: Path,
    stop: threading.Event,
    moved: progress.Moved,
) -> str:
    """Download one file, from where an earlier run stopped; gives its blake3."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    url = hf_hub_url(release.hub_id, path, revision=sha, endpoint=api.endpoint)
    headers = build_hf_headers(library_name="fvport")
    found = get_hf_file_metadata(url, headers=headers, endpoint=api.endpoint)
    if (found.size or 0) > constants.MAX_HTTP_DOWNLOAD_SIZE:  # not to be had as one plain stream: the client's own way
        hf_hub_download(release.hub_id, path, revision=sha, local_dir=target, library_name="fvport")
        moved.add(found.size or 0)
        return ""
    key = hashlib.sha256(f"{path}\0{blob}\0{found.etag}".encode()).hexdigest()[:24]
    part = (target / MARKER).parent / f"{key}.incomplete"
    part.parent.mkdir(parents=True, exist_ok=True)
    if not _one_host(url, found.location):
        headers.pop("authorization", None)  # a signed address of another host: the token is not for it
    with part.open("ab") as stream:
        tee = Tee(stream, part, stop, moved)
        http_get(
            found.location,
            tee,
            resume_size=tee.tell(),
            headers=headers,
            expected_size=found.size,
            displayed_filename=path,
        )
    size = part.stat().st_size
    if found.size is not None and size != found.size:
        part.unlink()
        raise BlockedError(f"{path} came with {size} bytes, the hub says {found.size}", todo="Run again: fvport prep")
    (target / path).parent.mkdir(parents=True, exist_ok=True)
    os.replace(part, target / path)
    return tee.digest()


def _one_host(url: str, location: str) -> bool:
    from urllib.parse import urlsplit

    return urlsplit(url).netloc == urlsplit(location).netloc


class Tee:
    """A file that is hashed while it is written. What an earlier run left of it is hashed first."""

    def __init__(
        self,
        stream: BinaryIO,
        path: Path,
        stop: threading.Event | None = None,
        moved: progress.Moved | None = None,
    ) -> None:
        import blake3

        self.stream, self.stop, self.moved = stream, stop, moved
        self.state: Any = blake3.blake3()
        with path.open("rb") as old:
            while piece := old.read(1 << 22):
                self.state.update(piece)
        stream.seek(0, os.SEEK_END)

    def write(self, piece: bytes) -> int:
        if self.stop is not None and self.stop.is_set():
            raise _Stopped
        self.state.update(piece)
        if self.moved is not None:
            self.moved.add(len(piece))
        return self.stream.write(piece)

    def tell(self) -> int:
        return self.stream.tell()

    def seek(self, position: int, whence: int = 0) -> int:
        return self.stream.seek(position, whence)

    def truncate(self, size: int | None = None) -> int:
        """A server that cannot resume sends the file from its beginning: so does the hash begin again."""
        import blake3

        at = self.stream.tell() if size is None else size
        if at:
            raise OSError(f"a download was cut at byte {at}, which its hash cannot follow")
        self.state = blake3.blake3()
        return self.stream.truncate(at)

    def digest(self) -> str:
        return f"blake3:{self.state.hexdigest()}"


# --- what goes wrong -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _telling(release: Release, folder: Path, shown: str) -> Iterator[None]:
    """Whatever huggingface_hub raises becomes one BlockedError that names the release, the cause and the command."""
    command = f"{release.command} --local-dir {shlex.quote(shown)}"
    try:
        import huggingface_hub  # noqa: F401
    except ImportError:
        raise BlockedError(
            "huggingface_hub is not installed", todo=f"Install it, or run elsewhere: {command}"
        ) from None
    try:
        yield
    except BlockedError:
        raise
    except Exception as error:  # noqa: BLE001 - its errors come from several libraries; the words may hold a token
        what, todo = _words(error, release, command)
        raise BlockedError(what, where=shown, todo=todo) from None


def _token() -> str:
    """Where the hub's client has its token from, by name; '' where it has none."""
    from huggingface_hub import get_token

    return token_name() or ("the stored login" if get_token() else "")


def _words(error: Exception, release: Release, command: str) -> tuple[str, str]:
    from huggingface_hub import errors

    name, known = release.hub_id, _token()
    at = f"{name} at {release.commit or release.revision}"
    kept = "what is already fetched is kept"
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if isinstance(error, errors.GatedRepoError):
        what = f"{name} is gated, and " + (f"the token in {known} has no access" if known else "no token is set")
        return what, f"Ask for access on its page, {token_advice()}, then run: fvport prep (or: {command})"
    if isinstance(error, errors.RevisionNotFoundError):
        todo = "Correct official.revision in port.toml (where port.lock.json has the commit: delete its source)"
        return f'{name} has no revision "{release.commit or release.revision}"', todo
    if isinstance(error, errors.RepositoryNotFoundError):
        seen = f"{known} may not see it" if known else "is private and no token is set"
        return (
            f"{name} is not on the hub, or {seen}",
            f"Correct official.weights, or {token_advice()}; then run: fvport prep (or: {command})",
        )
    if isinstance(error, errors.HFValidationError):
        return f'"{name}" is no hub id', "Correct official.weights in port.toml"
    if status in (401, 403):
        why = f"the token in {known} is not accepted" if known else "no token is set"
        what = f"the hub refused {at} ({status}; {why})"
        return what, f"Please {token_advice()}, then run: fvport prep (or: {command})"
    if isinstance(error, errors.EntryNotFoundError):
        return f"a file of {at} is listed by the hub and not there (404)", f"Run again: fvport prep (or: {command})"
    offline = isinstance(error, errors.OfflineModeIsEnabled)
    if offline:
        return (
            f"{at} cannot be fetched: HF_HUB_OFFLINE is set",
            f"Unset it and run: fvport prep (or elsewhere: {command})",
        )
    if isinstance(error, OSError) and error.errno == 28:
        return f"the disk filled up while {at} was fetched; {kept}", "Make room, then run: fvport prep"
    reason = f"{type(error).__name__}{f' {status}' if status else ''}"
    return f"{at} could not be fetched ({reason}); {kept}", f"With a network run: fvport prep (or: {command})"
