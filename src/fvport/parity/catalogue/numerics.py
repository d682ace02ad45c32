# SPDX-License-Identifier: Apache-2.0
"""Faults of arithmetic inside a component: norms, activations, attention, masks, rotary and timestep embeddings."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from fvport.parity.catalogue.core import (
    Fault,
    Planted,
    Target,
    after,
    at,
    attributes,
    hooked,
    patched,
    rounded,
)
from fvport.parity.catalogue.given import given_mask, given_time

ROTARY = ("rotary", "rope")
TIMES = ("timestep_embedding", "get_timestep_embedding", "sinusoidal_embedding", "timesteps_proj")


def eps(factor: float, where: str, target: Target) -> Planted | None:
    """The eps of one norm, or of all, another power of ten."""
    found = []
    for name, module in target.norms:
        for key, value in vars(module).items():
            if "eps" in key and isinstance(value, float) and value > 0:
                found.append((name, module, key, value))
    chosen = found if where == "all" else [one] if (one := at(found, where)) else []
    if not chosen:
        return None
    changes = [(module, key, value * factor) for _, module, key, value in chosen]
    return Planted(f"eps of {chosen[0][0]} times {factor:g}", attributes(changes), [name for name, *_ in chosen])


def norm(kind: str, where: str, target: Target) -> Planted | None:
    """A norm of another kind, in bf16, or none."""

    def around(original: Callable[..., Any], x: Any, *args: Any, **kwargs: Any) -> Any:
        if kind == "in bf16":
            return after(rounded)(original, rounded(x), *args, **kwargs)
        y = original(x, *args, **kwargs)
        if isinstance(y, tuple) and len(y) == 2 and _alike(y[1], x):
            x = y[1]  # a norm that adds the residual first answers the sum too: what it norms
        if kind == "skipped":
            return on_first(y, lambda t: x)
        rms = x.pow(2).mean(-1, keepdim=True).sqrt()
        spread = (x - x.mean(-1, keepdim=True)).pow(2).mean(-1, keepdim=True).sqrt()
        if kind == "of the other kind":  # as if the mean were subtracted where it is not, or the other way round
            return on_first(y, lambda t: t * rms / spread.clamp_min(1e-6) if t.shape == x.shape else t)
        return y

    names = [n for n, _ in target.norms]
    chosen = names if where == "all" else [one] if (one := at(names, where)) else []
    return hooked(target, f"norm {chosen[0] if chosen else ''} {kind}", chosen, around)


def _alike(value: Any, x: Any) -> bool:
    return bool(getattr(value, "shape", None) == x.shape)


def on_first(value: Any, change: Callable[[Any], Any]) -> Any:
    return (change(value[0]), *value[1:]) if isinstance(value, tuple) else change(value)


def activation(kind: str, target: Target) -> Planted | None:
    """Another activation: as a module where there is one, else the function."""
    import torch
    import torch.nn.functional as F

    other: dict[str, Callable[[Any], Any]] = {
        "erf for tanh": lambda x: F.gelu(x),
        "tanh for erf": lambda x: F.gelu(x, approximate="tanh"),
        "silu": lambda x: x * torch.sigmoid(x),
        "relu": lambda x: x.clamp_min(0),
        "none": lambda x: x,
    }
    words = ("gelu", "silu", "relu", "swish")
    names = [n for n, m in target.named.items() if any(w in type(m).__name__.lower() for w in words)]
    names = [n for n in names if not target.named[n]._parameters and not list(target.named[n].children())]
    if kind in ("erf for tanh", "tanh for erf"):
        names = [n for n in names if "gelu" in type(target.named[n]).__name__.lower()]

    def around(original: Callable[..., Any], x: Any, *args: Any, **kwargs: Any) -> Any:
        right = original(x, *args, **kwargs)
        if right.shape[-1] * 2 == x.shape[-1]:  # gate and up in one: the half that is activated, times the other
            gate, up = x.chunk(2, -1)
            return other[kind](gate) * up
        return other[kind](x)

    if names:
        return hooked(target, f"activation of {names[0]}: {kind}", names[:1], around)
    if kind in ("erf for tanh", "tanh for erf"):

        def approximate(original: Callable[..., Any], x: Any, *args: Any, **kwargs: Any) -> Any:
            return original(x, approximate="tanh" if kind.startswith("tanh") else "none")

        return patched(target, f"gelu: {kind}", [(F, "gelu", approximate)])
    return None


def attention(kind: str, target: Target) -> Planted | None:
    """What is inside an attention: its scale, its mask, its precision. Both the fused kernel and a plain softmax."""
    import torch
    import torch.nn.functional as F

    def fused(original: Callable[..., Any], q: Any, k: Any, v: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs |= dict(zip(("attn_mask", "dropout_p", "is_causal", "scale"), args, strict=False))
        mask, scale = kwargs.get("attn_mask"), kwargs.get("scale") or q.shape[-1] ** -0.5
        if kind == "scale 1":
            kwargs["scale"] = 1.0 if abs(scale - 1) > 1e-6 else q.shape[-1] ** -0.5
        elif kind == "scale 1/d":
            kwargs["scale"] = 1.0 / q.shape[-1]
        elif kind == "scale 1 % off":
            kwargs["scale"] = scale * 1.01
        elif kind == "in bf16":
            return rounded(original(rounded(q), rounded(k), rounded(v), **kwargs))
        elif kind == "causal":
            if mask is None:
                kwargs["is_causal"] = not kwargs.get("is_causal", False)
        elif mask is not None:
            kwargs["attn_mask"] = _other_mask(kind, mask)
        return original(q, k, v, **kwargs)

    def softmax(original: Callable[..., Any], x: Any, *args: Any, **kwargs: Any) -> Any:
        if kind == "in bf16":
            return rounded(original(rounded(x), *args, **kwargs))
        factor = {"scale 1": 1.5, "scale 1/d": 0.5, "scale 1 % off": 1.01}.get(kind)
        if factor is not None:
            hidden = x < -1e3  # masked
            return original(torch.where(hidden, x, x * factor), *args, **kwargs)
        if kind == "causal" and x.dim() == 4 and x.shape[-1] == x.shape[-2] > 1:
            ahead = torch.ones(x.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
            return original(x.masked_fill(ahead, -1e9), *args, **kwargs)
        if kind == "mask ignored":
            return original(torch.where(x < -1e3, x - x.amin(-1, keepdim=True), x), *args, **kwargs)
        return original(x, *args, **kwargs)

    changes: list[Any] = [(F, "scaled_dot_product_attention", fused)]
    changes += [(F, "softmax", softmax), (torch, "softmax", softmax), (torch.Tensor, "softmax", softmax)]
    return patched(target, f"attention: {kind}", changes) if target.attentions or target.last(("to_q",)) else None


def _other_mask(kind: str, mask: Any) -> Any:
    import torch

    if kind == "mask ignored":
        return None
    if kind == "mask on the other side":
        return mask.flip(-1)
    if kind == "mask inverted":
        return ~mask if mask.dtype == torch.bool else torch.where(mask < -1e3, mask.new_zeros(()), mask.amin())
    if kind == "mask as numbers":  # true added as 1 in place of hiding
        return mask.float() if mask.dtype == torch.bool else (mask > -1e3).to(mask.dtype)
    return mask


def _namespaces(target: Target) -> list[Any]:
    """Python modules that the component's classes come from, where functions are looked up by name."""
    found = {type(m).__module__ for m in target.named.values() if not type(m).__module__.startswith("torch")}
    return [sys.modules[name] for name in sorted(found) if name in sys.modules]


