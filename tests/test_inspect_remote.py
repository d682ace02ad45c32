# SPDX-License-Identifier: Apache-2.0
"""A hub id is inspected through range requests, with huggingface_hub's real client against a small server of ours."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from inspect_support import Call, Named, dumps, save_flat, save_zip
from weights_support import release, save, save_raw

from fvport.errors import BlockedError
from fvport.weights import layout, remote

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_" + "plantedsecret0"


class Hub(BaseHTTPRequestHandler):
    """The three answers of a hub that an inspection needs: the commit, the tree, ranges of files."""

    root: Path
    ranges = True
    sent = 0
    gated = False
    extra: ClassVar[list[dict]] = []

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if self.gated:
            self.reply(403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif path.startswith("/api/models/org/demo/revision/"):
            known = path.endswith(("/main", COMMIT))
            code = {} if known else {"X-Error-Code": "RevisionNotFound"}
            self.reply(
                200 if known else 404, json.dumps({"id": "org/demo", "sha": COMMIT, "siblings": []}).encode(), code
            )
        elif path.startswith(f"/api/models/org/demo/tree/{COMMIT}"):
            files = sorted(file for file in self.root.rglob("*") if file.is_file())
            entries = [self.entry(file) for file in files] + self.extra
            self.reply(200, json.dumps(entries).encode())
        elif path.startswith(f"/org/demo/resolve/{COMMIT}/"):
            self.file(self.root / path.removeprefix(f"/org/demo/resolve/{COMMIT}/"))
        else:
            self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def entry(self, file: Path) -> dict:
        name = file.relative_to(self.root).as_posix()
        return {"type": "file", "path": name, "size": file.stat().st_size, "oid": "0" * 40}

    def file(self, file: Path) -> None:
        size, match = file.stat().st_size, re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        with file.open("rb") as stream:
            if match and self.ranges:
                stream.seek(int(match[1]))
                data = stream.read(int(match[2]) - int(match[1]) + 1)
                self.reply(206, data, {"Content-Range": f"bytes {match[1]}-{match[2]}/{size}"})
            else:
                self.reply(200, stream.read())

    def reply(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(body)
            type(self).sent += len(body)
        except OSError:
            pass  # the client has read enough

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path):
    handler = type("Handler", (Hub,), {"root": tmp_path / "hub"})
    (tmp_path / "hub").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    handler.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield handler
    server.shutdown()
    server.server_close()


@pytest.fixture
def ask(hub, monkeypatch):
    """`remote.inspect` with the client's own address set to the hub's: everything else is the real way."""
    from huggingface_hub import constants

    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.address)
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setenv("HF_TOKEN", TOKEN)

    def inspect(*words: str) -> layout.Inspection:
        return remote.inspect(*words)

    return inspect


def test_a_release_on_the_hub_reads_as_it_would_here(hub, ask):
    """Everything but the source equals the local inspection, and of 8 MB of weights a few percent travel."""
    release(hub.root)
    save(hub.root / "transformer/diffusion_pytorch_model.safetensors", {"table": np.zeros((1 << 21,), np.float32)})
    found = ask("org/demo")
    assert found.source == f"org/demo@{COMMIT}"
    assert replace(found, source="") == layout.inspect(hub.root)
    assert hub.sent < 200_000


def test_a_long_header_and_a_pickle_are_read_in_parts(hub, ask):
    """A header beyond the first request, and a zip whose directory lies at its end."""
    many = {f"blocks.{n}.{'x' * 60}.weight": np.zeros((1,), np.float32) for n in range(3000)}
    save(hub.root / "dit.safetensors", many)
    shapes = {"encoder.conv.weight": (256, 256, 3, 3), "decoder.conv.weight": (4, 4, 3, 3)}
    save_flat(hub.root / "vae.pt", shapes, "state_dict")
    found = ask("org/demo")
    assert replace(found, source="") == layout.inspect(hub.root)
    assert found.components["vae"].prefix == "state_dict."
    assert hub.sent < 1_200_000


def test_a_server_without_ranges_is_read_no_further_than_needed(hub, ask):
    """The whole file is offered, and the client hangs up after the header."""
    hub.ranges = False
    save(hub.root / "model.safetensors", {"a": np.zeros((1 << 23,), np.float32)})
    assert ask("org/demo").components["model"].bytes == 1 << 25
    assert hub.sent < 20_000_000


def test_what_is_wrong_on_the_hub_is_said_by_its_id(hub, ask, tmp_path):
    """A broken header and a pickle that needs code name the release's file, not a scratch folder."""
    save_raw(hub.root / "model.safetensors", b"{", b"")
    with pytest.raises(BlockedError, match=r"^org/demo/model\.safetensors: "):
        ask("org/demo")
    (hub.root / "model.safetensors").unlink()
    save_zip(hub.root / "model.pt", dumps({"a": Call(Named("os", "system"), ("true",))}), {})
    with pytest.raises(BlockedError, match=r"^org/demo/model\.pt: .*os\.system"):
        ask("org/demo")


def test_gated_and_unknown_are_blocked(hub, ask):
    """Exit code 3 and the reason."""
    release(hub.root)
    with pytest.raises(BlockedError, match="neither a path here nor a release"):
        ask("org/other")
    with pytest.raises(BlockedError, match='no revision "v9"'):
        ask("org/demo", "v9")
    hub.gated = True
    with pytest.raises(BlockedError, match=r"gated.*HF_TOKEN") as caught:
        ask("org/demo")
    assert TOKEN not in str(caught.value)


def test_a_file_outside_of_the_release_is_refused(hub, ask):
    """A listing that names `../x` writes nothing."""
    save(hub.root / "model.safetensors", {"a": np.zeros((2,), np.float32)})
    hub.extra = [{"type": "file", "path": "../x.json", "size": 1, "oid": "0" * 40}]
    with pytest.raises(BlockedError, match="outside"):
        ask("org/demo")


@pytest.mark.parametrize("more", [{"HF_HUB_OFFLINE": "1"}, {}])
def test_offline_is_blocked_with_the_command(tmp_path, more):
    """As people run it: exit code 3, the command that gets the release, no traceback and no token."""
    away = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": ""}
    command = [sys.executable, "-m", "fvport.cli", "inspect", "org/demo"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **away, **more}, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert "hf download org/demo --revision main" in done.stderr
    assert TOKEN not in done.stderr
    assert done.stderr.count("\n") == 1
