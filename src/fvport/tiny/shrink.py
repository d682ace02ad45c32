# SPDX-License-Identifier: Apache-2.0
"""Apply the rules to every component of a release, keep what builds with the same structure, say what did not.

Widths that components share are one map for the whole folder; where a component cannot take its part of the map, the
others follow it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fvport.errors import BlockedError, UsageError, did_you_mean
from fvport.tiny import keys, rules, structure
from fvport.tiny.release import Part, Release, words

STEPS = (8, 16, 64, 8, 8, 8)  # rounds of agreeing on shared widths: what they are multiples of
PINNING = 3  # from this round on, a width that a class refuses stays as it was, everywhere
Overrides = dict[str, dict[str, Any]]


@dataclass
class Twin:
    """One component's plan: its config at tiny size, what changed, and what could not and why."""

    part: Part
    config: dict[str, Any]
    before: int
    after: int = 0
    shrunk: dict[str, tuple[Any, Any]] = field(default_factory=dict)  # dotted key -> (before, after)
    kept: dict[str, str] = field(default_factory=dict)  # group or key -> why
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        changes = {k: list(v) for k, v in self.shrunk.items()}
        counts = {"parameters_before": self.before, "parameters": self.after}
        return {"class": self.part.cls.__name__, **counts, "shrunk": changes, "kept": self.kept, "notes": self.notes}


@dataclass
class _Original:
    part: Part
    kind: structure.Kind
    squares: dict[str, bool]
    parameters: int


def plan(release: Release, overrides: Overrides | None = None) -> dict[str, Twin]:
    """{component: Twin}. UsageError for an override that fits nothing, BlockedError where a class cannot be built."""
    given = overrides or {}
    _check_overrides(release, given)
    originals = {name: _original(part) for name, part in release.parts.items()}
    pinned = _pins_of(release, given)
    why: dict[str, dict[str, str]] = {}
    for turn, step in enumerate(STEPS):
        widths = _widths(release, pinned, step)
        twins = {n: _shrink(o, _facts(release, n, widths, given), given.get(n, {})) for n, o in originals.items()}
        more = _disagreements(release, twins, widths, given)
        why = {n: why.get(n, {}) | twin.kept for n, twin in twins.items()}
        if not set(more) - set(pinned):
            break
        pinned |= more if turn >= PINNING else {}
    for name, twin in twins.items():
        _why_kept(release, name, twin, why, pinned)
    return twins


def _why_kept(release: Release, name: str, twin: Twin, why: dict[str, dict[str, str]], pinned: dict[int, int]) -> None:
    """Reasons for widths that stayed: the class's own words, or which component's width they follow."""
    for key, value in _own(twin.part).items():
        if pinned.get(value) != value or key in twin.shrunk or key in twin.kept:
            continue
        others = [f"{n}.{k}" for n, p in release.parts.items() if n != name for k, v in _own(p).items() if v == value]
        twin.kept[key] = why[name].get(key) or (f"as wide as {others[0]}, which stays" if others else "not accepted")


def _check_overrides(release: Release, overrides: Overrides) -> None:
    for name, patch in overrides.items():
        if name not in release.parts:
            known = ", ".join(release.parts)
            raise UsageError(f'no component "{name}" (there are: {known}).{did_you_mean(name, release.parts)}')
        for key in patch:
            try:
                keys.get(release.parts[name].config, key)
            except (KeyError, TypeError):
                near = did_you_mean(key, release.parts[name].config)
                raise UsageError(f"{name}'s config has no key {key}.{near}") from None


def build(part: Part, config: dict[str, Any]) -> Any:
    """The model on the meta device: names and shapes, no memory. Raises what the class raises."""
    import torch

    with torch.device("meta"):
        return part.build(config)


def _original(part: Part) -> _Original:
    try:
        model = build(part, part.config)
    except Exception as error:  # noqa: BLE001 - whatever the class says about its own config
        what = f"{part.cls.__name__} cannot be built from this config without weights: {words(error)}"
        raise BlockedError(what, where=str(part.folder), todo="Check config.json and the library's version") from None
    return _Original(part, structure.kind(model), structure.squares(model), structure.elements(model))


# widths that components share


