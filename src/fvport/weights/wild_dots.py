# SPDX-License-Identifier: Apache-2.0
"""Dots in patterns that somebody forgot to escape, and that really stand for another character of some name."""

from __future__ import annotations

import re

from fvport.weights.case import Case


def of(case: Case) -> dict[int, list[str]]:
    """{position of a rule: names that it takes, or a step changes, where a bare dot stands for another character}"""
    found: dict[int, list[str]] = {}
    for position, rule in enumerate(case.rules.rules):
        if rule.form in ("rename", "whole"):
            taken = [item.source for item in case.taken(position) if not item.skipped]
            found[position] = [name for name in taken if wild(rule.pattern, case.called[name])]
    for name in case.names if any(rule.form == "step" for rule in case.rules.rules) else ():
        now = name
        for position, rule in enumerate(case.rules.rules):
            if rule.form == "step" and rule.matches(now):
                if wild(rule.pattern, now, anywhere=True):
                    found.setdefault(position, []).append(name)
                now = rule.rewrite(now)
    return found


def wild(pattern: str, name: str, anywhere: bool = False) -> bool:
    """The pattern takes something of the name only because a bare `.` is a wildcard: with all of them escaped it would
    not, or (`anywhere`) not as often."""
    escaped = re.sub(r"\\.|\[[^\]]*\]|\.(?![*+?{])", lambda m: r"\." if m[0] == "." else m[0], pattern)
    if escaped == pattern:
        return False
    if anywhere:
        return len(re.findall(escaped, name)) < len(re.findall(pattern, name))
    return re.match(escaped, name) is None
