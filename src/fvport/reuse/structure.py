# SPDX-License-Identifier: Apache-2.0
"""How alike an official table of names and shapes is to a native one, and what differs. No model, no weights.

Three measures, each the harmonic mean of what is covered on both sides:

carried    names (and with equal configs shapes) that the native class's own rules bring to a native tensor
worded     names folded over their layers, each against the most alike one by its words
shaped     shapes as a multiset, whatever the names; only where both sides stand on the same config

The first says that FastVideo loads this checkpoint, the others find a class whose rules are code or for other names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fvport.weights.mapping import Rules

Shapes = Mapping[str, Sequence[int]]
WEIGHTS = {"carried": 0.5, "worded": 0.3, "shaped": 0.2}


@dataclass(frozen=True)
class Likeness:
    """`score` in [0, 1], its measures (`shaped` None without a common config), and the differences as sentences."""

    score: float
    carried: float
    worded: float
    shaped: float | None
    differences: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        numbers = {k: None if v is None else round(v, 4) for k, v in vars(self).items() if k != "differences"}
        return {**numbers, "differences": self.differences}


def likeness(official: Shapes, native: Shapes, rules: Rules, same_config: bool) -> Likeness:
    """`same_config`: the native class was built on the official config, so that shapes can be compared."""
    placed = _placed(official, rules)
    carried, carried_layers = _carried(placed, native, same_config)
    worded = 1.0 if carried > 0.999 else _words_agree(official, placed, native)
    shaped = _shaped(placed, native) if same_config else None
    measures = {"carried": max(carried, 0.0), "worded": worded, **({"shaped": shaped} if shaped is not None else {})}
    score = sum(WEIGHTS[k] * v for k, v in measures.items()) / sum(WEIGHTS[k] for k in measures)
    return Likeness(score, carried, worded, shaped, _differences(placed, native, same_config, carried_layers))


def _words_agree(official: Shapes, placed: Shapes, native: Shapes) -> float:
    ours = _templates(native)
    theirs = [_templates(side) for side in (official, placed)]
    return max(_worded(side, ours) for side in (theirs[:1] if theirs[0] == theirs[1] else theirs))


def _placed(official: Shapes, rules: Rules) -> dict[str, tuple[int, ...]]:
    """{native name: shape} as the rules bring the official tensors there; parts of a merge joined at their rows.

    Rules that cannot be applied to these names (they collide) leave the names as they are.
    """
    try:
        targets = rules.apply(official).targets()
    except (re.error, ValueError):
        return {name: tuple(shape) for name, shape in official.items()}
    found: dict[str, tuple[int, ...]] = {}
    for target, items in targets.items():
        shapes = [tuple(official[item.source]) for item in items]
        joined = len(shapes) > 1 and shapes[0] and all(item.index is not None for item in items)
        found[target] = (sum(s[0] for s in shapes), *shapes[0][1:]) if joined else shapes[0]
    return found


def _carried(placed: Shapes, native: Shapes, same_config: bool) -> tuple[float, set[str]]:
    """(share, the prefix-free names that agree). Prefixes that all of one side begins with do not count."""
    best, names = 0.0, set()
    for a, b in _views(placed, native):
        if same_config:
            hit = {n for n in a.keys() & b.keys() if _alike(n, a[n], b[n])}
            share = 2 * len(hit) / (len(a) + len(b)) if a or b else 0.0
        else:
            hit, left, right = set(a) & set(b), _templates(a), _templates(b)
            shared = {t for t in left.keys() & right.keys() if left[t] == right[t]}
            share = 2 * len(shared) / (len(left) + len(right)) if left or right else 0.0
        if share > best:
            best, names = share, hit
    return best, names


def _views(placed: Shapes, native: Shapes) -> list[tuple[Shapes, Shapes]]:
    """As they are, and without a prefix that one side's names (nearly all) begin with: libraries drop and add them."""
    views = [(placed, native)]
    a, b = _bare(placed), _bare(native)
    if a is not placed or b is not native:
        views += [(a, b), (a, native), (placed, b)]
    return views


