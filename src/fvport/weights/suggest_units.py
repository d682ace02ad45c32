# SPDX-License-Identifier: Apache-2.0
"""Tensors as units: a module with its own tensors, folded over the layers that repeat it.

`blocks.0.attn.to_q.weight`, `blocks.0.attn.to_q.bias`, `blocks.1...` are one unit `blocks.#.attn.to_q` with two leaves
and the layers 0, 1, .... A number is a layer's where what stands under each number of its place has the same names and
shapes; `net.0` and `net.2` of a feed-forward are not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from fvport.weights import suggest_words as words

Shape = tuple[int, ...]
LEAVES = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias", "scale": "weight", "g": "weight"}
LEAVES |= {"running_mean": "running_mean", "running_var": "running_var", "num_batches_tracked": "num_batches_tracked"}
NUMBERED = re.compile(r"([A-Za-z_]*[A-Za-z])_?(\d+)")


@dataclass(eq=False)
class Unit:
    """`segments` with `#` for layer numbers; `shapes` {leaf: shape}; `names` {(layer numbers, leaf): full name}."""

    segments: tuple[str, ...]
    shapes: dict[str, Shape] = field(default_factory=dict)
    names: dict[tuple[tuple[int, ...], str], str] = field(default_factory=dict)
    path: words.Path = field(default_factory=lambda: words.Path(()))

    @property
    def layers(self) -> list[tuple[int, ...]]:
        return sorted({layer for layer, _ in self.names})

    @property
    def main(self) -> Shape:
        """The shape of its weight, or of whatever it has."""
        return self.shapes.get("weight") or next(iter(self.shapes.values()))

    @property
    def title(self) -> str:
        return ".".join(self.segments)

    def ancestors(self) -> list[tuple[str, ...]]:
        return [self.segments[:n] for n in range(1, len(self.segments))]


@dataclass
class _Item:
    name: str
    segments: list[str]
    leaf: str
    shape: Shape
    done: list[str] = field(default_factory=list)
    layer: tuple[int, ...] = ()


def units(shapes: Mapping[str, Sequence[int]], counts: Iterable[int] | None = None) -> list[Unit]:
    """`counts`: only numbers of so many layers are folded (those that the other side has, too); None: all."""
    items = [_item(name, tuple(shape)) for name, shape in shapes.items()]
    _fold(items, 0, None if counts is None else set(counts), [])
    modules: dict[tuple[tuple[str, ...], tuple[int, ...]], list[list[_Item]]] = {}
    for item in items:
        said = modules.setdefault((tuple(item.done), item.layer), [[]])
        free = next((group for group in said if all(other.leaf != item.leaf for other in group)), None)
        if free is None:  # one leaf said in two ways, such as `norm` and `norm.weight`
            said.append(free := [])
        free.append(item)
    found: dict[tuple[object, ...], Unit] = {}
    for (segments, layer), said in modules.items():
        for twin, group in enumerate(said):
            shapes_here = {item.leaf: item.shape for item in group}
            key = (segments, twin, tuple(sorted(shapes_here.items())))
            unit = found.setdefault(key, Unit(segments, shapes_here))
            unit.names |= {(layer, item.leaf): item.name for item in group}
    _paths(list(found.values()))
    return list(found.values())


def layer_counts(shapes: Mapping[str, Sequence[int]]) -> set[int]:
    """How many layers the containers of this side have."""
    items = [_item(name, tuple(shape)) for name, shape in shapes.items()]
    seen: list[int] = []
    _fold(items, 0, None, seen)
    return set(seen)


def by_layer(unit: Unit) -> list[Unit]:
    """The same tensors, each layer a unit of its own with its numbers in the path."""
    found = []
    for layer in unit.layers:
        numbers = iter(layer)
        segments = tuple(s.replace("#", str(next(numbers))) if "#" in s else s for s in unit.segments)
        here: tuple[int, ...] = ()
        names = {(here, leaf): name for (own, leaf), name in unit.names.items() if own == layer}
        shapes = {leaf: shape for leaf, shape in unit.shapes.items() if (here, leaf) in names}
        found.append(Unit(segments, shapes, names))
    _paths(found)
    return found


def _item(name: str, shape: Shape) -> _Item:
    segments = name.split(".")
    leaf = LEAVES.get(segments[-1], "")
    if leaf and len(segments) > 1:
        return _Item(name, segments[:-1], leaf, shape)
    glued = re.fullmatch(r"(.+)_(weight|bias)", segments[-1])
    if glued:
        return _Item(name, [*segments[:-1], glued[1]], glued[2], shape)
    return _Item(name, segments, "weight", shape)


def _fold(items: list[_Item], depth: int, counts: set[int] | None, seen: list[int]) -> None:
    """Writes `done` and `layer` of each item, from the left."""
    groups: dict[str, list[_Item]] = {}
    for item in items:
        if depth < len(item.segments):
            groups.setdefault(item.segments[depth], []).append(item)
    stems: dict[str, dict[int, list[_Item]]] = {}
    for segment, members in groups.items():
        match = re.fullmatch(r"()(\d+)", segment) or NUMBERED.fullmatch(segment)
        if match:
            stems.setdefault(segment[: match.start(2)], {})[int(match[2])] = members
    folded = set()
    for stem, children in stems.items():
        if _layered(stem, children, depth) and (counts is None or len(children) in counts):
            seen.append(len(children))
            together = [item for members in children.values() for item in members]
            folded |= {id(item) for item in together}
            for number, members in children.items():
                for item in members:
                    item.done.append(f"{stem}#")
                    item.layer += (number,)
            _fold(together, depth + 1, counts, seen)
    for segment, members in groups.items():
        if id(members[0]) not in folded:
            for item in members:
                item.done.append(segment)
            _fold(members, depth + 1, counts, seen)


def _layered(stem: str, children: dict[int, list[_Item]], depth: int) -> bool:
    numbers = sorted(children)
    if len(numbers) < (3 if stem else 2) or numbers[0] > 1 or numbers != list(range(numbers[0], numbers[-1] + 1)):
        return False
    shapes: dict[tuple[str, ...], Counter[Shape]] = {}
    for members in children.values():
        for item in members:
            shapes.setdefault((*item.segments[depth + 1 :], item.leaf), Counter())[item.shape] += 1
    if stem and len({rest[:-1] for rest in shapes}) < 2:
        return False  # norm1, norm2, norm3
    total = sum(found.total() for found in shapes.values())
    odd = total - sum(max(found.values()) for found in shapes.values())
    if odd > (0.2 * total if len(numbers) > 2 else 0):
        return False  # each of its own shape: no layers, or a pyramid
    sizes = [len({(*item.segments[depth + 1 :], item.leaf) for item in members}) for members in children.values()]
    return sum(sizes) >= 0.5 * len(shapes) * len(children)


def _paths(found: list[Unit]) -> None:
    """Words of each unit, and its place among siblings whose weight has as many dimensions."""
    siblings: dict[tuple[tuple[str, ...], str, tuple[str, ...], int], set[int]] = {}
    places = {unit: _places(unit) for unit in found}
    for unit, keys in places.items():
        for key, number in keys:
            siblings.setdefault((*key, len(unit.main)), set()).add(number)
    for unit, keys in places.items():
        unit.path = words.path(unit.segments)
        for key, number in keys:
            place = (*key, len(unit.main))
            numbers = sorted(siblings[place])
            if len(numbers) > 1:
                unit.path.order = numbers.index(number) / (len(numbers) - 1)
        last = next((mark for s in reversed(unit.segments[-2:]) if (mark := words.marks(s)) is not None), None)
        unit.path.order = last if unit.path.order is None else unit.path.order


def _places(unit: Unit) -> list[tuple[tuple[tuple[str, ...], str, tuple[str, ...]], int]]:
    found = []
    for position, segment in enumerate(unit.segments):
        match = re.fullmatch(r"([A-Za-z_]*)(\d+)", segment)
        if match:
            rest = unit.segments[position + 1 :] if match[1] else ()
            found.append(((unit.segments[:position], match[1], rest), int(match[2])))
    return found
