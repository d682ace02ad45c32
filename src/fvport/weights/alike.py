# SPDX-License-Identifier: Apache-2.0
"""Tensors of one shape that could be exchanged without any shape showing it, each with what its names say of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fvport.weights import roles, swaps
from fvport.weights.case import Case
from fvport.weights.mapping import Placed, part_of

Found = tuple[str, tuple[str, ...]]


SHOWN = 4  # of the groups that one sentence stands for


def same_shape(case: Case) -> Iterator[Found]:
    """(sentence, names): one a kind of neighbourhood, with the pairing chosen and the evidence for it.

    Those whose tensors all keep their names are one sentence: there is no pairing that a person could doubt.
    """
    kept = []
    said_of: set[frozenset[str]] = set()  # q and k of one layer are a group by role, attn1 and attn2 one by number, too
    for (family, neutral, shape), parts in _groups(case).items():
        members = frozenset(item.source for item in parts.values())
        if members in said_of:
            continue
        said_of.add(members)
        if len(parts) > 1 and all(item.source == item.target for item in parts.values()):
            kept.append((f"{family} of {neutral}", tuple(item.source for item in parts.values())))
        elif len(parts) > 1:
            pairs = ", ".join(f"{part}: {_pair(item, family, part)}" for part, item in sorted(parts.items()))
            names = tuple(item.source for item in parts.values())
            yield f"{family} of {neutral} share the shape {list(shape)}: {pairs}", names
    if kept:
        said = "; ".join(group for group, _ in kept[:SHOWN])
        said += f"; and {len(kept) - SHOWN} more" if len(kept) > SHOWN else ""
        count = f"{len(kept)} groups of tensors of one shape" if len(kept) > 1 else "tensors of one shape"
        yield (
            f"{count} keep their official names: {said}",
            tuple(dict.fromkeys(name for _, names in kept for name in names)),
        )
    for source, items in _split(case).items():
        said = ", ".join(f"{place(item)} ({_order_said(source, item)})" for item in items)
        yield f"{source} is split in parts of one shape: {said}", (source, *(item.target for item in items))


def families(case: Case) -> dict[str, str]:
    """{official name: what it could be exchanged with, such as `q/k/v`}: for the layers that `same_shape` shows."""
    found: dict[str, str] = {}
    for (family, _, _), parts in _groups(case).items():
        if len(parts) > 1:
            for item in parts.values():
                found[item.source] = ", ".join(dict.fromkeys([*filter(None, [found.get(item.source)]), family]))
    for source in _split(case, every=True):
        found[source] = ", ".join(filter(None, [found.get(source), "the parts"]))
    return found


def _split(case: Case, every: bool = False) -> dict[str, list[Placed]]:
    """{source: its parts in order} where parts of one tensor could be exchanged; one a kind of layer, or `every`."""
    parts: dict[str, list[Placed]] = {}
    for item in case.mapped.placed:
        if part_of(item) and not item.skipped:
            parts.setdefault(item.source, []).append(item)
    seen: set[str] = set()
    found = {}
    for source, items in parts.items():
        items.sort(key=lambda item: part_of(item) or (0, 0))
        shapes = [(case.native or {}).get(item.target) for item in items]
        stem = roles.template(source)[0]
        if len(set(shapes)) < len(items) and (every or stem not in seen):
            seen.add(stem)
            found[source] = items
    return found


def _order_said(source: str, item: Placed) -> str:
    """What the names say of a part's place in a split tensor."""
    for family, part in roles.roles(item.target).items():
        if roles.says_order(source, [*roles.family(family).words]):
            return f"the fused name says where {part} lies"
        return f"{part} by its place, which no name says"
    return "no name says which part it is"


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
    """`target`, or `target[1 of 3]` for a part of a merge, or `part 1 of 3 -> target` for one of a split."""
    target = item.target if item.index is None else f"{item.target}[{item.index} of {item.count}]"
    part = part_of(item)
    return f"part {part[0]} of {part[1]} -> {target}" if part else target