def _bare(names: Shapes) -> Shapes:
    """Without the first words that more than nine in ten names share."""
    for _ in range(3):
        first = Counter(name.partition(".")[0] for name in names if "." in name)
        if not first:
            break
        word, count = first.most_common(1)[0]
        if count < 0.9 * len(names) or word.isdigit():
            break
        names = {n.removeprefix(f"{word}."): s for n, s in names.items()}
    return names


def _alike(name: str, a: Sequence[int], b: Sequence[int]) -> bool:
    """Equal shapes; an embedding may have rows up to FastVideo's next multiple of 64."""
    if tuple(a) == tuple(b):
        return True
    return "embed" in name and len(a) == len(b) > 0 and tuple(a[1:]) == tuple(b[1:]) and a[0] <= b[0] < a[0] + 64


def _templates(names: Shapes) -> dict[tuple[str, int], bool]:
    """{(name with its numbers folded, number of dimensions): whether it is in more than one layer}."""
    seen: dict[tuple[str, int], int] = {}
    for name, shape in names.items():
        key = re.sub(r"(?<![a-zA-Z_])\d+(?![a-zA-Z])", "#", name), len(shape)
        seen[key] = seen.get(key, 0) + 1
    return {key: count > 1 for key, count in seen.items()}


def _worded(a: Mapping[tuple[str, int], bool], b: Mapping[tuple[str, int], bool]) -> float:
    """Soft agreement of two sets of folded names: each with the most alike of the other side."""
    if not a or not b:
        return 0.0
    left, right = [_entry(*item) for item in a.items()], [_entry(*item) for item in b.items()]
    table = [[_similar(x, y) for y in right] for x in left]
    up = sum(max(row) for row in table) / len(left)
    down = sum(max(column) for column in zip(*table, strict=True)) / len(right)
    return 2 * up * down / (up + down) if up + down else 0.0


Entry = tuple[frozenset[str], str, int, bool]


def _entry(key: tuple[str, int], repeated: bool) -> Entry:
    name, dimensions = key
    words = re.findall(r"[a-z]+|\d+|#", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
    return frozenset(words), words[-1] if words else "", dimensions, repeated


def _similar(x: Entry, y: Entry) -> float:
    common = len(x[0] & y[0]) / len(x[0] | y[0])
    return common * (1.0 if x[2] == y[2] else 0.2) * (1.0 if x[1] == y[1] else 0.6) * (1.0 if x[3] == y[3] else 0.7)


def _shaped(placed: Shapes, native: Shapes) -> float:
    a, b = (Counter(tuple(shape) for shape in side.values()) for side in (placed, native))
    total = sum(a.values()) + sum(b.values())
    return 2 * sum((a & b).values()) / total if total else 0.0


def _differences(placed: Shapes, native: Shapes, same_config: bool, agreed: set[str]) -> list[str]:
    """What is on one side only, folded over layers; and shapes that differ under one name."""
    a, b = next(((x, y) for x, y in _views(placed, native) if agreed <= x.keys() & y.keys()), (placed, native))
    left, right = {k[0] for k in _templates(a)}, {k[0] for k in _templates(b)}
    found = [f"official only: {name}" for name in sorted(left - right)]
    found += [f"native only: {name}" for name in sorted(right - left)]
    if same_config:
        wrong: dict[str, str] = {}
        for name in sorted(a.keys() & b.keys()):
            if not _alike(name, a[name], b[name]):
                wrong.setdefault(re.sub(r"\d+", "#", name), f"{name}: official {list(a[name])}, native {list(b[name])}")
        found += sorted(wrong.values())
    return found


def word_share(official: str, native: str) -> float:
    """How many words two class names share: what decides between classes of one structure, and only there."""
    a, b = (set(_class_words(name)) for name in (official, native))
    return len(a & b) / len(a | b) if a | b else 0.0


def _class_words(name: str) -> list[str]:
    """`Qwen3VLTextModel` -> qwen, 3, vl, text."""
    bare = re.sub(r"(For[A-Z]\w*|Model)$", "", name.rpartition(":")[2])  # which head a class has is in its tensors
    return [w.lower() for w in re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]+|[a-z]+|\d+", bare)]
