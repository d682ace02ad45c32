# SPDX-License-Identifier: Apache-2.0
"""Merges and splits: several units of one side whose rows together are one unit of the other.

A merge is looked for where a native unit has no official one of its shape: official units of one module, alike in all
but dimension 0, whose rows add up. Words decide which (q, k, v of one stream) and in which order; where they do not, it
is marked. A split is the same with the sides exchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from fvport.weights import suggest_words as words
from fvport.weights.suggest_match import MARGIN, NO_PAIR, Match, State, assignment, ways_round
from fvport.weights.suggest_units import Unit

ORDERS = (("q", "k", "v"), ("k", "v"), ("q", "k"), ("gate", "up"), ("w1", "w3"), ("scale", "shift"))
PARTS = frozenset(word for order in ORDERS for word in order)
USUAL = ("q", "k", "v")
MOST_PARTS = 6
MOST_POOL = 12


def merges(state: State, guess: bool = False) -> bool:
    """Adds merges for native units that no single official unit fits; True when there was one. `guess`: also those that
    are not certain.
    """
    return _joins(state, state.free_official(), state.free_native(), False, guess)


def splits(state: State, guess: bool = False) -> bool:
    """Adds splits: a merge of native units, read backwards."""
    return _joins(state, state.free_native(), state.free_official(), True, guess)


def _joins(state: State, pool: list[Unit], wholes: list[Unit], turned: bool, guess: bool) -> bool:
    single = {(unit.main, len(unit.layers)) for unit in pool}
    classes: dict[tuple[object, ...], list[Unit]] = {}
    for whole in wholes:
        if whole.main and (whole.main, len(whole.layers)) not in single:
            classes.setdefault((whole.main, len(whole.layers), tuple(sorted(whole.shapes))), []).append(whole)
    sets = _Sets(pool)
    taken: set[Unit] = set()
    for alike in sorted(classes.values(), key=lambda alike: -alike[0].main[0]):  # q, k, v before k, v
        free = [(depth, parts) for depth, parts in sets.adding_up(alike[0]) if not taken & set(parts)]
        chosen, lead = _disjoint(state, alike, free, turned)
        for whole, parts, gap in _pairing(state, alike, chosen, turned):
            ordered, known = _ordered(parts, whole)
            clear = min(gap, lead[parts]) >= MARGIN
            if clear or guess:
                taken |= set(parts)
                _add(state, whole, ordered, known and clear, min(gap, lead[parts]), turned)
    return bool(taken)


Parts = tuple[Unit, ...]


def _disjoint(
    state: State, wholes: list[Unit], sets: list[tuple[int, Parts]], turned: bool
) -> tuple[list[Parts], dict[Parts, float]]:
    """(the best sets that share no unit, as many as there are wholes; the lead of each over any set not taken)"""
    points = {}
    for depth, parts in sets:
        names = max(_likeness(state, whole, parts, turned) for whole in wholes)
        points[parts] = names + _coherence(parts, depth, wholes[0])
    chosen: list[Parts] = []
    for parts in sorted(points, key=lambda parts: -points[parts]):
        if len(chosen) < len(wholes) and not any(set(parts) & set(other) for other in chosen):
            chosen.append(parts)
    held = {id(parts) for parts in chosen}
    lead = {}
    for parts in chosen:
        rivals = [points[other] for other in points if id(other) not in held]
        lead[parts] = points[parts] - max(rivals, default=points[parts] - 9.9)
    return chosen, lead


def _pairing(
    state: State, wholes: list[Unit], chosen: list[Parts], turned: bool
) -> Iterator[tuple[Unit, Parts, float]]:
    """Which set is which whole, and the lead over any other way round."""
    if not chosen:
        return
    size = max(len(wholes), len(chosen))
    points = [[NO_PAIR] * size for _ in range(size)]
    for row, whole in enumerate(wholes):
        for column, parts in enumerate(chosen):
            points[row][column] = _likeness(state, whole, parts, turned)
    order = assignment(points)
    leads = ways_round(points, order)
    for row, whole in enumerate(wholes):
        if order[row] < len(chosen):
            yield whole, chosen[order[row]], leads[row][0]


def _likeness(state: State, whole: Unit, parts: Parts, turned: bool) -> float:
    """Names of the parts against the whole's, without the letters of the parts."""
    pairs = [(whole, part) if turned else (part, whole) for part in parts]
    return sum(state.score(*pair) for pair in pairs) / len(parts)


def _add(state: State, whole: Unit, parts: tuple[Unit, ...], sure: bool, lead: float, turned: bool) -> None:
    sizes = tuple(part.main[0] for part in parts)
    said = f"{' + '.join(map(str, sizes))} = {whole.main[0]} rows of {list(whole.main[1:])}"
    order = "in the order that the names say" if sure else "the names do not say the order, or which"
    evidence = [said, order, f"lead {min(lead, 9.9):.1f}"]
    if not turned:
        state.add(Match(parts, whole, sure, evidence))
        return
    for index, part in enumerate(parts):
        state.add(Match((whole,), part, sure, evidence, part=(index, sizes)))


