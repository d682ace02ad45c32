# SPDX-License-Identifier: Apache-2.0
"""port.lock.json: what it holds, and that checks refuse weights that differ from it, in every layout."""

from __future__ import annotations

import json

import numpy as np
import pytest
from weights_support import PORT, make_port, save, save_json, transformer

from fvport import checks, spec
from fvport import evidence as ev
from fvport.errors import BlockedError, UsageError
from fvport.weights import lockfile, prep

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def port(tmp_path):
    made = make_port(tmp_path)
    prep.run(made)
    return made


def test_the_lock_is_a_manifest(port):
    """Every file with size and hash; weights with their keys, shapes, dtypes and metadata; source and versions."""
    save(port.official_weights / WEIGHTS, transformer(), {"format": "pt", "made": "here"})
    prep.run(port)
    lock = ev.lock(port)
    file = next(f for f in lock["components"]["transformer"]["files"] if f["name"] == WEIGHTS)
    assert file["metadata"] == {"format": "pt", "made": "here"}
    assert file["tensors"]["blocks.0.attn1.to_q.weight"] == "F32 [4, 4]"
    assert len(file["tensors"]) == lock["components"]["transformer"]["tensors"]["count"] == 13
    assert lock["source"] == {"kind": "local", "folder": "official_weights/demo"}
    assert {"diffusers", "torch", "transformers", "huggingface_hub"} <= set(lock["versions"])
    assert [f["name"] for f in lock["release"]["files"]] == ["model_index.json"]


def test_no_path_of_this_machine(port, tmp_path):
    """The lock is committed: it names no folder of the machine that made it."""
    assert str(tmp_path) not in (port.folder / "port.lock.json").read_text("utf-8")


def test_the_index_of_the_release_counts(port):
    """model_index.json decides which class is which: another one blocks every check and makes records stale."""
    before = ev.digests(port, ["weights:transformer"])
    index = json.loads((port.official_weights / "model_index.json").read_text("utf-8"))
    save_json(port.official_weights / "model_index.json", index | {"_class_name": "OtherPipeline"})
    with pytest.raises(BlockedError, match=r"model_index\.json.*(differs|bytes, port\.lock\.json)"):
        checks.locked_weights(port, ["weights:transformer"])
    assert ev.digests(port, ["weights:transformer"]) != before


def test_a_file_that_changes_while_it_is_read(port, monkeypatch):
    """The stamp is taken before the bytes are read: a file that changes meanwhile is read again."""
    file, real = port.official_weights / WEIGHTS, lockfile.blake3

    def changing(path, name, moved=None):
        value = real(path, name)
        if name == WEIGHTS and not getattr(changing, "done", False):
            changing.done = True
            save(file, transformer(), {"a": "longer"})
        return value

    lockfile.Hashes(port).path.unlink()
    monkeypatch.setattr(lockfile, "blake3", changing)
    hashes = lockfile.Hashes(port)
    first = hashes.hash(file, WEIGHTS)
    assert hashes.hash(file, WEIGHTS) != first
    assert hashes.hash(file, WEIGHTS) == real(file, WEIGHTS)


def test_a_hash_that_was_taken_elsewhere(port, monkeypatch):
    """A hash from a stream (download, copy, conversion) stands for the file until the file changes."""
    monkeypatch.setattr(lockfile, "blake3", lambda *_: "blake3:read")
    file, hashes = port.official_weights / "transformer/config.json", lockfile.Hashes(port)
    hashes.put(file, "blake3:streamed")
    assert hashes.hash(file, "x") == "blake3:streamed"
    file.write_text("{}")
    assert hashes.hash(file, "x") == "blake3:read"


# --- releases that are not folders by component ----------------------------------------------------------------------

MONOLITHIC = PORT.replace(
    'weights = "official_weights/demo"', 'weights = "official_weights/demo"\nlayout = "monolithic"'
)
CHANGES = {
    "a byte": lambda file: file.write_bytes(file.read_bytes()[:-1] + b"\x07"),
    "its length": lambda file: save(file, {"dit.a": np.zeros(9, np.float32)}),
    "gone": lambda file: file.unlink(),
    "one more": lambda file: save(file.with_name("extra.safetensors"), {"b": np.zeros(1, np.float32)}),
}


def monolithic(tmp_path, needs: str = "false") -> spec.Port:
    """A release that is one file and a config; components are parts of the file."""
    root = tmp_path / "port"
    made = make_port(root, MONOLITHIC.replace("\nlayout", f"\nneeds_conversion = {needs}\nlayout"))
    (root / "official_weights").rename(tmp_path / "away")
    save(
        made.official_weights / "model.safetensors", {"dit.a": np.ones(3, np.float32), "vae.b": np.ones(2, np.float32)}
    )
    save_json(made.official_weights / "config.json", {"depth": 2})
    prep.run(made)
    return made


@pytest.mark.parametrize("needs", ["true", "false"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_release_of_one_file(tmp_path, name, needs):
    """Each component's lock holds the whole file that it is a part of; a change of it stops every component's check."""
    port = monolithic(tmp_path, needs)
    assert "model.safetensors" in lockfile.hashes_in(ev.lock(port)["components"]["transformer"])
    prep.verify(port)
    CHANGES[name](port.official_weights / "model.safetensors")
    with pytest.raises(BlockedError):
        checks.locked_weights(port, ["weights:transformer"])


def test_weights_that_are_no_safetensors(tmp_path):
    """A .bin or .pt file is locked by its bytes like any other."""
    port = make_port(tmp_path)
    file = port.official_weights / "transformer/pytorch_model.bin"
    file.write_bytes(b"PK" + b"\0" * 98)
    prep.run(port)
    file.write_bytes(b"PK" + b"\0" * 97 + b"\1")
    with pytest.raises(BlockedError, match=r"pytorch_model\.bin.*differs"):
        prep.verify(port)


def test_a_component_that_the_release_lacks(tmp_path):
    """A wrong folder name is told before anything is locked."""
    port = make_port(tmp_path, PORT.replace('weights = "transformer"', 'weights = "transfromer"'))
    with pytest.raises(BlockedError, match='"transfromer" of transformer is not in the release'):
        prep.run(port)
    assert not (port.folder / "port.lock.json").exists()


def test_a_lock_that_is_none(port):
    """A broken lock is one sentence."""
    (port.folder / "port.lock.json").write_text("[]")
    with pytest.raises(UsageError, match="is not a lock"):
        prep.verify(port)


def test_patterns_are_lists(tmp_path):
    """allow and ignore of port.toml are lists of patterns; anything else names the line."""
    made = make_port(tmp_path / "a", PORT.replace("[official]", '[official]\nallow = ["*.json"]\nignore = []'))
    assert (made.official.allow, made.official.ignore) == (("*.json",), ())
    with pytest.raises(UsageError, match=r"port\.toml:\d+: official\.allow: must be a list"):
        make_port(tmp_path / "b", PORT.replace("[official]", '[official]\nallow = "*.json"'))
