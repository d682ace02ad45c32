# SPDX-License-Identifier: Apache-2.0
"""Prep locks the release and the load tree names the port's classes; neither touches what it did not make."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from weights_support import PORT, make_port, save, save_json

from fvport import evidence as ev
from fvport.errors import BlockedError, FvportError
from fvport.weights import convert, lockfile, prep


@pytest.fixture
def port(tmp_path):
    found = make_port(tmp_path)
    prep.run(found)
    return found


def read(path):
    return json.loads(path.read_text())


def snapshot(folder):
    return {str(p.relative_to(folder)): (p.lstat().st_ino, p.lstat().st_mtime_ns) for p in folder.rglob("*")}


def test_the_tree_names_the_ports_classes(port):
    """model_index.json and the configs say the native classes and FastVideo's library words; the rest stays."""
    index = read(port.load_tree / "model_index.json")
    assert index["_class_name"] == "DemoPipeline"
    assert index["transformer"] == ["diffusers", "DemoTransformer3DModel"]
    assert index["tokenizer"] == ["transformers", "T5TokenizerFast"]
    assert index["transformer_2"] == [None, None]
    assert "boundary_ratio" in index
    config = read(port.load_tree / "transformer/config.json")
    assert config == {"_class_name": "DemoTransformer3DModel", "num_layers": 2, "eps": 1e-6}
    assert read(port.load_tree / "scheduler/scheduler_config.json") == {"_class_name": "FlowScheduler", "shift": 3.0}


def test_weights_are_relative_links(port):
    """Weights are linked, by relative paths, so that the port may be moved with its weights."""
    link = port.load_tree / "transformer/diffusion_pytorch_model.safetensors"
    assert not os.readlink(link).startswith("/")
    official = port.official_weights / "transformer/diffusion_pytorch_model.safetensors"
    assert link.resolve() == official.resolve()


def test_building_twice_changes_nothing(port):
    """The second build finds the tree as it is and touches no file of it."""
    before = snapshot(port.load_tree)
    assert convert.build_load_tree(port) == port.load_tree
    assert snapshot(port.load_tree) == before


@pytest.mark.parametrize("damage", ["config", "link", "extra", "gone"])
def test_a_damaged_tree_is_made_again(port, damage):
    """A tree that somebody edited is not the tree: it is made again, whole."""
    if damage == "config":
        save_json(port.load_tree / "transformer/config.json", {"_class_name": "WanTransformer3DModel"})
    elif damage == "link":
        (port.load_tree / "transformer/diffusion_pytorch_model.safetensors").unlink()
        save(port.load_tree / "transformer/diffusion_pytorch_model.safetensors", {"a": np.zeros(1, np.float32)})
    elif damage == "extra":
        save(port.load_tree / "transformer/more.safetensors", {"a": np.zeros(1, np.float32)})
    else:
        (port.load_tree / "model_index.json").unlink()
    convert.build_load_tree(port)
    assert read(port.load_tree / "transformer/config.json")["_class_name"] == "DemoTransformer3DModel"
    assert (port.load_tree / "transformer/diffusion_pytorch_model.safetensors").is_symlink()
    assert not (port.load_tree / "transformer/more.safetensors").exists()
    assert [p.name for p in port.load_tree.parent.iterdir()] == ["demo"]


def test_a_foreign_folder_is_never_touched(tmp_path):
    """A folder that fvport did not make stays as it is, and is named."""
    port = make_port(tmp_path)
    save_json(port.load_tree / "mine.json", {})
    with pytest.raises(FvportError, match="was not made by fvport"):
        convert.build_load_tree(port, verify=False)
    assert [p.name for p in port.load_tree.iterdir()] == ["mine.json"]


def test_a_half_precision_twin_is_not_linked(port):
    """FastVideo reads every *.safetensors file: a variant beside the weights stays out of the tree."""
    save(port.official_weights / "transformer/diffusion_pytorch_model.fp16.safetensors", {"a": np.zeros(1, np.float16)})
    convert.build_load_tree(port, verify=False)
    assert len(list((port.load_tree / "transformer").glob("*.safetensors"))) == 1


def test_a_rejected_scheduler_key_needs_a_reason(tmp_path):
    """A key that the native constructor rejects is refused by name unless port.toml says why it is dropped."""
    port = make_port(
        tmp_path, PORT.replace('config_ignored = { new_key = "diffusers writes it, nothing reads it" }', "")
    )
    with pytest.raises(FvportError, match="does not take new_key"):
        convert.build_load_tree(port, verify=False)


def test_a_rejected_scheduler_key_that_is_null_sets_nothing(tmp_path):
    """diffusers writes every argument, null where it is not set: such a key is dropped without a reason."""
    port = make_port(
        tmp_path, PORT.replace('config_ignored = { new_key = "diffusers writes it, nothing reads it" }', "")
    )
    file = port.official_weights / "scheduler/scheduler_config.json"
    save_json(file, {**read(file), "new_key": None})
    convert.build_load_tree(port, verify=False)
    assert "new_key" not in read(port.load_tree / "scheduler/scheduler_config.json")


