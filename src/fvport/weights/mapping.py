# SPDX-License-Identifier: Apache-2.0
"""Weight-name rules as one object: what FastVideo declares on an arch config, and what it does with it, exactly.

Two forms of FastVideo become one ordered list:

- `param_names_mapping` {pattern: target | (target, i, n)}: the first pattern that `re.match`es wins, `re.sub` makes
  the new
  name, and n sources with indices 0..n-1 are joined along dimension 0; a name that nothing matches stays as it is;
- `stacked_params_mapping` [(fused, part, shard)]: the first `part` that is contained in the name wins, and is
  replaced by `fused`; parts of one `fused` are joined along dimension 0 in the order q, k, v or 0, 1, 2 of their
  shards.

Renames come first; a name that none of them matches may be stacked. Where these rules differ from what a loader does,
coverage by value (`values.py`) tells.

For conversion there are two more forms, and named operations (`operations.py`), which FastVideo's forms cannot carry
(`declaration.py` writes them):

- a step: `re.sub` anywhere in the name, before anything else, each step in turn;
- a whole-name rule: the first whose pattern fits the whole name wins.

Operations up to a `fuse` act on each source, what follows on the joined tensor; merged rules without one are joined
along dimension 0. Rules of one pattern that take a part each (`["split", 0, 3, 1]`, or `output` of `outputs` that the
operations give) all take the key: one tensor, several targets. `["skip", reason]` says that nothing loads the key.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fvport.errors import UsageError
from fvport.weights import regexcost
from fvport.weights.operations import Operation, Tensor, chain

SHARD_ORDER = {"q": 0, "k": 1, "v": 2}


@functools.cache  # re's own cache is smaller than an inferred rule list
def _compiled(pattern: str) -> re.Pattern[str]:
    """Compiled, and refused where matching might never end: UsageError (`lint` says so first, FV117)."""
    compiled = re.compile(pattern)
    why = regexcost.danger(pattern)
    if why:
        raise UsageError(f"the pattern {pattern!r} backtracks badly: {why}", todo="Write it without nested repeats")
    return compiled


@dataclass(frozen=True)
class Rule:
    """One rule. `form` is `rename` or `whole` (a regular expression on the name's beginning, or on all of it),
    `stacked` (a substring) or `step` (a regular expression, anywhere in the name).

    `index` of `count` says its merge place, `output` of `outputs` which tensor that the operations give goes to its
    target. `declared` names the entry of a declaration that it came from.
    """

    form: str
    pattern: str
    target: str
    index: int | None = None
    count: int | None = None
    shard: str | int | None = None  # stacked: as declared
    operations: tuple[Operation, ...] = ()
    output: int | None = None
    outputs: int | None = None
    declared: str = field(default="", compare=False)

    @property
    def skip(self) -> str:
        """The reason for which nothing loads what the rule takes; empty where something does."""
        return next((str(item.arguments[0]) for item in self.operations if item.name == "skip"), "")

    @property
    def part(self) -> bool:
        """The rule takes one part of its tensor: other rules of the same pattern take the others."""
        return part_of(self) is not None

    def to_json(self) -> list[Any]:
        """As a list; operations and outputs stand in it only where there are some, so older digests hold."""
        found: list[Any] = [self.form, self.pattern, self.target, self.index, self.count, self.shard]
        if self.operations or self.outputs is not None:
            found.append([item.to_json() for item in self.operations])
        return found if self.outputs is None else [*found, self.output, self.outputs]

    @classmethod
    def from_json(cls, data: Any) -> Rule:
        """The inverse of `to_json`. TypeError for anything else, UsageError for an operation that is none."""
        operations = tuple(Operation.from_json(item) for item in data[6]) if len(data) > 6 else ()
        form, pattern, target, index, count, shard = data[:6]
        output, outputs = data[7:9] if len(data) > 7 else (None, None)
        return cls(form, pattern, target, index, count, shard, operations, output, outputs)

    def matches(self, name: str) -> bool:
        if self.form == "stacked":
            return self.pattern in name
        compiled = _compiled(self.pattern)
        how = {"whole": compiled.fullmatch, "step": compiled.search}.get(self.form, compiled.match)
        return how(name) is not None

    def rewrite(self, name: str) -> str:
        if self.form == "stacked":
            return name.replace(self.pattern, self.target)
        if self.form == "whole":
            match = _compiled(self.pattern).fullmatch(name)
            return match.expand(self.target) if match else name
        return _compiled(self.pattern).sub(self.target, name)

    @property
    def text(self) -> str:
        """`pattern -> target [1 of 3]`, as reports show it."""
        place = "" if self.index is None else f" [{self.index} of {self.count}]"
        arrow = {"stacked": "~>", "step": "=>"}.get(self.form, "->")
        done = "".join(f" | {item}" for item in self.operations)
        which = "" if self.outputs is None else f" (part {self.output} of {self.outputs})"
        return f"{self.pattern} {arrow} {self.target}{place}{done}{which}"


@dataclass(frozen=True)
class Placed:
    """Where one official tensor goes. `rules` are positions in the rule list (none: it passed through under its
    name).
    """

    source: str
    target: str
    index: int | None = None
    count: int | None = None
    rules: tuple[int, ...] = ()
    operations: tuple[Operation, ...] = ()
    output: int | None = None
    outputs: int | None = None

    @property
    def skipped(self) -> bool:
        return any(item.name == "skip" for item in self.operations)


def part_of(item: Rule | Placed) -> tuple[int, int] | None:
    """(which, of how many) part of a split tensor it takes; None where it takes the whole."""
    if item.output is not None and item.outputs is not None:
        return item.output, item.outputs
    for step in item.operations:
        if step.name == "split" and len(step.arguments) == 3:
            _, sizes, which = step.arguments
            return which, sizes if isinstance(sizes, int) else len(sizes)
    return None


def produced(items: Sequence[Placed], tensors: Sequence[Tensor]) -> Tensor:
    """What one target holds: each source through its operations, joined in merge order, and through what follows.

    UsageError, with the shapes, where it cannot be: the sources do not fit together, or are several without an order,
    or the operations give more or fewer tensors than there are targets.
    """
    parts: list[Tensor] = []
    after: list[Operation] = []
    for item, tensor in zip(items, tensors, strict=True):
        steps = [step for step in item.operations if step.name != "skip"]
        joins = next((n for n, step in enumerate(steps) if step.name == "fuse"), len(steps))
        parts += chain(steps[:joins], [tensor])
        after = steps[joins:] or after
    if len(items) > 1 and not after:
        if any(item.index is None for item in items):
            raise UsageError(f"{', '.join(item.source for item in items)} go to {items[0].target} in no order")
        after = [Operation("fuse", (0,))]
    made, wanted = chain(after, parts), items[0].outputs or 1
    if len(made) != wanted:
        raise UsageError(f"{items[0].source} becomes {len(made)} tensors, and {wanted} targets are named")
    return made[items[0].output or 0]


@dataclass(frozen=True)
class Mapped:
    placed: tuple[Placed, ...]

    def targets(self) -> dict[str, list[Placed]]:
        """{native name: its sources in merge order}. More than one source without an index is a collision."""
        found: dict[str, list[Placed]] = {}
        for item in self.placed:
            if not item.skipped:
                found.setdefault(item.target, []).append(item)
        return {name: sorted(items, key=lambda p: -1 if p.index is None else p.index) for name, items in found.items()}


@dataclass(frozen=True)
class Rules:
    """An ordered rule list. `provenance`: `declared` (on the arch config), `identity`, or `inferred` (from watching
    a load).
    """

    rules: tuple[Rule, ...] = ()
    provenance: str = "declared"
    source: str = ""  # where it was declared, such as fastvideo.configs.models.dits.tiny_wan:TinyWanArchConfig

    @classmethod
    def from_fastvideo(
        cls,
        names: Mapping[str, Any] | None = None,
        stacked: Sequence[Sequence[Any]] | None = None,
        provenance: str = "",
        source: str = "",
    ) -> Rules:
        """From `param_names_mapping` and `stacked_params_mapping` as they stand on an arch config."""
        rules = [_rename(pattern, target, source) for pattern, target in (names or {}).items()]
        rules += _stacked(stacked or (), source)
        return cls(tuple(rules), provenance or ("declared" if rules else "identity"), source)

    def to_fastvideo(self) -> tuple[dict[str, Any], list[tuple[str, str, str | int]]]:
        """(`param_names_mapping`, `stacked_params_mapping`): the inverse of `from_fastvideo`.

        UsageError for rules with operations: those are for a conversion, FastVideo has no form for them.
        """
        beyond = next((rule for rule in self.rules if rule.operations or rule.form in ("whole", "step")), None)
        if beyond:
            what = f"the rule {beyond.text} cannot be written as FastVideo's param_names_mapping"
            raise UsageError(what, where=self.source, todo="Convert the checkpoint: fvport convert")
        names: dict[str, Any] = {}
        stacked: list[tuple[str, str, str | int]] = []
        for rule in self.rules:
            if rule.form == "stacked":
                stacked.append((rule.target, rule.pattern, rule.shard if rule.shard is not None else ""))
            else:
                names[rule.pattern] = rule.target if rule.index is None else (rule.target, rule.index, rule.count)
        return names, stacked

    def to_json(self) -> dict[str, Any]:
        rules = [rule.to_json() for rule in self.rules]
        return {"rules": rules, "provenance": self.provenance, "source": self.source}

    @classmethod
    def from_json(cls, data: Any) -> Rules:
        try:
            rules = tuple(Rule.from_json(entry) for entry in data["rules"])
            return cls(rules, data.get("provenance", "declared"), data.get("source", ""))
        except UsageError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"this is not a rule list ({error})", where="mapping rules") from None

    def place(self, name: str) -> Placed:
        """Where one official name goes: the first of `places`."""
        return self.places(name)[0]

    def places(self, name: str) -> list[Placed]:
        """Where one official name goes: one place, or one a part where it is split. `re.error` for a pattern that is
        none: `lint` says so first (FV101).
        """
        called, steps = self.stepped(name)
        for form in ("whole", "rename", "stacked"):
            if hit := next(((n, rule) for n, rule in self._of(form) if rule.matches(called)), None):
                chosen = self._parts(hit[1]) if hit[1].part else [hit]
                return [_placed(name, called, (*steps, n), rule) for n, rule in chosen]
        return [Placed(name, called, rules=steps)]

    def stepped(self, name: str) -> tuple[str, tuple[int, ...]]:
        """(the name after every step, positions of the steps that changed something in it)"""
        used = []
        for n, rule in self._of("step"):
            if rule.matches(name):
                name = rule.rewrite(name)
                used.append(n)
        return name, tuple(used)

    def _of(self, form: str) -> list[tuple[int, Rule]]:
        return self._by_form.get(form, [])

    @functools.cached_property
    def _by_form(self) -> dict[str, list[tuple[int, Rule]]]:
        found: dict[str, list[tuple[int, Rule]]] = {}
        for n, rule in enumerate(self.rules):
            found.setdefault(rule.form, []).append((n, rule))
        return found

    def _parts(self, first: Rule) -> list[tuple[int, Rule]]:
        same = ((n, rule) for n, rule in enumerate(self.rules) if rule.part and rule.pattern == first.pattern)
        return [(n, rule) for n, rule in same if rule.form == first.form and rule.declared == first.declared]

    def apply(self, names: Iterable[str]) -> Mapped:
        return Mapped(tuple(item for name in names for item in self.places(name)))

    def canonical(
        self, passthrough: Sequence[str] = (), exclude: Mapping[str, str] | None = None, **more: Any
    ) -> dict[str, Any]:
        """What a signature is about: the rules in their order, and the lists that go with them. Not where they came
        from.
        """
        rules = [rule.to_json() for rule in self.rules]
        extra = {key: value for key, value in more.items() if value}
        return {"rules": rules, "passthrough": sorted(passthrough), "exclude": dict(exclude or {}), **extra}

    def digest(self, passthrough: Sequence[str] = (), exclude: Mapping[str, str] | None = None, **more: Any) -> str:
        """`sha256:...` of `canonical`: changes when a rule, its place, or a list changes, and with nothing else."""
        text = json.dumps(self.canonical(passthrough, exclude, **more), sort_keys=True, separators=(",", ":"))
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _placed(name: str, called: str, positions: tuple[int, ...], rule: Rule) -> Placed:
    target = rule.rewrite(called)
    return Placed(name, target, rule.index, rule.count, positions, rule.operations, rule.output, rule.outputs)


def _rename(pattern: Any, target: Any, source: str) -> Rule:
    index = count = None
    if isinstance(target, (tuple, list)):
        if len(target) != 3 or not isinstance(target[0], str):
            raise UsageError(f"the target of {pattern!r} must be a name or (name, index, count)", where=source)
        target, index, count = target
    if not isinstance(pattern, str) or not isinstance(target, str):
        raise UsageError(f"the rule {pattern!r} must go from a pattern to a name", where=source)
    return Rule("rename", pattern, target, index, count)


def _stacked(entries: Sequence[Sequence[Any]], source: str) -> list[Rule]:
    for entry in entries:
        if len(entry) != 3 or not all(isinstance(word, str) for word in entry[:2]):
            raise UsageError(f"the stacked rule {entry!r} must be (fused name, part's name, shard)", where=source)
    rules = []
    for fused, part, shard in entries:
        shards = [entry[2] for entry in entries if entry[0] == fused]
        index = SHARD_ORDER.get(shard, shard) if isinstance(shard, str) else shard
        if not isinstance(index, int):  # a shard's name that says no order: the order of the list
            index = shards.index(shard)
        rules.append(Rule("stacked", part, fused, index, len(shards), shard))
    return rules
