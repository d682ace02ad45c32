# SPDX-License-Identifier: Apache-2.0
"""Which tensors of one file belong together: components under prefixes, wrappers, EMA copies, training state.

Names only, no shapes are needed; where names say nothing, a caller may ask `kinds.kind_by_tensors`. What is said here
is a reading that people can overrule, so every part says why it was taken for what it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

from fvport.weights.prefix_words import DEEP, EMA, INNER, SHELL, STEPS, TRAINING, WRAPPER, known


@dataclass(frozen=True)
class Part:
    """Tensors of one file that belong together. A tensor's own name is its full name without `prefix`.

    `role`: component | ema (a running average of `of`) | training (optimiser, loss) | unowned (under no known prefix).
    """

    name: str
    kind: str
    prefix: str
    names: tuple[str, ...]
    role: str = "component"
    of: str = ""
    why: str = ""

    def own(self, full: str) -> str:
        return full[len(self.prefix) :]


def split(
    names: Iterable[str],
    containers: Collection[str] = (),
    guess: Callable[[dict[str, str]], str] | None = None,
) -> list[Part]:
    """Parts of one file, each tensor in exactly one. `containers` are prefixes that the file's nesting made.

    `guess({name without prefix: full name})` may say the kind of a group whose prefix no table knows, or "".
    """
    sorter = _Sorter(frozenset(containers), guess or (lambda names: ""))
    listed = list(names)
    place = {name: n for n, name in enumerate(listed)}
    parts = sorted(sorter.level("", listed, "component"), key=lambda part: place[part.names[0]])
    return _named(_averages(_without_stubs(parts)))


@dataclass
class _Sorter:
    containers: frozenset[str]
    guess: Callable[[dict[str, str]], str]

    def level(self, prefix: str, names: list[str], role: str, wrapper: str = "") -> list[Part]:
        """The parts of `names`, which all begin with `prefix`."""
        groups = _groups(prefix, names)
        parts: list[Part] = []
        weak: list[Part] = []
        rest: list[str] = []
        for segment, members in groups.items():
            inner = f"{prefix}{segment}."
            if segment == "":
                rest += members
            elif role == "component" and _trains(segment, members) and len(groups) > 1:
                parts.append(Part(segment, "", inner, tuple(members), "training", why="named like training state"))
            elif EMA.fullmatch(segment) and all(len(name) > len(inner) for name in members):
                parts += self.level(inner, members, "ema", segment)
            else:
                found, left = self.components(prefix, members, role)
                parts += [part for part, sure in found if sure]
                weak += [part for part, sure in found if not sure]
                if left and self.wraps(segment, inner, left, groups):
                    parts += self.level(inner, left, role, segment)
                else:
                    rest += left
        return parts + self.remainder(prefix, rest, weak, parts, role, wrapper)

    def components(self, prefix: str, names: list[str], role: str) -> tuple[list[tuple[Part, bool]], list[str]]:
        """([(part, sure)], names under no known component prefix)"""
        found: dict[str, tuple[str, str, bool, list[str]]] = {}
        left: list[str] = []
        if not DEEP.fullmatch(names[0][len(prefix) :].partition(".")[0]):
            hit = known(names[0][len(prefix) :].partition(".")[0])
            if hit is None or any(len(name) <= len(prefix) + len(hit[0]) + 1 for name in names):
                return [], names
        seen: dict[str, tuple[str, str, str, bool] | None] = {}
        for full in names:
            head = ".".join(full[len(prefix) :].split(".", 4)[:-1][:3])
            if head not in seen:
                seen[head] = known(head)
            hit = seen[head]
            if hit is None:
                left.append(full)
            else:
                found.setdefault(prefix + hit[0] + ".", (hit[1], hit[2], hit[3], []))[3].append(full)
        parts = []
        for start, (name, kind, sure, members) in found.items():
            start = self.shells(start, members, INNER.get(kind, ()))
            why = f"the prefix {start} names it"
            parts.append((Part(name, kind, start, tuple(members), role, why=why), sure))
        return parts, left

    def shells(self, prefix: str, names: list[str], more: tuple[str, ...] = ()) -> str:
        """`prefix` and the wrappers that stand between it and every name: `vae.` -> `vae.module.`"""
        while True:
            segments = {name[len(prefix) :].partition(".")[0] for name in names}
            segment = next(iter(segments))
            inner = f"{prefix}{segment}."
            nested = inner[:-1] in self.containers and WRAPPER.fullmatch(segment)
            if len(segments) != 1 or not (SHELL.fullmatch(segment) or segment in more or nested):
                return prefix
            if any(len(name) <= len(inner) for name in names):
                return prefix
            prefix = inner

    def wraps(self, segment: str, inner: str, names: list[str], groups: dict[str, list[str]]) -> bool:
        """Whether this segment stands around a model instead of being a part of one."""
        if any(not name.startswith(inner) or len(name) <= len(inner) for name in names):
            return False
        if inner[:-1] in self.containers and _flat(inner, names, self.containers):
            return True  # a dict in the file, with whole names in it
        if not WRAPPER.fullmatch(segment):
            return False
        if SHELL.fullmatch(segment) or inner[:-1] in self.containers:
            return True
        if segment.lower() == "model" and any(
            n.startswith((inner + "layers.", inner + "embed_tokens.")) for n in names
        ):
            return False  # a language model's own spelling
        others = sum(len(members) for other, members in groups.items() if other != segment and not _aside(other))
        return others == 0

    def remainder(
        self, prefix: str, rest: list[str], weak: list[Part], parts: list[Part], role: str, wrapper: str
    ) -> list[Part]:
        """What no sure prefix took: one model of its own, parts by their structure, or nobody's."""
        own = [part for part in parts if part.role == role]
        if weak and (own or (not rest and len({part.kind for part in weak}) > 1) or (not rest and self.single(weak))):
            own, parts, weak = [*own, *weak], weak, []
        else:
            parts = []
        rest = rest + [name for part in weak for name in part.names]
        if not rest:
            return parts
        structured = self.structured(prefix, rest, role, bool(own))
        taken = {name for part in structured for name in part.names}
        rest = [name for name in rest if name not in taken]
        parts = parts + structured
        if rest and (own or structured):
            why = "under no prefix that a component was recognised by"
            return [*parts, Part("", "", prefix, tuple(rest), "unowned", why=why)]
        if rest:
            why = f"every name begins with {prefix}" if prefix else "the names have no prefix"
            name = wrapper if wrapper and not SHELL.fullmatch(wrapper) else "model"
            return [*parts, Part(name, "", prefix, tuple(rest), role, why=why)]
        return parts

    def single(self, weak: list[Part]) -> bool:
        """One weak prefix over everything, whose names read on like a whole denoiser's (not like GPT-2's)."""
        if len(weak) != 1:
            return False
        part = weak[0]
        return self.guess({part.own(name): name for name in part.names}) == part.kind

    def structured(self, prefix: str, names: list[str], role: str, others: bool) -> list[Part]:
        """Groups under unknown prefixes whose own names each read like a whole model of some kind."""
        found = []
        for segment, members in _groups(prefix, names).items():
            inner = f"{prefix}{segment}."
            if segment and all(name.startswith(inner) and len(name) > len(inner) for name in members):
                inner = self.shells(inner, members)
                kind = self.guess({name[len(inner) :]: name for name in members})
                if kind:
                    why = f"the names under {inner} read like a whole {kind}"
                    found.append(Part(segment, kind, inner, tuple(members), role, why=why))
        covered = sum(len(part.names) for part in found)
        return found if others or (len(found) > 1 and covered == len(names)) else []


