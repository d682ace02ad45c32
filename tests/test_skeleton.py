# SPDX-License-Identifier: Apache-2.0
"""Skeletons: a module tree becomes whole source with the same names, and each forward that is not written is a line."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import skeleton_cases, skeleton_fills
from fvport.checks import boundary
from fvport.scaffold import render, skeleton
from fvport.scaffold.skeleton import ask, known, official_tree
from fvport.scaffold.skeleton.write import Writer

ROOT = Path(__file__).parents[1]


class Odd(nn.Conv2d):
    def forward(self, x: Any) -> Any:
        return super().forward(x) * 2


class Block(nn.Module):
    def __init__(self, number: int, width: int = 8) -> None:
        super().__init__()
        self.width = width
        self.number = number  # differs from block to block and means nothing here
        self.norm = nn.LayerNorm(width, bias=False)
        self.linear = nn.Linear(width, width, bias=False)
        self.table = nn.Parameter(torch.zeros(6, width))

    def forward(self, x: Any, mask: Any = None) -> Any:
        return self.linear(self.norm(x))


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = Odd(3, 8, 3, padding=1, bias=False)
        self.wider = Odd(3, 16, 3)
        self.blocks = nn.ModuleList([Block(i) for i in range(4)])
        self.last = Block(4, 16)
        self.mixed = nn.ModuleList([nn.Linear(2, 3), nn.Dropout(0.1), nn.Linear(3, 2), nn.Linear(3, 2)])
        self.edge = nn.Conv1d(2, 4, 3, padding=1, padding_mode="reflect")
        self.old = nn.utils.weight_norm(nn.Conv1d(2, 4, 1))
        self.heads = nn.MultiheadAttention(4, 2)
        self.path = nn.Sequential(nn.Linear(2, 2), nn.SiLU())
        self.register_buffer("kept", torch.zeros(2, 3))
        self.register_buffer("gone", torch.zeros(2), persistent=False)

    def forward(self, hidden_states: Any, *, scale: float = 1.0) -> Any:
        return hidden_states


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """`c` of a component whose official class is Toy."""
    config = {"num_layers": 4, "num_attention_heads": 2, "attention_head_dim": 4, "in_channels": 3}
    key = ("diffusers", "Toy", json.dumps(config, sort_keys=True))
    monkeypatch.setitem(ask.ASKED, key, (official_tree.node(Toy()), ""))
    c = SimpleNamespace(
        name="transformer", kind="dit", library="diffusers", official_class="Toy", official="diffusers:Toy"
    )
    c.__dict__.update(config=config, tensors=dict.fromkeys(Toy().state_dict(), ("F32", ())), archetype="")
    c.__dict__.update(native_class="PortToy", config_class="PortToyConfig", arch_class="PortToyArch", is_skeleton=True)
    c.__dict__.update(native_module="fastvideo.models.dits.toy", config_module="fastvideo.configs.models.dits.toy")
    return c


def source(c: Any) -> str:
    return render.render("skeleton/native_tree.py.jinja", SimpleNamespace(model="Toy"), c)  # type: ignore[arg-type]


def test_names_shapes_and_layers_are_the_official_ones(toy: Any) -> None:
    """Linear layers are FastVideo's (plain ones in a Sequential), lists of one structure are one line, buffers stay."""
    text = source(toy)
    ast.parse(text)
    assert "self.linear = ReplicatedLinear(8, 8, bias=False)" in text
    assert "self.blocks = nn.ModuleList([Block(config) for _ in range(config.num_layers)])" in text
    assert "nn.Sequential(nn.Linear(in_features=2, out_features=2, bias=True), nn.SiLU())" in text
    assert 'self.register_buffer("kept", torch.zeros(2, 3))' in text
    assert "gone" not in text
    assert "self.width = 8" in text
    assert "self.width = 16" in text
    assert "self.number" not in text.split("class Block2")[0]  # it differs, so it is no value of the class
    assert "nn.LayerNorm((8,), eps=1e-05, elementwise_affine=True, bias=False)" in text
    assert "*(ReplicatedLinear(3, 2) for _ in range(2))" in text
    assert 'nn.Conv1d(2, 4, kernel_size=(3,), stride=(1,), padding=(1,), padding_mode="reflect")' in text
    assert "self.old = nn.utils.weight_norm(nn.Conv1d(" in text
    assert "self.out_proj = ReplicatedLinear(4, 4)" in text
    assert "self.table = nn.Parameter(torch.empty(6, 8))" in text


