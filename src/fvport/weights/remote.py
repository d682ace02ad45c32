# SPDX-License-Identifier: Apache-2.0
"""A release on the hub, inspected by range requests on headers, through huggingface_hub's own client.

What is read is put into a skeleton of the release in a scratch folder: configs and indexes whole, of weight files the
header alone at its place in an otherwise empty sparse file of the right size. Then the inspection is the local one.
(The library's `get_safetensors_metadata` reads one `model.safetensors` or its index at the release's top, so a
pipeline's folders and pickled files need its parts: the listing, the address, the authorised session.)
"""

from __future__ import annotations

import contextlib
import re
import shlex
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from fvport.errors import BlockedError, FvportError, UsageError
from fvport.redact import token_advice, token_name
from fvport.weights import layout, pickled
from fvport.weights.layout import Inspection
from fvport.weights.manifest import MAX_HEADER
from fvport.weights.sets import MAX_FILES, PICKLES

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
TEXT = re.compile(r"(.*[/_])?config\.json|(.*/)?model_index\.json|.*\.index\.json")
FIRST = 1 << 17  # bytes: most headers fit
BLOCK = 1 << 16
MAX_TEXT = 64 << 20
WORKERS = 8
TIMEOUT = 30.0  # seconds without a byte
Fetch = Callable[[str, int, int], bytes]  # (path, first byte, bytes) -> what is there


def inspect(where: str, revision: str = "main") -> Inspection:
    """A local path, or a hub id where nothing of that name lies here. Offline or gated: BlockedError, what to run."""
    if Path(where).exists() or not HUB_ID.fullmatch(where):
        if revision != "main" and Path(where).exists():
            raise UsageError("a local release has no revision", where=where, todo="Leave --revision out")
        return layout.inspect(where)
    import tempfile

    from fvport.progress import beat

    with beat(f"inspect {where}"), _telling(where, revision):
        hub = _Hub(where, revision)
        sizes = hub.sizes()
        with tempfile.TemporaryDirectory(prefix="fvport-inspect-") as scratch:
            return _skeleton(Path(scratch), sizes, hub.fetch, where, hub.commit)


def _skeleton(root: Path, sizes: dict[str, int], fetch: Fetch, name: str, commit: str) -> Inspection:
    """Fill `root` with what an inspection reads, and inspect it."""
    from concurrent.futures import ThreadPoolExecutor

    for path, size in sizes.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as stream:
            stream.truncate(size)
    wanted = [path for path in sizes if TEXT.fullmatch(path) or path.endswith((".safetensors", *PICKLES))]
    with ThreadPoolExecutor(WORKERS) as pool:
        for done in [pool.submit(_fill, root / path, path, sizes[path], fetch) for path in wanted]:
            done.result()
    try:
        found = layout.inspect(root)
    except FvportError as error:  # the user knows the release by its id, not by the scratch folder
        words = [text.replace(f"{root}/", f"{name}/").replace(str(root), name) for text in (error.what, error.where)]
        raise type(error)(words[0], where=words[1], todo=error.todo) from None
    return replace(found, source=f"{name}@{commit}")


def _fill(file: Path, path: str, size: int, fetch: Fetch) -> None:
    """Bring what the local inspection of one file reads to its place in the sparse file."""
    stream = _Ranged(file, path, size, fetch)
    if TEXT.fullmatch(path):
        if size <= MAX_TEXT:
            stream.take(0, size)
    elif path.endswith(".safetensors"):
        head = stream.take(0, min(size, FIRST))[:8]
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if FIRST - 8 < length <= MAX_HEADER:
            stream.take(FIRST, min(size, 8 + length) - FIRST)
    else:
        try:
            pickled.read(file, located=False, stream=stream)
        except BlockedError:
            if stream.failed:  # the hub's, not the file's: the file's own faults are said by the inspection
                raise


@dataclass
class _Ranged:
    """A file of the hub as a stream: what is read is fetched in blocks and kept in the sparse file."""

    file: Path
    path: str
    size: int
    fetch: Fetch
    at: int = 0
    failed: bool = False
    blocks: set[int] = field(default_factory=set)

    def take(self, start: int, count: int) -> bytes:
        if count <= 0:
            return b""
        try:
            data = self.fetch(self.path, start, count)
        except BaseException:
            self.failed = True
            raise
        with self.file.open("r+b") as stream:
            stream.seek(start)
            stream.write(data[:count])
        return data[:count]

    def read(self, size: int = -1) -> bytes:
        end = self.size if size < 0 else min(self.size, self.at + size)
        first, last = self.at // BLOCK, (end + BLOCK - 1) // BLOCK
        lacking = [block for block in range(first, last) if block not in self.blocks]
        if lacking and self.at < end:
            start = lacking[0] * BLOCK
            self.take(start, min(self.size, (lacking[-1] + 1) * BLOCK) - start)
            self.blocks.update(range(lacking[0], lacking[-1] + 1))
        with self.file.open("rb") as stream:
            stream.seek(self.at)
            data = stream.read(max(0, end - self.at))
        self.at += len(data)
        return data

    def readline(self, size: int = -1) -> bytes:
        begin = self.at
        piece = self.read(min(4096, size) if size >= 0 else 4096)
        line = piece[: piece.find(b"\n") + 1] or piece
        self.at = begin + len(line)
        return line

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = max(0, offset + (0, self.at, self.size)[whence])
        return self.at

    def tell(self) -> int:
        return self.at


