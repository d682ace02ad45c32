# SPDX-License-Identifier: Apache-2.0
"""The walk of a red component: tokenization, masks, hidden-state selection, positional ids, dtype/autocast, output
packing, and only then the layers. The first stage that answers is the answer; what was looked at before it is said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fvport.contract import STAGES, Point, masks, numbers, packing, places, states
from fvport.contract.red import Red

LOOKS: dict[str, Callable[[Red], Point | None]] = {
    "masks": masks.look,
    "hidden-state selection": states.look,
    "positional ids": places.look,
    "dtype/autocast": numbers.look,
    "output packing": packing.look,
}
assert tuple(LOOKS) == STAGES[1:-1]


@dataclass
class Walk:
    """`stage` is the first that differs, '' where nothing does; `agreed` are those before it."""

    stage: str = ""
    point: str = ""
    sentence: str = ""
    agreed: list[str] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)  # stage -> why it could not be looked at

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        """One sentence: the stage, what differs, and what agrees before it."""
        if not self.stage:
            return "no stage of the walk differs"
        before = f" (before it {', '.join(self.agreed)} agree)" if self.agreed else ""
        return f"first stage that differs: {self.stage}{before}: {self.sentence}"


def walk(red: Red | None, tokens: Sequence[Point] | None = None, why_no_tokens: str = "") -> Walk:
    """Walk the stages. `tokens` is what tokenization says: None where there is none to compare, and why.

    `red` None: every output agrees, so that nothing after tokenization is looked at.
    """
    done = Walk()
    if tokens is None:
        done.unknown[STAGES[0]] = why_no_tokens or "not compared"
    elif tokens:
        return _found(done, tokens[0])
    else:
        done.agreed.append(STAGES[0])
    if red is None:
        return done
    for stage, look in LOOKS.items():
        try:
            point = look(red)
        except Exception as error:  # noqa: BLE001 - a red comparison must not become a crash
            done.unknown[stage] = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
            continue
        if point is not None:
            return _found(done, point)
        done.agreed.append(stage)
    sentence = str(red.trace.get("sentence") or f"run: fvport trace, case {red.case}")
    return _found(done, Point("layers", "layers", sentence))


def _found(done: Walk, point: Point) -> Walk:
    done.stage, done.point, done.sentence = point.stage, point.name, point.sentence
    return done
