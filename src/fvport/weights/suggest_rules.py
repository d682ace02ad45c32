# SPDX-License-Identifier: Apache-2.0
"""From pairs of units to the shortest readable rule list.

A rule is drafted for the highest module whose whole content moves alike; what moves nowhere is a pass-through. Drafts
that differ in one word that both sides share become alternatives, and drafts that change the same tail behind any head
become one. No rule takes a key that it does not map rightly, so their order never decides. What is not certain keeps a
rule of its own, so that its mark is its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from fvport.weights.operations import Operation
from fvport.weights.suggest_match import Match
from fvport.weights.suggest_units import Unit

REST, EXACT = "(.*)", ""
Change = tuple[tuple[str, ...], tuple[str, ...]]  # segments before and after
Place = tuple[str, int | None, int | None, str]  # native name, merge place, count, operations as text


@dataclass(frozen=True)
class Draft:
    """`source` and `target` are segments: plain words, `#` or `block#` for numbers, `a|b` for alternatives that both
    sides share. `tail`: `(.*)` for all below, `(weight|bias)` for some leaves, or the two literal endings.
    """

    source: tuple[str, ...]
    target: tuple[str, ...]
    tail: str = REST
    endings: tuple[str, str] = ("", "")  # of a rule for one leaf: official and native, such as (".gamma", ".weight")
    index: int | None = None
    count: int | None = None
    operations: tuple[Operation, ...] = ()
    sure: bool = True
    matches: tuple[Match, ...] = field(default=(), compare=False)

    @property
    def stays(self) -> bool:
        """It renames nothing: a pass-through."""
        moved = self.source != self.target or self.endings[0] != self.endings[1]
        return not moved and self.index is None and not self.operations

    @property
    def pattern(self) -> str:
        pieces = [_piece(segment) for segment in self.source]
        head = r"\.".join(pieces)
        if self.tail == EXACT:
            return f"^{head}{re.escape(self.endings[0])}$"
        return f"^{head}{'' if not pieces else self._dot}{self.tail}$"

    _dot = r"\."

    @property
    def replacement(self) -> str:
        numbers = iter(range(1, 100))
        groups = [(segment, next(numbers)) for segment in self.source if _grouped(segment)]
        pieces = []
        for segment in self.target:
            if not _grouped(segment):
                pieces.append(segment)
                continue
            held = next(n for n, (other, _) in enumerate(groups) if _same_group(other, segment))
            stem = segment.split("#")[0] if "#" in segment else ""
            pieces.append(f"{stem}\\{groups.pop(held)[1]}")
        head = ".".join(pieces)
        if self.tail == EXACT:
            return head + self.endings[1]
        last = f"\\{1 + sum(_grouped(segment) for segment in self.source)}"
        return f"{head}.{last}" if head else last


def _grouped(segment: str) -> bool:
    return "#" in segment or "|" in segment or segment == "*"


def _same_group(one: str, other: str) -> bool:
    return ("#" in one and "#" in other) or one == other


def _piece(segment: str) -> str:
    if segment == "*":
        return "(.*)"
    if segment.endswith("#"):
        return re.escape(segment[:-1]) + r"(\d+)"
    if "|" in segment:
        return f"({'|'.join(re.escape(word) for word in segment.split('|'))})"
    return re.escape(segment)


@dataclass
class Table:
    """What every official name must become, and a few names that stand for all when a draft is tried."""

    places: dict[str, list[Place]]
    probes: list[str]

    def right(self, draft: Draft) -> bool:
        """Every probe that the draft takes becomes what it must."""
        pattern, target = re.compile(draft.pattern), draft.replacement
        for name in self.probes:
            if pattern.match(name):
                made = (pattern.sub(target, name), draft.index, draft.count, _text(draft.operations))
                if made not in self.places.get(name, ()):
                    return False
        return True


def _text(operations: Iterable[Operation]) -> str:
    return " ".join(map(str, operations))


def table(matches: Iterable[Match], names: Iterable[str], unit_list: Iterable[Unit]) -> Table:
    places: dict[str, list[Place]] = {}
    for match in matches:
        for index, source in enumerate(match.sources):
            for mine, theirs, leaf in leaf_pairs(source, match.target):
                place = (index, len(match.sources)) if len(match.sources) > 1 else (None, None)
                entry = (theirs, *place, _text(operations(match, leaf)))
                places.setdefault(mine, []).append(entry)
    probes = []
    for unit in unit_list:
        by_leaf: dict[str, list[str]] = {}
        for (_, leaf), name in sorted(unit.names.items()):
            by_leaf.setdefault(leaf, []).append(name)
        probes += [name for found in by_leaf.values() for name in dict.fromkeys((found[0], found[-1]))]
    return Table({name: places[name] for name in names if name in places}, probes)


def leaf_pairs(source: Unit, target: Unit) -> Iterable[tuple[str, str, str]]:
    """(official name, native name, leaf) of a pair; layers go in their order."""
    for here, there in zip(source.layers, target.layers, strict=False):
        for leaf in target.shapes:
            if (here, leaf) in source.names and (there, leaf) in target.names:
                yield source.names[here, leaf], target.names[there, leaf], leaf


def operations(match: Match, leaf: str) -> tuple[Operation, ...]:
    """What is done to a source's leaf on the way."""
    found = []
    if match.part is not None:
        index, sizes = match.part
        same = len(set(sizes)) == 1
        found.append(Operation("split", (0, len(sizes) if same else sizes, index)))
    if match.turned and leaf == "weight":
        found.append(match.turned)
    return tuple(found)


