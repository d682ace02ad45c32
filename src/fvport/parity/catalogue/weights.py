# SPDX-License-Identifier: Apache-2.0
"""Faults of loading and mapping: right numbers in wrong places, missing ones, other precisions."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

from fvport.parity.catalogue.core import (
    GATE,
    GATE_UP,
    OUT,
    UP,
    Fault,
    Planted,
    Target,
    at,
    changed,
    rounded,
)

PLACES = ("first", "middle", "last")
TEXT = ("text_encoder", "image_encoder", "audio_encoder", "conditioner")


def _rows(part: tuple[Any, int], count: int) -> Any:
    return part[0].detach()[part[1] : part[1] + count]


def swap_parts(i: int, j: int, where: str, target: Target) -> Planted | None:
    """Two of q, k and v exchanged (weights and biases)."""
    found = at(target.attentions, where)
    if found is None:
        return None
    name, parts = found
    count = parts[1][1] or parts[0][0].shape[0]
    pairs = []
    for holder, kind in ((parts, "weight"), (_biases(target, parts), "bias")):
        if not holder:
            continue
        a, b = holder[i], holder[j]
        if kind == "bias" and (a[0] is None or b[0] is None):
            continue
        one, two = _rows(a, count).clone(), _rows(b, count).clone()
        if a[0] is b[0]:
            value = a[0].detach().clone()
            value[a[1] : a[1] + count], value[b[1] : b[1] + count] = two, one
            pairs.append((a[0], value))
        else:
            pairs += [(a[0], two), (b[0], one)]
    letters = "qkv"
    return changed(target, f"{letters[i]} and {letters[j]} exchanged in {name}", pairs)


def _biases(target: Target, parts: list[tuple[Any, int]]) -> list[tuple[Any, int]]:
    holders = {id(m._parameters.get("weight")): m for m in target.named.values() if "weight" in m._parameters}
    return [(holders[id(weight)]._parameters.get("bias"), row) for weight, row in parts]


def value_out(where: str, target: Target) -> Planted | None:
    """The value's and the output's projection exchanged."""
    pairs = []
    for name, parts in target.attentions:
        home = name if name + ".weight" not in dict(target.parameters) else name.rpartition(".")[0]
        outs = [n for n in target.last(OUT) if n.startswith(home + ".")]
        count = parts[1][1] or parts[0][0].shape[0]
        if outs and target.named[outs[0]].weight.shape == _rows(parts[2], count).shape:
            pairs.append((name, parts[2], outs[0], count))
    found = at(pairs, where)
    if found is None:
        return None
    name, part, out, count = found
    weight = target.named[out].weight
    value = part[0].detach().clone()
    value[part[1] : part[1] + count] = weight.detach()
    return changed(target, f"v of {name} and {out} exchanged", [(part[0], value), (weight, _rows(part, count).clone())])


def gate_up(kind: str, where: str, target: Target) -> Planted | None:
    """Gate and up exchanged, or their rows taken in turn instead of in halves."""
    import torch

    fused = [(n, target.named[n].weight) for n in target.last(GATE_UP)]
    found = at(fused, where)
    if found is not None:
        name, weight = found
        halves = weight.detach().chunk(2, 0)
        value = torch.cat([halves[1], halves[0]], 0)
        if kind == "interleaved":
            value = torch.stack(halves, 1).flatten(0, 1)
        return changed(target, f"gate and up {kind} in {name}", [(weight, value)])
    apart = list(zip(target.last(GATE), target.last(UP), strict=False))
    found = at(apart, where)
    if found is None or kind == "interleaved":
        return None
    a, b = (target.named[n].weight for n in found)
    return changed(target, f"{found[0]} and {found[1]} exchanged", [(a, b.detach().clone()), (b, a.detach().clone())])


def heads(kind: str, target: Target) -> Planted | None:
    """Rows of q and k in the order of another convention."""
    import torch

    found = at(target.attentions, "first")
    if found is None:
        return None
    name, parts = found
    count = parts[1][1] or parts[0][0].shape[0]
    pairs: dict[int, tuple[Any, Any]] = {}
    for part in parts if kind == "per head" else parts[:2]:
        rows = _rows(part, count)
        if kind == "pairing" and count % 2 == 0:
            rows = torch.cat([rows[0::2], rows[1::2]], 0)
        elif kind == "reversed":
            rows = rows.flip(0)
        elif kind == "per head" and count % 2 == 0:
            rows = rows.unflatten(0, (2, -1)).flip(0).flatten(0, 1)
        value = pairs.get(id(part[0]), (part[0], part[0].detach().clone()))[1]
        value[part[1] : part[1] + count] = rows
        pairs[id(part[0])] = (part[0], value)
    if kind == "pairing" or kind == "reversed":
        return changed(target, f"rows of q and k of {name} in another pairing ({kind})", list(pairs.values()))
    if parts[0][0] is parts[1][0]:
        weight = parts[0][0]
        packed = weight.detach().unflatten(0, (3, 2, -1)).transpose(0, 1).flatten(0, 2)
        return changed(target, f"{name} packed head by head instead of q, k, v", [(weight, packed)])
    return changed(target, f"heads of {name} exchanged", list(pairs.values()))


def table(kind: str, where: str, target: Target) -> Planted | None:
    """Scale and shift of a modulation exchanged, or all of it moved on by one."""
    import torch

    found = [(n, p) for n, p in target.parameters if "table" in n or "modulation" in n]
    if not found:
        found = [(n, p) for n, p in target.parameters if ("adaln" in n.lower() or "mod" in n) and p.dim() <= 2]
    one = at(found, where)
    if one is None:
        return None
    name, parameter = one
    dim = next((d for d in range(parameter.dim()) if parameter.shape[d] in (2, 3, 4, 6, 9)), 0)
    count = parameter.shape[dim] if parameter.shape[dim] in (2, 3, 4, 6, 9) else 2
    if parameter.shape[dim] % count:
        return None
    parts = list(parameter.detach().chunk(count, dim))
    parts = [parts[1], parts[0], *parts[2:]] if kind == "exchanged" else [parts[-1], *parts[:-1]]
    return changed(target, f"scale and shift {kind} in {name}", [(parameter, torch.cat(parts, dim))])


def transposed(where: str, target: Target) -> Planted | None:
    found = at([(n, w) for n, w in target.matrices if w.dim() == 2 and w.shape[0] == w.shape[1]], where)
    return changed(target, f"{found[0]} transposed", [(found[1], found[1].detach().t().clone())]) if found else None


def layers(kind: str, target: Target) -> Planted | None:
    """Whole layers in wrong places."""
    import torch

    if not target.layers:
        return None
    series = target.layers[0]
    states = [dict(m.named_parameters()) for _, m in series]
    count = len(series)
    orders: dict[str, Callable[[int], int]] = {
        "twice": lambda i: 0 if i == 1 else i,
        "off by one": lambda i: min(i + 1, count - 1),
        "reversed": lambda i: count - 1 - i,
        "sorted as text": lambda i: int(sorted(map(str, range(count)))[i]),
        "rolled": lambda i: (i - 1) % count,
    }
    pairs = []
    for i in range(count):
        source = states[orders[kind](i)]
        pairs += [
            (p, source[n].detach().clone())
            for n, p in states[i].items()
            if n in source and source[n].shape == p.shape and p.is_floating_point()
        ]
    del torch
    return changed(target, f"layers of {series[0][0].rpartition('.')[0]} {kind}", pairs)


def zero(kind: str, where: str, target: Target) -> Planted | None:
    """A tensor that was never loaded: zero, or one for a norm's weight."""
    import torch

    norms = {name for name, _ in target.norms}
    if kind == "bias":
        found = [(n, p) for n, p in target.parameters if n.endswith(".bias") and n.rpartition(".")[0] not in norms]
    elif kind == "norm bias":
        found = [(n, p) for n, p in target.parameters if n.endswith(".bias") and n.rpartition(".")[0] in norms]
    elif kind == "norm weight":
        found = [(n, p) for n, p in target.parameters if n.endswith("weight") and n.rpartition(".")[0] in norms]
    else:
        found = [(f"{n}.weight", w) for n, w in target.matrices]
    one = at(found, where)
    if one is None:
        return None
    empty = torch.ones_like(one[1]) if kind == "norm weight" else torch.zeros_like(one[1])
    return changed(target, f"{one[0]} not loaded", [(one[1], empty.detach())])


