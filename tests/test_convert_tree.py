# SPDX-License-Identifier: Apache-2.0
"""The converted tree is there whole or not at all, goes on where it stopped, and is checked tensor by tensor."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from convert_support import TEXT, plan, release, some, tensors, write
from weights_support import save

from fvport.errors import BlockedError, FvportError
from fvport.weights import arithmetic, crew, fill, manifest, stream, tree, verify


def snapshot(folder):
    return {
        str(p.relative_to(folder)): (p.read_bytes() if p.is_file() else None, p.lstat().st_ino)
        for p in folder.rglob("*")
    }


@pytest.fixture
def made(tmp_path):
    return plan(release(tmp_path / "release"))


def test_the_tree_is_in_diffusers_layout(made, tmp_path):
    """model_index.json, a folder a component, configs under the name each loader wants, folders copied."""
    write(made, tmp_path / "out")
    index = json.loads((tmp_path / "out/model_index.json").read_text())
    assert index["_class_name"] == "WanPipeline"
    assert index["_diffusers_version"] == ""
    assert index["transformer"] == ["diffusers", "WanTransformer3DModel"]
    assert index["tokenizer"] == ["transformers", "T5TokenizerFast"]
    assert json.loads((tmp_path / "out/scheduler/scheduler_config.json").read_text())["shift"] == 3.0
    assert (tmp_path / "out/tokenizer/spiece.model").read_bytes() == b"pieces"
    assert not verify.texts(made, tmp_path / "out")


def test_twice_changes_nothing(made, tmp_path):
    """The second run finds the tree as it should be and touches no file of it."""
    write(made, tmp_path / "out")
    before = snapshot(tmp_path / "out")
    assert not write(made, tmp_path / "out").made
    assert snapshot(tmp_path / "out") == before


def test_a_folder_of_somebody_else_is_not_touched(made, tmp_path):
    """What fvport did not make stays, and is named."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(FvportError, match="was not made by fvport"):
        write(made, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_linked_folders(made, tmp_path):
    """--link links what is copied as it is, by relative paths; weights are never links."""
    write(made, tmp_path / "out", link=True)
    file = tmp_path / "out/tokenizer/spiece.model"
    assert file.is_symlink()
    assert not os.readlink(file).startswith("/")
    assert not any(path.is_symlink() for path in (tmp_path / "out/vae").iterdir())
    assert tree.is_current(tmp_path / "out", made, fill.Options(link=True))


def test_a_full_disk_leaves_the_old_tree(made, tmp_path, monkeypatch):
    """ENOSPC in the middle: one sentence, the old tree as it was, and the next run goes on with what was done."""
    write(made, tmp_path / "out")
    before = snapshot(tmp_path / "out")
    held = {**tensors(), "vae.c": some(2)}
    other = plan(release(tmp_path / "release", held))
    copied, real = [], stream.Copier.copy

    def full(self, target, place, piece):
        copied.append(piece)
        if len(copied) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, target, place, piece)

    monkeypatch.setattr(stream.Copier, "copy", full)
    monkeypatch.setattr(crew, "THREADS", 1)  # the first file is whole before the second begins
    with pytest.raises(BlockedError, match=r"the disk is full.*Make room"):
        write(other, tmp_path / "out")
    assert snapshot(tmp_path / "out") == before
    monkeypatch.setattr(stream.Copier, "copy", real)
    again = write(other, tmp_path / "out")
    assert again.resumed == ["transformer/diffusion_pytorch_model.safetensors"]
    assert all(not verify.component(other, tmp_path / "out", name).faults for name in other.tensors)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".out.lock", "out", "release"]


