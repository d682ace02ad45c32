# SPDX-License-Identifier: Apache-2.0
"""Which official unit goes to which native one: from what is certain outwards.

Units can pair where shapes and layers fit. Within each such class the best assignment is taken, and a pair counts as
certain where every other way round has clearly less evidence. Certain pairs then speak for others: their modules go
together, and their words are read as synonyms. What no evidence decides is paired as best it can be, and marked.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from fvport.weights import suggest_words as words
from fvport.weights.operations import Operation
from fvport.weights.suggest_units import Unit, by_layer

MARGIN = 0.35  # points by which the chosen way round must be better than any other
NO_PAIR = -0.5  # points of leaving a unit without a partner
LOST = -1e6


@dataclass(eq=False)
class Match:
    """`sources` of one `target`, in the order in which they are joined; or one source and one of its parts."""

    sources: tuple[Unit, ...]
    target: Unit
    sure: bool = False
    evidence: list[str] = field(default_factory=list)
    rivals: list[str] = field(default_factory=list)
    part: tuple[int, tuple[int, ...]] | None = None  # (which, sizes of all) of the source along dimension 0
    turned: Operation | None = None  # what the weight needs to have the native shape


@dataclass
class State:
    """What is known so far."""

    official: list[Unit]
    native: list[Unit]
    matches: dict[Unit, Match] = field(default_factory=dict)  # by native unit
    used: set[Unit] = field(default_factory=set)
    learned: words.Learned = field(default_factory=dict)
    together: dict[tuple[tuple[str, ...], tuple[str, ...]], float] = field(default_factory=dict)
    _base: dict[tuple[Unit, Unit], float] = field(default_factory=dict)

    def unroll(self) -> None:
        """Take what is left apart: each layer a unit of its own."""
        self.official = self._unrolled(self.official, set(self.free_official()))
        self.native = self._unrolled(self.native, set(self.free_native()))

    def _unrolled(self, units: list[Unit], free: set[Unit]) -> list[Unit]:
        return [single for unit in units for single in (by_layer(unit) if unit in free else [unit])]

    def add(self, match: Match) -> None:
        self.matches[match.target] = match
        self.used |= set(match.sources)

    def contested(self, source: Unit, target: Unit) -> bool:
        """A merge that is a guess holds a unit that could be in this pair as well."""
        guesses = [match for match in self.matches.values() if not match.sure and len(match.sources) > 1]
        held = {loose(unit) for match in guesses for unit in match.sources}
        guesses = [match for match in self.matches.values() if not match.sure and match.part]
        return loose(source) in held or loose(target) in {loose(match.target) for match in guesses}

    def free_official(self) -> list[Unit]:
        return [unit for unit in self.official if unit not in self.used]

    def free_native(self) -> list[Unit]:
        return [unit for unit in self.native if unit not in self.matches]

    def score(self, one: Unit, other: Unit) -> float:
        """Points of names, and of the modules that certain pairs have put together."""
        key = (one, other)
        if key not in self._base:
            self._base[key] = words.similarity(one.path, other.path, self.learned)
            self._base[key] += 0.3 * (one.layers == other.layers)
        return self._base[key] + 2.0 * self.context(one, other)

    def context(self, one: Unit, other: Unit) -> float:
        """0 to 1: how far the modules above the one are the modules above the other."""
        total = weight = 0.0
        for mine, theirs, turned in ((one, other, False), (other, one, True)):
            above = theirs.ancestors()
            for depth, module in enumerate(mine.ancestors(), 1):
                pairs = ((m, module) if turned else (module, m) for m in above)
                best = max((self.together.get(pair, 0.0) for pair in pairs), default=0.0)
                total, weight = total + depth * best, weight + depth
        return total / weight if weight else 0.0

    def learn(self) -> None:
        """From the certain pairs: which modules belong together, and which words stand for one another."""
        sure = [(source, match.target) for match in self.matches.values() if match.sure for source in match.sources]
        self.together = _together(sure)
        self.learned = _learned(sure)
        self._base.clear()


def _together(sure: list[tuple[Unit, Unit]]) -> dict[tuple[tuple[str, ...], tuple[str, ...]], float]:
    """{(official module, native module): pairs in both / pairs in either}"""
    mine: Counter[tuple[str, ...]] = Counter()
    theirs: Counter[tuple[str, ...]] = Counter()
    both: Counter[tuple[tuple[str, ...], tuple[str, ...]]] = Counter()
    for source, target in sure:
        mine.update(source.ancestors())
        theirs.update(target.ancestors())
        both.update((a, b) for a in source.ancestors() for b in target.ancestors())
    return {pair: count / (mine[pair[0]] + theirs[pair[1]] - count) for pair, count in both.items()}


def _learned(sure: list[tuple[Unit, Unit]]) -> words.Learned:
    """Words that occur together in at least two pairs, more often than apart; words both sides have stay out."""
    mine: Counter[str] = Counter()
    theirs: Counter[str] = Counter()
    both: Counter[tuple[str, str]] = Counter()
    for source, target in sure:
        here = source.path.words.keys() - target.path.words.keys()
        there = target.path.words.keys() - source.path.words.keys()
        mine.update(source.path.words.keys())
        theirs.update(target.path.words.keys())
        both.update((a, b) for a in here for b in there)
    return {
        (a, b): 2 * n / (mine[a] + theirs[b]) for (a, b), n in both.items() if n > 1 and 4 * n > mine[a] + theirs[b]
    }


# --- one class -------------------------------------------------------------------------------------------------------


def signature(unit: Unit) -> object:
    """Units of one class: leaves, shapes and how many layers."""
    return (tuple(sorted(unit.shapes.items())), len(unit.layers))


def loose(unit: Unit) -> object:
    """The same by the weight alone: a bias may be there on one side only."""
    return (unit.main, len(unit.layers))


def flat(unit: Unit) -> object:
    """Weights that hold the same rows, such as a convolution of size one and a linear layer."""
    return (unit.main[:1], math.prod(unit.main[1:]), len(unit.layers))


def square(unit: Unit) -> object:
    """Matrices, whichever way round."""
    return (tuple(sorted(unit.main)), len(unit.layers)) if len(unit.main) == 2 else unit


def pair_classes(state: State, kind: Callable[[Unit], object]) -> bool:
    """Certain pairs of every class; True when there was one."""
    found = False
    for mine, theirs in _classes(state, kind):
        for match in _assign(state, mine, theirs):
            if match.sure:
                state.add(match)
                found = True
    return found


def settle(state: State, kind: Callable[[Unit], object]) -> None:
    """The best assignment of what is left, certain or not."""
    for mine, theirs in _classes(state, kind):
        for match in _assign(state, mine, theirs):
            state.add(match)


def _classes(state: State, kind: Callable[[Unit], object]) -> list[tuple[list[Unit], list[Unit]]]:
    groups: dict[object, tuple[list[Unit], list[Unit]]] = {}
    for unit in state.free_official():
        groups.setdefault(kind(unit), ([], []))[0].append(unit)
    for unit in state.free_native():
        groups.setdefault(kind(unit), ([], []))[1].append(unit)
    return [(mine, theirs) for mine, theirs in groups.values() if mine and theirs]


def _assign(state: State, mine: list[Unit], theirs: list[Unit]) -> Iterable[Match]:
    """The best assignment of one class, each pair with its lead over the next best way round."""
    size = max(len(mine), len(theirs))
    points = [[NO_PAIR] * size for _ in range(size)]
    for row, source in enumerate(mine):
        for column, target in enumerate(theirs):
            points[row][column] = state.score(source, target) if _may_pair(source, target) else LOST
    chosen = assignment(points)
    leads = ways_round(points, chosen)
    for row, source in enumerate(mine):
        if chosen[row] >= len(theirs):
            continue
        target = theirs[chosen[row]]
        if points[row][chosen[row]] <= LOST:
            continue
        lead, rival = leads[row]
        match = Match((source,), target, turned=_turn(source, target))
        match.sure = (
            lead >= MARGIN and not state.contested(source, target) and not (size == 1 and _refuses(source, target))
        )
        _say(state, match, lead, [unit for unit in mine if unit is not source], theirs)
        if not match.sure:
            match.rivals = [mine[rival].title] if 0 <= rival < len(mine) else []
        yield match


def _may_pair(source: Unit, target: Unit) -> bool:
    """What both have besides the weight is of one shape."""
    shared = (source.shapes.keys() & target.shapes.keys()) - {"weight"}
    return all(source.shapes[leaf] == target.shapes[leaf] for leaf in shared)


def _turn(source: Unit, target: Unit) -> Operation | None:
    if source.main == target.main:
        return None
    if source.main == target.main[::-1] and len(source.main) == 2:
        return Operation("transpose", ((1, 0),))
    return Operation("reshape", (target.main,))


def _refuses(source: Unit, target: Unit) -> bool:
    """The only pair of its shape, and the names contradict each other."""
    mine, theirs = source.path.order, target.path.order
    apart = mine is not None and theirs is not None and abs(mine - theirs) > 0.5
    return apart or words.contradictions(source.path.words, target.path.words) > 0


def doubt_squares(state: State) -> None:
    """Where matrices are turned, a square one may be turned too, and its shape does not show it."""
    if not any(match.turned and match.turned.name == "transpose" for match in state.matches.values()):
        return
    for match in state.matches.values():
        shape = match.target.main
        if len(shape) == 2 and shape[0] == shape[1] and len(match.sources) == 1 and not match.turned:
            match.sure = False
            match.evidence.append("other matrices are transposed; whether this one is, a square shape does not show")


def _say(state: State, match: Match, lead: float, others: list[Unit], theirs: list[Unit]) -> None:
    source, target = match.sources[0], match.target
    shape = list(source.main)
    if not others and len(theirs) == 1:
        match.evidence.append(f"the only pair of shape {shape} in {len(source.layers)} layers")
    shared = [w for w in source.path.words if w in target.path.words and not w.isdigit()]
    if shared:
        match.evidence.append(f"both say {', '.join(shared)}")
    learned = [pair for pair, share in state.learned.items() if share > 0.5 and not words.FAINT & set(pair)]
    read = [f"{a} for {b}" for a, b in learned if a in source.path.words and b in target.path.words]
    if read:
        match.evidence.append(f"elsewhere {', '.join(read[:3])}")
    if source.path.order is not None and source.path.order == target.path.order:
        match.evidence.append("the same place among their siblings")
    if state.context(source, target) > 0.5:
        match.evidence.append("their modules go together elsewhere")
    if others or len(theirs) > 1:
        match.evidence.append(f"{max(len(others) + 1, len(theirs))} share the shape {shape}, lead {min(lead, 9.9):.1f}")


def ways_round(points: list[list[float]], chosen: list[int]) -> list[tuple[float, int]]:
    """For each row: how many points the best assignment without its pair has less, and the row that would take it.

    The next best way round is the cheapest circle through the row in which each takes the partner of the next.
    """
    size = len(chosen)
    if size == 1:
        return [(9.9, -1)]
    cost = [[points[i][chosen[i]] - points[i][chosen[j]] for j in range(size)] for i in range(size)]
    far = [row[:] for row in cost]
    for i in range(size):
        far[i][i] = 0.0
    if size <= 80:
        for middle in range(size):
            through = far[middle]
            for row in far:
                step = row[middle]
                for j in range(size):
                    row[j] = min(row[j], step + through[j])
    found = []
    for i in range(size):
        best = min((cost[i][j] + far[j][i], j) for j in range(size) if j != i)
        found.append((max(best[0], 0.0), best[1]))
    return found


def assignment(points: list[list[float]]) -> list[int]:
    """The column of each row that gives the most points in all."""
    if len(points) == 1:
        return [0]
    if len(points) > 150:  # importing it costs seconds
        try:
            from scipy.optimize import linear_sum_assignment

            return [int(column) for column in linear_sum_assignment(points, maximize=True)[1]]
        except ImportError:
            pass
    return _hungarian([[-value for value in row] for row in points])


def _hungarian(cost: list[list[float]]) -> list[int]:
    """Kuhn and Munkres with potentials, O(n^3)."""
    size = len(cost)
    rows, columns, owner = [0.0] * (size + 1), [0.0] * (size + 1), [0] * (size + 1)
    for row in range(1, size + 1):
        owner[0], column = row, 0
        least, seen, back = [float("inf")] * (size + 1), [False] * (size + 1), [0] * (size + 1)
        while owner[column]:
            seen[column], here, step, then = True, owner[column], float("inf"), 0
            for j in range(1, size + 1):
                if not seen[j]:
                    left = cost[here - 1][j - 1] - rows[here] - columns[j]
                    if left < least[j]:
                        least[j], back[j] = left, column
                    if least[j] < step:
                        step, then = least[j], j
            for j in range(size + 1):
                if seen[j]:
                    rows[owner[j]] += step
                    columns[j] -= step
                else:
                    least[j] -= step
            column = then
        while column:
            owner[column] = owner[back[column]]
            column = back[column]
    found = [0] * size
    for column in range(1, size + 1):
        found[owner[column] - 1] = column - 1
    return found
