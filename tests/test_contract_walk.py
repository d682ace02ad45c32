# SPDX-License-Identifier: Apache-2.0
"""The walk names the stage of each fault, and layers only where no stage before them answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import walk_support as support

from fvport.contract import STAGES, facts, points, root
from fvport.contract.red import Red
from fvport.contract.walk import walk
from fvport.parity import contracts

IN_THE_MODEL = {
    "mask inverted": ("masks", "inverted"),
    "mask dtype": ("masks", "additive"),
    "mask ignored": ("masks", "under the mask"),
    "mask of row 0": ("masks", "mask"),
    "states late": ("hidden-state selection", "begin 1 layer late"),
    "last layer": ("hidden-state selection", "last_hidden_state"),
    "final norm": ("hidden-state selection", "final_norm is skipped"),
    "pooled token": ("hidden-state selection", "the first token"),
    "positions of row 0": ("positional ids", "row"),
    "positions from one": ("positional ids", "counted"),
    "autocast": ("dtype/autocast", "autocast"),
    "output dtype": ("dtype/autocast", "float64"),
    "states short": ("output packing", "hidden_states.03"),
    "layer": ("layers", "layers.1"),
}
IN_THE_CALL = {
    "mask handed inverted": ("masks", "inverted: padding counts"),
    "mask not handed": ("masks", "is not handed over"),
    "positions not handed": ("positional ids", "are not handed over"),
    "fields swapped": ("output packing", "hidden_states.02"),
    "field missing": ("output packing", "no pooled"),
}


@pytest.mark.parametrize("fault", IN_THE_MODEL)
def test_fault_in_the_model(fault: str) -> None:
    """A fault of the native class is named by its stage."""
    red = support.red(fault, trace={"sentence": "first to differ by itself is layers.1.out"})
    found = walk(red, [])
    stage, words = IN_THE_MODEL[fault]
    assert (found.stage, words in found.sentence) == (stage, True), found
    assert found.agreed == list(STAGES[: STAGES.index(stage)])


@pytest.mark.parametrize("fault", IN_THE_CALL)
def test_fault_in_the_call(fault: str) -> None:
    """A fault of the test's call is named by its stage."""
    red = support.red(fault, where="call")
    found = walk(red, [])
    stage, words = IN_THE_CALL[fault]
    assert (found.stage, words in found.sentence) == (stage, True), found


class Conditioner(torch.nn.Module):
    """Text tokens and two numbers, packed for cross-attention and as one global vector; `order` is the fault's."""

    def __init__(self, order: tuple[int, int, int] = (0, 1, 2)) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.order, self.start, self.end = order, torch.nn.Linear(1, 8), torch.nn.Linear(1, 8)

    def forward(self, text: Any, attention_mask: Any, start: Any, end: Any) -> Any:
        parts = (text * attention_mask[..., None], self.start(start)[:, None], self.end(end)[:, None])
        packed = torch.cat([parts[i] for i in self.order], 1)
        tail = [i for i in self.order if i]
        whole = torch.cat([parts[i] for i in tail], 2)[:, 0]
        return support.BaseEncoderOutput(packed, whole)


@pytest.mark.parametrize("order", [(0, 2, 1), (1, 2, 0)])
def test_sub_conditioners_in_another_order(order: tuple[int, int, int]) -> None:
    """Tokens of cross-attention in another order are told with their places."""
    generator = torch.Generator().manual_seed(2)
    case = {
        "text": torch.randn(2, 5, 8, generator=generator),
        "attention_mask": torch.tensor([[1] * 5, [1] * 3 + [0] * 2]),
    }
    case |= {"start": torch.rand(2, 1, generator=generator), "end": torch.rand(2, 1, generator=generator)}

    def run(model: Any) -> dict[str, Any]:
        with torch.no_grad():
            out = model(**case)
        return {"cross_attention": out.last_hidden_state, "global": out.pooler_output}

    native = Conditioner(order)
    red = Red("one", native, lambda name: run(native), {"one": run(Conditioner())}, {"one": run(native)})
    found = walk(red, [])
    assert found.stage == "output packing", found
    assert "another order" in found.sentence
    assert " -> " in found.sentence


def test_nothing_differs() -> None:
    """A healthy pair has no stage to name, and behaves alike."""
    red = support.red("")
    assert not any(red.bad(case) for case in red.cases)
    theirs, mine = ({"cases": {}, "behaviour": b} for b in (red.behaviour, red.behaves()))
    found, done = points.compare(mine, theirs, own=True)
    assert found == []
    assert {"padding", "mask rows", "mask.bool", "row 1 alone", "states off"} <= set(done)
    assert walk(None, []).stage == ""


def test_watching_leaves_no_trace() -> None:
    """Hooks are taken away again, also where the call raises."""
    model, calls = support.Encoder(), []
    with pytest.raises(TypeError), root.watched(model, calls, deep=True):
        model(nothing=1)
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
    assert not any(module._forward_hooks for module in model.modules())


def test_cases_that_the_oracle_lacks() -> None:
    """One row, several rows and padding on the tokenizer's side must each be in some case; what is not is said."""
    right, left = torch.tensor([[1, 1, 1], [1, 0, 0]]), torch.tensor([[1, 1, 1], [0, 0, 1]])
    one = torch.ones(1, 3, dtype=torch.long)
    assert points.coverage({"a": {"attention_mask": right}, "b": {"attention_mask": one}}, "right") == []
    assert points.coverage({"a": {"attention_mask": right}}, "left") == [
        "batch 1",
        "padding on the left, where the tokenizer pads",
    ]
    assert points.coverage({"a": {"attention_mask": left}, "b": {"attention_mask": one}}, "left") == []
    assert "a batch of several rows" in points.coverage({"b": {"attention_mask": one}}, "right")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("ValueError: set the option `trust_remote_code=True` to remove this error", "never done by itself"),
        ("ImportError: SiglipImageProcessor requires the torchvision library", "torchvision"),
    ],
)
def test_official_tokenizer_that_cannot_be_loaded(monkeypatch: Any, error: str, words: str) -> None:
    """Code of the release is refused and an absent library is named; the contract is blocked, never passed."""
    component = SimpleNamespace(name="text_encoder", kind="text_encoder", bucket="encoders", mode="port")
    monkeypatch.setattr(facts, "official", lambda port: {"tokens": {"text_encoder": {"error": error}}})
    monkeypatch.setattr(contracts.oracle, "results", lambda *a, **k: SimpleNamespace(meta={}, cases=[]))
    found = {"contract": {"tokens": {"facts": {}, "cases": {}}}, "results": [{"ok": True}]}
    judged = contracts.judged(None, component, found, "cpu")  # type: ignore[arg-type]
    assert judged is not None
    assert words in judged.blocked
    assert judged.walk.stage == ""
