# SPDX-License-Identifier: Apache-2.0
"""What a rule list is judged on, and the form of a finding: one case holds the rules and the names on both sides.

The numbered rules themselves are in `lint.py` (FV114 and FV115 in `swaps.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from fvport.weights.mapping import Mapped, Placed, Rules
from fvport.weights.patterns import concerns_any

Shape = tuple[int, ...]
NATIVE = "native:"  # prefix of an exclude pattern that is about native names (a buffer that nothing loads)


@dataclass(frozen=True)
class Finding:
    """`code` FV1xx, `severity` error | note, `message` one sentence with the names, `names` all, `rule` its text."""

    code: str
    severity: str
    message: str
    names: tuple[str, ...] = ()
    rule: str = ""

    def to_json(self) -> dict[str, Any]:
        names = list(self.names)
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "names": names,
            "rule": self.rule,
        }


@dataclass
class Case:
    """What the rules are looked at with. `native` is None where that side is not known; shapes may be empty.

    `given`: where the names go, where that is known already (a conversion's plan).
    """

    rules: Rules
    shapes: Mapping[str, Shape]
    native: Mapping[str, Shape] | None = None
    passthrough: Sequence[str] = ()
    exclude: Mapping[str, str] = field(default_factory=dict)
    given: Mapped | None = None

    @cached_property
    def names(self) -> list[str]:
        """Official names that something should load: those that are not excluded."""
        patterns = [pattern for pattern in self.exclude if not pattern.startswith(NATIVE)]
        return [name for name in self.shapes if not concerns_any(patterns, name)]

    @cached_property
    def mapped(self) -> Mapped:
        return self.given or self.rules.apply(self.names)

    @cached_property
    def called(self) -> dict[str, str]:
        """{official name: what the rules are matched against}: the name itself, or what the steps make of it."""
        return {name: self.rules.stepped(name)[0] for name in self.shapes}

    @cached_property
    def targets(self) -> dict[str, list[Placed]]:
        return self.mapped.targets()

    @cached_property
    def native_free(self) -> list[str]:
        """Native names that nothing needs to load, by a declared `native:` exclusion."""
        patterns = [pattern.removeprefix(NATIVE) for pattern in self.exclude if pattern.startswith(NATIVE)]
        return [name for name in self.native or {} if concerns_any(patterns, name)]

    @cached_property
    def _taken(self) -> dict[int, list[Placed]]:
        found: dict[int, list[Placed]] = {}
        for item in self.mapped.placed:
            for position in item.rules:
                found.setdefault(position, []).append(item)
        return found

    def taken(self, position: int) -> list[Placed]:
        """What the rule at this position takes."""
        return self._taken.get(position, [])
