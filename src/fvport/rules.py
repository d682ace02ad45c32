# SPDX-License-Identifier: Apache-2.0
"""The numbered rules by their number: what each says must hold, and its page. `fvport explain FV315` prints it."""

from __future__ import annotations

import importlib
from dataclasses import asdict, dataclass
from typing import Any

# Checks that are written as rules; the mapping's lie in weights/lint.py.
FAMILIES = ("boundary", "docs", "smoke")


@dataclass(frozen=True)
class Rule:
    id: str
    sentence: str
    check: str

    @property
    def page(self) -> str:
        return f"docs/rules/{self.check}.md#{self.id.lower()}"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "page": self.page}

    def text(self) -> str:
        return f"{self.id}\n  holds  {self.sentence}\n  check  fvport check {self.check}\n  page   {self.page}"


def known() -> dict[str, Rule]:
    """{number: rule}, in order of numbers."""
    from fvport.weights import lint

    found = {number: Rule(number, lint.sentence(number), "mapping") for number in lint.RULES}
    for check in FAMILIES:
        for rule in importlib.import_module(f"fvport.checks.{check}").RULES:
            found[rule.id] = Rule(rule.id, rule.sentence, check)
    return dict(sorted(found.items()))