# --- drafts ----------------------------------------------------------------------------------------------------------


def drafts(matches: Sequence[Match], known: Table) -> list[Draft]:
    """The rule list, pass-throughs among it."""
    pieces = _once([piece for match in matches for piece in _unit_drafts(match, known)])
    simple = [piece for piece in pieces if piece.sure and _plain(piece)]
    rest = [piece for piece in pieces if not (piece.sure and _plain(piece))]
    found = _by_module(simple, known, ())
    found = _any_head(_alternatives(found, known), known)
    return [*found, *_alternatives(rest, known)]


def _once(pieces: list[Draft]) -> list[Draft]:
    """Layers of different shapes are units of their own and may have one rule."""
    found: dict[Draft, Draft] = {}
    for piece in pieces:
        known = found.get(piece)
        found[piece] = replace(known, matches=(*known.matches, *piece.matches)) if known else piece
    return list(found.values())


def _plain(piece: Draft) -> bool:
    ends_alike = piece.tail == REST or (piece.tail == EXACT and piece.endings == ("", ""))
    return piece.index is None and not piece.operations and ends_alike


def _unit_drafts(match: Match, known: Table) -> list[Draft]:
    found = []
    for index, source in enumerate(match.sources):
        base = Draft(source.segments, match.target.segments, REST, sure=match.sure, matches=(match,))
        if len(match.sources) > 1:
            base = replace(base, index=index, count=len(match.sources))
        if _foldable(source, match.target):
            found += _leaf_drafts(base, match, source, None, known)
        else:
            for here, there in zip(source.layers, match.target.layers, strict=False):
                literal = replace(base, source=_numbered(source, here), target=_numbered(match.target, there))
                found += _leaf_drafts(literal, match, source, (here, there), known)
    return found


def _foldable(source: Unit, target: Unit) -> bool:
    places = ["#" in segment for segment in source.segments].count(True)
    return source.layers == target.layers and places == ["#" in s for s in target.segments].count(True)


def _numbered(unit: Unit, layer: tuple[int, ...]) -> tuple[str, ...]:
    numbers = iter(layer)
    return tuple(segment.replace("#", str(next(numbers))) if "#" in segment else segment for segment in unit.segments)


def _leaf_drafts(
    base: Draft, match: Match, source: Unit, only: tuple[tuple[int, ...], tuple[int, ...]] | None, known: Table
) -> list[Draft]:
    """One draft for all leaves where they end alike on both sides, else one a leaf."""
    here, there = only or (source.layers[0], match.target.layers[0])
    ends = {}
    for leaf in match.target.shapes:
        if (here, leaf) in source.names and (there, leaf) in match.target.names:
            mine, theirs = source.names[here, leaf], match.target.names[there, leaf]
            ends[leaf] = (_ending(mine, source, here), _ending(theirs, match.target, there))
    alike = all(mine == theirs and mine.startswith(".") for mine, theirs in ends.values())
    same_work = len({operations(match, leaf) for leaf in ends}) == 1
    if alike and same_work:
        for tail in (REST, f"({'|'.join(mine[1:] for mine, _ in ends.values())})"):
            draft = replace(base, tail=tail, operations=operations(match, next(iter(ends))))
            if known.right(draft):
                return [draft]
    return [
        replace(base, tail=EXACT, endings=ending, operations=operations(match, leaf)) for leaf, ending in ends.items()
    ]


def _ending(name: str, unit: Unit, layer: tuple[int, ...]) -> str:
    return name[len(".".join(_numbered(unit, layer))) :]


def _by_module(pieces: list[Draft], known: Table, head: tuple[str, ...]) -> list[Draft]:
    """One draft for a module whose content moves alike, else its children's."""
    if len(pieces) == 1 and len(pieces[0].source) <= len(head):
        return pieces
    moved = {_head_of(piece, len(head)) for piece in pieces}
    below = not any(piece.tail == EXACT and piece.source == head for piece in pieces)
    if below and len(moved) == 1 and len(pieces) > 1 and (to := moved.pop()) is not None:
        matches = tuple(match for piece in pieces for match in piece.matches)
        draft = replace(pieces[0], source=head, target=to, tail=REST, matches=matches)
        if (head or to) and known.right(draft):
            return [draft]
    children: dict[str, list[Draft]] = {}
    found = [piece for piece in pieces if len(piece.source) == len(head)]
    for piece in pieces:
        if len(piece.source) > len(head):
            children.setdefault(piece.source[len(head)], []).append(piece)
    for segment, members in children.items():
        found += _by_module(members, known, (*head, segment))
    return found


