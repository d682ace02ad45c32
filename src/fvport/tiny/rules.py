# SPDX-License-Identifier: Apache-2.0
"""What each group of keys may become. A rule gives a patch {dotted key: value}; whether it is right is tried later.

Variants are tried in order: the first that builds with the same structure is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from fvport.tiny import keys

Patch = dict[str, Any]
DEPTH, DEPTH_ENCODER = 2, 4  # pipelines read hidden states from the end, so an encoder keeps some to choose from
LEAST_VOCABULARY = 512
# Tried in order: width of a head (0: as it was), fewer heads or as many, steps added to the feed-forward.
SIZES = ((24, True, 1), (16, True, 1), (32, True, 1), (40, True, 2), (24, False, 1), (0, True, 1))


@dataclass(frozen=True)
class Facts:
    """What a rule knows beside the config: the folder's map of widths, the tokenizer, the preprocessor."""

    widths: dict[int, int]
    tokens: int = 0
    processor: bool = False
    transformers: bool = False
    shared: frozenset[int] = frozenset()  # widths that another component has too
    fixed: Patch = field(default_factory=dict)  # what the user set, by dotted key: the rest follows it


def proportional(values: Iterable[int], least: int, step: int = 8) -> dict[int, int]:
    """Small multiples of `step` in the same proportions, the smallest at least `least`: equal widths, sums and
    multiples stay so. Where the numbers share no useful divisor, only their order is kept.
    """
    found = sorted(set(values))
    if not found:
        return {}
    unit = math.gcd(*found)
    parts = [v // unit for v in found]
    if parts[-1] <= 64:
        times = step * math.ceil(least / (step * parts[0]))
        made = {v: min(v, p * times) for v, p in zip(found, parts, strict=True)}
        if all(made[v] < v for v in found) or len(found) == 1:
            return made
    made, last = {}, 0
    for value in found:
        size = max(least, step * round(value * least / found[0] / step), last + step)
        made[value] = last = min(size, value)
    return made


def depth(config: dict[str, Any], facts: Facts) -> list[Patch]:
    """Fewer layers, each kind kept; lists with an entry a layer are cut with them, indices of layers follow."""
    tries = []
    for keep in (DEPTH_ENCODER if facts.transformers else DEPTH, 3, 4, 6, 8):
        patch: Patch = {}
        for prefix, level in keys.levels(config):
            _depth_level(prefix, level, keep, facts.fixed, patch)
        tries.append(patch)
    return tries


def _depth_level(prefix: str, level: dict[str, Any], keep: int, fixed: Patch, patch: Patch) -> None:
    counts = {k: v for k, v in level.items() if keys.DEPTH.search(k) and keys.integer(v)}
    counts = {k: v for k, v in counts.items() if v > keep or prefix + k in fixed}
    lists = {k: v for k, v in level.items() if isinstance(v, list | tuple) and keys.LAYER_LIST.search(k)}
    lists = {k: v for k, v in lists.items() if not keys.CHANNEL_LIST.search(k)}
    for name, count in counts.items():
        beside = [k for k, v in level.items() if isinstance(v, list | tuple) and len(v) == count and k not in lists]
        if any(keys.integers(level[k]) for k in beside):
            continue  # levels with widths of their own, such as a stack of convolutions: none can be left out
        along = {k: v for k, v in lists.items() if len(v) == count and not _indices(k, v, count)}
        kinds = [len({repr(x) for x in v}) for v in along.values()]
        new = min(count, fixed.get(prefix + name, max(keep, *kinds) if kinds else keep))
        patch[prefix + name] = new
        patch.update({prefix + k: cut(v, new) for k, v in along.items()})
        for key, value in lists.items():
            if _indices(key, value, count) and prefix + key not in patch:
                patch[prefix + key] = type(value)(_members(value, count, new))
        for key, value in level.items():
            if keys.integer(value) and keys.INTERVAL.search(key) and value > new:
                patch[prefix + key] = new
            elif keys.integer(value) and key in ("first_k_dense_replace", "moe_layer_start") and value >= new:
                patch[prefix + key] = new - 1


def cut(values: Any, length: int) -> Any:
    """`length` entries in their order, every distinct one kept."""
    firsts = {repr(v): i for i, v in reversed(list(enumerate(values)))}
    chosen = set(firsts.values())
    chosen |= set([i for i in range(len(values)) if i not in chosen][: max(0, length - len(chosen))])
    return type(values)(values[i] for i in sorted(chosen))


def _indices(key: str, value: Any, count: int) -> bool:
    distinct = keys.integers(value) and len(set(value)) == len(value) and list(value) == sorted(value)
    return bool(distinct and keys.LAYER_INDEX.search(key) and min(value) >= 0 and max(value) < count)


def _members(value: Any, count: int, new: int) -> list[int]:
    """Which of `new` layers are members, where some and not all of `count` were: never all, never none."""
    if len(value) == count:
        return list(range(new))
    size = min(new - 1, len(value), max(1, round(len(value) * new / count)))
    return list(range(size)) if 0 in value else list(range(new - size, new))


def repeats(config: dict[str, Any], facts: Facts) -> list[Patch]:
    """Blocks repeated inside a level of an autoencoder or U-Net: once, where every kind survives that."""
    tries = []
    for keep in (1, 2):
        patch: Patch = {}
        for prefix, level in keys.levels(config):
            for key, value in level.items():
                if keys.REPEATS.search(key) and keys.integer(value) and value > keep:
                    patch[prefix + key] = keep
                elif keys.REPEATS.search(key) and keys.integers(value) and max(value) > keep:
                    patch[prefix + key] = type(value)(min(v, keep) for v in value)
        tries.append(patch)
    return tries


def sizes(config: dict[str, Any], facts: Facts) -> list[Patch]:
    """Heads, their width, rotary axes, and the widths that components share; feed-forwards in proportion."""
    tries = []
    for head, fewer, inner in SIZES:
        patch: Patch = {}
        for prefix, level in keys.levels(config):
            _sizes_level(prefix, level, facts, (head, fewer, inner), patch)
        tries.append(patch)
    return tries


def _sizes_level(prefix: str, level: dict[str, Any], facts: Facts, variant: tuple[int, bool, int], out: Patch) -> None:
    head, fewer, extra = variant
    patch = {k: facts.widths[v] for k, v in level.items() if keys.is_width(k, v) and v in facts.widths}
    patch |= {k: facts.fixed[prefix + k] for k in level if prefix + k in facts.fixed}
    for suffix in ("", "num_cross_attention_heads"):
        name = suffix or keys.first(level, keys.HEADS)
        dim = "cross_attention_head_dim" if suffix else keys.first(level, keys.HEAD_DIM)
        if keys.integer(level.get(name)) and (not suffix or keys.integer(level.get(dim))):
            _heads(level, facts, name, dim, (head, fewer), patch)
    _concatenated(level, facts, patch)
    old, new = _hidden(level, level), _hidden(level, level | patch)
    for key, value in level.items():
        if keys.INNER.search(key) and keys.integer(value) and value >= 64 and old and new:
            size = max(8, 8 * round(value * new / old / 8)) + 8 * (extra - 1)
            patch[key] = size + 8 if size == new and value != old else size
    out.update({prefix + k: v for k, v in patch.items() if v != level.get(k)})


def _concatenated(level: dict[str, Any], facts: Facts, patch: Patch) -> None:
    """A pooled text width beside n embedded numbers (a U-Net's size conditions): that width shrinks, the rest stays."""
    whole, each = level.get("projection_class_embeddings_input_dim"), level.get("addition_time_embed_dim")
    if keys.integer(whole) and keys.integer(each):
        for count in (6, 5, 4, 3, 2, 1):
            text = whole - count * each  # type: ignore[operator]
            if text in facts.shared and text in facts.widths:
                patch["projection_class_embeddings_input_dim"] = facts.widths[text] + count * each  # type: ignore[operator]
                return


def _hidden(level: dict[str, Any], values: dict[str, Any]) -> int:
    """The width of the residual stream: a key that says so, else heads times their width; 0 where neither is there."""
    primary = keys.first(level, keys.PRIMARY)
    if primary:
        return int(values[primary])
    heads, dim = keys.first(level, keys.HEADS), keys.first(level, keys.HEAD_DIM)
    return int(values[heads] * values[dim]) if heads and dim else 0


def _heads(level: dict[str, Any], facts: Facts, name: str, dim: str, variant: tuple[int, bool], patch: Patch) -> None:
    head, fewer = variant
    count, kv = level[name], keys.first(level, keys.KV_HEADS)
    shared = bool(kv) and 1 < level[kv] < count
    heads = patch.get(name, min(count, 4 if shared else 2) if fewer else count)
    patch[name] = heads
    if kv and kv not in patch:
        patch[kv] = heads if level[kv] == count else min(level[kv], 2)
    primary = keys.first(level, keys.PRIMARY)
    hidden = level[primary] if primary else 0
    old = level[dim] if dim else (hidden // count if hidden else 0)
    if primary and not name.startswith("num_cross"):
        each = patch.get(primary, hidden) // heads
        if dim and old * count != hidden:
            each = each * 2 if old * count > hidden else max(2, each * 3 // 8 * 2)
    else:
        each = min(head or old, old)
    if dim:
        patch[dim] = each = patch.get(dim, each)
    for key, value in level.items():  # widths that are heads times their width
        if not primary and dim and keys.is_width(key, value) and value == old * count and value not in facts.shared:
            patch[key] = heads * each
    for way, values in _axes(level):
        if sum(values) in (old, old // 2) and each:
            target = each if sum(values) == old else each // 2
            scaled = axes(values, target, 2 if sum(values) == old else 1)
            _put(level, patch, way, scaled)


def _axes(level: dict[str, Any]) -> list[tuple[tuple[str, ...], Any]]:
    """Lists of a rotary embedding's parts, also one mapping down (rope_parameters)."""
    found: list[tuple[tuple[str, ...], Any]] = [
        ((k,), v) for k, v in level.items() if keys.AXES.search(k) and keys.integers(v)
    ]
    for name, inside in level.items():
        if isinstance(inside, dict) and keys.AXES.search(name):
            found += [((name, k), v) for k, v in inside.items() if keys.integers(v)]
    return found


def _put(level: dict[str, Any], patch: Patch, way: tuple[str, ...], value: Any) -> None:
    patch[way[0]] = value if len(way) == 1 else dict(level[way[0]]) | {way[1]: value}


def axes(values: Any, total: int, step: int) -> Any:
    """The parts of a rotary embedding in their proportions, multiples of `step`, with the sum `total`."""
    made = [max(step, step * (v * total // (sum(values) * step))) for v in values]
    left = (total - sum(made)) // step
    alike = sorted({v: [i for i, w in enumerate(values) if w == v] for v in values}.items(), reverse=True)
    for _, places in alike:  # equal parts stay equal where the rest allows it
        if left and left % len(places) == 0:
            for place in places:
                made[place] += step * left // len(places)
            return type(values)(made)
    for turn in range(abs(left)):
        made[turn % len(made)] += step if left > 0 else -step
    return type(values)(made)


def timesteps(config: dict[str, Any], facts: Facts) -> list[Patch]:
    """Widths of timestep embeddings and low ranks, distinct where they were."""
    found = {v for _, level in keys.levels(config) for k, v in level.items() if keys.TIME.search(k) and keys.integer(v)}
    sizes_of = {v: 32 + 8 * i for i, v in enumerate(sorted(v for v in found if v > 64))}
    patch = {
        p + k: sizes_of[v] for p, level in keys.levels(config) for k, v in level.items()
        if keys.TIME.search(k) and keys.integer(v) and v in sizes_of
    }  # fmt: skip
    return [patch]


def channels(config: dict[str, Any], facts: Facts) -> list[Patch]:
    """Channels of convolutional levels in their proportions; the number of norm groups first with them, then kept."""
    lists = [v for k, v in config.items() if keys.CHANNEL_LIST.search(k) and keys.integers(v)]
    bases = [v for k, v in config.items() if keys.CHANNEL.search(k) and keys.integer(v)]
    values = {v for one in lists for v in one} | set(bases)
    if not values or min(values) < 16:
        return []
    groups = next((v for k, v in config.items() if keys.GROUPS.search(k) and keys.integer(v)), 0)
    tries = []
    for least, number in ((8, 4), (16, 8), (2 * groups or 32, groups), (64, groups)):
        sized = proportional(values, least)
        patch: Patch = {}
        for key, value in config.items():
            if keys.CHANNEL_LIST.search(key) and keys.integers(value):
                patch[key] = type(value)(sized[v] for v in value)
            elif keys.CHANNEL.search(key) and keys.integer(value):
                patch[key] = sized[value]
            elif keys.GROUPS.search(key) and keys.integer(value):
                patch[key] = min(number, value) or value
            elif key in (*keys.HEADS, *keys.HEAD_DIM) and keys.integers(value):
                patch[key] = type(value)(proportional(value, 1, 1)[v] for v in value)
            elif key == "attention_head_dim" and keys.integer(value) and lists:
                patch[key] = min(value, 2 if value < 32 else 8)
        tries.append(patch)
    return tries


def vocabulary(config: dict[str, Any], facts: Facts) -> list[Patch]:
    """As many rows as the tokenizer beside it needs; ids of special tokens that no longer fit move to the end."""
    patch: Patch = {}
    for prefix, level in keys.levels(config):
        for key, value in level.items():
            if not (keys.VOCABULARY.search(key) and keys.integer(value) and value > LEAST_VOCABULARY):
                continue
            if facts.tokens < 0 or facts.tokens > value // 2:
                continue
            size = max(LEAST_VOCABULARY, 8 * math.ceil(facts.tokens / 8))
            if size < value:
                patch[prefix + key] = size
    if patch:
        _token_ids(config, min(patch.values()), patch)
    return [patch]


def _token_ids(config: dict[str, Any], size: int, patch: Patch) -> None:
    found: dict[int, list[str]] = {}
    for prefix, level in keys.levels(config):
        for key, value in level.items():
            if keys.TOKEN_ID.search(key) and keys.integer(value) and value >= size:
                found.setdefault(value, []).append(prefix + key)
    for rank, value in enumerate(sorted(found, reverse=True)):
        patch.update(dict.fromkeys(found[value], size - 1 - rank))


def tables(config: dict[str, Any], facts: Facts) -> list[Patch]:
    """Sizes of pictures and tables of positions, an eighth; a picture's size is kept beside its preprocessor."""
    patch: Patch = {}
    for prefix, level in keys.levels(config):
        patches: Any = level.get("patch_size")
        step: int = patches if keys.integer(patches) else 2
        for key, value in level.items():
            if keys.TABLE.search(key) and not (facts.processor and key == "image_size"):
                if keys.integer(value) and value >= 32:
                    patch[prefix + key] = min(value, _eighth(value, step))
                elif keys.integers(value) and min(value) >= 32:
                    patch[prefix + key] = type(value)(min(v, _eighth(v, step)) for v in value)
    return [patch]


def _eighth(size: int, step: int) -> int:
    return max(step * 4, step * math.ceil(size / 8 / step))


def experts(config: dict[str, Any], facts: Facts) -> list[Patch]:
    """Four experts, two a token."""
    patch: Patch = {}
    for prefix, level in keys.levels(config):
        for key, value in level.items():
            if keys.EXPERTS.search(key) and keys.integer(value) and value > 4:
                patch[prefix + key] = 4
            elif keys.PER_TOKEN.search(key) and keys.integer(value) and value > 2:
                patch[prefix + key] = 2
    return [patch]


RULES: dict[str, Callable[[dict[str, Any], Facts], list[Patch]]] = {
    "depth": depth,
    "repeats": repeats,
    "heads and widths": sizes,
    "timestep widths": timesteps,
    "channels": channels,
    "experts": experts,
    "vocabulary": vocabulary,
    "resolution": tables,
}
