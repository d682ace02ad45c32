# SPDX-License-Identifier: Apache-2.0
"""FastVideo's rules read backwards: the official names that a rule list was written for, from the native names.

Only what such rules use is understood: literals, groups of digits or of anything, optional parts without a group, and
alternatives inside a group. Each name is checked forwards; one that does not come back is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fvport.weights.mapping import Rule, Rules

_parser: Any = getattr(re, "_parser", None) or __import__("sre_parse")


def official_names(
    rules: Rules, native: Mapping[str, Sequence[int]], heads: tuple[int, int] = (1, 1)
) -> dict[str, list[int]]:
    """{official name: shape}. The parts of a merge are equal shares of dimension 0, but for q, k, v: by their heads
    (of the queries, of keys and values).
    """
    queries, keys = heads
    found: dict[str, list[int]] = {}
    for name, shape in native.items():
        for source, index, count in _sources(rules, name):
            placed = rules.place(source)
            if (placed.target, placed.index, placed.count) == (name, index, count):
                first = [shape[0] // count] if count else list(shape[:1])
                if count == 3:
                    first = [shape[0] * (keys if index else queries) // (queries + 2 * keys)]
                found.setdefault(source, [*first, *shape[1:]])
    return found


def _sources(rules: Rules, name: str) -> list[tuple[str, int | None, int | None]]:
    merged: dict[int, tuple[str, int | None, int | None]] = {}
    plain = []
    for rule in rules.rules:
        for source in _before(rule, name):
            placed = rules.place(source)
            if placed.target != name or placed.index != rule.index:
                continue
            if rule.index is None:
                plain.append((source, None, None))
            else:
                merged.setdefault(rule.index, (source, rule.index, rule.count))
    if merged and len(merged) == next(iter(merged.values()))[2]:
        return list(merged.values())
    return plain[:1] or [(name, None, None)]


def _before(rule: Rule, name: str) -> list[str]:
    """Names that the rule alone turns into `name`, the most literal first."""
    if rule.form == "stacked":
        return [name.replace(rule.target, rule.pattern)] if rule.target in name else []
    match = re.fullmatch(_as_pattern(rule), name)
    if not match:
        return []
    groups = {int(key[1:]): value for key, value in match.groupdict().items()}
    whole = [_fill(list(_parser.parse(rule.pattern)), groups, optional) for optional in (True, False)]
    return [text for text in dict.fromkeys(whole) if text is not None and rule.rewrite(text) == name]


def _as_pattern(rule: Rule) -> str:
    """The rule's target as a regular expression, its numbers as the groups of the rule's pattern."""
    kinds = dict(enumerate(re.findall(r"\((?!\?)((?:[^()\\]|\\.)*)\)", rule.pattern), 1))
    seen: set[str] = set()

    def piece(word: str) -> str:
        if not word.startswith("\\"):
            return re.escape(word)
        number = word[1:]
        if number in seen:
            return f"(?P=g{number})"
        seen.add(number)
        return f"(?P<g{number}>{kinds.get(int(number), '.*')})"

    return "".join(piece(word) for word in re.split(r"(\\\d)", rule.target) if word)


def _fill(parsed: Any, groups: dict[int, str], optional: bool) -> str | None:
    text = ""
    for code, value in parsed:
        word = str(code)
        if word == "LITERAL":
            text += chr(value)
        elif word == "SUBPATTERN":
            inner = groups.get(value[0]) if value[0] is not None else _fill(value[3], groups, optional)
            if inner is None:
                return None
            text += inner
        elif word == "MAX_REPEAT" and value[0] == 0:
            text += (_fill(value[2], groups, optional) or "") if optional else ""
        elif word not in ("AT", "ASSERT_NOT", "ASSERT"):
            return None
    return text
