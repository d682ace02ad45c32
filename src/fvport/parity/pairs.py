# SPDX-License-Identifier: Apache-2.0
"""Which native module is which official one. The mapping says which parameters correspond, so it says which modules do.

    own parameters    a native module is the official module whose parameters it holds; several official ones, in the
                      order of the merge, where it is fused (q, k, v; gate, up)
    containers        two modules are a pair when all parameters under one are exactly those under the other
    no parameters     by structure: the children of a pair that are left, of the same kind and in the same order
    roots             always a pair

What is left over on either side is listed, never guessed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

LISTS = ("ModuleList", "ModuleDict")
WORDLESS = re.compile(r"(fastvideo|fp32|torch|module|\d|_)", re.IGNORECASE)


@dataclass(frozen=True)
class Pair:
    """`official` holds more than one name where the native module is fused. `how`: parameters | structure | root."""

    native: str
    official: tuple[str, ...]
    how: str

    def to_json(self) -> dict[str, Any]:
        return {"native": self.native, "official": list(self.official), "how": self.how}


@dataclass
class Pairs:
    pairs: dict[str, Pair] = field(default_factory=dict)  # by native name
    unpaired_native: list[str] = field(default_factory=list)
    unpaired_official: list[str] = field(default_factory=list)

    def partners(self, native: str) -> tuple[str, ...]:
        return self.pairs[native].official if native in self.pairs else ()


Sources = Mapping[str, list[str]]  # native parameter -> official parameters in merge order


def sources(rules: Any, official: Iterable[str], native: Iterable[str]) -> dict[str, list[str]]:
    """Official parameters of each native one. Names of a built model may lack or add a prefix that a file has.

    A name that the rules leave nowhere is tried by the longest common end; two that fit equally well are left out.
    """
    official, native = list(official), list(native)
    known = set(native)
    targets = rules.apply(official).targets()
    found = {name: [p.source for p in placed] for name, placed in targets.items() if name in known}
    lost = [p.source for name, placed in targets.items() if name not in known for p in placed]
    open_ones = [name for name in native if name not in found]
    for source in lost:
        target = rules.place(source).target
        fits = [name for name in open_ones if name.endswith("." + target) or target.endswith("." + name)]
        if len(fits) == 1:
            found[fits[0]] = [source]
    return found


def pair(official: Mapping[str, Any], native: Mapping[str, Any], placed: Sources, called: Iterable[str] = ()) -> Pairs:
    """`official`, `native`: what `record.about` says of each side's modules. `called`: official ones that ran."""
    result = Pairs()
    _by_own_parameters(result, official, native, _of_callers(placed, official, set(called)))
    _containers(result, official, native, placed, set(called) or set(official))
    result.pairs.setdefault("", Pair("", ("",), "root"))
    _by_structure(result, official, native)
    taken = {name for p in result.pairs.values() for name in p.official}
    order = {name: i for i, name in enumerate(native)}
    result.pairs = dict(sorted(result.pairs.items(), key=lambda item: order[item[0]]))
    result.unpaired_native = [name for name in native if name not in result.pairs]
    result.unpaired_official = [name for name in official if name not in taken]
    return result


def _of_callers(placed: Sources, official: Any, called: set[str]) -> Sources:
    """A tied parameter by its name in the module that ran: an embedding that only lends its weight computes nothing."""
    heirs: dict[str, str] = {}
    for name, about in official.items():
        if name in called:
            for own, first in about.get("tied", {}).items():
                if _owner(first) not in called:
                    heirs.setdefault(first, f"{name}.{own}")
    return {target: [heirs.get(source, source) for source in found] for target, found in placed.items()}


def _owner(parameter: str) -> str:
    return parameter.rpartition(".")[0]


def _by_own_parameters(result: Pairs, official: Any, native: Any, placed: Sources) -> None:
    taken: set[str] = set()
    for name, about in native.items():
        owners = set()
        for parameter in about["params"]:
            full = f"{name}.{parameter}" if name else parameter
            if full in placed:
                owners.add(tuple(_owner(source) for source in placed[full]))
        if len(owners) != 1:
            continue
        partner = owners.pop()
        whole = len(set(partner)) == len(partner) and all(p in official for p in partner)
        if whole and name and not taken & set(partner):
            taken |= set(partner)
            result.pairs[name] = Pair(name, partner, "parameters")


def _containers(result: Pairs, official: Any, native: Any, placed: Sources, called: set[str]) -> None:
    under_native: dict[frozenset[str], list[str]] = {}
    for name, about in native.items():
        if about["class"] in LISTS:  # never called: there is nothing to compare it by
            continue
        if name not in result.pairs and (held := frozenset(p for p in placed if _inside(p, name))):
            under_native.setdefault(held, []).append(name)
    target_of = {source: target for target, found in placed.items() for source in found}
    counts = {target: len(found) for target, found in placed.items()}
    taken = {name for p in result.pairs.values() for name in p.official}
    under_official: dict[frozenset[str], list[str]] = {}
    for name in official:
        if name in taken or name not in called:
            continue
        mine = [target_of[source] for source in target_of if _inside(source, name)]
        if mine and all(times == counts[target] for target, times in Counter(mine).items()):
            under_official.setdefault(frozenset(mine), []).append(name)
    for held, names in under_native.items():
        for own, other in _chain(names, under_official.get(held, [])):
            result.pairs[own] = Pair(own, (other,), "parameters")


def _chain(mine: list[str], others: list[str]) -> list[tuple[str, str]]:
    """Modules around the same parameters, outermost first: outermost with outermost, then those of one name."""
    if not mine or not others:
        return []
    if len(mine) == len(others):
        return list(zip(mine, others, strict=True))
    found = [(mine[0], others[0])]
    left = {name.rpartition(".")[2]: name for name in others[1:]}
    return found + [(name, left[last]) for name in mine[1:] if (last := name.rpartition(".")[2]) in left]


def _inside(parameter: str, module: str) -> bool:
    return not module or parameter.startswith(module + ".")


def _by_structure(result: Pairs, official: Any, native: Any) -> None:
    """Children without parameters: of the same kind, in order, where both parents have as many of that kind."""
    for found in list(result.pairs.values()):
        if len(found.official) != 1:
            continue
        mine = _bare(found.native, native, result.pairs)
        taken = {name for p in result.pairs.values() for name in p.official}
        others = _bare(found.official[0], official, taken)
        for kind, names in mine.items():
            same = others.get(kind, [])
            if len(same) == len(names):
                for name, other in zip(names, same, strict=True):
                    result.pairs[name] = Pair(name, (other,), "structure")


def _bare(parent: str, modules: Any, taken: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for child in modules[parent]["children"]:
        name = f"{parent}.{child}" if parent else child
        about = modules.get(name)
        if about is None or name in taken or about["params"] or _holds(name, modules):
            continue
        found.setdefault(kind(about["class"]), []).append(name)
    return found


def _holds(name: str, modules: Any) -> bool:
    return any(other.startswith(name + ".") and about["params"] for other, about in modules.items())


def kind(cls: str) -> str:
    """A class's name without what libraries add to it: `FP32SiLU` and `SiLU` are one kind."""
    return WORDLESS.sub("", cls).lower() or cls.lower()