def test_too_little_room_is_said_before_anything_is_written(made, tmp_path, monkeypatch):
    """The need is known from headers."""
    monkeypatch.setattr(tree.shutil, "disk_usage", lambda path: tree.shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(BlockedError, match=r"needs .* are free"):
        write(made, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unreadable_file_is_named(made, tmp_path, monkeypatch):
    """A shard that cannot be read ends as one sentence with its name."""

    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "copy_file_range", broken)
    with pytest.raises(BlockedError, match=r"model\.safetensors: cannot be read"):
        write(made, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_at_once(made, tmp_path):
    """The second of two conversions to one place is told so."""
    with tree._alone(tmp_path / "out"), pytest.raises(BlockedError, match="another conversion is at work"):
        write(made, tmp_path / "out")


SLOWLY = """
import sys, time
sys.path[:0] = {path!r}
from pathlib import Path
from convert_support import plan, write
from fvport.weights import fill, stream, tree
def slowly(real):
    def slow(*words):
        print("x", flush=True)
        time.sleep(0.05)
        return real(*words)
    return slow
stream.Copier.copy = slowly(stream.Copier.copy)
fill.text, tree._exchange, tree._sync = map(slowly, (fill.text, tree._exchange, tree._sync))
write(plan(Path({release!r})), Path({out!r}), sync=True)
print("done", flush=True)
"""


@pytest.mark.parametrize("after", [1, 4, 7, 12, 15, 20, 27, 28, 29])
def test_killed_at_any_moment(tmp_path, after):
    """SIGKILL leaves the old tree, or the new one whole; the next run ends with the new one."""
    out = tmp_path / "out"
    write(plan(release(tmp_path / "release")), out)
    old = snapshot(out)
    root = release(tmp_path / "release", {**tensors(3), "vae.c": some(2)})
    code = SLOWLY.format(path=sys.path, release=str(root), out=str(out))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    for _ in range(after):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    made = plan(root)
    assert snapshot(out) == old or (after > 27 and tree.is_current(out, made, fill.Options()))
    write(made, out)
    assert all(not verify.component(made, out, name).faults for name in made.tensors)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".out.lock", "out", "release"]


@pytest.mark.parametrize("after", [1, 8, 16])
def test_killed_in_a_first_conversion(tmp_path, after):
    """SIGKILL where there was no tree leaves none; the next run goes on with the files that were done."""
    root, out = release(tmp_path / "release"), tmp_path / "out"
    code = SLOWLY.format(path=sys.path, release=str(root), out=str(out))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    for _ in range(after):
        process.stdout.readline()
    process.kill()
    process.wait()
    process.stdout.close()
    assert not out.exists()
    made = plan(root)
    assert bool(write(made, out).resumed) == (after > 1)
    assert all(not verify.component(made, out, name).faults for name in made.tensors)


@pytest.mark.parametrize("exchange", [True, False])
def test_the_new_tree_takes_the_old_ones_place(made, tmp_path, monkeypatch, exchange):
    """With and without a system that can exchange two folders."""
    out = tmp_path / "out"
    write(made, out)
    if not exchange:
        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: (_ for _ in ()).throw(OSError()))
    other = plan(release(tmp_path / "release", {**tensors(), "vae.c": some(2)}))
    assert write(other, out, sync=True).made
    assert "c" in manifest.read_weights(out / "vae").tensors
    assert sorted(p.name for p in tmp_path.iterdir()) == [".out.lock", "out", "release"]


def test_an_old_tree_beside_its_place_is_put_back(made, tmp_path):
    """A run that ended between two renames: the next one finds the tree, and leaves nothing beside it."""
    out = tmp_path / "out"
    write(made, out)
    os.rename(out, tmp_path / ".out.old")
    assert not write(made, out).made
    assert sorted(p.name for p in tmp_path.iterdir()) == [".out.lock", "out", "release"]