def two_norms(kind: str, target: Target) -> Planted | None:
    """Norms of one shape exchanged: q's and k's, or any two of a block."""
    held = [(n, m._parameters["weight"]) for n, m in target.norms if m._parameters.get("weight") is not None]
    if kind == "q and k":
        a = [(n, w) for n, w in held if n.rpartition(".")[2] in ("norm_q", "q_norm")]
        b = [(n, w) for n, w in held if n.rpartition(".")[2] in ("norm_k", "k_norm")]
        couples = [(x, y) for x, y in zip(a, b, strict=False) if x[1].shape == y[1].shape]
    else:
        couples = [(x, y) for x, y in itertools.pairwise(held) if x[1].shape == y[1].shape]
    if not couples:
        return None
    (name, one), (other, two) = couples[0]
    return changed(target, f"{name} and {other} exchanged", [(one, two.detach().clone()), (two, one.detach().clone())])


def cross(target: Target) -> Planted | None:
    """Self-attention's and cross-attention's output projections exchanged."""
    outs = [(n, target.named[n].weight) for n in target.last(OUT)]
    for (name, one), (other, two) in itertools.pairwise(outs):
        if one.shape == two.shape and name.split(".")[:-2] == other.split(".")[:-2]:
            return changed(
                target, f"{name} and {other} exchanged", [(one, two.detach().clone()), (two, one.detach().clone())]
            )
    return None


