# SPDX-License-Identifier: Apache-2.0
"""Numbered rules: the form that `boundary`, `docs` and parts of `smoke` and `config` are written in.

A rule has an id that never changes its meaning and one sentence that says what must hold. It yields findings; none
means that the rule holds. Each rule leaves a passed item named by its id, or one failed item per finding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from fvport.errors import FvportError
from fvport.evidence import Item


@dataclass(frozen=True)
class Finding:
    """Where a rule does not hold, what is there, and what to do about it."""

    where: str
    what: str
    todo: str = ""
    component: str = ""


@dataclass(frozen=True)
class Rule:
    id: str
    sentence: str
    check: Callable[[Any], Iterable[Finding]]


class Family(list[Rule]):
    """The rules of one check, in order. `@FAMILY.rule("FV301")` adds a function, whose docstring is the sentence."""

    def rule(self, id: str) -> Callable[[Callable[[Any], Iterator[Finding]]], Callable[[Any], Iterator[Finding]]]:
        def add(check: Callable[[Any], Iterator[Finding]]) -> Callable[[Any], Iterator[Finding]]:
            sentence = (check.__doc__ or "").strip().splitlines()[0]
            if any(rule.id == id for rule in self):
                raise ValueError(f"two rules called {id}")
            self.append(Rule(id, sentence, check))
            return check

        return add

    def items(self, subject: Any) -> list[Item]:
        """Every rule's items, `subject` being what the rules look at."""
        return [item for rule in self for item in _items(rule, subject)]


def _items(rule: Rule, subject: Any) -> list[Item]:
    from fvport.checks import mishap_words

    try:
        findings = list(rule.check(subject))
    except FvportError:
        raise
    except Exception as error:  # noqa: BLE001 - the other rules are still looked at
        said = f"{rule.id} could not be looked at: {mishap_words(error)}"
        return [Item(f"{rule.id} itself", "blocked", said, todo="If the named file is not at fault, report this")]
    if not findings:
        return [Item(rule.id, "pass", rule.sentence)]
    return [
        Item(f"{rule.id} {f.where}", "fail", f"{rule.id} {f.where}: {f.what}", component=f.component, todo=f.todo)
        for f in findings
    ]
