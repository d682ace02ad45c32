# SPDX-License-Identifier: Apache-2.0
"""For the tests of `prep`: a server that speaks as much of the hub's API as is needed, and official repositories."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

SHA = "a" * 40
REPO = "org/name"


@dataclass
class Hub:
    """What the server has and how it misbehaves. `log`: (method, path, Range, Authorization) of each request."""

    files: dict[str, bytes]
    revisions: dict[str, str] = field(default_factory=lambda: {"main": SHA, SHA: SHA})
    refuse: tuple[int, str] | None = None  # status and X-Error-Code of every answer
    cuts: dict[str, int] = field(default_factory=dict)  # path: how many more times its body ends halfway
    ranges: bool = True  # a server that ignores Range sends the whole file
    elsewhere: str = ""  # address that large files are redirected to
    log: list[tuple[str, str, str, str]] = field(default_factory=list)
    address: str = ""

    def gets(self, name: str) -> list[str]:
        """The Range headers of the requests for one file's bytes."""
        return [span for method, path, span, _ in self.log if method == "GET" and path.endswith("/" + name)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        address = urlsplit(self.path)
        path, hub = unquote(address.path), self.hub
        auth = self.headers.get("Authorization", "")
        hub.log.append((self.command, path, self.headers.get("Range", ""), auth))
        if hub.refuse:
            # An error that repeats what it was sent, as some servers do.
            words = json.dumps({"error": f"refused {auth}"}).encode()
            return self.reply(hub.refuse[0], words if body else b"", {"X-Error-Code": hub.refuse[1]})
        api = f"/api/models/{REPO}/"
        if path.startswith(api + "revision/"):
            sha = hub.revisions.get(path.removeprefix(api + "revision/"))
            if sha is None:
                return self.reply(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return self.json({"id": REPO, "sha": sha, "siblings": [{"rfilename": name} for name in hub.files]})
        if path.startswith(api + "tree/"):
            assert parse_qs(address.query).get("recursive", [""])[0].lower() in ("true", "1")
            rows = [{"type": "file", "path": n, "size": len(d), "oid": oid(d)} for n, d in hub.files.items()]
            return self.json(rows)
        name = path.partition("/resolve/")[2].partition("/")[2] or path.removeprefix("/elsewhere/")
        return self.file(name, body) if name in hub.files else self.reply(404, b"", {"X-Error-Code": "EntryNotFound"})

    def json(self, value: Any) -> None:
        self.reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def file(self, name: str, body: bool) -> None:
        data, hub = self.hub.files[name], self.hub
        head = {"ETag": f'"{oid(data)}"', "X-Repo-Commit": SHA, "Accept-Ranges": "bytes"}
        if not body and hub.elsewhere:
            head |= {"Location": f"{hub.elsewhere}/elsewhere/{name}", "X-Linked-Size": str(len(data))}
            return self.reply(302, b"", head | {"X-Linked-Etag": f'"{oid(data)}"'})
        begin = 0
        if (span := self.headers.get("Range", "")) and hub.ranges:
            begin = int(span.removeprefix("bytes=").rstrip("-"))
            head["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        part = data[begin:]
        self.send_response(206 if begin else 200)
        for key, value in (head | {"Content-Length": str(len(part))}).items():
            self.send_header(key, value)
        self.end_headers()
        if body and hub.cuts.get(name, 0) > 0:
            hub.cuts[name] -= 1
            self.wfile.write(part[: len(part) // 2])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
        elif body:
            self.wfile.write(part)

    def reply(self, status: int, body: bytes, head: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in (head | {"Content-Length": str(len(body))}).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)


def oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


class serve:
    """`with serve(files) as hub:` a hub on this machine; `hub.address` is its endpoint."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.hub = Hub(files)

    def __enter__(self) -> Hub:
        handler = type("Handler", (_Handler,), {"hub": self.hub})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that went away is no news
        self.hub.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self.hub

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def git(place: Path, *words: str) -> str:
    """git without anybody's configuration; the same files make the same commit."""
    who = {f"GIT_{a}_{b}": v for a in ("AUTHOR", "COMMITTER") for b, v in (("NAME", "t"), ("EMAIL", "t@localhost"))}
    when = {"GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z"}
    env = os.environ | who | when | {"GIT_CONFIG_GLOBAL": os.devnull}
    done = subprocess.run(["git", "-C", str(place), *words], env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def repository(place: Path, files: dict[str, str], message: str = "one") -> str:
    """Make a repository (or add a commit to it); gives the commit."""
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text, encoding="utf-8")
    if not (place / ".git").is_dir():
        git(place, "init", "-q", "-b", "main")
    git(place, "add", "-A")
    git(place, "commit", "-q", "-m", message)
    return git(place, "rev-parse", "HEAD")
