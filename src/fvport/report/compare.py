# SPDX-License-Identifier: Apache-2.0
"""Two runs of the gate beside one another: which item changed its verdict, which figure moved, what went into each."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from fvport import evidence as ev
from fvport.errors import UsageError
from fvport.report.parts import badge, document, heading, table
from fvport.words import CHECKS

MOVED = 0.10  # relative change of a figure that is worth a line


@dataclass
class Change:
    """One item that is not the same in both runs. '' stands for an item that a run does not have."""

    check: str
    item: str
    before: str
    after: str
    reason: str = ""
    figures: dict[str, list[Any]] = field(default_factory=dict)  # name: [before, after]

    @property
    def worse(self) -> bool:
        return self.before == "pass" and self.after != "pass"


@dataclass
class Comparison:
    """`inputs`: what the two runs read that is not the same, by check."""

    a: str
    b: str
    changes: list[Change] = field(default_factory=list)
    inputs: dict[str, list[str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"schema": 1, **asdict(self), "worse": [f"{c.check}: {c.item}" for c in self.changes if c.worse]}

    def text(self) -> str:
        lines = [f"{self.a} -> {self.b}"]
        for change in sorted(self.changes, key=lambda c: not c.worse):
            what = f"{change.before or 'absent'} -> {change.after or 'absent'}" if change.before != change.after else ""
            figures = ", ".join(f"{k} {_figure(x)} -> {_figure(y)}" for k, (x, y) in change.figures.items())
            told = "; ".join(part for part in (what, change.reason, figures) if part)
            lines.append(f"  {change.check:10} {change.item}: {told}")
        lines += [] if self.changes else ["  the same items with the same verdicts and figures"]
        lines += [f"  {check:10} read something else: {', '.join(names)}" for check, names in self.inputs.items()]
        return "\n".join(lines)

    def page(self) -> str:
        rows = [
            [
                escape(c.check),
                escape(c.item),
                badge(c.before or "absent"),
                badge(c.after or "absent"),
                escape(c.reason),
                escape(", ".join(f"{k} {_figure(x)} -> {_figure(y)}" for k, (x, y) in c.figures.items())),
            ]
            for c in sorted(self.changes, key=lambda c: not c.worse)
        ]
        read = [[escape(check), escape(", ".join(names))] for check, names in self.inputs.items()]
        body = [f"<h1>Two runs of the gate</h1><p>before: {escape(self.a)}<br>after: {escape(self.b)}</p>"]
        body += [heading("What changed"), table(("check", "item", "before", "after", "reason", "figures"), rows)]
        body += [heading("What went in"), table(("check", "not the same in both"), read)]
        return document("two runs of the gate", body)


def compare(a: Path, b: Path) -> Comparison:
    """Two folders of evidence (or ports, or `.fvport` folders). UsageError where one holds no record."""
    before, after = records(a), records(b)
    found = Comparison(str(a), str(b))
    for check in [name for name in CHECKS if name in before or name in after]:
        old, new = before.get(check), after.get(check)
        found.changes += _changes(check, old, new)
        other = _inputs(old, new)
        if other:
            found.inputs[check] = other
    return found


def records(place: Path) -> dict[str, ev.Evidence]:
    """The records under a folder, by check."""
    folders = [place, *sorted((place / "evidence").glob("*")), *sorted((place / ".fvport" / "evidence").glob("*"))]
    for folder in folders:
        files = [folder / f"{check}.json" for check in CHECKS]
        found = {file.stem: _read(file) for file in files if file.is_file()}
        if found:
            return found
    raise UsageError("no record of a gate here", where=str(place), todo="Name a port, or a folder of its evidence")


def _read(file: Path) -> ev.Evidence:
    try:
        return ev.from_json(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"this is no record ({error})", where=str(file)) from None


def _changes(check: str, old: ev.Evidence | None, new: ev.Evidence | None) -> list[Change]:
    before = {item.name: item for item in old.items} if old else {}
    after = {item.name: item for item in new.items} if new else {}
    found = []
    for name in dict.fromkeys([*before, *after]):
        x, y = before.get(name), after.get(name)
        figures = _moved(x.metrics if x else {}, y.metrics if y else {}) if x and y else {}
        words = (x.verdict if x else "", y.verdict if y else "")
        if words[0] != words[1] or figures:
            found.append(
                Change(check, name, *words, reason=y.reason if y and y.verdict != "pass" else "", figures=figures)
            )
    return found


def _moved(old: dict[str, Any], new: dict[str, Any]) -> dict[str, list[Any]]:
    """Figures that moved by more than a tenth, and plain values that are others; lists are left to the page."""
    found = {}
    for name in old.keys() & new.keys():
        x, y = old[name], new[name]
        if isinstance(x, (list, dict)) or isinstance(y, (list, dict)):
            continue
        numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in (x, y))
        if (not math.isclose(x, y, rel_tol=MOVED, abs_tol=1e-12)) if numbers else x != y:
            found[name] = [x, y]
    return dict(sorted(found.items()))


def _inputs(old: ev.Evidence | None, new: ev.Evidence | None) -> list[str]:
    x, y = (side.inputs if side else {} for side in (old, new))
    return sorted(name for name in x.keys() | y.keys() if x.get(name) != y.get(name)) if old and new else []


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