# --- the hub ---------------------------------------------------------------------------------------------------------


class _Hub:
    """One release at the commit that `revision` names now."""

    def __init__(self, name: str, revision: str) -> None:
        from huggingface_hub import HfApi

        self.api = HfApi(library_name="fvport")
        self.name = name
        self.commit = self.api.repo_info(name, revision=revision, timeout=TIMEOUT).sha or revision

    def sizes(self) -> dict[str, int]:
        """{path: bytes} of every file. BlockedError for paths that no release has."""
        sizes: dict[str, int] = {}
        for item in self.api.list_repo_tree(self.name, recursive=True, revision=self.commit):
            size = getattr(item, "size", None)
            path = PurePosixPath(item.path)
            if path.is_absolute() or ".." in path.parts or not path.parts:
                raise BlockedError(f"names a file {item.path[:120]!r}, which would lie outside of it", where=self.name)
            if size is None or any(part.startswith(".") for part in path.parts):
                continue  # a folder, or hidden, as the local inspection leaves it out
            sizes[item.path] = size
            if len(sizes) > MAX_FILES:
                raise BlockedError(f"has more than {MAX_FILES} files", where=self.name)
        return sizes

    def fetch(self, path: str, start: int, count: int) -> bytes:
        """A range of one file. A server that sends the whole file is read no further than the range."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_stream_backoff

        url = hf_hub_url(self.name, path, revision=self.commit, endpoint=self.api.endpoint)
        headers = build_hf_headers(library_name="fvport") | {
            "range": f"bytes={start}-{start + count - 1}",
            "accept-encoding": "identity",
        }
        with http_stream_backoff("GET", url, headers=headers, timeout=TIMEOUT, max_retries=3) as response:
            hf_raise_for_status(response)
            skip = 0 if response.status_code == 206 else start
            if skip > MAX_HEADER:
                raise BlockedError(f"cannot be read in parts: the server sends {path} as a whole", where=self.name)
            data = bytearray()
            for piece in response.iter_bytes(BLOCK):
                data += piece
                if len(data) >= skip + count:
                    break
        return bytes(data[skip : skip + count])


@contextlib.contextmanager
def _telling(name: str, revision: str) -> Iterator[None]:
    """Whatever the client raises becomes one sentence with the command that gets the release; its own words may hold a
    token.
    """
    try:
        import huggingface_hub  # noqa: F401
    except ImportError:
        raise BlockedError("huggingface_hub is not installed", where=name, todo=_command(name, revision)) from None
    try:
        yield
    except FvportError:
        raise
    except Exception as error:  # noqa: BLE001 - its errors come from several libraries
        what, todo = _words(error, name, revision)
        raise BlockedError(what, where=name, todo=todo) from None


def _command(name: str, revision: str) -> str:
    folder = f"official_weights/{name.rpartition('/')[2]}"
    command = f"hf download {name} --revision {shlex.quote(revision)} --local-dir {folder}"
    return f"With a network run: {command} (then: fvport inspect {folder})"


def _words(error: Exception, name: str, revision: str) -> tuple[str, str]:
    """(what, todo)"""
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", 0)
    if isinstance(error, errors.RevisionNotFoundError):
        return f'has no revision "{revision}"', "Give another one with --revision"
    if isinstance(error, errors.RepositoryNotFoundError) and not isinstance(error, errors.GatedRepoError):
        return "is neither a path here nor a release on the hub", f"Correct it, or {token_advice()}"
    if isinstance(error, errors.GatedRepoError) or status in (401, 403):
        known = token_name()
        what = f"is gated or private ({f'the token in {known} has no access' if known else 'no token is set'})"
        return what, f"Ask for access on its page and {token_advice()}"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "is not here, and HF_HUB_OFFLINE is set", _command(name, revision)
    if isinstance(error, OSError) and error.errno == 28:
        return "could not be inspected: the scratch folder is full", "Set TMPDIR to another one"
    reason = f"{type(error).__name__}{f' {status}' if status else ''}"
    return f"is not here, and the hub was not reached ({reason})", _command(name, revision)