def test_an_undeclared_component_is_refused(tmp_path):
    """A component of the release that port.toml does not name is an error that names it."""
    port = make_port(tmp_path)
    index = read(port.official_weights / "model_index.json")
    save_json(port.official_weights / "model_index.json", {**index, "vae": ["diffusers", "AutoencoderKLWan"]})
    save_json(port.official_weights / "vae/config.json", {"_class_name": "AutoencoderKLWan"})
    save(port.official_weights / "vae/diffusion_pytorch_model.safetensors", {"a": np.zeros(1, np.float32)})
    with pytest.raises(FvportError, match=r"component vae \(AutoencoderKLWan\)"):
        convert.build_load_tree(port, verify=False)


def test_text_encoders_are_named_by_architectures(tmp_path):
    """A text encoder's `architectures` says the native class, which is what its loader goes by."""
    text = PORT + '\n[components.text_encoder]\nkind = "text_encoder"\nmode = "port"\n'
    text += 'official = "transformers:UMT5EncoderModel"\nnative = "fastvideo.models.encoders.demo:DemoT5"\n'
    port = make_port(tmp_path, text)
    index = read(port.official_weights / "model_index.json")
    save_json(
        port.official_weights / "model_index.json", {**index, "text_encoder": ["transformers", "UMT5EncoderModel"]}
    )
    save_json(port.official_weights / "text_encoder/config.json", {"architectures": ["UMT5EncoderModel"], "d_model": 8})
    save(port.official_weights / "text_encoder/model.safetensors", {"a": np.zeros(1, np.float32)})
    prep.run(port)
    assert read(port.load_tree / "text_encoder/config.json") == {"architectures": ["DemoT5"], "d_model": 8}


def test_constructor_arguments_are_read_from_source(tmp_path):
    """Arguments are read without importing; **kwargs and an inherited constructor tell nothing."""
    file = tmp_path / "s.py"
    init = "    def __init__(self, {}): ...\n"
    file.write_text("class A:\n" + init.format("a, *, b=1") + "class B(A): ...\nclass C:\n" + init.format("**k"))
    assert convert.constructor_arguments(file, "A") == {"a", "b"}
    assert [convert.constructor_arguments(file, name) for name in "BCD"] == [None, None, None]


# --- prep ------------------------------------------------------------------------------------------------------------


def test_prep_locks_every_file(port):
    """The lock has each component's files with size and blake3, and a digest of its tensors."""
    entry = ev.lock(port)["components"]["transformer"]
    assert [file["name"] for file in entry["files"]] == [
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
    ]
    assert entry["files"][1]["blake3"].startswith("blake3:")
    assert entry["tensors"]["count"] == 13
    assert "safetensors" in ev.lock(port)["versions"]


def test_prep_twice_writes_nothing(port):
    """A second run leaves the lock and the tree untouched and reports no change."""
    lock = port.folder / "port.lock.json"
    before = (lock.stat().st_mtime_ns, snapshot(port.load_tree))
    assert prep.run(port).changed == []
    assert (lock.stat().st_mtime_ns, snapshot(port.load_tree)) == before


def test_what_the_bake_locked_stays(tmp_path):
    """Keys of port.lock.json that are not prep's are kept."""
    port = make_port(tmp_path)
    save_json(port.folder / "port.lock.json", {"schema": 1, "bake": {"template": "x"}})
    prep.run(port)
    assert ev.lock(port)["bake"] == {"template": "x"}


@pytest.mark.parametrize(
    ("how", "word"), [("byte", "differs"), ("size", "bytes, port.lock.json"), ("gone", "not there")]
)
def test_weights_that_differ_from_the_lock_are_refused(port, how, word):
    """A changed byte, another size, a missing file: each is named before anything is built."""
    file = port.official_weights / "transformer/diffusion_pytorch_model.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.unlink()
    if how != "gone":
        file.write_bytes(bytes(raw) + (b"x" if how == "size" else b""))
    with pytest.raises(BlockedError, match=word):
        convert.build_load_tree(port)


def test_a_stranger_beside_the_weights_is_refused(port):
    """A weight file that the lock does not know is named."""
    save(port.official_weights / "transformer/extra.safetensors", {"a": np.zeros(1, np.float32)})
    with pytest.raises(BlockedError, match=r"not in port\.lock\.json"):
        prep.verify(port)


def test_changed_weights_are_told_when_locked_again(port):
    """Locking other bytes says which file changed."""
    save(port.official_weights / "transformer/diffusion_pytorch_model.safetensors", {"a": np.zeros(1, np.float32)})
    assert prep.run(port).changed == ["transformer/diffusion_pytorch_model.safetensors"]


def test_unlocked_weights_are_blocked(tmp_path):
    """Without a lock nothing is built, and the command is named."""
    with pytest.raises(BlockedError, match=r"not locked.*fvport prep"):
        convert.build_load_tree(make_port(tmp_path))


def test_verify_hashes_only_what_changed(port, monkeypatch):
    """A second look at unchanged files reads none of them."""
    monkeypatch.setattr(lockfile, "blake3", lambda *_: pytest.fail("hashed again"))
    prep.verify(port)


def test_missing_local_weights_say_the_command(tmp_path):
    """A port without its release is blocked with what to do."""
    port = make_port(tmp_path)
    (tmp_path / "official_weights").rename(tmp_path / "away")
    with pytest.raises(BlockedError, match="ln -s"):
        prep.run(port)
