# SPDX-License-Identifier: Apache-2.0
"""The reuse proof on real modules: two classes that agree, and each way in which they may differ, by its aspect."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from fvport.models import official_modules
from fvport.reuse import proof
from fvport.reuse.proof import Facts


@dataclasses.dataclass
class Output:
    """What `Model` returns."""

    last_hidden_state: Any = None
    pooler_output: Any = None


@dataclasses.dataclass
class Narrow:
    """The same without pooling."""

    last_hidden_state: Any = None


class Offset(nn.Module):
    """A norm whose gain is an offset from one, as Gemma's."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width)), eps

    def forward(self, x: Any) -> Any:
        return nn.functional.layer_norm(x, x.shape[-1:], 1 + self.weight, self.bias, self.eps)


OffsetLayerNorm = type("OffsetLayerNorm", (Offset,), {})


class Block(nn.Module):
    """A small block with a norm, an activation and constants."""

    def __init__(self, norm: Any, act: Any, scale: float, theta: float) -> None:
        super().__init__()
        self.norm, self.act, self.scale, self.rope_theta = norm, act, scale, theta
        self.fc1, self.fc2 = nn.Linear(16, 32), nn.Linear(32, 16)


class Model(nn.Module):
    """`layers` blocks."""

    def __init__(
        self, norm: Any = None, act: Any = None, scale: float = 0.25, theta: float = 1e4, layers: int = 2
    ) -> None:
        super().__init__()
        make = norm or (lambda: nn.LayerNorm(16, eps=1e-5))
        self.layers = nn.ModuleList([Block(make(), act or nn.GELU(), scale, theta) for _ in range(layers)])

    def forward(self, x: Any) -> Output:
        return Output(x)


class NarrowModel(Model):
    """The same model with a field less in what it returns."""

    def forward(self, x: Any) -> Narrow:
        return Narrow(x)


def facts(native: nn.Module, **more: Any) -> Facts:
    """Both sides on the meta device, every name paired with itself."""
    with torch.device("meta"):
        official = official_modules.facts(Model())
    ours = official_modules.facts(native)
    pairs = {name: (name, None, None) for name in official["tensors"]}
    return Facts(official, ours, pairs, **{"fields": [], "tokens": [], **more})


def on_meta(**given: Any) -> nn.Module:
    """A model on the meta device, as it is built for a proof."""
    with torch.device("meta"):
        return Model(**given)


def verdicts(found: list[proof.Finding]) -> dict[str, str]:
    """{aspect: verdict}"""
    return {item.aspect: item.verdict for item in found}


def test_a_class_that_is_the_same_is_reusable_and_every_aspect_is_looked_at() -> None:
    """All nine aspects are equal for the same class with the same arguments."""
    found = proof.prove(facts(on_meta()))
    assert tuple(item.aspect for item in found) == proof.ASPECTS
    assert set(verdicts(found).values()) == {"equal"}, [item for item in found if item.verdict != "equal"]
    assert proof.reusable(found)