def _own(part: Part) -> dict[str, int]:
    """{dotted key: value} of widths that others may share; what is heads times their width is told apart later."""
    return {p + k: v for p, level in keys.levels(part.config) for k, v in level.items() if keys.is_width(k, v)}


def _tied(part: Part, elsewhere: set[int]) -> set[str]:
    """Keys whose value is heads times their width, in a class that has no key for that width, and nobody shares."""
    found: set[str] = set()
    for prefix, level in keys.levels(part.config):
        heads, dim = keys.first(level, keys.HEADS), keys.first(level, keys.HEAD_DIM)
        if heads and dim and not keys.first(level, keys.PRIMARY):
            inner = level[heads] * level[dim]
            found |= {prefix + k for k, v in level.items() if keys.is_width(k, v) and v == inner and v not in elsewhere}
    return found


def _elsewhere(release: Release, name: str) -> set[int]:
    return {v for other, part in release.parts.items() if other != name for v in _own(part).values()}


def _widths(release: Release, pinned: dict[int, int], step: int) -> dict[int, int]:
    values: set[int] = set()
    need = 24
    for name, part in release.parts.items():
        tied = _tied(part, _elsewhere(release, name))
        values |= {v for k, v in _own(part).items() if k not in tied}
        for _, level in keys.levels(part.config):
            heads, kv = keys.first(level, keys.HEADS), keys.first(level, keys.KV_HEADS)
            if keys.first(level, keys.PRIMARY) and heads and kv and 1 < level[kv] < level[heads]:
                need = max(need, 64 if rules._axes(level) else 32)
    return rules.proportional(values, need, step) | pinned


def _facts(release: Release, name: str, widths: dict[int, int], given: Overrides) -> rules.Facts:
    part = release.parts[name]
    shared = frozenset(_elsewhere(release, name))
    return rules.Facts(widths, part.tokens, part.processor, part.transformers, shared, given.get(name, {}))


def _pins_of(release: Release, overrides: Overrides) -> dict[int, int]:
    """A width that the user sets is set wherever the same width stands."""
    found: dict[int, int] = {}
    for name, patch in overrides.items():
        own = _own(release.parts[name])
        found |= {own[key]: value for key, value in patch.items() if key in own and keys.integer(value)}
    return found


def _disagreements(
    release: Release, twins: dict[str, Twin], widths: dict[int, int], given: Overrides
) -> dict[int, int]:
    found: dict[int, int] = {}
    for name, twin in twins.items():
        tied = _tied(twin.part, _elsewhere(release, name))
        for key, value in _own(twin.part).items():
            new = keys.get(twin.config, key)
            if key not in tied and key not in given.get(name, {}) and new != widths.get(value, new):
                found[value] = new
    return found


# one component


@dataclass
class _Trial:
    """What trying a config showed: `wrong` in words, and names whose squareness changed."""

    wrong: str
    squares: list[str] = field(default_factory=list)
    parameters: int = 0


def _try(original: _Original, config: dict[str, Any]) -> _Trial:
    try:
        model = build(original.part, config)
    except Exception as error:  # noqa: BLE001 - the class's own words are the reason that is reported
        return _Trial(f"{original.part.cls.__name__} says: {words(error)}")
    kind = structure.kind(model)
    if kind != original.kind:
        return _Trial(structure.difference(original.kind, kind) or "the structure would be another")
    squares = structure.squares(model)
    changed = [n for n, was in original.squares.items() if squares.get(n) != was]
    return _Trial("", changed, structure.elements(model))


def _shrink(original: _Original, facts: rules.Facts, override: dict[str, Any]) -> Twin:
    part, base = original.part, keys.patched(original.part.config, override)
    twin = Twin(part, base, original.parameters)
    if override:
        trial = _try(original, base)
        if trial.wrong:
            _combined_only(twin, trial.wrong)
    tries = {group: _variants(rule(part.config, facts), override, base) for group, rule in rules.RULES.items()}
    tries = {group: variants for group, variants in tries.items() if variants}
    best = _together(original, base, tries) or _one_by_one(original, base, tries, twin)
    twin.config = best
    trial = _try(original, best)
    if trial.wrong:
        names = ", ".join(f"{k}={v}" for k, v in override.items())
        raise UsageError(f"{part.name} with {names}: {trial.wrong}", todo="Change or leave out these overrides")
    twin.after = trial.parameters
    _say(twin, trial, facts)
    return twin


