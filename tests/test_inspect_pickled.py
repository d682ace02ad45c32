# SPDX-License-Identifier: Apache-2.0
"""torch.save files are read without torch and without running anything: exactly, or refused in one sentence."""

from __future__ import annotations

import contextlib
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inspect_support import Call, Held, Named, Raw, opcodes, save_flat, save_legacy, save_zip, tensor
from weights_support import save_json

from fvport.errors import BlockedError, FvportError
from fvport.weights import layout, manifest, pickled

FUZZ = settings(
    max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TORCH = """
import sys, torch
from collections import OrderedDict
base = torch.arange(24.0).reshape(4, 6)
weight = torch.nn.Parameter(torch.arange(12, dtype=torch.bfloat16).reshape(3, 4))
state = OrderedDict(base=base, turned=base.t(), rows=base[1:3], weight=weight, tied=weight)
state["f8"] = torch.tensor([1.0, 2.0]).to(torch.float8_e4m3fn)
state["u16"] = torch.tensor([1, 2, 3], dtype=torch.uint16)
state["scalar"] = torch.tensor(7)
state["empty"] = torch.zeros(0, 3)
model = torch.nn.Linear(3, 2)
optimizer = torch.optim.Adam(model.parameters())
model(torch.ones(1, 3)).sum().backward()
optimizer.step()
whole = {"state_dict": state, "optimizer": optimizer.state_dict(), "epoch": 3, "names": ["a", ("b", None)]}
whole["ema"] = {name: value.clone() for name, value in state.items() if name in ("base", "weight")}
torch.save(whole, sys.argv[1] + "/zip.pt")
torch.save(whole, sys.argv[1] + "/legacy.pt", _use_new_zipfile_serialization=False)
torch.save(whole, sys.argv[1] + "/four.pt", pickle_protocol=4)
torch.save(model, sys.argv[1] + "/model.pt")
torch.save({"model": model.state_dict(), "args": __import__("argparse").Namespace(lr=1)}, sys.argv[1] + "/args.pt")
torch.save(torch.quantize_per_tensor(base, 0.1, 0, torch.qint8), sys.argv[1] + "/quantised.pt")
torch.save({"a": base.to_sparse()}, sys.argv[1] + "/sparse.pt")
torch.jit.save(torch.jit.script(model), sys.argv[1] + "/script.pt")
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """Files that torch itself wrote, in a process of its own."""
    folder = tmp_path_factory.mktemp("torch")
    subprocess.run([sys.executable, "-c", TORCH, folder], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("name", ["zip.pt", "legacy.pt", "four.pt"])
def test_what_torch_wrote_is_read_to_the_byte(saved, name):
    """Both of torch's formats: names, dtypes, shapes, strides, shared storages, and ranges that hold the values."""
    found = pickled.read(saved / name)
    at = {key.removeprefix("state_dict."): info for key, info in found.tensors.items() if key.startswith("state_dict.")}
    raw = (saved / name).read_bytes()
    assert found.form == ("legacy" if name == "legacy.pt" else "zip")
    assert {"state_dict", "ema", "optimizer.state.0"} <= set(found.containers)
    base, turned, rows = at["base"], at["turned"], at["rows"]
    assert np.frombuffer(raw[base.start : base.end], np.float32).tolist() == list(range(24))
    assert np.frombuffer(raw[rows.start : rows.end], np.float32).tolist() == list(range(6, 18))
    assert (turned.shape, turned.stride, turned.start, turned.nbytes) == ((6, 4), (1, 6), base.start, 96)
    assert base.storage == rows.storage == turned.storage != at["weight"].storage
    assert (at["weight"].dtype, at["weight"].start) == ("BF16", at["tied"].start)
    assert (at["f8"].dtype, at["f8"].nbytes, at["u16"].dtype, at["u16"].nbytes) == ("F8_E4M3", 2, "U16", 6)
    assert np.frombuffer(raw[at["u16"].start : at["u16"].end], np.uint16).tolist() == [1, 2, 3]
    assert np.frombuffer(raw[at["scalar"].start : at["scalar"].end], np.int64).tolist() == [7]
    assert (at["empty"].shape, at["empty"].nbytes) == ((0, 3), 0)
    assert found.tensors["optimizer.state.0.exp_avg"].shape == (2, 3)
    unlocated = pickled.read(saved / name, located=False).tensors
    assert {n: (i.dtype, i.shape, i.nbytes) for n, i in unlocated.items()} == {
        n: (i.dtype, i.shape, i.nbytes) for n, i in found.tensors.items()
    }


def test_a_training_checkpoint_is_sorted(saved):
    """The model under its dict, its running average and its optimiser apart, tied tensors counted once."""
    found = layout.inspect(saved / "zip.pt")
    assert list(found.components) == ["model"]
    model = found.components["model"]
    assert (model.prefix, model.tied, model.conversion) == (
        "state_dict.",
        (("weight", "tied"),),
        "its weights are pickled",
    )
    assert model.parameters == 24 + 24 + 12 + 12 + 2 + 3 + 1
    assert {(aside.role, aside.prefix, aside.of) for aside in found.aside} == {
        ("ema", "ema.", "model"),
        ("training", "optimizer.", ""),
    }
    assert "views of another one's bytes" in " ".join(found.concerns)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.pt", ["torch.nn.modules.linear.Linear"]),
        ("args.pt", ["argparse.Namespace"]),
        ("quantised.pt", ["quantised"]),
        ("sparse.pt", ["sparse", "'a'"]),
        ("script.pt", ["TorchScript"]),
    ],
)
def test_what_needs_code_is_refused_by_name(saved, name, words):
    """A whole module, an options object, a quantised or sparse tensor, a script: exit code 3, and what it is."""
    with pytest.raises(BlockedError) as caught:
        pickled.read(saved / name)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_inspecting_imports_no_torch(saved):
    """The whole of it in the standard library."""
    code = "import sys; from fvport.weights import layout; layout.inspect(sys.argv[1]);"
    code += "print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code, saved / "zip.pt"], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


