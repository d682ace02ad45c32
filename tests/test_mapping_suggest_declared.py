# SPDX-License-Identifier: Apache-2.0
"""Suggested rules that need a conversion are printed as one declares them, and mean the same."""

from __future__ import annotations

import mapping_layouts
import numpy as np
import pytest
from convert_support import plan
from mapping_layouts import LAYOUTS
from weights_support import save

from fvport.weights import suggest_declared
from fvport.weights.mapping import Rule, Rules
from fvport.weights.operations import Operation
from fvport.weights.suggest import suggest


def planned(folder, shapes, entry):
    """{made tensor: (keys it is made of, which output)} of a release with these keys, by a suggested entry."""
    save(folder / "model.safetensors", {name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
    table = {"t": {"class": "M", **entry}}
    found = plan(folder, f"COMPONENTS = {table!r}")
    return {item.name: (tuple(source.key for source in item.sources), item.output) for item in found.tensors["t"]}


@pytest.mark.parametrize("name", sorted(LAYOUTS))
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_suggested_declaration_means_what_the_rules_mean(tmp_path, name, prefix):
    """Fused names taken apart into a library's own, alone and in a file of several components: every tensor of the
    plan is made of the keys that the suggested rules say, and the printed text is the entry."""
    theirs, fused, _ = mapping_layouts.tables(LAYOUTS[name], 2)
    official = {prefix + key: shape for key, shape in fused.items()}
    found = suggest(official, theirs)
    entry = found.conversion()
    assert entry["prefix"] in (prefix, "")
    made = planned(tmp_path, official, entry)
    want = {}
    for target, items in found.rules.apply(name for name in official if name not in found.unplaced).targets().items():
        part = next((step.arguments[2] for step in items[0].operations if len(step.arguments) == 3), 0)
        want[target] = (tuple(item.source for item in items), part)
    assert {key: value for key, value in made.items() if key in want} == want
    if found.converts:
        said = {}
        exec("entry = {" + found.text().partition("to say):")[2].partition("\n")[2] + "}", said)  # noqa: S102
        assert said["entry"] == entry


def test_a_part_without_a_partner_is_left_to_a_person():
    """Of a tensor of three parts one has no native name: the declaration asks why."""
    split = Operation("split", (0, 3, 2))
    rules = Rules((Rule("rename", r"^a\.qkv$", "a.v", operations=(split,)),))
    (rule,) = suggest_declared.entry(rules, ["a.qkv"])["rules"]
    assert rule == ["qkv", [suggest_declared.LEFT, suggest_declared.LEFT, "a.v"], ["split", 0, 3]]


def test_a_merge_with_an_operation_is_one_entry():
    """Sources in their order, what is done to each, and how they are joined."""
    turn = Operation("transpose", ((1, 0),))
    both = [Rule("rename", rf"^m\.{word}$", "n.both", n, 2, None, (turn,)) for n, word in ((1, "up"), (0, "gate"))]
    found = suggest_declared.entry(Rules(tuple(both)), ["m.up", "m.gate"])
    want = [["gate", "up"], "n.both", ["transpose", [1, 0]], ["fuse", 0]]
    assert found == {"prefix": "m.", "rules": [want]}


def test_a_name_that_stays_keeps_its_prefix():
    """What passes through has the same name on both sides, prefix and all: nothing is cut off."""
    found = suggest({"m.a.weight": (4, 2, 1), "m.b.weight": (3,)}, {"m.a.weight": (4, 2), "m.b.weight": (3,)})
    assert found.converts
    assert found.conversion()["prefix"] == ""
