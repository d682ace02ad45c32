# SPDX-License-Identifier: Apache-2.0
"""What a finding is, where it lies on both sides, and its change tried: made in the case's own fork, and compared.

A finding explains a case only where the case is equal after its change, or where it says why no change was tried.
What differs without a finding is `unexplained`.
"""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Place:
    """`module:Class.function` and a piece of the line meant; the line number is read where it is installed."""

    target: str
    snippet: str = ""

    def line(self) -> str:
        """`package/file.py:123`, or the target itself where it is not installed as it was."""
        module, _, name = self.target.partition(":")
        try:
            found: Any = importlib.import_module(module)
            file = Path(inspect.getsourcefile(found) or "")
            for part in name.split(".") if name else ():
                found = inspect.unwrap(getattr(found, part))
            lines, first = inspect.getsourcelines(found)
        except (ImportError, AttributeError, OSError, TypeError):
            return self.target
        at = next((i for i, text in enumerate(lines) if self.snippet in text), 0) if self.snippet else 0
        depth = module.count(".") + 1 + (file.name == "__init__.py")
        return f"{Path(*file.parts[-depth:]).as_posix()}:{max(first, 1) + at}"


@dataclass(frozen=True)
class Edit:
    """One replacement in the source text of a native function, made in memory."""

    target: str
    old: str
    new: str


@dataclass(frozen=True)
class Finding:
    """`fix` is a list of edits or the name of a function of `models/native_audit_fixes.py` or
    `native_audit_encoders.py`; '' says nothing was tried, and `change` why."""

    id: str
    title: str
    what: str
    official: Place
    native: Place
    cases: tuple[str, ...]
    change: str
    fix: tuple[Edit, ...] | str = ()


def all_findings() -> list[Finding]:
    """Every finding, in the order in which they are reported."""
    from fvport.audit import findings_components, findings_encoders

    return [*findings_encoders.FINDINGS, *findings_components.FINDINGS]


def of(case: str) -> list[Finding]:
    return [finding for finding in all_findings() if case in finding.cases]


def explain(case: Any, side: Any, folder: Path, answer: dict[str, Any], attempt: Any) -> dict[str, Any]:
    """`{"findings": [ids], "places": {id: ...}, "tried": figures of the case after all its findings' changes}`."""
    from fvport.models import native_audit_fixes

    found = of(case.name)
    places = {f.id: {"official": f.official.line(), "native": f.native.line()} for f in found}
    result: dict[str, Any] = {"findings": [f.id for f in found], "places": places, "tried": None}
    fixes = [f.fix for f in found if f.fix]
    if not fixes:
        return result
    try:
        for fix in fixes:
            native_audit_fixes.apply(fix)
    except Exception as error:  # noqa: BLE001 - a FastVideo that moved on
        result["tried"] = {"verdict": "blocked", "problem": f"the change no longer applies: {error}"}
        return result
    after, _ = attempt(case, side, folder)
    result["tried"] = after
    return result