# --- hostile ---------------------------------------------------------------------------------------------------------

SYSTEM = Named("os", "system")
INSTANCE = b"(" + opcodes("touch x") + b"ios\nsystem\n"
STACKED = opcodes("os") + opcodes("system") + b"\x93" + opcodes(("touch x",)) + b"R"


@pytest.mark.parametrize(
    "value",
    [
        Call(SYSTEM, ("touch x",)),
        Raw(INSTANCE),
        Raw(b"(" + opcodes(SYSTEM) + opcodes("touch x") + b"o"),
        Raw(opcodes(SYSTEM) + opcodes(("touch x",)) + b"\x81"),
        Raw(STACKED),
        Raw(opcodes({}) + opcodes({"f": SYSTEM}) + b"b"),
        [Call(Named("builtins", "list"), (Call(SYSTEM, ("touch x",)),))],
    ],
)
def test_no_way_to_call_runs(tmp_path, monkeypatch, value):
    """Every opcode that could call is refused with the global's name, and nothing ran; torch's form before 1.6 too."""
    monkeypatch.chdir(tmp_path)
    whole = {"a": tensor("0", 2), "b": value}
    for file in (save_zip(tmp_path / "a.pt", whole, {"0": 8}), save_legacy(tmp_path / "b.pt", whole, {"0": (2, 8)})):
        with pytest.raises(BlockedError, match=r"needs code.*os\.system") as caught:
            pickled.read(file)
        assert caught.value.exit_code == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "b.pt"]


def test_a_real_exploit_is_refused(tmp_path):
    """What Python's own pickle makes of a `__reduce__` that calls eval, at every protocol."""

    class Bad:
        def __reduce__(self):
            return eval, ("1/0",)

    for protocol in range(6):
        with pytest.raises(BlockedError, match=r"eval"):
            pickled.read(save_zip(tmp_path / "a.pt", pickle.dumps({"a": Bad()}, protocol), {}))


