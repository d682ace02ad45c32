# SPDX-License-Identifier: Apache-2.0
"""Fuzzed indexes, configs and cut releases: a description or one sentence, in bounded time and memory."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inspect_support import Raw, save_zip
from weights_support import save, save_json, save_raw

from fvport.errors import FvportError
from fvport.weights import layout, manifest

FUZZ = settings(
    max_examples=100, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"
WHOLE = {"weight_map": {"a": SHARDS[0], "b": SHARDS[1]}, "metadata": {"total_size": 16}}


def sharded(folder):
    """A small release of two shards with an index and a config."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, shard in zip("ab", SHARDS, strict=True):
        save(folder / shard, {name: np.zeros(2, np.float32)})
    save_json(folder / INDEX, WHOLE)
    save_json(folder / "config.json", {"architectures": ["BertModel"], "model_type": "bert"})
    return folder


words = st.sampled_from(["weight_map", "metadata", "a", "b", *SHARDS, "../x", "", "model", "_class_name", "vae", "[]"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | words | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)


def looked(folder):
    """Both ways to look at a release; anything but a description or our own error fails the test."""
    for look in (manifest.read_weights, layout.inspect):
        with contextlib.suppress(FvportError):
            look(folder)


@FUZZ
@given(value=values | st.fixed_dictionaries({"weight_map": st.dictionaries(words, words | values, max_size=4)}))
def test_any_index_ends_in_a_sentence(tmp_path, value):
    """What stands in an index beside two good shards, whatever it is."""
    folder = sharded(tmp_path / "r")
    save_json(folder / INDEX, value)
    looked(folder)


@FUZZ
@given(value=values, name=st.sampled_from(["config.json", "model_index.json"]))
def test_any_config_ends_in_a_sentence(tmp_path, value, name):
    """A config or a model_index.json that holds something else."""
    folder = sharded(tmp_path / "r")
    save_json(folder / name, value)
    looked(folder)


@FUZZ
@given(data=st.data())
def test_any_damage_of_a_release_ends_in_a_sentence(tmp_path, data):
    """Any file of a sharded release cut at any place, or with bytes changed."""
    folder = sharded(tmp_path / "r")
    file = folder / data.draw(st.sampled_from([INDEX, "config.json", *SHARDS]))
    raw = bytearray(file.read_bytes())
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(raw) - 1), st.integers(0, 255)), max_size=3)):
        raw[at] = value
    file.write_bytes(raw[: data.draw(st.integers(0, len(raw)) | st.just(len(raw)))])
    looked(folder)


LOOK = """
import resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from fvport.errors import FvportError
from fvport.weights import layout
try:
    layout.inspect(__import__("pathlib").Path(sys.argv[1]))
    print("described")
except FvportError as error:
    print(str(error)[:300])
"""


def sparse(file, size, text=b""):
    """A file that claims `size` bytes and takes none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text)
    os.truncate(file, size)


def claims_a_header(folder):
    sparse(save_raw(folder / "model.safetensors", b"{", length=2**62), 1 << 36, (2**62).to_bytes(8, "little"))


def nested_header(folder):
    save_raw(folder / "model.safetensors", b"[" * 5_000_000)


def wide_header(folder):
    tensor = {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 2**62]}
    save_raw(folder / "model.safetensors", json.dumps({f"t{n}": tensor for n in range(50_000)}).encode())


def long_number(folder):
    save_raw(folder / "model.safetensors", b'{"a":{"dtype":"F32","shape":[' + b"9" * 4_000_000 + b"]}}")


def huge_index(folder):
    sharded(folder)
    sparse(folder / INDEX, 1 << 36, b'{"weight_map":{"a":"')


def nested_index(folder):
    sharded(folder)
    (folder / INDEX).write_text('{"weight_map":' + "[" * 5_000_000)


def endless_pickle(folder):
    folder.mkdir()
    save_zip(folder / "model.pt", Raw(b"]" + b"2" * 8_000_000), {"0": 8})


def doubling_pickle(folder):
    folder.mkdir()
    save_zip(folder / "model.pt", Raw(b"]" + b"(" + b"2" * 20 + b"t2\x86" * 400_000), {"0": 8})


def cut_archive(folder):
    folder.mkdir()
    save_zip(folder / "model.pt", {}, {"0": 1 << 16})
    file = folder / "model.pt"
    sparse(file, 1 << 36, file.read_bytes()[:100])


HOSTILE = (
    claims_a_header, nested_header, wide_header, long_number, huge_index, nested_index, endless_pickle,
    doubling_pickle, cut_archive,
)  # fmt: skip


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_a_hostile_file_is_bounded(tmp_path, make):
    """Files that claim, nest or repeat without measure: one sentence within seconds, under a limit on memory."""
    make(tmp_path / "r")
    clock = time.monotonic()
    command = [sys.executable, "-c", LOOK, str(tmp_path / "r")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "described" not in done.stdout, make.__name__
    assert time.monotonic() - clock < 40
