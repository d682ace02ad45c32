# SPDX-License-Identifier: Apache-2.0
"""Modules are paired by the parameters that the mapping says they share; what has no partner is listed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import trace_support as ts
from torch import nn

from fvport.parity import pairs, probe, record
from fvport.weights.mapping import Rules


def about(model: Any) -> dict[str, Any]:
    return record.about(model)


def names(model: Any) -> list[str]:
    return [name for name, _ in model.named_parameters()]


def paired(official: Any, native: Any, rules: Rules) -> pairs.Pairs:
    placed = pairs.sources(rules, names(official), names(native))
    return pairs.pair(about(official), about(native), placed)


def test_fused_containers_and_bare_modules() -> None:
    """One native projection for three official ones, containers by what they hold, activations by their place."""
    found = paired(ts.official(), ts.Native(), ts.RULES)
    attn = "blocks.1.attn"
    assert found.partners(f"{attn}.qkv") == (f"{attn}.to_q", f"{attn}.to_k", f"{attn}.to_v")
    assert found.pairs[attn].official == (attn,)
    assert found.partners("blocks.0") == ("blocks.0",)
    assert found.pairs[""].official == ("",)


def test_what_has_no_partner_is_listed() -> None:
    """A module that only one side has is in its list, and in no pair."""
    native = ts.Native()
    native.extra = nn.Linear(4, 4)
    found = paired(ts.official(), native, ts.RULES)
    assert "extra" in found.unpaired_native
    assert "extra" not in found.pairs


def test_a_prefix_that_only_one_side_has() -> None:
    """A wrapper around the official model adds a prefix to each name: the common end decides."""
    inner = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    wrapper = nn.Module()
    wrapper.model = inner
    found = paired(wrapper, nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), Rules())
    assert found.partners("1") == ("model.1",)


def test_bare_modules_of_unequal_number_are_not_guessed() -> None:
    """Two activations on one side and one on the other: none of them is paired."""

    def model(count: int) -> Any:
        made = nn.Module()
        made.fc = nn.Linear(3, 3)
        for i in range(count):
            setattr(made, f"act{i}", nn.SiLU())
        return made

    found = paired(model(2), model(1), Rules())
    assert found.unpaired_native == ["act0"]
    assert paired(model(2), model(2), Rules()).partners("act1") == ("act1",)


@pytest.mark.parametrize("size", [1, 255, 256, 70_001])
def test_sketches_estimate_the_difference(size: int) -> None:
    """Two tensors that are near: the estimate from 256 numbers is near the true relative difference."""
    generator = torch.Generator().manual_seed(size)
    a = torch.randn(size, generator=generator)
    b = a + 1e-4 * torch.randn(size, generator=generator)
    true = probe.measures(b, a)["rel_l2"]
    assert probe.apart(probe.sketch(b), probe.sketch(a)) == pytest.approx(true, rel=0.4)
    assert probe.apart(probe.sketch(a.reshape(-1, 1)), probe.sketch(a)) == 0.0


def test_a_store_keeps_every_dtype(tmp_path: Any) -> None:
    """What is written as it comes is read back bit for bit: halves, integers, masks, scalars, empty ones."""
    tensors = {
        "bf16": torch.randn(3, 5).bfloat16(),
        "ids": torch.arange(4),
        "mask": torch.tensor([[True, False]]),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "empty": torch.empty(0, 3),
        "turned": torch.randn(4, 3).t(),
    }
    store = probe.Store(tmp_path / "x.bin")
    for name, tensor in tensors.items():
        store.put(name, tensor)
    store.close()
    again = probe.Store.open(tmp_path / "x.bin")
    assert all(torch.equal(again.get(n), t) and again.get(n).dtype == t.dtype for n, t in tensors.items())


def test_tensors_of_another_layout_match() -> None:
    """(batch, heads, tokens, width) against (batch, tokens, heads * width): turned, not guessed by shape."""
    other = torch.randn(2, 3, 5, 4)
    own = other.transpose(1, 2).flatten(2)
    matched, missing = record.match([("out", own)], [("out", other)])
    assert not missing
    assert torch.equal(matched[0][2], own)
    assert record.match([("out", torch.randn(7))], [("out", other)]) == ([], ["out"])


def test_sketches_lie_in_slabs(monkeypatch: Any) -> None:
    """What was added comes back by its key, over the end of a slab, and a slab is not made for one sketch."""
    monkeypatch.setattr(probe.Marks, "SLAB", 2)
    marks = probe.Marks()
    given = {f"sketch/m{i}/last/out/out": torch.full((4,), float(i)) for i in range(5)}
    for key, sketch in given.items():
        marks.rows[key] = marks.add(sketch)
        sketch += 100.0  # a copy was taken
    assert {key: row.tolist() for key, row in marks.items()} == {key: [float(i)] * 4 for i, key in enumerate(given)}
    assert len({row.untyped_storage().data_ptr() for _, row in marks.items()}) == 3