def _functions(target: Target, words: tuple[str, ...]) -> list[tuple[Any, str]]:
    found = []
    for space in _namespaces(target):
        for name, value in list(vars(space).items()):
            if any(word in name.lower() for word in words) and callable(value) and not isinstance(value, type):
                found.append((space, name))
    return found


def rotary(kind: str, target: Target) -> Planted | None:
    """Rotary embeddings: function results (cos and sin), or the modules that make them."""
    import torch

    def one(t: Any, index: int) -> Any:
        if not torch.is_tensor(t) or not (t.is_floating_point() or t.is_complex()) or t.dim() < 2:
            return t
        length_dim = max(range(t.dim() - 1), key=lambda d: t.shape[d])
        if kind == "negated":
            return t.conj() if t.is_complex() else (-t if index == 1 else t)
        if kind == "moved by one":
            return t.roll(1, length_dim)
        if kind == "none":
            return torch.ones_like(t) if index == 0 or t.is_complex() else torch.zeros_like(t)
        if kind == "in bf16":
            return t if t.is_complex() else rounded(t)
        if kind == "pairing":
            return torch.cat([t[..., 0::2], t[..., 1::2]], -1) if t.shape[-1] % 2 == 0 else t
        return t.flip(length_dim) if kind == "reversed" else t

    def around(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if kind == "theta":
            for name in ("theta", "rope_theta", "base"):
                if isinstance(kwargs.get(name), (int, float)):
                    kwargs[name] = 256.0 if kwargs[name] != 256.0 else 10000.0
        if kind == "axes" and args and isinstance(args[0], (tuple, list)) and len(args[0]) == 3:
            grid = args[0]
            turned = (grid[0], grid[2], grid[1])
            args = (turned if isinstance(grid, tuple) else list(turned), *args[1:])
        value = original(*args, **kwargs)
        if kind == "theta":
            return value
        if isinstance(value, (tuple, list)):
            return type(value)(one(v, i) for i, v in enumerate(value))
        return one(value, 0)

    makers = [(s, n) for s, n in _functions(target, ROTARY) if "apply" not in n.lower()]
    if makers:
        return patched(target, f"rotary embedding {kind}", [(space, name, around) for space, name in makers])
    names = [n for n, m in target.named.items() if any(w in type(m).__name__.lower() for w in ROTARY)]
    return hooked(target, f"rotary embedding {kind}", names, around) if kind not in ("theta", "axes") else None


def timestep(kind: str, target: Target) -> Planted | None:
    """The timestep's embedding: order, scale, precision."""
    import torch

    def around(original: Callable[..., Any], t: Any, *args: Any, **kwargs: Any) -> Any:
        if kind == "in bf16":
            return original(rounded(t.float()), *args, **kwargs)
        value = original(t, *args, **kwargs)
        if kind == "sine first" and value.shape[-1] % 2 == 0:
            return torch.cat(list(reversed(value.chunk(2, -1))), -1)
        return rounded(value) if kind == "rounded" else value

    found = _functions(target, TIMES)
    if found:
        return patched(target, f"timestep embedding {kind}", [(space, name, around) for space, name in found])
    names = [n for n, m in target.named.items() if type(m).__name__.lower() in ("timesteps", "sinusoidal")]
    return hooked(target, f"timestep embedding {kind}", names, around)


def blocks(kind: str, target: Target) -> Planted | None:
    """A block skipped, run twice, its residual dropped, or its sum kept in bf16."""
    import torch

    if not target.layers:
        return None
    name, _ = target.layers[0][-1 if kind == "last skipped" else len(target.layers[0]) // 2]

    def around(original: Callable[..., Any], x: Any = None, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_tensor(x) or not x.is_floating_point():
            return original(x, *args, **kwargs) if x is not None else original(*args, **kwargs)
        value = original(x, *args, **kwargs)
        first = value[0] if isinstance(value, (tuple, list)) else value
        if not torch.is_tensor(first) or first.shape != x.shape:
            return value
        if kind == "twice":
            return original(first, *args, **kwargs)
        new = {"skipped": x, "last skipped": x, "without residual": first - x, "in bf16": rounded(first)}[kind]
        return (new, *value[1:]) if isinstance(value, tuple) else [new, *value[1:]] if isinstance(value, list) else new

    return hooked(target, f"{name} {kind}", [name], around)


def submodule(kind: str, target: Target) -> Planted | None:
    """The output of the model's last projection, or of a middle one, without its own effect."""
    found = [n for n, _ in target.matrices]
    name = at(found, "middle")
    if name is None:
        return None
    return hooked(
        target, f"output of {name} {kind}", [name], after(rounded if kind == "in bf16" else (lambda t: t * 0))
    )


def _many(
    group: str, prefix: str, like: str, function: Any, options: list[tuple[Any, ...]], **more: Any
) -> list[Fault]:
    return [
        Fault(
            f"{prefix}.{'-'.join(str(o).replace(' ', '_') for o in option)}",
            group,
            f"{prefix.replace('_', ' ')}: {', '.join(map(str, option))}",
            like,
            functools.partial(function, *option),
            **more,
        )
        for option in options
    ]


DIT = ("dit",)
ENCODERS = ("text_encoder", "image_encoder", "audio_encoder", "conditioner")
SMALL = "inputs a hundredth of the size: eps counts where the variance is small"
LONG = "an input where the axis is long and of another length than the others"
FRACTION = "a timestep that is no whole number and has more than eight bits, such as 998.39"
RAGGED = "a batch of rows of unequal length with a real mask"
FAULTS: list[Fault] = [
    *_many(
        "numerics", "eps", "N02", eps, [(10.0, "all"), (10.0, "first"), (10.0, "last"), (0.01, "all")], reveal=SMALL
    ),
    *_many("numerics", "norm", "N04", norm, [("in bf16", "first"), ("in bf16", "last"), ("in bf16", "all")]),
    *_many(
        "numerics", "norm", "N11", norm, [("skipped", "first"), ("skipped", "last"), ("of the other kind", "middle")]
    ),
    *_many("numerics", "activation", "N03", activation, [("erf for tanh",), ("tanh for erf",)]),
    *_many("numerics", "activation", "N03", activation, [("silu",), ("relu",), ("none",)]),
    *_many("numerics", "attention", "N13", attention, [("scale 1",), ("scale 1/d",), ("scale 1 % off",)]),
    *_many("numerics", "attention", "N01", attention, [("in bf16",)]),
    *_many("masks", "attention", "N13", attention, [("causal",)]),
    *_many("masks", "attention", "N12", attention, [("mask ignored",), ("mask inverted",)], reveal=RAGGED),
    *_many("masks", "attention", "N12", attention, [("mask on the other side",), ("mask as numbers",)], reveal=RAGGED),
    *_many(
        "masks", "given_mask", "N12", given_mask, [("ignored",), ("inverted",), ("turned",), ("short",)], reveal=RAGGED
    ),
    *_many("numerics", "rotary", "N06", rotary, [("negated",), ("pairing",), ("none",)], reveal=LONG),
    *_many("numerics", "rotary", "N07", rotary, [("moved by one",), ("reversed",)], reveal=LONG),
    *_many("numerics", "rotary", "N08", rotary, [("theta",), ("axes",)], reveal=LONG),
    *_many("numerics", "rotary", "N09", rotary, [("in bf16",)], reveal=LONG),
    *_many("numerics", "timestep", "N10", timestep, [("sine first",), ("rounded",)], kinds=DIT),
    *_many("numerics", "timestep", "N09", timestep, [("in bf16",)], kinds=DIT, reveal=FRACTION),
    *_many(
        "numerics", "given_timestep", "N09", given_time, [("rounded down",), ("in bf16",)], kinds=DIT, reveal=FRACTION
    ),
    *_many("numerics", "given_timestep", "N10", given_time, [("over 1000",), ("reversed",)], kinds=DIT),
    *_many("numerics", "given_timestep", "N07", given_time, [("of the first row",)], kinds=DIT, reveal="two timesteps"),
    *_many("numerics", "block", "V08", blocks, [("skipped",), ("last skipped",), ("twice",)]),
    *_many("numerics", "block", "N01", blocks, [("without residual",), ("in bf16",)]),
    *_many("numerics", "projection", "N01", submodule, [("in bf16",), ("zero",)]),
]
