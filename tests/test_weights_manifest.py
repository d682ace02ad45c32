# SPDX-License-Identifier: Apache-2.0
"""Safetensors headers: read exactly, and refused in one sentence when anything is wrong with them."""

from __future__ import annotations

import contextlib
import json
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from weights_support import save, save_json, save_raw

from fvport.errors import BlockedError, FvportError
from fvport.weights import manifest


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_reads_what_was_written(tmp_path):
    """Names, dtypes, shapes and byte ranges are the file's, and the ranges point at the values."""
    file = save(tmp_path / "a.safetensors", {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}, {"format": "pt"})
    info = manifest.read_header(file)["x"]
    assert (info.dtype, info.shape, info.nbytes, info.elements) == ("F32", (2, 3), 24, 6)
    assert np.frombuffer(file.read_bytes()[info.start : info.end], np.float32).tolist() == [0, 1, 2, 3, 4, 5]
    assert manifest.read_metadata(file) == {"format": "pt"}


def test_agrees_with_the_library(tmp_path):
    """A file that the safetensors library wrote is read to the same names and shapes, empty and scalar ones too."""
    from safetensors.numpy import save_file

    arrays = {"s": np.array(1.5), "e": np.zeros((0, 3), np.float16), "b": np.ones((2, 1), bool), "i": np.arange(3)}
    save_file(arrays, tmp_path / "a.safetensors")
    found = manifest.read_header(tmp_path / "a.safetensors")
    assert {name: info.shape for name, info in found.items()} == {name: a.shape for name, a in arrays.items()}
    assert {name: info.dtype for name, info in found.items()} == {"s": "F64", "e": "F16", "b": "BOOL", "i": "I64"}


@pytest.mark.parametrize(
    ("header", "body", "word"),
    [
        (b"[]", b"", "does not begin"),
        (b"{", b"", "not valid JSON"),
        (b'{"a": NaN}', b"", "NaN"),
        (b'{"x": 1, "x": 2}', b"", "there twice"),
        (b'{"x": {"dtype": "F32"}}', b"", "must have dtype"),
        (json.dumps({"x": entry("F33")}).encode(), bytes(8), "unknown dtype 'F33'"),
        (json.dumps({"x": entry(shape=(-2,))}).encode(), bytes(8), "not a list of sizes"),
        (json.dumps({"x": entry(shape=(True, 2))}).encode(), bytes(8), "not a list of sizes"),
        (json.dumps({"x": entry(shape=(3,))}).encode(), bytes(8), "does not fit"),
        (json.dumps({"x": entry(offsets=(8, 0))}).encode(), bytes(8), "not a range"),
        (json.dumps({"x": entry()}).encode(), bytes(4), "truncated"),
        (json.dumps({"x": entry()}).encode(), bytes(9), "which has 9"),
        (json.dumps({"x": entry(), "y": entry(offsets=(4, 12))}).encode(), bytes(12), "overlap"),
        (json.dumps({"x": entry(offsets=(4, 12))}).encode(), bytes(12), "belong to no tensor"),
        (json.dumps({"__metadata__": {"a": 1}}).encode(), b"", "__metadata__"),
        (b'{"x":' + b"[" * 200_000, b"", "header"),
        (b'{"\\ud800": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}', b"", "Unicode"),
        (b"{\xff}", b"", "not valid JSON"),
    ],
)
def test_a_bad_header_is_one_sentence(tmp_path, header, body, word):
    """Each kind of damage is named, with the file."""
    file = save_raw(tmp_path / "bad.safetensors", header, body)
    with pytest.raises(BlockedError, match=r"bad\.safetensors") as caught:
        manifest.read_header(file)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("size", "word"), [(0, "truncated"), (7, "truncated"), (12, "truncated")])
def test_a_cut_file_is_called_truncated(tmp_path, size, word):
    """A file cut anywhere in its header is called truncated."""
    file = save(tmp_path / "a.safetensors", {"x": np.zeros(2, np.float32)})
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(BlockedError, match=word):
        manifest.read_header(file)


def test_a_huge_header_costs_no_memory(tmp_path):
    """A length of 2**62 is refused before anything is read."""
    file = tmp_path / "huge.safetensors"
    file.write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    tracemalloc.start()
    with pytest.raises(BlockedError, match="claims a header"):
        manifest.read_header(file)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_a_git_lfs_pointer_has_its_word(tmp_path):
    """A clone without LFS holds pointers under the files' names: that is said, and how to get the files."""
    file = tmp_path / "model.safetensors"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    with pytest.raises(BlockedError, match=r"Git LFS pointer.*git lfs pull"):
        manifest.read_any(file)


