# SPDX-License-Identifier: Apache-2.0
"""Faults on the way in: what a wrapper or a pipeline hands to a component is another mask, timestep or tensor."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from fvport.parity.catalogue.core import Planted, Target, attributes, rounded


def given_mask(kind: str, target: Target) -> Planted | None:
    """The mask that the model is given: ignored, inverted, on the wrong side."""
    import torch

    def change(value: Any) -> Any:
        ones = torch.ones_like(value)
        return {"ignored": ones, "inverted": 1 - value.long(), "turned": value.flip(-1), "short": _short(value)}[
            kind
        ].to(value.dtype)

    return inputs(f"mask {kind}", lambda name, t: change(t) if _is_mask(t) else t, target, names=("mask",))


def _is_mask(t: Any) -> bool:
    return not t.is_floating_point() and t.dim() > 1


def _short(value: Any) -> Any:
    """The last valid token of every row is taken for padding."""
    import torch

    value = value.clone().long()
    last = value.shape[-1] - 1 - torch.argmax((value != 0).long().flip(-1), -1, keepdim=True)
    return value.scatter(-1, last, 0)


def inputs(
    words: str, change: Callable[[str, Any], Any], target: Target, names: tuple[str, ...] = ()
) -> Planted | None:
    """Tensors that the model is given are changed on their way in, by name: what a wrapper gets wrong."""
    import inspect

    import torch

    if not target.named:
        return None
    module = target.module
    entry = "forward"
    parameters = list(inspect.signature(module.forward).parameters.values())
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if names and not any(word in name for word in names for name in named):
        return None

    def around(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        given = {**dict(zip(named, args, strict=False)), **kwargs}
        rest = args[len(named) :]
        for name, value in given.items():
            if names and not any(word in name for word in names):
                continue
            if torch.is_tensor(value):
                given[name] = change(name, value)
            elif type(value) in (list, tuple) and value and all(torch.is_tensor(v) for v in value):
                given[name] = type(value)(change(name, v) for v in value)
        return original(*rest, **given)

    changes = []
    for method in (entry, "encode", "decode") if target.kind == "vae" else (entry,):
        original = getattr(module, method, None)
        if callable(original):
            wrapper = functools.wraps(original)(functools.partial(_method(around, method), original))
            changes.append((module, method, wrapper))
    return Planted(words, attributes(changes), [""])


def _method(around: Callable[..., Any], method: str) -> Callable[..., Any]:
    """`encode(x)` and `decode(z)` of a VAE are given their tensor by place: their own first name stands for it."""
    if method == "forward":
        return around

    def other(original: Callable[..., Any], x: Any, *args: Any, **kwargs: Any) -> Any:
        return around(lambda **given: original(next(iter(given.values())), *args, **kwargs), x)

    return other


def given_time(kind: str, target: Target) -> Planted | None:
    """The timestep that the model is given."""
    change: dict[str, Callable[[Any], Any]] = {
        "rounded down": lambda t: t.floor() if t.is_floating_point() else t,
        "in bf16": lambda t: rounded(t) if t.is_floating_point() else t,
        "over 1000": lambda t: t / 1000,
        "of the first row": lambda t: t[:1].expand_as(t).clone() if t.dim() else t,
        "reversed": lambda t: 1000 - t,
    }
    return inputs(f"timestep {kind}", lambda name, t: change[kind](t), target, names=("timestep", "sigma"))
