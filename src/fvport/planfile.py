# SPDX-License-Identifier: Apache-2.0
"""PLAN.md as a list of checkboxes, and which evidence each of them waits for.

    - [ ] Transformer agrees with the official one <!-- gate: parity/transformer -->

A marker names checks (`mapping`), one thing of a check (`parity/transformer`), or a step before them (`prep`,
`workspace`). An item is done when all of that is; one without a marker is for a person to tick.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_BOX = re.compile(r"^(?P<indent>\s*)[-*] \[(?P<tick>[ xX])\] (?P<text>.*?)\s*(?:<!-- gate: (?P<gate>[^>]*?) -->)?\s*$")
_HEADING = re.compile(r"^#{1,6} (.*)$")


@dataclass(frozen=True)
class PlanItem:
    line: int  # counted from 1
    section: str
    text: str
    ticked: bool
    gate: tuple[str, ...] = ()  # "parity/transformer", "mapping"

    def to_json(self) -> dict[str, object]:
        return {**self.__dict__, "gate": list(self.gate)}


def read(path: Path) -> list[PlanItem]:
    """The checkboxes of PLAN.md in order; [] where there is no file. Fenced code is not looked at."""
    if not path.is_file():
        return []
    items, section, fenced = [], "", False
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        if fenced:
            continue
        if heading := _HEADING.match(line):
            section = heading[1].strip()
        elif box := _BOX.match(line):
            gate = tuple((box["gate"] or "").replace(",", " ").split())
            items.append(PlanItem(number, section, box["text"].strip(), box["tick"] in "xX", gate))
    return items


def tick(line: str, done: bool) -> str:
    """The same line with its box ticked or open."""
    return re.sub(r"\[[ xX]\]", "[x]" if done else "[ ]", line, count=1)