def _combined_only(twin: Twin, wrong: str) -> None:
    twin.notes.append(f"the given values alone do not do ({wrong}); tried together with the rules")


def _variants(tries: list[rules.Patch], override: dict[str, Any], base: dict[str, Any]) -> list[rules.Patch]:
    """Without what the user set, what changes nothing, and what was there before."""
    found: list[rules.Patch] = []
    for patch in tries:
        left = {k: v for k, v in patch.items() if k not in override and keys.get(base, k) != v}
        if left and left not in found:
            found.append(left)
    return found


def _together(original: _Original, base: dict[str, Any], tries: dict[str, list[rules.Patch]]) -> dict[str, Any] | None:
    """Everything at once; other sizes while a matrix would become square, or stop being so. None where it fails."""
    sized = "heads and widths" if "heads and widths" in tries else next(iter(tries), "")
    fallback = None
    for patch in tries.get(sized, [{}]):
        merged: rules.Patch = {}
        for group, variants in tries.items():
            merged |= patch if group == sized else variants[0]
        config = keys.patched(base, merged)
        trial = _try(original, config)
        if trial.wrong:
            return fallback
        if not trial.squares:
            return config
        fallback = fallback or config
    return fallback


def _one_by_one(
    original: _Original, base: dict[str, Any], tries: dict[str, list[rules.Patch]], twin: Twin
) -> dict[str, Any]:
    """Group after group, each kept only where it holds; then key after key of a group that does not."""
    config = base
    for group, variants in tries.items():
        trials = _trials(original, config, variants)
        fitting = [(len(trial.squares), n) for n, trial in enumerate(trials) if not trial.wrong]
        if fitting:
            config = keys.patched(config, variants[min(fitting)[1]])
            continue
        config = _keys_alone(original, config, variants[0], twin)
        if not any(key in twin.kept for key in variants[0]):
            twin.kept[group] = trials[0].wrong
    return config


def _trials(original: _Original, config: dict[str, Any], variants: list[rules.Patch]) -> list[_Trial]:
    """Up to the first that needs no further one."""
    found = []
    for patch in variants:
        found.append(_try(original, keys.patched(config, patch)))
        if not found[-1].wrong and not found[-1].squares:
            break
    return found


def _keys_alone(original: _Original, config: dict[str, Any], patch: rules.Patch, twin: Twin) -> dict[str, Any]:
    for key, value in patch.items():
        trial = _try(original, keys.patched(config, {key: value}))
        if trial.wrong:
            twin.kept[key] = trial.wrong
        else:
            config = keys.patched(config, {key: value})
    return config


def _say(twin: Twin, trial: _Trial, facts: rules.Facts) -> None:
    """What changed, what stayed on purpose, and what no rule knows."""
    flat = _flat(twin.part.config)
    now = _flat(twin.config)
    twin.shrunk = {k: (v, now[k]) for k, v in flat.items() if k in now and now[k] != v}
    for key, value in flat.items():
        last = key.rpartition(".")[2]
        if key in twin.shrunk or key in twin.kept:
            continue
        if keys.VOCABULARY.search(last) and keys.integer(value) and value > rules.LEAST_VOCABULARY and facts.tokens:
            ids = f"gives ids up to {facts.tokens - 1}" if facts.tokens > 0 else "does not say how many ids it gives"
            twin.kept[key] = f"the tokenizer beside it {ids}"
        elif last == "image_size" and facts.processor:
            twin.kept[key] = "the preprocessor beside it makes pictures of this size"
    shown = ", ".join(trial.squares[:3])
    if shown:
        twin.notes.append(f"square in one size and not in the other: {shown}: a transposed matrix would fit there")
    if twin.after > 2_000_000:
        large = structure.largest(build(twin.part, twin.config))
        twin.notes.append("largest left: " + ", ".join(f"{n} ({size:,})" for n, size in large))


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for prefix, level in keys.levels(config):
        found.update({prefix + k: v for k, v in level.items() if not isinstance(v, dict)})
    return found
