# SPDX-License-Identifier: Apache-2.0
"""Evidence in names that two tensors of one shape were swapped, or that layers were put out of order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from fvport.weights import roles
from fvport.weights.case import Case
from fvport.weights.mapping import Placed, part_of

Found = tuple[str, tuple[str, ...]]


def swapped(case: Case) -> Iterator[Found]:
    """(sentence, names): one a kind of contradiction, shown at its first layer."""
    seen: set[str] = set()
    for message, names in (*_contradictions(case), *_merge_order(case), *_split_order(case), *_numbers(case)):
        key = roles.template(names[0])[0] + " " + roles.template(names[1])[0]
        if key not in seen:
            seen.add(key)
            yield message, names


def _contradictions(case: Case) -> Iterator[Found]:
    """A source that says one part and a target that says another part of the same family."""
    says = {(item.source, item.target): item for item in case.mapped.placed}
    for item in says.values():
        there = roles.roles(item.target)
        for family, part in roles.roles(item.source).items():
            other = there.get(family)
            if not other or other == part:
                continue
            if roles.family(family).strict or _mirror(case, family, part, other):
                yield (
                    f"{item.source} says {part} but goes to {item.target}, which says {other}",
                    (item.source, item.target),
                )


def _mirror(case: Case, family: str, part: str, other: str) -> bool:
    """Some source that says `other` goes to a target that says `part`: the two were exchanged."""
    return any(
        roles.roles(p.source).get(family) == other and roles.roles(p.target).get(family) == part
        for p in case.mapped.placed
    )


def _merge_order(case: Case) -> Iterator[Found]:
    """The parts of a merge in another order than the fused name says, or than everybody's (q, k, v; gate, up)."""
    for target, items in case.targets.items():
        merged = [item for item in items if item.index is not None]
        for family in ("q/k/v", "gate/up", "scale/shift"):
            said = [(roles.roles(item.source).get(family), item) for item in merged]
            known = [part for part, _ in said if part]
            if len(known) < 2 or len(set(known)) != len(known):
                continue
            usual = [part for part in roles.family(family).words if part in known]
            want = roles.order_in(target, usual)
            if known != want:
                names = tuple(item.source for part, item in said if part)
                order = f"{', '.join(known)}, not {', '.join(want)}"
                yield f"{target} is joined in the order {order}: {', '.join(names)}", (names[0], target, *names[1:])


def _split_order(case: Case) -> Iterator[Found]:
    """The parts of a split tensor in another order than its name says, or than everybody's (q, k, v).

    Of gate and up, and of scale and shift, there is no usual order: they count where the fused name says it.
    """
    parts: dict[str, list[Placed]] = {}
    for item in case.mapped.placed:
        if part_of(item) and not item.skipped:
            parts.setdefault(item.source, []).append(item)
    for source, items in parts.items():
        items.sort(key=lambda item: part_of(item) or (0, 0))
        for family in ("q/k/v", "gate/up", "scale/shift"):
            known = [part for item in items if (part := roles.roles(item.target).get(family))]
            usual = [part for part in roles.family(family).words if part in known]
            if len(known) < 2 or len(set(known)) != len(known):
                continue
            want = roles.order_in(source, usual)
            if known != want and (family == "q/k/v" or roles.says_order(source, usual)):
                names = (source, *(item.target for item in items))
                order = f"{', '.join(known)}, not {', '.join(want)}"
                yield f"{source} is split in the order {order}: {', '.join(names[1:])}", names


def _numbers(case: Case) -> Iterator[Found]:
    """`norm1` and `norm2` exchanged: each goes where the other's name says."""
    stems: dict[tuple[str, str], Placed] = {(p.source, p.target): p for p in case.mapped.placed}
    by_source = {p.source: p for p in stems.values()}
    for item in by_source.values():
        partner = by_source.get(item.target)
        if partner and partner.target == item.source and item.source < partner.source:
            names = (item.source, partner.source)
            yield f"{item.source} and {partner.source} go to each other's names", names
    yield from _numbered_words(case)


def _numbered_words(case: Case) -> Iterator[Found]:
    """Words with a number (`norm1`, `fc2`) in one place of both names, exchanged between two tensors of one layer."""
    places: dict[tuple[str, str], list[tuple[str, str, Placed]]] = {}
    for item in case.mapped.placed:
        for stem, number in numbered(item.source).items():
            there = numbered(item.target).get(stem)
            if there is not None:
                neutral = item.source.replace(f"{stem}{number}", f"{stem}*")
                places.setdefault((stem, neutral), []).append((number, there, item))
    for (stem, _), found in places.items():
        moves = {number: (there, item) for number, there, item in found}
        for number, (there, item) in moves.items():
            back = moves.get(there)
            if there != number and back and back[0] == number and number < there:
                names = (item.source, item.target, back[1].source, back[1].target)
                yield f"{stem}{number} and {stem}{there} are exchanged: {names[0]} -> {names[1]}", names


def numbered(name: str) -> dict[str, str]:
    """{word without its number: number} for the words of a name, such as {"norm": "1"}; a word that occurs twice is
    left out.
    """
    found: dict[str, str] = {}
    twice: set[str] = set()
    for segment in name.split("."):
        stem = segment.rstrip("0123456789")
        if stem and stem != segment:
            twice |= {stem} & set(found)
            found[stem] = segment[len(stem) :]
    return {stem: number for stem, number in found.items() if stem not in twice}


def reordered(case: Case) -> Iterator[Found]:
    """Layer numbers that do not rise together on both sides (`blocks.10` before `blocks.2`)."""
    groups: dict[tuple[str, str], list[tuple[tuple[int, ...], tuple[int, ...], Placed]]] = {}
    for item in case.mapped.placed:
        (source, here), (target, there) = roles.template(item.source), roles.template(item.target)
        if here and len(here) == len(there):
            groups.setdefault((source, target), []).append((here, there, item))
    for moves in groups.values():
        moves.sort(key=lambda move: move[0])
        for (_, before, _), (_, after, item) in pairwise(moves):
            if after < before:
                what = f"layers change their order: {item.source} goes to {item.target}, behind its predecessor"
                yield what, (item.source, item.target)
                break