def scaled(factor: float, where: str, target: Target) -> Planted | None:
    found = at(target.matrices, where)
    return changed(target, f"{found[0]} times {factor:g}", [(found[1], found[1].detach() * factor)]) if found else None


def low(which: str, kind: str, target: Target) -> Planted | None:
    """Weights rounded to a lower precision: all, norms and modulation, one matrix, embeddings, biases."""
    norms = {name for name, _ in target.norms}
    embeddings = {n for n, m in target.named.items() if "embed" in type(m).__name__.lower()}
    chosen: dict[str, Callable[[str], bool]] = {
        "all": lambda n: True,
        "fp32 islands": lambda n: n.rpartition(".")[0] in norms or "table" in n or "modulation" in n,
        "embeddings": lambda n: n.rpartition(".")[0] in embeddings,
        "biases": lambda n: n.endswith(".bias"),
    }
    if which == "one matrix":
        found = at([(f"{n}.weight", w) for n, w in target.matrices], "middle")
        pairs = [(found[1], rounded(found[1].detach(), kind))] if found else []
    else:
        pairs = [(p, rounded(p.detach(), kind)) for n, p in target.parameters if chosen[which](n)]
    return changed(target, f"{which} rounded to {kind}", pairs)


def embedding(kind: str, target: Target) -> Planted | None:
    import torch

    found = [
        (n, m.weight)
        for n, m in target.named.items()
        if "embedding" in type(m).__name__.lower() and "weight" in m._parameters
    ]
    if not found:
        return None
    name, weight = found[0]
    rows = {"shifted": torch.roll(weight.detach(), 1, 0), "untied": torch.zeros_like(weight).detach()}
    return changed(target, f"rows of {name} {kind}", [(weight, rows[kind])])


def kernel(kind: str, where: str, target: Target) -> Planted | None:
    """A convolution's kernel turned, or its channels in another order."""
    found = [(n, w) for n, w in target.matrices if w.dim() >= 4]
    usable: Callable[[Any], bool] = {
        "reversed in time": lambda w: w.dim() == 5 and w.shape[2] > 1,
        "reversed in height": lambda w: w.shape[-2] > 1,
        "reversed in width": lambda w: w.shape[-1] > 1,
        "with height and width exchanged": lambda w: w.shape[-1] == w.shape[-2] > 1,
        "with input channels moved by one": lambda w: w.shape[1] > 1,
        "with output channels moved by one": lambda w: w.shape[0] > 1,
    }[kind]
    one = at([(n, w) for n, w in found if usable(w)], where)
    if one is None:
        return None
    w = one[1].detach()
    turned = {
        "reversed in time": lambda: w.flip(2),
        "reversed in height": lambda: w.flip(-2),
        "reversed in width": lambda: w.flip(-1),
        "with height and width exchanged": lambda: w.transpose(-1, -2).contiguous(),
        "with input channels moved by one": lambda: w.roll(1, 1),
        "with output channels moved by one": lambda: w.roll(1, 0),
    }[kind]()
    return changed(target, f"kernel of {one[0]} {kind}", [(one[1], turned)])


