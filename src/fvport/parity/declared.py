# SPDX-License-Identifier: Apache-2.0
"""Other values for the arguments of a call that a port declares itself (`[fastvideo] fields`): strength, and any other.

A stage that ignores such an argument, or has its value written in, must show: each is varied by itself.
"""

from __future__ import annotations

import math
from typing import Any

from fvport.spec import Port

STRENGTH = "strength"
SECONDS = {"audio_start_in_s": "start of the sound", "audio_end_in_s": "end of the sound"}


def fields(port: Port) -> list[str]:
    """The declared fields that the gate's call gives a value, but for what has a variation of its own."""
    call = port.official.pipeline.call
    own = {STRENGTH, *(SECONDS if SECONDS.keys() <= call.keys() else ())}
    return [name for name in port.fastvideo.fields if name in call and name not in own]


def other(value: Any, kind: str) -> Any:
    """Another value of the field's type; None for one that is neither a number nor a bool."""
    if isinstance(value, bool):
        return not value
    if not isinstance(value, int | float):
        return None
    if kind == "int":
        less = round(value * 0.7)
        return less if less != value else value + 1
    return float(f"{value * 0.7:.6g}") if value else 0.5


def short_steps(least: int, strength: Any) -> int:
    """Steps of the short call: `least`, or as many as leave two where only a share of the schedule is run."""
    if not isinstance(strength, int | float) or strength <= 0:
        return least
    steps: int = max(least, math.ceil(2 / strength))
    return steps if int(steps * strength) >= 2 else steps + 1  # 2 / strength was rounded down


def too_few(call: dict[str, Any]) -> bool:
    """Whether strength leaves less than one of the call's steps."""
    steps, strength = call.get("num_inference_steps"), call.get(STRENGTH)
    return isinstance(strength, int | float) and isinstance(steps, int) and steps > 0 and int(steps * strength) < 1


def other_strength(call: dict[str, Any]) -> float:
    """Another share of the schedule that runs another number of steps, however they are rounded: a smaller one, or a
    greater one where a smaller one would leave none.
    """
    strength, steps = float(call[STRENGTH]), call.get("num_inference_steps") or 0
    less, more = round(strength * 0.7, 4), round(min(1.0, strength * 1.4), 4)
    if not steps:
        return less
    whole = (round(min(1.0, (int(steps * strength) + k) / steps), 4) for k in (1, 2))
    shares = [s for s in (less, round(strength * 0.5, 4), more, *whole) if int(steps * s) >= 1]
    cut = [s for s in shares if int(steps * s) != int(steps * strength)]
    both = [s for s in cut if math.ceil(steps * s) != math.ceil(steps * strength)]
    return next(iter(both + cut + shares), more)
