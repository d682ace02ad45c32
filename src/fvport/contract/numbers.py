# SPDX-License-Identifier: Apache-2.0
"""Number formats: autocast that is on, modules that answer in a lower precision, outputs of another dtype."""

from __future__ import annotations

from typing import Any

from fvport.contract import Point
from fvport.contract.red import Red

STAGE = "dtype/autocast"


def look(red: Red) -> Point | None:
    """What the native model computes in, where both sides were asked for float32."""
    call = red.call(red.case)
    if call is not None:
        if call.autocast:
            return Point(
                STAGE, "autocast", f"the native model is called under autocast ({call.autocast}): {_ends(red)}"
            )
        if call.inside:
            shown = ", ".join(call.inside[:3])
            return Point(STAGE, "autocast", f"autocast is on inside the native model ({shown} ...): {_ends(red)}")
        if call.low and not _asked_low(red):
            words = f"the native model computes in lower precision than its weights: {', '.join(call.low[:3])}"
            return Point(STAGE, "lower precision", words)
    return _outputs(red)


def _ends(red: Red) -> str:
    official = {red.answers.get(case, {}).get("autocast", "") for case in red.cases}
    return "officially it is not" if official <= {""} else f"officially {', '.join(sorted(official - {''}))}"


def _asked_low(red: Red) -> bool:
    """Weights that are low themselves are not this stage's finding."""
    import torch

    low = (torch.float16, torch.bfloat16)
    return any(p.dtype in low for p in red.model.parameters())


def _outputs(red: Red) -> Point | None:
    wrong = []
    for case in red.cases:
        for name, theirs in red.official[case].items():
            mine = red.native[case].get(name)
            if mine is not None and mine.dtype != theirs.dtype:
                wrong.append(f"{name} is {_word(mine)}, officially {_word(theirs)} (case {case})")
    return Point(STAGE, "output dtype", "; ".join(wrong[:3])) if wrong else None


def _word(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")