@pytest.mark.parametrize(
    ("value", "storages", "word"),
    [
        ({"a": tensor("0", 4)}, {"0": 8}, "beyond its storage"),
        ({"a": tensor("0", 2, offset=1)}, {"0": 8}, "beyond its storage"),
        ({"a": tensor("0", 2, 2, stride=(100, 1))}, {"0": 16}, "beyond its storage"),
        ({"a": tensor("0", 2)}, {}, "not in the archive"),
        ({"a": tensor("0", 2, kind="QInt8Storage")}, {"0": 2}, "QInt8Storage"),
        ({"a": tensor("0", 1 << 60, stride=(0,), size=1)}, {"0": 4}, "claims"),
        ({"a": tensor("0", -2, stride=(1,), size=2)}, {"0": 8}, "do not fit"),
        ({"a": tensor("0", 2, stride=())}, {"0": 8}, "do not fit"),
        ({"a": {"b": tensor("0", 2)}, "a.b": tensor("0", 2)}, {"0": 8}, "'a.b' twice"),
        ({"\ud800": 1, "a": Raw(b"X\x03\x00\x00\x00\xed\xa0\x80")}, {}, ""),
        ({"a": 1}, {}, "holds no tensor"),
        ([1, "two", None], {}, "holds no tensor"),
        ({"a": Held(("module", SYSTEM, "x", "y", 1))}, {}, "os.system"),
        ({"a": Held("x")}, {}, "persistent id"),
        (b"", {}, "breaks off"),
        (b"\x80\x02}", {}, "breaks off"),
        (b"\x80\x09.", {}, "protocol 9"),
        (b"\x80\x02.", {}, "stack runs empty"),
        (b"\x80\x02N0.", {}, "stack runs empty"),
        (b"\x80\x02j\xff\xff\xff\xff.", {}, "recalls"),
        (b"\x80\x02\x82\x01.", {}, "EXT1"),
        (b"\x80\x05\x97.", {}, "NEXT_BUFFER"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f1.", {}, "LONG4"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fx.", {}, "BINBYTES8"),
        (b"L" + b"9" * 100_000 + b"L\n.", {}, "LONG"),
    ],
)
def test_a_bad_pickle_is_one_sentence(tmp_path, value, storages, word):
    """Each kind of damage is named, with the file."""
    if isinstance(value, dict) and "\ud800" in value:
        value = b"\x80\x02(X\x03\x00\x00\x00\xed\xa0\x80" + opcodes(tensor("0", 2)) + b"d."
        storages, word = {"0": 8}, "Unicode"
    file = save_zip(tmp_path / "bad.pt", value, storages)
    with pytest.raises(BlockedError, match=r"bad\.pt") as caught:
        pickled.read(file)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_containers_that_explode_or_turn_in_circles_are_bounded(tmp_path):
    """A list in itself, a billion laughs, depth, copies of copies: seconds and megabytes, and a sentence."""
    circle = b"\x80\x02]q\x00(" + opcodes(tensor("0", 2)) + b"h\x00h\x00e."
    assert len(pickled.read(save_zip(tmp_path / "c.pt", circle, {"0": 8})).tensors) == 1
    laughs = b"\x80\x02(" + opcodes(1) * 9 + b"lq\x00"
    for n in range(20):
        laughs += b"(" + b"h" + bytes([n]) + b"h" + bytes([n]) + (b"h" + bytes([n])) * 7 + b"lq" + bytes([n + 1])
    deep = b"\x80\x02" + b"(" * 200_000 + opcodes(1) + b"t" * 200_000 + b"."
    once = Call(Named("builtins", "list"), (Raw(b"h\x00"),))
    copies = b"\x80\x02(" + b"N" * 100_000 + b"lq\x000" + (opcodes(once) + b"0") * 20_000 + b"N."
    for data in (laughs + b".", deep, copies):
        with pytest.raises(BlockedError):
            pickled.read(save_zip(tmp_path / "l.pt", data, {}))


@pytest.mark.heavy
def test_more_steps_than_any_checkpoint_has_are_bounded(tmp_path):
    """Millions of objects of one byte each end at the bound, with memory in proportion to it."""
    file = save_zip(tmp_path / "a.pt", b"\x80\x02" + b"}" * 6_000_000 + b".", {})
    code = "import sys; from fvport.weights import pickled; from pathlib import Path\n"
    code += "try: pickled.read(Path(sys.argv[1]))\n"
    code += "except Exception as error:\n"  # VmHWM is this program's own peak; ru_maxrss may be its parent's
    code += "    print(error, Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    done = subprocess.run([sys.executable, "-c", code, file], check=True, capture_output=True, text=True)
    assert "steps" in done.stdout
    assert int(done.stdout.split()[-1]) < 600_000  # kB


def test_a_zip_bomb_is_refused_unread(tmp_path):
    """A data.pkl that unpacks to 70 MB is refused by its size; one that lies about it unpacks no further."""
    file = save_zip(tmp_path / "a.pt", bytes(70 << 20), {}, pack=zipfile.ZIP_DEFLATED)
    with pytest.raises(BlockedError, match="at most"):
        pickled.read(file)
    raw = file.read_bytes().replace(struct.pack("<I", 70 << 20), struct.pack("<I", 1000))
    file.write_bytes(raw)
    with pytest.raises(BlockedError):
        pickled.read(file)


def test_a_repacked_archive_says_so(tmp_path):
    """Compressed by another program: the pickle can be read, ranges of its tensors cannot be given."""
    file = save_zip(tmp_path / "a.pt", {"a": tensor("0", 1000)}, {"0": 4000}, pack=zipfile.ZIP_DEFLATED)
    with pytest.raises(BlockedError, match="compressed"):
        pickled.read(file)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "is empty"),
        (b"GGUF\x03\x00", "GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS"),
        (b"\x1f\x8b\x08rest", "compressed"),
        (b"hello, here is a text", "neither a zip archive nor a pickle"),
        (pickle.dumps({"a": 1}, 2), "not one that torch.save wrote"),
        (b"PK\x03\x04" + bytes(40), "no zip archive"),
        (b"PK\x05\x06" + bytes(18), "data.pkl"),
    ],
)
def test_what_is_no_checkpoint_has_its_word(tmp_path, data, word):
    """Whatever lies under the name of a checkpoint is called by its own."""
    file = tmp_path / "x.bin"
    file.write_bytes(data)
    with pytest.raises(BlockedError, match=word):
        pickled.read(file)