FAULTS = {
    "eps": ("normalisation", lambda: on_meta(norm=lambda: nn.LayerNorm(16, eps=1e-6))),
    "gain_offset": ("normalisation", lambda: on_meta(norm=lambda: OffsetLayerNorm(16))),
    "gelu_tanh": ("activation", lambda: on_meta(act=nn.GELU(approximate="tanh"))),
    "silu": ("activation", lambda: on_meta(act=nn.SiLU())),
    "scale": ("constants", lambda: on_meta(scale=0.125)),
    "theta": ("positions", lambda: on_meta(theta=5e5)),
    "layer_less": ("structure", lambda: on_meta(layers=1)),
    "layer_more": ("structure", lambda: on_meta(layers=3)),
    "width": ("parameter shapes", lambda: on_meta(norm=lambda: nn.LayerNorm(8, eps=1e-5))),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_differs_is_named_by_its_aspect(fault: str) -> None:
    """Each fault makes its own aspect differ, and the class not reusable."""
    aspect, make = FAULTS[fault]
    found = proof.prove(facts(make()))
    assert verdicts(found)[aspect] == "differs", found
    assert not proof.reusable(found)


def test_an_eps_is_named_with_both_values() -> None:
    """The sentence about a norm names the module and both eps."""
    found = {f.aspect: f for f in proof.prove(facts(on_meta(norm=lambda: nn.LayerNorm(16, eps=1e-6))))}
    assert "layers.0.norm" in found["normalisation"].details[0]
    assert "1e-05" in found["normalisation"].details[0]
    assert "1e-06" in found["normalisation"].details[0]


def test_a_class_that_matches_with_other_arguments_is_not_reusable() -> None:
    """A config value that does not arrive is a difference although names, shapes and modules agree."""
    found = proof.prove(facts(on_meta(), fields=["rms_norm_eps different value: official 1e-05, native 1e-06"]))
    assert verdicts(found)["constructor arguments"] == "differs"
    assert not proof.reusable(found)


def test_a_config_field_about_positions_is_a_difference_of_positions_too() -> None:
    """rope_theta that is dropped is said under positions."""
    found = verdicts(proof.prove(facts(on_meta(), fields=["rope_theta dropped: official 500000.0"])))
    assert found["positions"] == "differs"


def test_other_tokens_are_a_difference() -> None:
    """A tokenizer that gives other ids makes the class not reusable as it stands."""
    found = proof.prove(facts(on_meta(), tokens=["text_encoder tokens of the long prompt: id 3 of row 0 is 5"]))
    assert verdicts(found)["tokenizer"] == "differs"
    assert not proof.reusable(found)


def test_what_nobody_could_be_asked_is_unknown_and_never_equal() -> None:
    """Without fields and tokens the aspects are unknown, with the reason."""
    found = proof.prove(facts(on_meta(), fields=None, tokens=None, why={"fields": "no config.json", "tokens": "x"}))
    assert verdicts(found)["constructor arguments"] == verdicts(found)["tokenizer"] == "unknown"
    assert "no config.json" in next(f.what for f in found if f.aspect == "constructor arguments")


def test_a_field_less_in_the_output_is_named() -> None:
    """Another container is for the pipeline to adapt, and the field that it lacks is named."""
    with torch.device("meta"):
        found = {f.aspect: f for f in proof.prove(facts(NarrowModel()))}
    assert found["output container"].verdict == "adapted"
    assert "pooler_output" in found["output container"].details[0]


def test_a_merged_tensor_has_the_rows_of_its_parts() -> None:
    """Parts of a merge are counted together, and a part that is missing shows in the shape."""
    official = {"tensors": {"q": [4, 8], "k": [2, 8]}, "modules": {}, "output": {"annotation": "", "fields": []}}
    native = {"tensors": {"qk": [6, 8]}, "modules": {}, "output": {"annotation": "", "fields": []}}
    both = {"q": ("qk", 0, 2), "k": ("qk", 1, 2)}
    assert proof.shapes(Facts(official, native, both)).verdict == "equal"
    assert proof.shapes(Facts(official, native, {"q": ("qk", 0, 2)})).verdict == "differs"


def test_pairs_that_were_guessed_show_nothing_as_equal() -> None:
    """Every aspect that reads the pairs is adapted, and says why; what reads none is as it was."""
    found = {item.aspect: item for item in proof.prove(facts(on_meta(), guessed=True))}
    assert {name for name, item in found.items() if item.verdict == "adapted"} == set(proof.PAIRED)
    assert all(found[name].what.endswith("by suggested rules") for name in proof.PAIRED)
    assert found["activation"].verdict == "equal"


def test_a_field_that_the_constructor_does_not_take_was_not_passed() -> None:
    """The config is compared with what the class was given, not with itself."""
    from fvport.models import native_reuse

    given = {"_class_name": "M", "layers": 2, "qk_norm": "rms_norm"}
    assert native_reuse.passed(Model, given, "arguments") == {"layers": 2}
    assert native_reuse.passed(Model, given, "dict") == {"layers": 2, "qk_norm": "rms_norm"}
