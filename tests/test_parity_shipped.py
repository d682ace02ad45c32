# SPDX-License-Identifier: Apache-2.0
"""bf16: each module under official values, so a faulty block is not lost in the noise of the blocks around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import trace_support as ts

from fvport.checks import parity
from fvport.parity import shipped
from fvport.spec import Component


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return ts.record_official(tmp_path_factory.mktemp("official"), dtype="bfloat16")


def examined(recorded: Any, change: Callable[[Any], Any] = lambda m: None) -> shipped.Shipped:
    model = ts.native(ts.official()).bfloat16()
    with torch.no_grad():
        change(model)
    return shipped.examine(ts.sides(model, recorded))


def test_a_sound_model_agrees(recorded: Any) -> None:
    """Fused kernels and sums in another order, all in bf16: within the budget, and every module was judged."""
    found = examined(recorded)
    assert not found.wrong
    assert found.modules > 20
    assert found.use < 1


FAULTS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "one bias": (lambda m: m.blocks[1].mlp.fc_out.bias.zero_(), "blocks.1.mlp.fc_out"),
    "the scale": (lambda m: setattr(m.blocks[2].attn, "scale", 0.5), "blocks.2.attn"),
    "theta": (lambda m: setattr(m, "theta", 256.0), "(the model itself)"),
    "a norm": (lambda m: m.norm_out.weight.mul_(1.05), "norm_out"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_block_is_named(recorded: Any, name: str) -> None:
    """What is small beside the noise of the whole model is large beside the module's own."""
    change, module = FAULTS[name]
    assert examined(recorded, change).wrong[0] == module


def test_modules_that_are_cut_elsewhere_are_not_judged(recorded: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A norm that answers twice as much to a projection that takes half: one model, cut at another place.

    The pair differs in float32 as well, where the whole agrees. A true fault beside it is named all the same.
    """

    def cut(model: Any) -> None:
        model.norm_out.register_forward_hook(lambda module, args, out: out * 2)
        model.proj_out.weight.mul_(0.5)

    def healthy() -> frozenset[str]:
        plain = ts.native(ts.official())
        with torch.no_grad():
            cut(plain)
        return shipped.in_float32(ts.sides(plain, ts.record_official(tmp_path_factory.mktemp("plain"))))

    marks = healthy()
    assert "norm_out>" in marks
    sound, faulty = ts.native(ts.official()).bfloat16(), ts.native(ts.official()).bfloat16()
    with torch.no_grad():
        cut(sound)
        cut(faulty)
        faulty.blocks[1].mlp.fc_out.bias.zero_()
    assert shipped.examine(ts.sides(sound, recorded)).wrong
    found = shipped.examine(ts.sides(sound, recorded), marks)
    assert not found.wrong
    assert "norm_out" in found.cut
    assert shipped.examine(ts.sides(faulty, recorded), marks).wrong[0] == "blocks.1.mlp.fc_out"


def test_an_answer_in_another_dtype_is_told(recorded: Any) -> None:
    """An fp32 island that only the native side has is a note with its module."""
    found = examined(recorded, lambda m: m.proj_out.register_forward_hook(lambda mod, args, out: out.float()))
    assert any(words == "proj_out: bfloat16 officially, float32 natively" for words in found.dtypes)


def test_items_say_what_ran() -> None:
    """Wrong blocks fail, sound ones pass, and what could not run is a note, not silence."""
    component = Component("net", "dit", "port", native="a:Net")

    def items(**more: Any) -> Any:
        said = {**shipped.Shipped("one", modules=9, worst="a", use=0.4).to_json(), **more}
        return parity.shipped_items(component, {"compared": [{"component": "net", "shipped": said}]})

    assert [item.verdict for item in items()[0]] == ["pass"]
    red, _ = items(wrong=["blocks.0"], sentence="first is blocks.0")
    assert red[0].verdict == "fail"
    assert "blocks.0" in red[0].reason
    assert "embed is cut elsewhere" in items(cut=["embed"])[1][0]
    assert items(problem="no bf16 kernel") == ([], ["net: blocks in bf16 were not compared: no bf16 kernel"])
    assert parity.shipped_items(component, {"compared": []}) == ([], [])