def test_big_endian_is_refused(tmp_path):
    """Values in the other byte order would be read as other numbers."""
    with pytest.raises(BlockedError, match="big-endian"):
        pickled.read(save_zip(tmp_path / "a.pt", {"a": tensor("0", 2)}, {"0": 8}, order=b"big"))


def test_no_tensor_byte_is_read(tmp_path):
    """Of a file of 40 MB only kilobytes are read, whatever is asked of it."""
    file = save_flat(tmp_path / "a.pt", {"a": (10_000_000,)})
    before = _read_so_far()
    manifest.read_any(file)
    layout.inspect(file)
    assert _read_so_far() - before < 300_000


def _read_so_far() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def test_numbered_pickles_with_an_index_are_one_set(tmp_path):
    """The shards of a .bin.index.json, and the ways in which it can lie."""
    save_flat(tmp_path / "pytorch_model-00001-of-00002.bin", {"a.weight": (2, 2)})
    save_flat(tmp_path / "pytorch_model-00002-of-00002.bin", {"b.weight": (3,)})
    table = {"a.weight": "pytorch_model-00001-of-00002.bin", "b.weight": "pytorch_model-00002-of-00002.bin"}
    index = save_json(tmp_path / "pytorch_model.bin.index.json", {"weight_map": table})
    found = layout.inspect(tmp_path)
    assert [list(component.tensors) for component in found.components.values()] == [["a.weight", "b.weight"]]
    save_json(index, {"weight_map": table | {"c.weight": "pytorch_model-00002-of-00002.bin"}})
    with pytest.raises(BlockedError, match=r"c\.weight"):
        layout.inspect(tmp_path)
    index.unlink()
    assert "numbered shards and no index" in " ".join(layout.inspect(tmp_path).concerns)
    (tmp_path / "pytorch_model-00001-of-00002.bin").unlink()
    with pytest.raises(BlockedError, match="1 of 2 shards of pytorch_model; number 1 is not there"):
        layout.inspect(tmp_path)


# --- fuzz ------------------------------------------------------------------------------------------------------------


@FUZZ
@given(data=st.binary(max_size=300))
def test_any_pickle_ends_in_a_sentence(tmp_path, data):
    """Random opcodes: a table of tensors or one sentence."""
    with contextlib.suppress(FvportError):
        pickled.read(save_zip(tmp_path / "f.pt", b"\x80\x02" + data, {"0": 8}))


@FUZZ
@given(data=st.data())
def test_any_damage_of_a_good_file_ends_in_a_sentence(tmp_path, data):
    """Bytes flipped and the end cut off, in both of torch's formats: what is still accepted lies within the file."""
    whole = {"state_dict": {"a": tensor("0", 2, 3), "b": tensor("1", 4)}, "n": [1, "x", None, True]}
    make = data.draw(st.sampled_from(["zip", "legacy"]))
    file = tmp_path / "f.pt"
    if make == "zip":
        save_zip(file, whole, {"0": 24, "1": 16})
    else:
        save_legacy(file, whole, {"0": (6, 24), "1": (4, 16)})
    raw = bytearray(file.read_bytes())
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(raw) - 1), st.integers(0, 255)), max_size=3)):
        raw[at] = value
    file.write_bytes(raw[: data.draw(st.integers(0, len(raw)) | st.just(len(raw)))])
    with contextlib.suppress(FvportError):
        assert all(info.end <= file.stat().st_size for info in pickled.read(file).tensors.values())
    with contextlib.suppress(FvportError):
        layout.inspect(file)


words = st.sampled_from(["a", "b.c", "state_dict", "ema", "model"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text("xyz", max_size=3) | st.just(tensor("0", 2)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(words, inner, max_size=3)
        | st.tuples(inner, inner)
        | st.builds(lambda value: Call(Named("collections", "OrderedDict"), (value,)), inner)
        | st.builds(lambda *given: Call(Named("torch._utils", "_rebuild_tensor_v2"), given), inner, inner, inner, inner)
        | st.builds(lambda *given: Call(Named("torch._utils", "_rebuild_tensor_v3"), given), *[inner] * 7)
        | st.builds(lambda *given: Call(Named("torch._tensor", "_rebuild_from_type_v2"), given), inner, inner, inner)
        | st.builds(lambda *given: Held(("storage", *given)), inner, inner, inner, inner)
    ),
    max_leaves=10,
)


@FUZZ
@given(value=values)
def test_any_structure_ends_in_a_sentence(tmp_path, value):
    """Well-formed pickles that call torch's own builders with anything."""
    with contextlib.suppress(FvportError):
        layout.inspect(save_zip(tmp_path / "f.pt", value, {"0": 8}))