def test_one_decision_a_forward_whatever_its_shapes(toy: Any) -> None:
    """A class in two sizes has its forward once; each decision is one line, and boundary's rule finds each of them."""
    text = source(toy)
    made, _ = skeleton.of(toy)
    assert made
    lines = [line for line in text.splitlines() if "FVPORT-DECIDE: " in line]
    assert [re.search(r"forward of (\w+)", line)[1] for line in lines] == ["Odd", "Block", "MultiheadAttention", "Toy"]  # type: ignore[index]
    assert len(made.decisions) == 4
    assert "class Block2(Block):" in text
    assert text.count("Odd(3, 8, kernel_size") == text.count("Odd(3, 16, kernel_size") == 1
    assert all(boundary._PLACEHOLDER.search(line) and len(line) <= 120 for line in lines)


def test_every_name_of_the_release_is_kept_by_a_pattern(toy: Any) -> None:
    """The mapping is the identity, declared name by name from the top; a name that nobody has is not passed."""
    made, _ = skeleton.of(toy)
    assert made
    assert all(any(re.match(p, name) for p in made.passthrough) for name in toy.tensors)
    assert not any(re.match(p, "stranger.weight") for p in made.passthrough)


def test_sizes_that_no_field_says_are_decisions(toy: Any) -> None:
    """FastVideo asks a transformer for its width: from the config where it says it, else a line for a person."""
    assert "self.hidden_size = config.num_attention_heads * config.attention_head_dim" in source(toy)
    assert skeleton.sizes({"depth": 2}) == {"hidden_size": "", "num_attention_heads": "", "num_channels_latents": ""}


def test_nothing_is_started_for_a_class_that_nobody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown class or library is one sentence, without a child process."""
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("a process was started"))
    assert ask.tree("diffusers", "NobodyHasThisTransformer", {}) == (
        {},
        "the installed diffusers has no NobodyHasThisTransformer",
    )
    assert "not one of" in ask.tree("somewhere", "Model", {})[1]


def test_a_block_with_other_parts_is_not_written_for_a_person() -> None:
    """A known name alone is no reason: other children or another processor leave the forward undecided."""
    block = {"cls": "FeedForward", "home": "diffusers.models.attention", "children": {"net": {"children": {}}}}
    assert known.forward(block) is None
    attention = {"cls": "Attention", "home": "diffusers.models.attention_processor", "attributes": {"heads": 2}}
    attention |= {"children": {key: {} for key in ("to_q", "to_k", "to_v", "to_out")}, "processor": "AttnProcessor2_0"}
    assert known.forward(attention) is not None
    for change in (
        {"processor": "SanaLinearAttnProcessor2_0"},
        {"attributes": {"heads": 2, "rescale_output_factor": 2.0}},
        {"children": attention["children"] | {"group_norm": {}}},
        {"home": "somebody.else"},
    ):
        assert known.forward(attention | change) is None


def test_another_class_of_the_same_name_is_another_decision() -> None:
    """Two official classes of one name from two modules do not share a forward."""
    a, b = official_tree.node(Block(0)), official_tree.node(Block(0, 4))
    b["home"] = "elsewhere"
    writer = Writer({}, "Native")
    writer.call(a)
    writer.call(b)
    assert len(writer.decisions) == 2


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every class of the bench, through FastVideo's layers, in one process of its own."""
    folder = tmp_path_factory.mktemp("skeletons")
    command = [sys.executable, "-m", "benchmarks.skeletons", str(folder / "out.json"), str(folder)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "out.json").read_text())


@pytest.mark.heavy
@pytest.mark.parametrize("cls", skeleton_cases.CASES)
def test_keys_are_green_at_once_and_what_is_written_is_right(measured: dict[str, Any], cls: str) -> None:
    """Names and shapes equal the official ones with no edit; each forward that was written equals the official one."""
    row = measured[cls]
    assert row["green"], row
    assert row["wrong"] == {}
    assert row["decisions"]


@pytest.mark.heavy
@pytest.mark.parametrize("cls", skeleton_fills.FILLS)
def test_with_its_decisions_filled_in_it_equals_the_official_class(measured: dict[str, Any], cls: str) -> None:
    """Only the forwards that were left are written; then every output is within the official model's own floor."""
    found = measured[cls]["filled"]
    assert found["left"] == 0
    assert len(skeleton_fills.FILLS[cls]) == len(measured[cls]["decisions"])
    for difference, floor in found["cases"]:
        assert difference <= 3 * max(floor, 1.2e-7)