def _head_of(piece: Draft, depth: int) -> tuple[str, ...] | None:
    """Where the first `depth` segments go, if everything after them stays as it is."""
    rest = piece.source[depth:]
    if not rest:
        return piece.target
    return piece.target[: -len(rest)] if piece.target[-len(rest) :] == rest else None


# --- shorter ---------------------------------------------------------------------------------------------------------


def _alternatives(found: list[Draft], known: Table) -> list[Draft]:
    """Drafts alike but for one word, which they keep, as one with `(a|b|c)`."""
    while True:
        groups: dict[tuple[object, ...], list[tuple[str, Draft]]] = {}
        for draft in found:
            for key, word in _holes(draft):
                groups.setdefault(key, []).append((word, draft))
        best = max((group for group in groups.values() if len(group) > 1), key=len, default=None)
        if best is None or not (joined := _joined(best, known)):
            return found
        gone = [draft for _, draft in best]
        place = found.index(gone[0])
        found = [
            joined if n == place else d for n, d in enumerate(found) if n == place or not any(d is g for g in gone)
        ]


def _holes(draft: Draft) -> Iterable[tuple[tuple[object, ...], str]]:
    if any("|" in segment for segment in draft.source) or draft.index is not None:
        return
    for i, word in enumerate(draft.source):
        if _grouped(word) or draft.target.count(word) != 1 or draft.source.count(word) != 1:
            continue
        j = draft.target.index(word)
        source = (*draft.source[:i], None, *draft.source[i + 1 :])
        target = (*draft.target[:j], None, *draft.target[j + 1 :])
        yield (source, target, draft.tail, draft.endings, draft.count, draft.operations, draft.sure), word


def _joined(group: list[tuple[str, Draft]], known: Table) -> Draft | None:
    words = "|".join(word for word, _ in group)
    first_word, first = group[0]
    matches = tuple(match for _, draft in group for match in draft.matches)
    source = tuple(words if segment == first_word else segment for segment in first.source)
    target = tuple(words if segment == first_word else segment for segment in first.target)
    joined = replace(first, source=source, target=target, matches=matches)
    return joined if known.right(joined) else None


def _any_head(found: list[Draft], known: Table) -> list[Draft]:
    """Drafts that change the same tail behind different heads as one with `(.*)` for the head."""
    for longer in (0, 1, 2):
        groups: dict[tuple[Change, str, tuple[str, str]], list[Draft]] = {}
        for draft in found:
            change = _change(draft, longer)
            if change:
                groups.setdefault((change, draft.tail, draft.endings), []).append(draft)
        for ((before, after), _, _), group in groups.items():
            if len(group) < 2:
                continue
            matches = tuple(match for draft in group for match in draft.matches)
            wide = replace(group[0], source=("*", *before), target=("*", *after), matches=matches)
            if known.right(wide):
                place = next(n for n, draft in enumerate(found) if draft is group[0])
                found = [
                    wide if n == place else draft
                    for n, draft in enumerate(found)
                    if n == place or not any(draft is gone for gone in group)
                ]
    return found


def _change(draft: Draft, longer: int) -> Change | None:
    if draft.stays or "*" in draft.source:
        return None
    same = 0
    while same < min(len(draft.source), len(draft.target)) and draft.source[same] == draft.target[same]:
        same += 1
    same -= longer
    before, after = draft.source[same:], draft.target[same:]
    plain = not any(_grouped(segment) for segment in (*before, *after))
    return (before, after) if same > 0 and plain and before else None


def verified(found: list[Draft], known: Table, apply: Callable[[list[Draft]], dict[str, list[Place]]]) -> list[Draft]:
    """The list with a literal rule in front for every name that it would not map rightly (layers that differ)."""
    made = apply(found)
    wrong = [
        name for name, want in known.places.items() if sorted(map(str, made.get(name, ()))) != sorted(map(str, want))
    ]
    return [*_literal(wrong, known, found), *found] if wrong else found


def _literal(wrong: list[str], known: Table, found: list[Draft]) -> list[Draft]:
    owners: dict[str, Match] = {}
    for draft in found:
        for match in draft.matches:
            for unit in match.sources:
                owners |= dict.fromkeys(unit.names.values(), match)
    drafts_ = []
    for name in wrong:
        for target, index, count, said in known.places[name]:
            match = owners[name]
            leaf = next(leaf for (_, leaf), own in _names(match) if own == name)
            work = next(work for work in (operations(match, leaf), ()) if _text(work) == said)
            source, goal = tuple(name.split(".")), tuple(target.split("."))
            drafts_.append(Draft(source, goal, EXACT, ("", ""), index, count, work, match.sure, (match,)))
    return drafts_


def _names(match: Match) -> Iterable[tuple[tuple[tuple[int, ...], str], str]]:
    return (entry for unit in match.sources for entry in unit.names.items())