def test_a_missing_file_says_so(tmp_path):
    """A file that is not there is exit code 3, not a traceback."""
    with pytest.raises(BlockedError, match="No such file"):
        manifest.read_header(tmp_path / "none.safetensors")


@settings(max_examples=80, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200), length=st.one_of(st.none(), st.integers(0, 2**64 - 1)))
def test_any_bytes_end_in_a_sentence(tmp_path, data, length):
    """Whatever the bytes are, the answer is a table or one sentence."""
    file = save_raw(tmp_path / "f.safetensors", data, b"", length)
    with contextlib.suppress(FvportError):
        manifest.read_header(file)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)
keys = st.sampled_from(["dtype", "shape", "data_offsets"])
near_headers = st.dictionaries(
    st.text(max_size=4), st.dictionaries(keys, json_values, max_size=3) | json_values, max_size=3
)


@settings(max_examples=80, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=near_headers, body=st.binary(max_size=32))
def test_any_json_header_ends_in_a_sentence(tmp_path, header, body):
    """JSON that is nearly a header is refused like any other damage, and what is accepted lies within the file."""
    file = save_raw(tmp_path / "f.safetensors", json.dumps(header).encode(), body)
    with contextlib.suppress(FvportError):
        found = manifest.read_header(file)
        assert all(info.end <= file.stat().st_size for info in found.values())


@settings(max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 400), value=st.integers(0, 255))
def test_one_flipped_byte_is_seen_or_harmless(tmp_path, at, value):
    """A byte changed in the header of a good file never raises anything but our own error."""
    file = save(tmp_path / "f.safetensors", {"a": np.zeros((2, 3), np.float32), "b": np.ones(4, np.float32)})
    raw = bytearray(file.read_bytes())
    raw[at % len(raw)] = value
    file.write_bytes(bytes(raw))
    with contextlib.suppress(FvportError):
        manifest.read_header(file)


# --- shards ----------------------------------------------------------------------------------------------------------


def shards(folder, weight_map=None):
    save(folder / "m-00001-of-00002.safetensors", {"a": np.zeros(2, np.float32)})
    save(folder / "m-00002-of-00002.safetensors", {"b": np.zeros(2, np.float32)})
    table = weight_map or {"a": "m-00001-of-00002.safetensors", "b": "m-00002-of-00002.safetensors"}
    return save_json(folder / "m.safetensors.index.json", {"weight_map": table})


def test_shards_are_one_set_of_tensors(tmp_path):
    """An index's shards together hold the component's tensors."""
    shards(tmp_path)
    weights = manifest.read_weights(tmp_path)
    assert sorted(weights.tensors) == ["a", "b"]
    assert weights.file_of()["b"] == "m-00002-of-00002.safetensors"
    assert weights.concerns == ()


@pytest.mark.parametrize(
    ("weight_map", "word"),
    [
        ({"a": "gone.safetensors"}, "which is not there"),
        ({"z": "m-00001-of-00002.safetensors"}, "does not hold it"),
        ({"a": "../m-00001-of-00002.safetensors"}, "not a file beside it"),
        ({"a": 5}, "no weight_map"),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path, weight_map, word):
    """A missing shard, a missing key or a path outside of the folder is named with the index."""
    index = shards(tmp_path, weight_map)
    with pytest.raises(BlockedError, match=index.name) as caught:
        manifest.read_weights(tmp_path)
    assert word in str(caught.value)


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    """The same name in two shards is refused: which one wins would be chance."""
    shards(tmp_path)
    save(tmp_path / "m-00002-of-00002.safetensors", {"a": np.zeros(2, np.float32), "b": np.zeros(2, np.float32)})
    with pytest.raises(BlockedError, match=r"is in m-00001-of-00002\.safetensors and in m-00002"):
        manifest.read_weights(tmp_path)


def test_a_variant_beside_the_weights_is_told(tmp_path):
    """The plain file is chosen, and a half-precision twin that a reader of *.safetensors would load is a concern."""
    save(tmp_path / "model.safetensors", {"a": np.zeros(2, np.float32)})
    save(tmp_path / "model.fp16.safetensors", {"a": np.zeros(2, np.float16)})
    weights = manifest.read_weights(tmp_path)
    assert list(weights.files) == ["model.safetensors"]
    assert "model.fp16.safetensors" in weights.concerns[0]
