# SPDX-License-Identifier: Apache-2.0
"""Which jobs a gate is, and what each needs: one a check, one a component for parity; needs from the runner table."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fvport.errors import UsageError
from fvport.spec import Port
from fvport.verdict import ORDER

TABLE = "docker/alignment-gate/runners.toml"
AFTER = {"ssim": "pipeline"}  # one generates what the other compares, too
DEFAULTS = {"gpu": False, "minutes": 60, "memory_gb": 8, "cpus": 2}


@dataclass(frozen=True)
class Needs:
    gpu: bool = False
    minutes: int = 60
    memory_gb: float = 8
    cpus: int = 2


@dataclass(frozen=True)
class Job:
    """One check, or one component of it. `after`: the check whose jobs must have ended first, or ''."""

    check: str
    components: tuple[str, ...]
    needs: Needs
    after: str = ""

    @property
    def name(self) -> str:
        return "-".join((self.check, *self.components))


@dataclass(frozen=True)
class Table:
    """The runner table's part that a cluster needs: needs by check, and `[slurm]` as submitit's own parameters."""

    default: dict[str, Any]
    checks: dict[str, dict[str, Any]]
    slurm: dict[str, Any]

    def needs(self, check: str, device: str) -> Needs:
        found = {**DEFAULTS, **self.default, **self.checks.get(check, {})}
        gpu = bool(found["gpu"]) and device == "cuda"
        return Needs(gpu, int(found["minutes"]), float(found["memory_gb"]), int(found["cpus"]))


def table(port: Port) -> Table:
    """The port's runner table; where it has none, the defaults. UsageError for a table that is none."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:  # pragma: no cover - the gate's environment is 3.11 or later
        import tomli as tomllib

    file = port.root / TABLE
    if not file.is_file():
        return Table({}, {}, {})
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"is no runner table ({error})", where=str(file)) from None
    found = Table(data.get("default", {}), data.get("checks", {}), data.get("slurm", {}))
    _check(found, file)
    return found


def _check(table: Table, file: Path) -> None:
    for where, entry in {"default": table.default, **{f"checks.{k}": v for k, v in table.checks.items()}}.items():
        for key in ("minutes", "memory_gb", "cpus"):
            if key in entry and not (isinstance(entry[key], (int, float)) and entry[key] > 0):
                raise UsageError(f"{where}.{key} must be a number above 0, is {entry[key]!r}", where=str(file))


def jobs(port: Port, checks: list[str], device: str) -> list[Job]:
    """The jobs of these checks, cheap before dear. Parity is a job a component: each needs one model only."""
    found, needs = [], table(port)
    for check in sorted(checks, key=ORDER.index):
        after = AFTER.get(check, "")
        parts: list[tuple[str, ...]] = [()]
        if check == "parity":
            parts = [(name,) for name, c in port.components.items() if c.needs_parity] or [()]
        found += [Job(check, part, needs.needs(check, device), after if after in checks else "") for part in parts]
    return found