def test_a_nan_is_not_forgotten_by_a_run_that_ended_late(tmp_path, monkeypatch):
    """Killed when all is written and the tree not yet in its place: the next run still names the NaN."""
    held = tensors()
    held["dit.layers.0.down"][0, 0] = np.nan
    made, out = plan(release(tmp_path / "release", held)), tmp_path / "out"
    monkeypatch.setattr(tree, "_exchange", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    monkeypatch.setattr(os, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        write(made, out)
    monkeypatch.undo()
    again = write(made, out)
    assert again.resumed
    assert "transformer.blocks.0.down" in again.nan


def test_a_touched_file_is_no_current_tree(made, tmp_path):
    """A file that was written again, is gone, or is new is named."""
    out = tmp_path / "out"
    write(made, out)
    file = out / "vae/diffusion_pytorch_model.safetensors"
    data = file.read_bytes()
    time.sleep(0.01)
    file.write_bytes(data[:-1] + b"x")
    assert tree.changed(out) == "vae/diffusion_pytorch_model.safetensors"
    (out / "vae/more.bin").write_bytes(b"x")
    write(made, out)
    assert tree.changed(out) == ""


# --- official -> converted, bit for bit ------------------------------------------------------------------------------


def damage(out, component, name, change):
    """Change one tensor of the tree in place, by a function of its float32 values."""
    weights = manifest.read_weights(out / component)
    for file, table in weights.files.items():
        if name in table:
            info, path = table[name], out / component / file
            raw = bytearray(path.read_bytes())
            values = np.frombuffer(bytes(raw[info.start : info.end]), arithmetic.NUMPY[info.dtype]).copy()
            raw[info.start : info.end] = change(values).astype(values.dtype).tobytes()
            path.write_bytes(raw)
            return
    raise AssertionError(name)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("blocks.0.to_q.weight", np.zeros_like, "all zeros"),
        ("blocks.1.to_q.weight", lambda v: np.nextafter(v, np.float32(9)), "of its 64 bytes differ"),
        ("blocks.0.gate_up", lambda v: np.concatenate([v[20:], v[:20]]), "does not hold what dit.layers.0.gate"),
        ("blocks.0.down", lambda v: v.reshape(5, 4).T.reshape(-1), r"transpose\(\[1, 0\]\), cast\(F16\) gives"),
    ],
)
def test_a_wrong_tensor_is_named(made, tmp_path, name, change, said):
    """One value, one order, one transposition: the tensor is named with what it should be made of."""
    out = tmp_path / "out"
    write(made, out)
    damage(out, "transformer", name, change)
    (fault,) = verify.component(made, out, "transformer").faults
    assert fault.name == name
    import re

    assert re.search(said, fault.message)


def test_exchanged_parts_and_tensors_are_told(made, tmp_path):
    """k where q should be is said to be part 1; another layer's tensor is said to be that one."""
    out = tmp_path / "out"
    write(made, out)
    held = tensors()
    damage(out, "transformer", "blocks.0.to_q.weight", lambda v: held["dit.layers.0.qkv.weight"][4:8])
    damage(out, "transformer", "blocks.1.to_k.weight", lambda v: held["dit.layers.0.qkv.weight"][8:])
    first, second = verify.component(made, out, "transformer").faults
    assert "holds part 1 of it, and should hold part 0" in first.message
    assert "holds what blocks.0.to_v.weight should hold" in second.message


def test_large_tensors_are_compared_as_well(made, tmp_path, monkeypatch):
    """Above the limit ranges and tiles are used, and a wrong byte is seen there too."""
    monkeypatch.setattr(verify, "LIMIT", 8)
    out = tmp_path / "out"
    write(made, out)
    assert verify.component(made, out, "transformer").faults == []
    names = ["blocks.0.to_v.weight", "blocks.1.down"]
    for name in names:
        damage(out, "transformer", name, lambda v: v + 1)
    assert [fault.name for fault in verify.component(made, out, "transformer").faults] == names


def test_missing_extra_and_reshaped_tensors_are_named(made, tmp_path):
    """Headers alone tell what is not there, what nobody declared, and what has another shape."""
    out = tmp_path / "out"
    write(made, out)
    save(out / "vae/diffusion_pytorch_model.safetensors", {"a": some(2, 8), "c": some(3, seed=7)})
    faults = {fault.name: fault.problem for fault in verify.headers(made, out, "vae")[1]}
    assert faults == {"a": "shape", "b": "missing", "c": "unexpected"}


def test_another_config_or_copy_is_named(made, tmp_path):
    """A config, an index or a copied file that is not what was declared."""
    out = tmp_path / "out"
    write(made, out)
    (out / "vae/config.json").write_text("{}")
    (out / "tokenizer/spiece.model").write_bytes(b"peaces")
    (out / "model_index.json").unlink()
    assert {fault.name for fault in verify.texts(made, out)} == {
        "vae/config.json",
        "tokenizer/spiece.model",
        "model_index.json",
    }


def test_only_some_files_of_a_folder(tmp_path):
    """`only` names the files to copy; one that is not there is an error."""
    text = TEXT.replace('"folder": "tok"', '"folder": "tok", "only": ["spiece.model"]')
    made = plan(release(tmp_path / "release"), text)
    write(made, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out/tokenizer").iterdir()] == ["spiece.model"]
    with pytest.raises(BlockedError, match=r"needs spice\.model in tok"):
        write(plan(tmp_path / "release", text.replace("spiece", "spice")), tmp_path / "out2")
