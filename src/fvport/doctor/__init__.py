# SPDX-License-Identifier: Apache-2.0
"""`fvport doctor`: what this machine has for a port and its gate, row by row, each with what to do.

Rows are looked at apart (`machine.py`, `services.py`), none changes anything, and none hangs: whatever is asked has a
time limit.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from fvport.spec import Port


@dataclass(frozen=True)
class Row:
    """One thing looked at. `state`: `ok`, `problem` (the gate cannot do without) or `absent` (only some need it)."""

    name: str
    state: str
    found: str
    todo: str = ""


@dataclass
class Diagnosis:
    rows: list[Row] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        return "blocked" if any(row.state == "problem" for row in self.rows) else "pass"

    def to_json(self) -> dict[str, Any]:
        return {"verdict": self.verdict, "rows": [asdict(row) for row in self.rows]}

    def text(self) -> str:
        width = max(len(row.name) for row in self.rows)
        lines = []
        for row in self.rows:
            lines.append(f"{row.name:{width}}  {row.state:7}  {row.found}")
            if row.todo and row.state != "ok":
                lines.append(f"{'':{width}}           -> {row.todo}")
        problems = [row.name for row in self.rows if row.state == "problem"]
        last = f"Problems: {', '.join(problems)}." if problems else "Nothing here stands in a port's way."
        return "\n".join([*lines, "", last])


Look = Callable[[Port | None], list[Row]]


def examine(port: Port | None = None) -> Diagnosis:
    """Look at everything; `port` adds what its weights need. Never raises for what it finds."""
    from fvport.doctor import machine, services

    looks: list[Look] = [*machine.LOOKS, *services.LOOKS]
    with ThreadPoolExecutor(len(looks)) as pool:
        found = pool.map(lambda look: _safely(look, port), looks)
        return Diagnosis([row for rows in found for row in rows])


def _safely(look: Look, port: Port | None) -> list[Row]:
    try:
        return look(port)
    except Exception as error:  # noqa: BLE001 - one odd machine part must not hide the others
        name = getattr(look, "__name__", "row").replace("_", " ")
        return [Row(name, "problem", f"could not be looked at ({type(error).__name__}: {error})", "Report this")]
