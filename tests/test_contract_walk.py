# SPDX-License-Identifier: Apache-2.0
"""The walk names the stage of each fault, and layers only where no stage before them answers."""

from __future__ import annotations

import pytest
import walk_support as support

from fvport.contract import STAGES
from fvport.contract.walk import walk

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
