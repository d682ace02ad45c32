# SPDX-License-Identifier: Apache-2.0
"""Suggested rules that FastVideo's form cannot say (a split, a reshape), as a conversion script declares them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile
from typing import Any

from fvport.weights.mapping import Rule, Rules
from fvport.weights.operations import Operation

LEFT = {"skip": "FVPORT-DECIDE: why nothing reads it"}


def entry(rules: Rules, names: Iterable[str]) -> dict[str, Any]:
    """{"prefix", "rules"} of one component of COMPONENTS (`declaration.py`). `names`: official names that are placed;
    what they all begin with becomes the prefix."""
    prefix = _prefix(list(names), rules)
    groups: dict[tuple[Any, ...], list[Rule]] = {}
    for rule in rules.rules:
        part, steps = _part(rule)
        key = ("split", rule.pattern, str(steps)) if part else ("to", rule.target, rule.count)
        groups.setdefault(key if part or rule.index is not None else ("one", rule), []).append(rule)
    return {"prefix": prefix, "rules": [_declared(group, prefix) for group in groups.values()]}


def _part(rule: Rule) -> tuple[Operation | None, tuple[Operation, ...]]:
    """(the split that takes one part, all operations with a split into every part in its place)"""
    found = next((step for step in rule.operations if step.name == "split" and len(step.arguments) == 3), None)
    whole = [Operation("split", step.arguments[:2]) if step is found else step for step in rule.operations]
    return found, tuple(whole)


def _declared(group: list[Rule], prefix: str) -> list[Any]:
    cut = "^" + prefix.replace(".", r"\.")
    split, steps = _part(group[0])
    if split is not None:
        sizes = split.arguments[1]
        targets: list[Any] = [LEFT] * (sizes if isinstance(sizes, int) else len(sizes))
        for rule in group:
            step = _part(rule)[0]
            targets[step.arguments[2] if step else 0] = rule.target
        return [_whole(group[0].pattern, cut), targets, *(step.to_json() for step in steps)]
    group = sorted(group, key=lambda rule: rule.index or 0)
    sources = [_whole(rule.pattern, cut) for rule in group]
    if len(sources) > 1 and all(step.name != "fuse" for step in steps):
        steps = (*steps, Operation("fuse", (0,)))
    return [sources if len(sources) > 1 else sources[0], group[0].target, *(step.to_json() for step in steps)]


def _whole(pattern: str, cut: str) -> str:
    """Without the prefix and the anchors: a declared rule is about the whole name."""
    return pattern.removeprefix(cut).removeprefix("^").removesuffix("$")


def _prefix(names: list[str], rules: Rules) -> str:
    """What all of them begin with, up to a dot, where every rule says it as it stands."""
    words = [name.split(".")[:-1] for name in names]
    shared = list(takewhile(lambda column: len(set(column)) == 1, zip(*words, strict=False)))
    while shared:
        common = "".join(f"{column[0]}." for column in shared)
        if all(rule.pattern.startswith("^" + common.replace(".", r"\.")) for rule in rules.rules):
            return common
        shared.pop()
    return ""


def text(found: dict[str, Any], guesses: int) -> str:
    """The entry as one writes it down."""
    note = "  # some are guesses, see above" if guesses else ""
    lines = [f"rules of a conversion (the component's class, files and config are yours to say):{note}"]
    lines += [f'    "prefix": "{found["prefix"]}",', '    "rules": [']
    lines += [f"        [{', '.join(_word(word) for word in rule)}]," for rule in found["rules"]]
    return "\n".join([*lines, "    ],"])


def _word(word: Any) -> str:
    if isinstance(word, str):
        return f'r"{word}"' if "\\" in word else f'"{word}"'
    if isinstance(word, list):
        return f"[{', '.join(_word(item) for item in word)}]"
    return str(word).replace("'", '"')
