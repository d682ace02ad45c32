# SPDX-License-Identifier: Apache-2.0
"""`reuse --find` on tables of names: the class whose rules carry the checkpoint is first; a tie goes to the names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import REPO  # noqa: F401 - puts the repository on the path

from fvport.errors import BlockedError, UsageError
from fvport.reuse import commands, find, structure
from fvport.weights.mapping import Rules

LAYER = {"attn.to_q.weight": (8, 8), "attn.to_k.weight": (8, 8), "norm.weight": (8,), "ff.0.weight": (32, 8)}
OFFICIAL = {f"blocks.{n}.{name}": shape for n in range(3) for name, shape in LAYER.items()} | {"proj.weight": (8, 4)}
FUSED = {f"blocks.{n}.qk.weight": (16, 8) for n in range(3)} | {
    f"blocks.{n}.{name}": shape for n in range(3) for name, shape in LAYER.items() if "attn" not in name
}
FUSED["proj.weight"] = (8, 4)
FUSE = [
    [r"^blocks\.(\d+)\.attn\.to_q\.(.*)$", [r"blocks.\1.qk.\2", 0, 2]],
    [r"^blocks\.(\d+)\.attn\.to_k\.(.*)$", [r"blocks.\1.qk.\2", 1, 2]],
]


def answer(tensors: dict[str, Any], rules: Any = ()) -> dict[str, Any]:
    """What the child says of a class."""
    shapes = {k: list(v) for k, v in tensors.items()}
    return {"": {"tensors": shapes}, "on": {"tensors": shapes}, "rules": [list(rules), []]}


def ranked(official: str, **answers: Any) -> list[str]:
    """Class names, best first."""
    defaults = {f"native.{name.lower()}:{name}": value for name, value in answers.items()}
    found = find.ranking(find.Official(official, OFFICIAL, {}), defaults, defaults)
    return [c.native.rpartition(":")[2] for c in found.candidates]


def test_the_class_whose_rules_carry_the_names_is_first() -> None:
    """A fused class with rules is before one with the same words and no rules, and before a stranger."""
    stranger = {f"down.{n}.conv.weight": (8, 8, 3, 3) for n in range(5)}
    assert ranked("lib:X", Plain=answer(FUSED), Right=answer(FUSED, FUSE), Stranger=answer(stranger)) == [
        "Right",
        "Plain",
        "Stranger",
    ]


def test_another_width_under_the_same_names_is_behind_and_said() -> None:
    """On one config shapes count, and a shape that differs is named."""
    wider = {name: tuple(2 * size for size in shape) for name, shape in OFFICIAL.items()}
    assert ranked("lib:X", Wider=answer(wider), Right=answer(OFFICIAL)) == ["Right", "Wider"]
    told = structure.likeness(OFFICIAL, wider, Rules(), True).differences
    assert any("blocks.0.norm.weight: official [8], native [16]" in line for line in told)


def test_one_key_more_is_enough_to_be_second() -> None:
    """A class with one norm more is behind the exact one, and the norm is named."""
    more = {**OFFICIAL, **{f"blocks.{n}.norm_q.weight": (8,) for n in range(3)}}
    assert ranked("lib:X", More=answer(more), Right=answer(OFFICIAL)) == ["Right", "More"]
    assert structure.likeness(OFFICIAL, more, Rules(), True).differences == ["native only: blocks.#.norm_q.weight"]


def test_a_tie_goes_to_the_nearest_class_name_and_is_said() -> None:
    """Two classes of one structure are told apart by their names only, and the ranking says so."""
    defaults = {f"m:{n}": answer(OFFICIAL) for n in ("CausalTinyModel", "TinyModel")}
    found = find.ranking(find.Official("lib:TinyModel", OFFICIAL, {}), defaults, defaults)
    assert found.candidates[0].native == "m:TinyModel"
    assert found.candidates[0].tied
    assert "others have this structure too" in found.text()


def test_a_prefix_that_a_library_drops_does_not_count() -> None:
    """`text_model.` before every name of one side changes nothing."""
    prefixed = {f"text_model.{name}": shape for name, shape in OFFICIAL.items()}
    assert structure.likeness(OFFICIAL, prefixed, Rules(), True).carried == 1.0


def test_nothing_alike_says_that_it_has_to_be_ported() -> None:
    """A stranger in first place is no recommendation."""
    defaults = {"m:Other": answer({"a.b": (1, 2, 3)})}
    assert "has to be ported" in find.ranking(find.Official("lib:X", OFFICIAL, {}), defaults, defaults).text()


def test_a_class_that_could_not_be_built_is_named_with_the_reason() -> None:
    """It is never silently left out."""
    defaults = {"m:Broken": {"": {"error": "KeyError: 'dim'"}, "rules": [[], []]}}
    found = find.ranking(find.Official("lib:X", OFFICIAL, {}), defaults, {})
    assert found.unbuilt == {"m:Broken": "KeyError: 'dim'"}
    assert "not looked at: m:Broken" in found.text()


def test_what_is_neither_component_nor_folder_is_refused(tmp_path: Path) -> None:
    """One sentence for a name that is nothing, another for a folder without tensors."""
    with pytest.raises(UsageError, match="neither a component nor a folder"):
        commands.find(None, str(tmp_path / "nothing"))
    with pytest.raises(BlockedError, match="no safetensors"):
        commands.find(None, str(tmp_path))
