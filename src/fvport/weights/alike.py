# SPDX-License-Identifier: Apache-2.0
"""Tensors of one shape that could be exchanged without any shape showing it, each with what its names say of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fvport.weights import roles, swaps
from fvport.weights.case import Case
from fvport.weights.mapping import Placed

Found = tuple[str, tuple[str, ...]]


def same_shape(case: Case) -> Iterator[Found]:
    """(sentence, names): one a kind of neighbourhood, with the pairing chosen and the evidence for it."""
    for (family, neutral, shape), parts in _groups(case).items():
        if len(parts) > 1:
            pairs = ", ".join(f"{part}: {_pair(item, family, part)}" for part, item in sorted(parts.items()))
            names = tuple(item.source for item in parts.values())
            yield f"{family} of {neutral} share the shape {list(shape)}: {pairs}", names


def families(case: Case) -> dict[str, str]:
    """{official name: what it could be exchanged with, such as `q/k/v`}: for the layers that `same_shape` shows."""
    found: dict[str, str] = {}
    for (family, _, _), parts in _groups(case).items():
        if len(parts) > 1:
            for item in parts.values():
                found[item.source] = ", ".join(dict.fromkeys([*filter(None, [found.get(item.source)]), family]))
    return found


def _groups(case: Case) -> dict[tuple[str, str, Any], dict[str, Placed]]:
    """{(family, name without its part, shape): {part: first tensor}}: by role (q, k, v) or number (norm1, norm2)."""
    groups: dict[tuple[str, str, Any], dict[str, Placed]] = {}
    for item in case.mapped.placed:
        stem, _ = roles.template(item.source)
        for family, part in roles.roles(item.source).items():
            neutral = ".".join("*" if part == roles.roles(word).get(family) else word for word in stem.split("."))
            groups.setdefault((family, neutral, case.shapes[item.source]), {}).setdefault(part, item)
        for word, number in swaps.numbered(stem).items():
            neutral = stem.replace(f"{word}{number}", f"{word}*")
            groups.setdefault((f"{word}1, {word}2", neutral, case.shapes[item.source]), {}).setdefault(number, item)
    return groups


def _pair(item: Placed, family: str, part: str) -> str:
    return f"{item.source} -> {place(item)} ({_evidence(item, family, part)})"


def _evidence(item: Placed, family: str, part: str) -> str:
    if item.source == item.target:
        return "the same name"
    numbers = swaps.numbered(item.target)
    said = roles.roles(item.target).get(family) or next(
        (number for word, number in numbers.items() if family.startswith(f"{word}1")), ""
    )
    if said:
        return f"both say {part}" if said == part else f"the native name says {said}"
    if item.index is not None:
        return f"by its place, {item.index} of {item.count}"
    return "the native name does not say"


def place(item: Placed) -> str:
    """`target`, or `target[1 of 3]` for a part of a merge."""
    return item.target if item.index is None else f"{item.target}[{item.index} of {item.count}]"