def _groups(prefix: str, names: Iterable[str]) -> dict[str, list[str]]:
    """{first segment after `prefix`: names}; "" for a name that ends there."""
    groups: dict[str, list[str]] = {}
    for name in names:
        segment, dot, _ = name[len(prefix) :].partition(".")
        groups.setdefault(segment if dot else "", []).append(name)
    return groups


def _flat(inner: str, names: list[str], containers: frozenset[str]) -> bool:
    """Whether a dict holds tensors under whole names (`blocks.0.weight`), and not nested dicts of words."""
    return not any(f"{inner}{name[len(inner) :].partition('.')[0]}" in containers for name in names)


def _aside(segment: str) -> bool:
    return bool(TRAINING.fullmatch(segment) or EMA.fullmatch(segment))


def _trains(segment: str, names: list[str]) -> bool:
    """Training state by its name, or because every tensor is called as an optimiser calls its own."""
    return bool(TRAINING.fullmatch(segment)) or all(STEPS.fullmatch(name) for name in names)


def _without_stubs(parts: list[Part]) -> list[Part]:
    """A buffer or two under a second prefix of a kind that is there already (`denoiser.sigmas`) are no component."""
    result = []
    for part in parts:
        buffers = part.role == "component" and not any("." in part.own(name) for name in part.names)
        if buffers and any(p.kind == part.kind and len(p.names) > 4 * len(part.names) for p in parts if p is not part):
            part = replace(part, role="unowned", name="", why="a few values without a model around them")
        result.append(part)
    return result


# --- averages, names -------------------------------------------------------------------------------------------------


def _averages(parts: list[Part]) -> list[Part]:
    """Say of which component each running average is one; an average without the live weights is the component."""
    live = [part for part in parts if part.role == "component"]
    if not live and any(part.role == "ema" for part in parts):
        return [_alone(part) if part.role == "ema" else part for part in parts]
    return [_average(part, live) if part.role == "ema" else part for part in parts]


def _alone(part: Part) -> Part:
    name = "model" if EMA.fullmatch(part.name) else part.name
    return replace(part, role="component", name=name, why=part.why + "; only its running average (EMA) is in the file")


def _average(part: Part, live: list[Part]) -> Part:
    """The live component that shares most names: as they are, without dots (LDM), or in number (lists)."""
    mine = {part.own(name) for name in part.names}
    plain = {name.replace(".", "") for name in mine}
    best, score = "", 0.0
    for other in live:
        theirs = [other.own(name) for name in other.names]
        munged = [(other.prefix.removeprefix("model.") + name).replace(".", "") for name in theirs]
        shared = max(
            sum(name in mine for name in theirs),
            sum(name in plain for name in munged),
            sum(name.replace(".", "") in plain for name in theirs),
        )
        if len(mine) == len(theirs) and all(name.isdigit() for name in mine):
            shared = max(shared, 1)
        if shared / max(len(theirs), 1) > score:
            best, score = other.prefix, shared / max(len(theirs), 1)
    return replace(
        part, of=best or (live[0].prefix if len(live) == 1 else ""), why="a running average (EMA) by its name"
    )


def _named(parts: list[Part]) -> list[Part]:
    """Unique component names, in the order of the file: text_encoder, text_encoder_2."""
    taken: dict[str, int] = {}
    renamed: dict[str, str] = {}
    result = []
    for part in parts:
        if part.role == "component":
            name = re.sub(r"\W+", "_", part.name).strip("_") or "model"
            while name in taken:
                taken[part.name] = taken.get(part.name, 1) + 1
                name = f"{part.name}_{taken[part.name]}"
            taken.setdefault(name, 1)
            renamed[part.prefix] = name
            part = replace(part, name=name)
        result.append(part)
    return [replace(p, of=renamed.get(p.of, p.of)) if p.role == "ema" else p for p in result]
