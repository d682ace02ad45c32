# SPDX-License-Identifier: Apache-2.0
"""A component whose outputs differ, as the stages look at it: both sides' outputs, and the native model to try on.

Each stage tries a change that would be right if the fault were there, and answers only where the outputs then agree,
or where what is seen can have no other reason.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fvport.contract import root
from fvport.parity.probe import measures

NEAR = 2e-5  # relative L2 under which two float32 answers are one (or ten floors, where those are higher)
CLOSE, FAR = 1e-5, 1e-3  # a behaviour that is below the one on one side and above the other on the other differs
GAIN = 50.0  # a change that makes the worst error this many times smaller says where the fault is


@dataclass
class Red:
    """`run(case)` gives the native outputs of a case by name; `model` is the native model, for hooks.

    `theirs`: masks and positions that the official model was given, by case. `floors`: relative L2 of each official
    output to itself, by case. `behaviour`: the official model's, in `behaviour_case`. `trace`: `parity.trace.Trace`.
    """

    case: str
    model: Any
    run: Callable[[str], dict[str, Any]]
    official: dict[str, dict[str, Any]]
    native: dict[str, dict[str, Any]]
    theirs: dict[str, dict[str, Any]] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)  # official containers and fields, by case
    floors: dict[str, dict[str, float]] = field(default_factory=dict)
    behaviour: dict[str, Any] = field(default_factory=dict)
    behaviour_case: str = ""
    trace: dict[str, Any] = field(default_factory=dict)
    around: Callable[[], Any] = contextlib.nullcontext
    until: float = math.inf  # time.monotonic() after which nothing more is tried
    _calls: dict[str, Any] = field(default_factory=dict, repr=False)
    _behaves: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def cases(self) -> list[str]:
        return [case for case in self.official if case in self.native]

    def bad(self, case: str) -> list[str]:
        """Official outputs of a case that the native side does not give."""
        mine = self.native[case]
        return [n for n, theirs in self.official[case].items() if not self.equal(case, n, mine.get(n), theirs)]

    def equal(self, case: str, name: str, mine: Any, theirs: Any) -> bool:
        """Whether a tensor is the official output `name`, by ten of its floors."""
        if mine is None or mine.shape != theirs.shape:
            return False
        if not theirs.is_floating_point():
            return bool((mine == theirs.to(mine.dtype)).all())
        floor = min(10 * self.floors.get(case, {}).get(name, 0.0), FAR)  # a floor that is not small hides nothing
        return error(mine, theirs) <= max(NEAR, floor)

    def call(self, case: str) -> Any:
        """What the native model was given and answered (`root.Call`), looked at deeply; None where it is not called."""
        if case not in self._calls:
            calls: list[Any] = []
            with root.watched(self.model, calls, deep=True):
                self.run(case)
            self._calls[case] = calls[-1] if calls else None
        return self._calls[case]

    def repaired(self, swap: dict[str, Any], case: str = "") -> bool:
        """Whether the case agrees when the native model is given other arguments."""
        case = case or self.case
        if time.monotonic() > self.until or not self.bad(case):
            return False
        calls: list[Any] = []
        try:
            with root.watched(self.model, calls, swap):
                outputs = self.run(case)
        except Exception:  # noqa: BLE001 - a form that it refuses is no repair
            return False
        return bool(calls) and self.agree(case, outputs)

    def agree(self, case: str, outputs: dict[str, Any]) -> bool:
        return all(self.equal(case, name, outputs.get(name), t) for name, t in self.official[case].items())

    def behaves(self) -> dict[str, Any]:
        """The native model's behaviour in the case of the official one's."""
        if self._behaves is None:
            call = self.call(self.behaviour_case) if self.behaviour_case in self.native else None
            try:
                with self.around():
                    self._behaves = root.behave(self.model, call.given, call.answer) if call else {}
            except Exception:  # noqa: BLE001 - then nothing is known of it
                self._behaves = {}
        return self._behaves

    def differs(self, name: str) -> str:
        """How a behaviour differs: `native 0.31, official 0.0`; '' where it does not, or one side is not known."""
        mine, theirs = self.behaves().get(name), self.behaviour.get(name)
        return behaviour_differs(mine, theirs)

    def says(self, *words: str) -> str:
        """The first argument of the trace's finding that holds one of these words, or ''."""
        label = str(self.trace.get("label") or "")
        return label if any(word in label.lower() for word in words) else ""


def behaviour_differs(mine: Any, theirs: Any) -> str:
    if not isinstance(mine, float) or not isinstance(theirs, float):
        return ""
    if not math.isfinite(mine) and math.isfinite(theirs):
        return f"natively the answer is not finite, officially it moves by {theirs:.1e}"
    low, high = sorted((mine, theirs))
    return f"natively it moves by {mine:.1e}, officially by {theirs:.1e}" if low < CLOSE and high > FAR else ""


def error(a: Any, b: Any) -> float:
    """Relative L2 of `a` to `b`; a huge number for another shape or what is not finite."""
    if a is None or a.shape != b.shape:
        return 1e9
    found = measures(a, b)["rel_l2"]
    return found if math.isfinite(found) else 1e9