def packing(target: Target) -> Planted | None:
    """Rows of the last projection channel by channel instead of patch by patch."""
    patch = getattr(target.module, "patch_size", None)
    channels = getattr(target.module, "out_channels", None)
    outs = [(n, w) for n, w in target.matrices if w.dim() == 2]
    if not isinstance(channels, int) or patch is None or not outs:
        return None
    name, weight = outs[-1]
    if channels < 2 or weight.shape[0] % channels or weight.shape[0] == channels:
        return None
    value = weight.detach().unflatten(0, (-1, channels)).transpose(0, 1).flatten(0, 1)
    return changed(target, f"rows of {name} channel-major", [(weight, value)])


def row(kind: str, where: str, target: Target) -> Planted | None:
    """One row lost, or one percent off."""
    found = at(target.matrices, where)
    if found is None:
        return None
    value = found[1].detach().clone()
    value[-1] = 0.0 if kind == "lost" else value[-1] * 1.01
    return changed(target, f"last row of {found[0]} {kind}", [(found[1], value)])


def _many(
    prefix: str, title: str, like: str, function: Any, options: list[tuple[Any, ...]], **more: Any
) -> list[Fault]:
    return [
        Fault(
            f"{prefix}.{'-'.join(str(o).replace(' ', '_') for o in option)}",
            "weights",
            f"{title} ({', '.join(map(str, option))})" if option else title,
            like,
            functools.partial(function, *option),
            **more,
        )
        for option in options
    ]


MASS = "batch of random tokens; a weight that matters for none of the cases needs one where it does"
FAULTS: list[Fault] = [
    *_many("qkv", "q, k, v exchanged", "L02", swap_parts, [(0, 1, "first"), (0, 1, "middle"), (0, 1, "last")]),
    *_many("qkv", "q, k, v exchanged", "L02", swap_parts, [(1, 2, "first"), (1, 2, "last"), (0, 2, "first")]),
    *_many("vo", "value and output exchanged", "L03", value_out, [("first",), ("last",)]),
    *_many("gate_up", "gate and up", "L06", gate_up, [("exchanged", "first"), ("exchanged", "last")]),
    *_many("gate_up", "gate and up", "L04", gate_up, [("interleaved", "first")]),
    *_many("heads", "head rows", "L05", heads, [("per head",), ("pairing",), ("reversed",)]),
    *_many(
        "table", "scale and shift", "L07", table, [("exchanged", "first"), ("exchanged", "last"), ("moved", "first")]
    ),
    *_many("transposed", "a square weight transposed", "L18", transposed, [(w,) for w in PLACES]),
    *_many(
        "layers",
        "layers",
        "L17",
        layers,
        [("twice",), ("off by one",), ("reversed",), ("rolled",), ("sorted as text",)],
    ),
    *_many("missing", "a bias not loaded", "L11", zero, [("bias", w) for w in PLACES]),
    *_many("missing", "a norm not loaded", "L12", zero, [("norm weight", "first"), ("norm weight", "last")]),
    *_many("missing", "a norm's bias not loaded", "L12", zero, [("norm bias", "first")]),
    *_many("missing", "a weight zero-filled", "L12", zero, [("weight", w) for w in PLACES]),
    *_many("norms", "norms exchanged", "N11", two_norms, [("q and k",), ("neighbours",)]),
    *_many("cross", "self- and cross-attention exchanged", "L03", cross, [()]),
    *_many("scaled", "a factor lost", "L21", scaled, [(0.5, "middle"), (-1.0, "first"), (1.001, "last")]),
    *_many("rounded", "precision lost", "L16", low, [("all", "bfloat16"), ("fp32 islands", "bfloat16")]),
    *_many("rounded", "precision lost", "L16", low, [("one matrix", "bfloat16"), ("embeddings", "bfloat16")]),
    *_many("rounded", "precision lost", "L16", low, [("biases", "bfloat16"), ("all", "float16")]),
    *_many("embedding", "embedding rows", "L14", embedding, [("shifted",), ("untied",)]),
    *_many("kernel", "a kernel turned", "L01", kernel, [("reversed in time", "first"), ("reversed in height", "last")]),
    *_many("kernel", "a kernel turned", "L01", kernel, [("reversed in width", "middle")]),
    *_many("kernel", "a kernel turned", "L01", kernel, [("with height and width exchanged", "last")]),
    *_many("kernel", "channels moved", "L01", kernel, [("with input channels moved by one", "first")]),
    *_many("kernel", "channels moved", "L01", kernel, [("with output channels moved by one", "last")]),
    *_many("packing", "patch order of the output", "L01", packing, [()]),
    *_many("row", "one row", "N16", row, [("lost", "first"), ("one percent off", "middle"), ("lost", "last")]),
]
