# SPDX-License-Identifier: Apache-2.0
"""What goes wrong in a first hour, provoked from the command line: exit code, one sentence, what to do, no traceback.

Elsewhere: refusals of a hub that repeats a token (test_prep_tokens), a disk that fills up in a conversion
(test_convert_tree), SIGTERM with its children (test_trouble), a release's own code (test_packet).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from prep_support import REPO, files_of, serve
from weights_support import PORT, make_port, release, save_json, save_raw

from fvport import cli, trouble
from fvport.models import device_room
from fvport.weights import fetch, lockfile, prep

TOKEN = "hf_PLANTEDplantedPLANTEDplanted"
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN", "HF_API_KEY")
NOBODY = 65534


class Ended(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def fvport(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """The command line in this process. Whatever happens: no traceback, and the error is one line that begins so."""

    def run(*words: object) -> Ended:
        monkeypatch.delenv("FVPORT_DEBUG", raising=False)
        monkeypatch.setattr(sys, "argv", ["fvport", *map(str, words)])
        monkeypatch.setattr(trouble, "_listen", lambda caught: None)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        errors = [line for line in said.err.splitlines() if line.startswith("fvport: ")]
        assert len(errors) <= 1
        return Ended(int(ended.value.code or 0), said.out, errors[0] if errors else "")

    return run


# --- the hub ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A hub that huggingface_hub takes for the real one, and no token anywhere."""
    import huggingface_hub.file_download
    from huggingface_hub import constants

    for name in TOKENS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.file_download.time, "sleep", lambda _: None)
    with serve(files_of(release(tmp_path / "hub"))) as found:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, found.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", found.address)
        yield found


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """A port whose release is on the hub and not here."""
    made = make_port(tmp_path / "port", PORT.replace('weights = "official_weights/demo"', f'weights = "{REPO}"'))
    shutil.rmtree(made.root / "official_weights")
    return made.root


