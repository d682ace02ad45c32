# SPDX-License-Identifier: Apache-2.0
"""What a fault of the catalogue is, and what all of them plant with: values, functions and calls, and taken back.

A fault is mined from a class of real bugs (`like`). `plant(target)` gives what it did in words, a context that does it
and undoes it, and the modules that it is in; None where this model has nothing to plant it in.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

QUERY = ("to_q", "q_proj", "q", "query", "wq", "q_lin")
KEY = ("to_k", "k_proj", "k", "key", "wk", "k_lin")
VALUE = ("to_v", "v_proj", "v", "value", "wv", "v_lin")
OUT = ("to_out", "out_proj", "o_proj", "o", "proj", "wo", "dense", "out_lin")
FUSED = ("to_qkv", "qkv", "qkv_proj", "in_proj", "c_attn")
GATE = ("gate_proj", "wi_0", "w1", "gate")
UP = ("up_proj", "wi_1", "w3", "up")
GATE_UP = ("gate_up_proj", "wi", "w13", "gate_up")


@dataclass
class Planted:
    """`expected`: the modules whose own computation is wrong now (filled while it runs, for a patched function)."""

    words: str
    context: Any
    expected: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Fault:
    """`group`: weights | numerics | masks | selection | layout | scheduler | vae; `reveal`: which input shows it."""

    id: str
    group: str
    title: str
    like: str
    plant: Callable[[Target], Planted | None]
    reveal: str = ""
    kinds: tuple[str, ...] = ()  # component kinds that it is for; empty: all


@dataclass
class Target:
    """One loaded native component. Lists are in order of registration."""

    module: Any
    kind: str = "dit"

    @functools.cached_property
    def named(self) -> dict[str, Any]:
        found = getattr(self.module, "named_modules", None)
        return dict(found()) if found else {}

    @functools.cached_property
    def names(self) -> dict[int, str]:
        return {id(module): name for name, module in self.named.items()}

    def last(self, words: tuple[str, ...]) -> list[str]:
        """Modules with a weight whose last name is one of these (`to_out.0` counts as `to_out`)."""
        return [n for n, m in self.named.items() if _last(n) in words and _weight(m) is not None]

    @functools.cached_property
    def attentions(self) -> list[tuple[str, list[tuple[Any, int]]]]:
        """[(attention's name, [q, k, v])], each a (parameter, first row) of its weight: fused or apart."""
        found: list[tuple[str, list[tuple[Any, int]]]] = []
        for name, module in self.named.items():
            weight = _weight(module)
            if weight is not None and _last(name) in FUSED and weight.shape[0] % 3 == 0:
                rows = weight.shape[0] // 3
                found.append((name, [(weight, 0), (weight, rows), (weight, 2 * rows)]))
                continue
            children = dict(module.named_children())
            parts = [next((children[w] for w in words if w in children), None) for words in (QUERY, KEY, VALUE)]
            weights = [_weight(part) for part in parts if part is not None]
            if len(weights) == 3 and all(w is not None and w.shape == weights[0].shape for w in weights):
                found.append((name, [(w, 0) for w in weights]))
        return found

    @functools.cached_property
    def layers(self) -> list[list[tuple[str, Any]]]:
        """The longest series of modules of one class in a list: the model's blocks, as one list for each series."""
        import torch

        series = []
        for name, module in self.named.items():
            if isinstance(module, torch.nn.ModuleList) and len(module) > 1:
                series.append([(f"{name}.{i}", m) for i, m in enumerate(module)])
        return sorted(series, key=len, reverse=True)

    @functools.cached_property
    def norms(self) -> list[tuple[str, Any]]:
        return [(n, m) for n, m in self.named.items() if "norm" in type(m).__name__.lower() and not list(m.children())]

    @functools.cached_property
    def matrices(self) -> list[tuple[str, Any]]:
        """(module's name, weight) of every matrix or kernel that is no embedding."""
        found = [(n, _weight(m)) for n, m in self.named.items()]
        return [(n, w) for n, w in found if w is not None and w.dim() > 1 and "embedding" not in _class(self.named[n])]

    @functools.cached_property
    def parameters(self) -> list[tuple[str, Any]]:
        return [(n, p) for n, p in self.module.named_parameters() if p.is_floating_point()] if self.named else []


def _class(module: Any) -> str:
    return type(module).__name__.lower()


def _last(name: str) -> str:
    last = name.rpartition(".")[2]
    return name.split(".")[-2] if last.isdigit() and "." in name else last


def _weight(module: Any) -> Any:
    weight = getattr(module, "_parameters", {}).get("weight")
    return weight if weight is not None and weight.is_floating_point() else None


def at(items: list[Any], where: str) -> Any:
    """The first, middle or last of a list; None of an empty one. Middle and last need as many."""
    index = {"first": 0, "middle": len(items) // 2, "last": len(items) - 1}[where]
    wanted = {"first": 1, "middle": 3, "last": 2}[where]
    return items[index] if len(items) >= wanted else None


def owner(target: Target, parameter: Any) -> str:
    """The module that holds a parameter."""
    names: Iterator[str] = (n for n, p in target.module.named_parameters() if p is parameter)
    return next(names).rpartition(".")[0]


def changed(target: Target, words: str, pairs: list[tuple[Any, Any]]) -> Planted | None:
    """Other values for parameters; None where they would be the same."""
    pairs = [(p, v) for p, v in pairs if v.shape == p.shape and not bool(v.eq(p).all())]
    if not pairs:
        return None
    return Planted(words, values(pairs), list(dict.fromkeys(owner(target, p) for p, _ in pairs)))


@contextlib.contextmanager
def values(pairs: list[tuple[Any, Any]]) -> Iterator[None]:
    """Parameters with other values, and with their own ones afterwards."""
    import torch

    kept = [parameter.detach().clone() for parameter, _ in pairs]
    try:
        with torch.no_grad():
            for parameter, value in pairs:
                parameter.data.copy_(value)
        yield
    finally:
        with torch.no_grad():
            for (parameter, _), value in zip(pairs, kept, strict=True):
                parameter.data.copy_(value)


@contextlib.contextmanager
def attributes(changes: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """Attributes of objects with other values: (object, name, value)."""
    missing = object()
    kept = [vars(owner).get(name, missing) for owner, name, _ in changes]
    try:
        for holder, name, value in changes:
            vars(holder)[name] = value
        yield
    finally:
        for (holder, name, _), value in reversed(list(zip(changes, kept, strict=True))):
            if value is missing:
                vars(holder).pop(name, None)
            else:
                vars(holder)[name] = value


def wrapped(module: Any, around: Callable[..., Any]) -> tuple[Any, str, Any]:
    """`forward` of one object replaced by `around(original, *args, **kwargs)`, as an entry for `attributes`."""
    original = module.forward
    return module, "forward", functools.wraps(original)(functools.partial(around, original))


def hooked(target: Target, words: str, names: list[str], around: Callable[..., Any]) -> Planted | None:
    """`around(original, *args, **kwargs)` in place of the forward of these modules."""
    names = [name for name in names if name in target.named]
    if not names:
        return None
    return Planted(words, attributes([wrapped(target.named[name], around) for name in names]), names)


@contextlib.contextmanager
def functions(changes: list[tuple[Any, str, Callable[..., Any]]], target: Target, seen: list[str]) -> Iterator[None]:
    """Functions of modules replaced: (namespace, name, around(original, ...)). Who calls them is put into `seen`."""
    kept = [(holder, name, getattr(holder, name)) for holder, name, _ in changes]

    def make(original: Any, around: Any) -> Any:
        @functools.wraps(original)
        def other(*args: Any, **kwargs: Any) -> Any:
            name = _caller(target)
            if name is not None and name not in seen:
                seen.append(name)
            return around(original, *args, **kwargs)

        return other

    try:
        for (holder, name, original), (_, _, around) in zip(kept, changes, strict=True):
            setattr(holder, name, make(original, around))
        yield
    finally:
        for holder, name, original in reversed(kept):
            setattr(holder, name, original)


def patched(target: Target, words: str, changes: list[tuple[Any, str, Callable[..., Any]]]) -> Planted | None:
    if not changes:
        return None
    seen: list[str] = []
    return Planted(words, functions(changes, target, seen), seen)


def _caller(target: Target) -> str | None:
    """The innermost submodule on the stack: whose computation this call belongs to."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        name = target.names.get(id(frame.f_locals.get("self"))) if "self" in frame.f_locals else None
        if name is not None:
            return name
        frame = frame.f_back
    return None


def on_outputs(value: Any, change: Callable[[Any], Any]) -> Any:
    """`change` on every floating tensor of an output."""
    import torch

    if torch.is_tensor(value):
        return change(value) if value.is_floating_point() else value
    if type(value) in (tuple, list):
        return type(value)(on_outputs(item, change) for item in value)
    if isinstance(value, dict):
        for key in list(value):
            value[key] = on_outputs(value[key], change)
    return value


def after(change: Callable[[Any], Any]) -> Callable[..., Any]:
    """An `around` that changes what comes out."""
    return lambda original, *args, **kwargs: on_outputs(original(*args, **kwargs), change)


def rounded(tensor: Any, kind: str = "bfloat16") -> Any:
    import torch

    return tensor.to(getattr(torch, kind)).to(tensor.dtype)
