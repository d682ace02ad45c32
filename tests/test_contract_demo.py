# SPDX-License-Identifier: Apache-2.0
"""The demo's text encoder through FastVideo's production loader: a planted fault is walked to its stage."""

from __future__ import annotations

import json
from typing import Any

import pytest

MODEL = "fastvideo/models/encoders/tiny_wan.py"
CONFIG = "fastvideo/configs/models/encoders/tiny_wan.py"
FAULTS = {
    "final norm skipped": (MODEL, "states[-1] = self.final_layer_norm(x)", "states[-1] = x", "hidden-state selection"),
    "mask inverted": (MODEL, "masked_fill(hidden == 0", "masked_fill(hidden != 0", "masks"),
    "padding side": (CONFIG, "    text_len: int", '    padding_side: str = "left"\n    text_len: int', "tokenization"),
}


@pytest.mark.heavy
@pytest.mark.parametrize("fault", FAULTS)
def test_real_encoder_is_walked(port: Any, fault: str) -> None:
    """The command that a user types names the stage, and the handoff says what is next."""
    file, old, new, stage = FAULTS[fault]
    port.edit(file, old, new)
    record = port.fvport("check", "parity", "text_encoder", "--json").json()
    walked = [item for item in record["items"] if item["name"] == "text_encoder: walk"]
    assert [item["metrics"]["stage"] for item in walked] == [stage], record["items"][:2]
    assert f"first stage that differs: {stage}" in walked[0]["reason"]
    block = port.fvport("handoff", "text_encoder", "--json").json()
    assert (block["parity_status"], block["escape_hatch"]["needs_user_input"]) == ("debug_red", False)
    assert block["blocker"] == walked[0]["reason"]


@pytest.mark.heavy
def test_real_prototype(port: Any) -> None:
    """Both sides without weights: names and shapes on disk, and a load tree that keeps them."""
    found = port.fvport("prototype", "text_encoder", "--json").json()
    assert found["made"], found["problems"]
    assert found["built_on"] == {"official": "meta", "fastvideo": "meta"}
    for side, path in found["files"].items():
        table = json.loads((port.root / path).read_text())
        assert len(table["tensors"]) == found["tensors"][side]
    assert found["random"]["official"]["parameters"] == found["random"]["fastvideo"]["parameters"]
    block = port.fvport("packet", "text_encoder", "--json").json()
    assert block["prototype_key_dumps"] == found["files"]
    assert port.fvport("check", "keys", "text_encoder").code == 0  # makes the load tree anew where it is not current
    assert (port.root / found["files"]["official"]).is_file()