REFUSED = {
    "wrong hub id": ((404, "RepoNotFound"), "", "org/name is not on the hub, or is private and no token is set"),
    "gated": ((403, "GatedRepo"), "", "org/name is gated, and no token is set"),
    "gated, a token without access": ((403, "GatedRepo"), TOKEN, "gated, and the token in HF_TOKEN has no access"),
    "no token": ((401, ""), "", "the hub refused org/name at main (401; no token is set)"),
    "wrong token": ((401, ""), TOKEN, "(401; the token in HF_TOKEN is not accepted)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_hub_that_refuses(hub: Any, remote: Path, fvport: Any, monkeypatch: Any, name: str) -> None:
    """Exit 3; the sentence says which of the cases it is, and the command that gets the release elsewhere."""
    hub.refuse, token, words = REFUSED[name]
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    ended = fvport("prep", "--port", remote)
    assert ended.code == 3
    assert words in ended.err
    assert f"hf download {REPO}" in ended.err
    assert TOKEN not in ended.out + ended.err


def test_no_network(hub: Any, remote: Path, fvport: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers: exit 3, what to run with a network, and with --json the same as one document."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    ended = fvport("prep", "--port", remote, "--json")
    assert ended.code == 3
    assert "could not be fetched" in ended.err
    assert "With a network run: fvport prep (or: hf download org/name" in ended.err
    assert json.loads(ended.out)["exit_code"] == 3


# --- the disk --------------------------------------------------------------------------------------------------------


def test_a_disk_without_room(hub: Any, remote: Path, fvport: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said with both figures before the first byte."""
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1000))
    ended = fvport("prep", "--port", remote)
    assert ended.code == 3
    assert "more, and the disk has 1.0 KB free. Make room" in ended.err


def test_output_to_a_full_disk(tmp_path: Path) -> None:
    """What cannot be written is no result: exit 3, not a traceback and not a verdict's code."""
    port = make_port(tmp_path / "port").root
    command = [sys.executable, "-m", "fvport.cli", "status", "--port", str(port)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr.splitlines() == [
        "fvport: No space left on device: what was being written is not whole. Make room, then run again"
    ]


@contextmanager
def as_nobody() -> Iterator[None]:
    """Permissions do not bind root: for it, the block runs as the user nobody."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_no_permission(fvport: Any) -> None:
    """A file that this user may not read, and a folder that it may not write: named, with what to do."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        port = make_port(Path(folder, "port"))
        weights = port.official_weights / "transformer/diffusion_pytorch_model.safetensors"
        held = Path(folder, "held")
        held.mkdir(mode=0o555)
        gate = ("gate", "--port", port.root, "--markdown", held / "gate.md")
        for words in (("inspect", port.official_weights), ("status", "--port", folder), (*gate[:-1], folder + "/a.md")):
            fvport(*words)  # all is imported by now: the user nobody may not read what Python is made of
        with as_nobody():
            written = fvport(*gate)
        weights.chmod(0)
        port.file.chmod(0)
        with as_nobody():
            status, inspect = fvport("status", "--port", port.root), fvport("inspect", port.official_weights)
        weights.chmod(0o644)
        port.file.chmod(0o644)
    assert "Let this user read or write it, or name another place" in written.err
    for ended, file in ((status, port.file), (inspect, weights), (written, folder)):
        assert ended.code in (2, 3)
        assert str(file) in ended.err
        assert "ermission denied" in ended.err


# --- the checkpoint --------------------------------------------------------------------------------------------------


def test_a_truncated_file(tmp_path: Path, fvport: Any) -> None:
    """A file that ends before its tensors do is blocked by name, by `inspect` and by `prep`."""
    port = make_port(tmp_path / "port")
    file = port.official_weights / "transformer/diffusion_pytorch_model.safetensors"
    os.truncate(file, file.stat().st_size - 4)
    for words in (("inspect", port.official_weights), ("prep", "--port", port.root)):
        ended = fvport(*words)
        assert ended.code == 3
        assert "transformer/diffusion_pytorch_model.safetensors" in ended.err
        assert "truncated" in ended.err


def test_a_dtype_that_nobody_knows(tmp_path: Path, fvport: Any) -> None:
    """A header with a dtype that safetensors has not: the tensor, its dtype and the file."""
    root = release(tmp_path / "demo")
    header = {"table": {"dtype": "F13", "shape": [1], "data_offsets": [0, 4]}}
    file = save_raw(root / "transformer/diffusion_pytorch_model.safetensors", json.dumps(header).encode(), bytes(4))
    ended = fvport("inspect", root)
    assert ended.code in (2, 3)
    assert str(file) in ended.err
    assert "table" in ended.err
    assert "F13" in ended.err


def test_a_class_that_no_library_has_and_code_of_its_own(tmp_path: Path, fvport: Any) -> None:
    """Blocked before anything is built: the class is named, and that a release's code is never run."""
    root = tmp_path / "odd"
    config = {"_class_name": "NobodysModel", "auto_map": {"AutoModel": "modeling_odd.NobodysModel"}}
    save_json(root / "config.json", config)
    (root / "modeling_odd.py").write_text("raise SystemExit('this code ran')\n")
    ended = fvport("tiny", root, tmp_path / "twin")
    assert ended.code == 3
    assert "NobodysModel is in neither diffusers nor transformers as installed" in ended.err
    assert "code of a release is never run" in ended.err
    assert not (tmp_path / "twin").exists()


# --- the machine and the port ----------------------------------------------------------------------------------------


def test_two_versions_of_fastvideo(tmp_path: Path, fvport: Any) -> None:
    """port.toml asks for another FastVideo than is installed: both versions, and how to get the one."""
    port = make_port(tmp_path / "port", PORT.replace("[official]", '[fastvideo]\nversion = "0.0.9"\n\n[official]'))
    ended = fvport("workspace", "--port", port.root)
    assert ended.code == 3
    assert "port.toml asks for fastvideo 0.0.9, but " in ended.err
    assert "fastvideo==0.0.9" in ended.err


def test_a_gpu_that_is_too_small(tmp_path: Path, fvport: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is loaded: what the weights need, what the GPU has, and what some blocks or a tiny twin would need."""
    port = make_port(tmp_path / "port")
    test = port.root / port.test_file(port.component("transformer"))
    test.parent.mkdir(parents=True)
    test.write_text("def test_it(parity):\n    raise SystemExit('this was run')\n")
    monkeypatch.setattr(device_room, "gpu_bytes", lambda: 500)
    prep.run(port)
    ended = fvport("check", "parity", "transformer", "--port", port.root, "--device", "cuda", "--json")
    assert ended.code == 3
    item = next(item for item in json.loads(ended.out)["items"] if item["name"] == "transformer: GPU")
    assert item["verdict"] == "blocked"
    assert "its weights need 608 B of GPU memory in float32, and the GPU has 500 B" in item["reason"]
    assert "fvport check parity transformer --blocks 0,1,-1 (about 576 B)" in item["todo"]
    assert "tiny twin made by fvport tiny (about 4.4 MB)" in item["todo"]


def test_what_blocks_need() -> None:
    """The largest stack counts, and a block that is named twice counts once."""
    shapes: dict[str, tuple[int, ...]] = {f"blocks.{n}.w": (10 + n,) for n in range(4)}
    assert device_room.need({**shapes, "small.0.w": (1,), "head": (5,)}) == device_room.Need(4 * 52, 4 * (10 + 11 + 13))
    assert device_room.need({"blocks.0.w": (3,), "blocks.1.w": (4,)}) == device_room.Need(28, 28)
    assert device_room.need({"head": (5,)}) == device_room.Need(20, 20)


def test_memory_that_runs_out_meanwhile(tmp_path: Path) -> None:
    """A run that the GPU's memory ended says nothing of the port: it is blocked, and what would fit is said."""
    port = make_port(tmp_path / "port")
    component = port.component("transformer")
    todo = device_room.out_of_memory(port, component, "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB")
    assert "its weights alone need 608 B in float32" in todo
    assert "fvport check parity transformer --blocks" in todo
    assert device_room.out_of_memory(port, component, "ValueError: shapes differ") == ""


def test_interrupted(tmp_path: Path, fvport: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle: 130 as a shell says it, and nothing half-written is there."""

    def interrupt(*_: object) -> str:
        raise KeyboardInterrupt

    port = make_port(tmp_path / "port")
    before = files_of(port.root)
    monkeypatch.setattr(lockfile, "blake3", interrupt)
    ended = fvport("prep", "--port", port.root)
    assert ended.code == 130
    assert ended.err == "fvport: interrupted; nothing half-written was kept"
    assert not (port.folder / "port.lock.json").exists()
    assert files_of(port.root).items() >= before.items()


@pytest.mark.parametrize("verb", ["status", "gate", "prep", "upgrade"])
def test_a_port_of_a_newer_schema(tmp_path: Path, fvport: Any, verb: str) -> None:
    """Every verb refuses it with both schemas, and says which fvport can read it; the file is left as it is."""
    root = tmp_path / "port"
    make_port(root)
    file = root / "tests/local_tests/demo/port.toml"
    file.write_text(text := file.read_text().replace("schema = 1", "schema = 9"))
    ended = fvport(verb, "--port", root)
    assert ended.code == 2
    assert "9" in ended.err
    assert "the fvport that the port's noxfile.py pins" in ended.err
    assert file.read_text() == text
