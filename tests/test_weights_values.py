# SPDX-License-Identifier: Apache-2.0
"""Coverage by value: a native tensor that does not hold what it claims is found and said in the right words."""

from __future__ import annotations

import numpy as np
import pytest
from weights_support import NAMES_MAPPING, native_of, save, transformer

from fvport.weights import values
from fvport.weights.mapping import Rules
from fvport.weights.values import Store

OFFICIAL = transformer()
RULES = Rules.from_fastvideo(NAMES_MAPPING)
QKV = "blocks.0.attn1.to_qkv.weight"
OUT = "blocks.0.attn1.to_out.weight"


def coverage(native, official=None, free=()):
    official = OFFICIAL if official is None else official
    mapped = RULES.apply(official)
    return values.compare(Store.of_arrays(official), mapped, Store.of_arrays(native), free)


def changed(name, array):
    return native_of(OFFICIAL) | {name: array}


def test_a_right_load_has_no_fault(tmp_path):
    """Every tensor is compared, merges too, from files as from memory."""
    found = coverage(native_of(OFFICIAL))
    assert found.faults == []
    assert found.compared == len(native_of(OFFICIAL))
    files = [
        Store.of_file(save(tmp_path / f"{n}.safetensors", t)) for n, t in enumerate((OFFICIAL, native_of(OFFICIAL)))
    ]
    assert values.compare(files[0], RULES.apply(OFFICIAL), files[1]).faults == []


def swapped_rows(array):
    return np.concatenate([array[4:8], array[:4], array[8:]])


RED = {
    "zero_filled": (OUT, np.zeros((4, 4), np.float32)),
    "transposed": (OUT, OFFICIAL["blocks.0.attn1.to_out.0.weight"].T.copy()),
    "swapped": (OUT, OFFICIAL["blocks.1.attn1.to_out.0.weight"]),
    "differs": (OUT, OFFICIAL["blocks.0.attn1.to_out.0.weight"] + np.float32(1e-6)),
    "rounded": (OUT, OFFICIAL["blocks.0.attn1.to_out.0.weight"].astype(np.float16).astype(np.float32)),
    "dtype": (OUT, OFFICIAL["blocks.0.attn1.to_out.0.weight"].astype(np.float16)),
    "shape": (QKV, np.zeros((8, 4), np.float32)),
}


@pytest.mark.parametrize("problem", RED)
def test_each_fault_is_named(problem):
    """A tensor that was not copied, zero-filled, swapped, transposed or rounded is one fault, by name."""
    name, array = RED[problem]
    (fault,) = coverage(changed(name, array)).faults
    assert (fault.name, fault.problem) == (name, problem)
    assert name in fault.message


def test_a_merge_in_another_order_is_named():
    """q and k exchanged inside a fused tensor says the order it holds."""
    (fault,) = coverage(changed(QKV, swapped_rows(native_of(OFFICIAL)[QKV]))).faults
    assert fault.problem == "transposed"
    assert "to_k.weight, blocks.0.attn1.to_q.weight" in fault.message


def test_one_wrong_bit_is_seen():
    """Two tensors that differ in the sign of a zero are not the same bytes."""
    official = OFFICIAL | {"table": np.zeros((2, 4), np.float32)}
    native = native_of(official)
    native["table"] = -native["table"]
    assert len(coverage(native, official).faults) == 1


def test_bf16_rounding_is_named():
    """Values rounded to bf16 and stored as f32 are called rounded."""
    bits = OFFICIAL["blocks.0.attn1.to_out.0.weight"].view(np.uint32) + 0x8000
    array = (bits >> 16 << 16).astype(np.uint32).view(np.float32)
    (fault,) = coverage(changed(OUT, array)).faults
    assert fault.problem == "rounded"


def test_missing_and_uncovered_are_named():
    """A native tensor without source, and a source without native tensor, are faults; a declared buffer is none."""
    native = native_of(OFFICIAL)
    del native["table"]
    native["buffer"] = np.ones(3, np.float32)
    assert {fault.problem: fault.name for fault in coverage(native).faults} == {
        "missing": "table",
        "uncovered": "buffer",
    }
    assert [fault.problem for fault in coverage(native, free=["buffer"]).faults] == ["missing"]


def test_bf16_widened_to_f32_is_equal(tmp_path):
    """bf16 official weights loaded as f32 hold the same values; another value is a fault."""
    bits = np.array([0x3F80, 0xC000, 0x0001, 0x7F80], np.uint16)
    official = Store.of_file(save(tmp_path / "o.safetensors", {"x": bits}))
    wide = (bits.astype(np.uint32) << 16).view(np.float32)
    mapped = Rules().apply(["x"])
    assert values.compare(official, mapped, Store.of_arrays({"x": wide})).faults == []
    wide = wide.copy()
    wide[0] = 1.0000001
    assert len(values.compare(official, mapped, Store.of_arrays({"x": wide})).faults) == 1


def test_torch_tensors_are_read_as_they_are():
    """Torch tensors of every width, bf16 and views too, are compared by their bytes."""
    import torch

    base = torch.arange(12, dtype=torch.bfloat16).reshape(3, 4)
    official, native = Store.of_arrays({"x": base.T.contiguous()}), Store.of_arrays({"x": base.T})
    assert values.compare(official, Rules().apply(["x"]), native).faults == []
    assert official.info("x")[:2] == ("BF16", (4, 3))


def test_large_tensors_are_compared_in_pieces(monkeypatch):
    """A tensor larger than a piece is compared to its end."""
    monkeypatch.setattr(values, "PIECE", 16)
    native = native_of(OFFICIAL)
    assert coverage(native).faults == []
    native[QKV] = native[QKV].copy()
    native[QKV][-1, -1] += 1
    assert [fault.name for fault in coverage(native).faults] == [QKV]
