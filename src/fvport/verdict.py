# SPDX-License-Identifier: Apache-2.0
"""What the gate says: one row a check, and the verdict that follows from the rows. How it is decided is `gate.py`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from fvport import evidence as ev
from fvport.words import CHECKS

TITLES = {
    "mapping": "mapping rules explicit and reviewed",
    "keys": "missing / unexpected keys resolved",
    "config": "configs, schedules and token ids equal the official ones",
    "conversion": "load tree loads whole through the production loader",
    "parity": "component parity passing",
    "smoke": "imports, registry and class resolution are the port's",
    "pipeline": "pipeline parity passing",
    "ssim": "SSIM regression passing",
    "example": "example generates the expected video",
    "docs": "documentation updated",
    "boundary": "no foreign class, secret, weight or placeholder in the port",
}
ORDER = ("boundary", *(name for name in CHECKS if name not in ("boundary", "docs")), "docs")  # cheap before dear


@dataclass
class Row:
    """One check's line of the gate. `state` says what its record is worth, `verdict` what the gate makes of it."""

    check: str
    title: str
    verdict: str = "blocked"  # pass | fail | blocked | waived
    state: str = "missing"  # missing | stale | refused | current
    status: str = "blocked"  # FastVideo's word: non_skip_pass, debug_red, blocked, scaffold_skip
    device: str = ""
    scale: str = ""
    seconds: float = 0.0
    commit: str = ""
    dirty: bool = False
    reasons: list[str] = field(default_factory=list)
    todo: str = ""
    waiver: str = ""
    variant: str = ""  # of which variant; '' for the base
    record: ev.Evidence | None = field(default=None, repr=False)

    @property
    def label(self) -> str:
        """The check, and in brackets the variant that it is about."""
        return f"{self.check} [{self.variant}]" if self.variant else self.check

    def passed(self, name: str = "") -> bool:
        """Whether the check passed, or the one component or item of it that `name` names."""
        if self.state != "current" or self.record is None:
            return False
        if not name:
            return self.verdict == "pass"
        mine = [item for item in self.record.items if speaks_of(item, name)]
        return bool(mine) and all(item.verdict == "pass" for item in mine)

    def to_json(self) -> dict[str, Any]:
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "record"}
        items = self.record.items if self.record else []
        counts = {word: sum(item.verdict == word for item in items) for word in ev.VERDICTS}
        return {**data, "items": counts, "notes": self.record.notes if self.record else []}


@dataclass
class Verdict:
    """What the gate says of a port, with everything that a person needs to believe it."""

    port: str
    model: str
    rows: list[Row]
    workspace: str = ""
    branch: str = ""
    commit: str = ""
    dirty: bool = False
    requires: dict[str, str] = field(default_factory=dict)
    plan: list[dict[str, Any]] = field(default_factory=list)  # {section, text, ticked, gate, done}
    signatures: list[dict[str, str]] = field(default_factory=list)
    risks: list[str] = field(default_factory=list)
    components: list[dict[str, str]] = field(default_factory=list)  # {name, kind, mode, official, native, why}
    calls: dict[str, str] = field(default_factory=dict)  # the gate's own calls: name -> prompt and seed
    root: str = ""
    first: str = ""  # what comes before any check (`firststep`)

    @property
    def verdict(self) -> str:
        """fail if a row failed, blocked if one could not count or there is none, else pass (a waived row counts)."""
        words = {row.verdict for row in self.rows}
        if "fail" in words:
            return "fail"
        return "pass" if words and words <= {"pass", "waived"} else "blocked"

    @property
    def red(self) -> list[Row]:
        order = {name: number for number, name in enumerate(ORDER)}
        rows = [row for row in self.rows if row.verdict in ("fail", "blocked")]
        return sorted(rows, key=lambda row: (row.verdict != "fail", order.get(row.check, 99)))

    @property
    def next_step(self) -> str:
        if self.red:
            row = self.red[0]
            return self.first or row.todo or f"fvport check {row.check}"
        return "fvport handoff final"

    @property
    def summary(self) -> str:
        counts = {word: sum(row.verdict == word for row in self.rows) for word in ("pass", "fail", "blocked", "waived")}
        return ", ".join(f"{number} {word}" for word, number in counts.items() if number) or "no checks"

    def row(self, check: str) -> Row | None:
        """The row of a check; of several variants the worst: nobody may call a check green that is red for one."""
        order = ("fail", "blocked", "waived", "pass")
        return min((row for row in self.rows if row.check == check), key=lambda r: order.index(r.verdict), default=None)

    def to_json(self) -> dict[str, Any]:
        head = {"schema": 1, "port": self.port, "model": self.model, "verdict": self.verdict, "summary": self.summary}
        tail = {
            name: getattr(self, name)
            for name in (
                "next_step",
                "workspace",
                "branch",
                "commit",
                "dirty",
                "requires",
                "plan",
                "signatures",
                "risks",
                "components",
                "calls",
            )
        }
        return {**head, "rows": [row.to_json() for row in self.rows], **tail}


def speaks_of(item: ev.Item, name: str) -> bool:
    """The item is about the component, or the thing, of this name."""
    return name in (item.component, item.name) or item.name.startswith((f"{name}:", f"{name} "))