class _Sets:
    """Sets of units of one module that could be joined, by what their rows add up to. Each is made once."""

    def __init__(self, pool: list[Unit]) -> None:
        groups: dict[tuple[object, ...], list[Unit]] = {}
        for unit in pool:
            if unit.main:
                groups.setdefault((unit.main[1:], len(unit.layers)), []).append(unit)
        self._sums: dict[tuple[object, ...], list[tuple[int, tuple[Unit, ...]]]] = {}
        for key, members in groups.items():
            seen: set[frozenset[Unit]] = set()
            for depth, parts in _by_module(members):
                if frozenset(parts) not in seen:
                    seen.add(frozenset(parts))
                    rows = sum(part.main[0] for part in parts)
                    self._sums.setdefault((*key, rows), []).append((depth, parts))

    def adding_up(self, whole: Unit) -> list[tuple[int, tuple[Unit, ...]]]:
        """(depth of their module, the units)"""
        return self._sums.get((whole.main[1:], len(whole.layers), whole.main[0]), [])


def _by_module(members: list[Unit]) -> Iterator[tuple[int, tuple[Unit, ...]]]:
    modules: dict[tuple[str, ...], list[Unit]] = {}
    for unit in members:
        for module in [(), *unit.ancestors()]:
            modules.setdefault(module, []).append(unit)
    for module in sorted(modules, key=lambda m: (-len(m), m)):
        for parts in _subsets(modules[module]):
            yield len(module), parts


def _subsets(members: Sequence[Unit]) -> Iterator[tuple[Unit, ...]]:
    """Sets of two to six. Of a large module only units that are named alike but for one word."""
    groups: list[Sequence[Unit]] = [members]
    if len(members) > MOST_POOL:
        alike: dict[tuple[str, ...], list[Unit]] = {}
        for unit in members:
            alike.setdefault(tuple(sorted(_rest(unit))), []).append(unit)
        groups = [group for group in alike.values() if len(group) <= MOST_POOL]
    for group in groups:
        for count in range(2, min(MOST_PARTS, len(group)) + 1):
            yield from (parts for parts in combinations(group, count) if _whole_leaves(parts))


def _whole_leaves(parts: tuple[Unit, ...]) -> bool:
    """All parts have the same leaves: a bias of only some could not be joined."""
    return len({frozenset(part.shapes) for part in parts}) == 1


def _coherence(parts: Parts, depth: int, whole: Unit) -> float:
    """Points for parts that name a known set (q, k, v) of one stream, and that lie close together."""
    said = [_role(part) for part in parts]
    named = [role for role in said if role]
    points = -2.0 if len(set(named)) < len(named) else 0.0  # two queries
    points += 3.0 * any(set(named) == set(order) for order in ORDERS) * len(named) / len(parts)
    points -= 0.5 * sum(role == "" for role in said) / len(parts)
    points += 1.0 * (len({frozenset(_rest(part)) for part in parts if _role(part)}) == 1)
    return points + 0.2 * depth - 0.3 * (frozenset(whole.shapes) != frozenset(parts[0].shapes))


def _role(part: Unit) -> str:
    found = [word for order in ORDERS for word in order if word in _own(part)]
    return found[0] if found else ""


def _own(part: Unit) -> tuple[str, ...]:
    """The words of its last two segments, the raw `w1` and `w3` among them."""
    last = part.segments[-2:]
    raw = [segment.lower() for segment in last]
    return tuple(word for segment in last for word in words.words_of(segment)) + tuple(raw)


def _rest(part: Unit) -> list[str]:
    return [word for word in part.path.words if word not in PARTS]


def _ordered(parts: tuple[Unit, ...], whole: Unit) -> tuple[tuple[Unit, ...], bool]:
    """(parts in order, whether names say it): q, k, v and gate, up as everybody joins them, unless the fused name
    says another order.
    """
    roles = [_role(part) for part in parts]
    for order in ORDERS:
        if sorted(roles) == sorted(order) and len(set(roles)) == len(order):
            said = _spelled(whole, order)
            known = said is not None or order in (("q", "k", "v"), ("k", "v"), ("q", "k"))
            wanted = said or order
            return tuple(parts[roles.index(role)] for role in wanted), known
    ranked = sorted(range(len(parts)), key=lambda n: (_rank(roles[n]), _natural(parts[n]), n))
    return tuple(parts[n] for n in ranked), False


def _rank(role: str) -> int:
    return USUAL.index(role) if role in USUAL else len(USUAL)


def _natural(part: Unit) -> float:
    return part.path.order if part.path.order is not None else 0.5


def _spelled(whole: Unit, order: tuple[str, ...]) -> tuple[str, ...] | None:
    """The order in which the fused name says its parts: `to_kv` k, v; `gate_up_proj` gate, up."""
    text = whole.segments[-1].lower()
    places = {word: text.rfind(word) for word in order}
    if all(len(word) == 1 for word in order):
        run = next((segment for segment in text.split("_") if sorted(segment) == sorted(order)), "")
        return tuple(run) if run else None
    return tuple(sorted(order, key=lambda word: places[word])) if min(places.values()) >= 0 else None
