# SPDX-License-Identifier: Apache-2.0
"""Hooks on every submodule of a model: what goes in and out of each, and the same with official values put in.

The oracle's process loads this file by its path (`probe` beside it): standard library and torch only.

    Recorder   statistics and sketches of the first and the last call of each module; exact tensors into a file, where
               they are asked for and fit
    Forced     each module is given another record's inputs, its own outputs are measured against that record's outputs
               and then replaced by them. So an error can neither come in nor go out: what is measured is the module's
               own computation, without its predecessors' and without its submodules'.

Both leave the model as it was: every hook is removed again, whatever happens.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

probe: Any = sys.modules.get("_fvport_probe") or __import__("fvport.parity.probe", fromlist=["probe"])

NEAR = 0.1  # relative L2: an input nearer than this is the same thing, and is replaced by the official one
CALLS = 6  # calls of one module that are kept exactly; statistics are of the first and the last
Matched = list[tuple[str, Any, Any]]  # label, own tensor, the other side's


def bound(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments by the names of `forward`'s parameters."""
    try:
        found = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
    except (TypeError, ValueError):
        found = {**{str(i): a for i, a in enumerate(args)}, **kwargs}
    flat: dict[str, Any] = {}
    for key, value in found.items():
        if isinstance(value, dict) and key in ("kwargs", "kw"):
            flat |= value
        else:
            flat[key] = value
    return flat


def inputs_of(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[str, Any]]:
    return [pair for key, value in bound(module, args, kwargs).items() for pair in probe.flatten(value, key)]


class _Hooks:
    """Pre and post hooks on every submodule; `with` removes them."""

    def __init__(self, root: Any, names: set[str] | None = None) -> None:
        self.root, self.names = root, names
        self.calls: dict[str, int] = {}
        self.open: dict[str, list[int]] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> Any:
        try:
            for name, module in self.root.named_modules():
                if self.names is None or name in self.names:
                    self._attach(name, module)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _attach(self, name: str, module: Any) -> None:
        def pre(module: Any, args: Any, kwargs: Any) -> Any:
            call = self.calls.get(name, 0)
            self.calls[name] = call + 1
            self.open.setdefault(name, []).append(call)
            return self.before(name, call, module, args, kwargs)

        def post(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
            stack = self.open.get(name)
            return self.after(name, stack.pop(), module, output) if stack else None

        self._handles.append(module.register_forward_pre_hook(pre, with_kwargs=True))
        self._handles.append(module.register_forward_hook(post, with_kwargs=True))

    def before(self, name: str, call: int, module: Any, args: Any, kwargs: Any) -> Any:
        return None

    def after(self, name: str, call: int, module: Any, output: Any) -> Any:
        return None


class Recorder(_Hooks):
    """`modules[name]`: {calls, first: {in: [[label, summary]], out: ...}, last}; sketches and tensors in `store`.

    `exact`: whether a tensor of this module is kept whole ("all", or a set of names); `limit`: bytes for all of them.
    """

    def __init__(
        self,
        root: Any,
        store: Any,
        exact: Any = (),
        limit: int = 0,
        names: set[str] | None = None,
        sketches: bool = True,
    ) -> None:
        super().__init__(root, names)
        self.store, self.exact, self.limit, self.sketches = store, exact, limit, sketches
        self.modules: dict[str, dict[str, Any]] = {}
        self.order: list[list[Any]] = []  # [name, call] as they end
        self.used = 0
        self.full = False  # the limit was reached: some exact tensors are missing
        self.marks = probe.Marks()
        self._seen: dict[int, tuple[Any, int, Any]] = {}

    def finish(self) -> None:
        """Write the sketches: one for each boundary, however often it was crossed."""
        for key, marks in self.marks.items():
            self.store.put(key, marks)
        self.store.close()

    def before(self, name: str, call: int, module: Any, args: Any, kwargs: Any) -> Any:
        self._note(name, call, "in", inputs_of(module, args, kwargs))

    def after(self, name: str, call: int, module: Any, output: Any) -> Any:
        self._note(name, call, "out", probe.flatten(output, "out"))
        if call == 0:
            self.modules[name] = self.modules.pop(name)  # in order of ending, as FastVideo's trace is
        self.order.append([name, call])

    def _note(self, name: str, call: int, side: str, tensors: list[tuple[str, Any]]) -> None:
        entry = self.modules.setdefault(name, {"calls": 0, "first": {}, "last": {}})
        entry["calls"] = max(entry["calls"], call + 1)
        rows = []
        for label, tensor in tensors:
            about, row = self._measured(tensor)
            rows.append([label, about])
            for which in ("first", "last") if call == 0 else ("last",):
                if row is not None:
                    self.marks.rows[f"sketch/{name}/{which}/{side}/{label}"] = row
            self._keep(name, call, side, label, tensor)
        entry["last"][side] = rows
        if call == 0:
            entry["first"][side] = rows

    def _measured(self, tensor: Any) -> tuple[Any, Any]:
        """Summary and row of the sketch; one module's output is the next one's input, and is measured once."""
        import weakref

        old = self._seen.get(id(tensor))
        if old is not None and old[0]() is tensor and old[1] == tensor._version:
            known: tuple[Any, Any] = old[2]
            return known
        number = tensor.is_floating_point() or tensor.is_complex()
        found = (probe.summary(tensor), self.marks.add(probe.sketch(tensor)) if number and self.sketches else None)
        self._seen[id(tensor)] = (weakref.ref(tensor), tensor._version, found)
        return found

    def _keep(self, name: str, call: int, side: str, label: str, tensor: Any) -> None:
        if call >= CALLS or not (self.exact == "all" or name in self.exact):
            return
        size = tensor.numel() * tensor.element_size()
        if self.used + size > self.limit:
            self.full = True
            return
        self.used += size
        self.store.put(f"exact/{name}/{call}/{side}/{label}", tensor)


class Forced(_Hooks):
    """`partners(name)` names the other record's modules whose outputs, joined, are this one's (usually one).

    An input further off than `NEAR` is left as it is, but in the modules of `wide`: the two sides may write it in two
    ways (complex numbers, or sines and cosines); if it is wrong, the output is too. A sum that is handed on as two
    tensors (a stream and its residual) is compared as the sum, and its first part replaced.

    `results[(name, call)]` = {"inputs": [[label, measures]], "output": measures or None, "began", "ended"}.
    `keep`: names whose arguments are kept (`kept[name]`), with the other record's values in them.
    """

    def __init__(
        self,
        root: Any,
        store: Any,
        partners: Callable[[str], tuple[str, ...]],
        names: set[str],
        keep: set[str] | None = None,
        wide: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(root, names)
        self.store, self.partners, self.keep, self.wide = store, partners, keep or set(), wide
        self.clock = 0
        self.results: dict[tuple[str, int], dict[str, Any]] = {}
        self.kept: dict[str, tuple[Any, Any, Any]] = {}
        self.index: dict[str, list[tuple[str, str]]] = {}  # name/call/side -> [(label, key)]
        for key in store.index:
            if key.startswith("exact/"):
                place, _, label = key[6:].rpartition("/")
                self.index.setdefault(place, []).append((label, key))

    def others(self, name: str, call: int, side: str) -> list[tuple[str, Any]]:
        """The other record's tensors, joined along the last dimension where several modules make one output."""
        import torch

        lists = [self.index.get(f"{partner}/{call}/{side}", []) for partner in self.partners(name)]
        if not lists or not all(lists):
            return []
        if len(lists) == 1 or side == "in":
            return [(label, self.store.get(key)) for label, key in lists[0]]
        return [("out", torch.cat([self.store.get(found[0][1]) for found in lists], dim=-1))]

    def before(self, name: str, call: int, module: Any, args: Any, kwargs: Any) -> Any:
        self.clock += 1
        result = self.results[name, call] = {"inputs": [], "output": None, "unmatched": [], "began": self.clock}
        others = self.others(name, call, "in")
        if not others:
            return None
        own = inputs_of(module, args, kwargs)
        matched, missing = match(own, others)
        result["unmatched"] = missing
        result["resized"] = _resized([(label, t) for label, t in own if label in missing], others, matched)
        swap: dict[int, Any] = {}
        for label, tensor, other in matched:
            if not tensor.is_floating_point():
                differs = bool((tensor != other.to(tensor)).any())
                result["inputs"].append([label, dict.fromkeys(probe.MEASURES, float(differs))])
                if differs and name in self.wide:  # ids, indices, masks: never near
                    swap[id(tensor)] = other.to(tensor)
                continue
            rest = _rest(tensor, own, other)
            found = _measure(_sum(tensor, rest), other)
            result["inputs"].append([label, found])
            if found["rel_l2"] <= NEAR or name in self.wide:
                swap[id(tensor)] = _part(other, rest, tensor)
        args, kwargs = probe.replace(args, swap), probe.replace(dict(kwargs), swap)
        if name in self.keep and name not in self.kept:
            self.kept[name] = (args, kwargs, self.others(name, call, "out"))
        return args, kwargs

    def after(self, name: str, call: int, module: Any, output: Any) -> Any:
        others = self.others(name, call, "out")
        self.clock += 1
        result = self.results[name, call]
        result["ended"] = self.clock
        every = probe.flatten(output, "out")
        matched, _ = match(every, others)
        if not matched:
            result["output"] = None
            return None
        rests = [_rest(own, every, other) for _, own, other in matched]
        found = [
            (label, _measure(_sum(own, rest), other)) for (label, own, other), rest in zip(matched, rests, strict=True)
        ]
        result["output"] = {m: max(f[m] for _, f in found) for m in probe.MEASURES}
        result["shapes"] = [[label, list(own.shape), list(other.shape)] for label, own, other in matched]
        result["ratio"] = _ratio(_sum(matched[0][1], rests[0]), matched[0][2])
        result["dtype"] = str(matched[0][1].dtype)
        swap = {id(own): _part(other, rest, own) for (_, own, other), rest in zip(matched, rests, strict=True)}
        return probe.replace(output, swap)


def _rest(own: Any, every: list[tuple[str, Any]], other: Any) -> Any:
    """Of a module's other tensors the one that makes `own` the other side's when it is added; None for none."""
    if not own.is_floating_point() or (far := _far(own, other)) <= NEAR:
        return None
    rest = [t for _, t in every if t is not own and t.shape == own.shape and t.is_floating_point()]
    return next((t for t in rest if _far(own + t, other) <= min(NEAR, far)), None)


def _sum(own: Any, rest: Any) -> Any:
    return own if rest is None else own + rest


def _part(other: Any, rest: Any, own: Any) -> Any:
    """What takes the place of `own`, so that with `rest` it is the other side's."""
    other = other.to(own.device, own.dtype)
    return other if rest is None else other - rest


def _measure(own: Any, other: Any) -> dict[str, float]:
    import math

    found = probe.measures(own, other)
    return {m: (v if math.isfinite(v) else 1e9) for m, v in found.items()}


def _ratio(own: Any, other: Any) -> float:
    """Norm of the own output over the norm of the other's."""
    a, b = probe.real(own), probe.real(other)
    return float(a.norm()) / (float(b.norm()) or 1.0)


def match(own: list[tuple[str, Any]], others: list[tuple[str, Any]]) -> tuple[Matched, list[str]]:
    """Which of the other side's tensors is which of ours: by elements and, where several fit, by nearness, then label.

    A tensor of another order of dimensions is turned to ours. Labels of ours without a partner come second.
    """
    left = list(others)
    matched: Matched = []
    missing = []
    for label, tensor in own:
        fits = [(i, turned) for i, (_, other) in enumerate(left) if (turned := _as(other, tensor)) is not None]
        if not fits:
            missing.append(label)
            continue
        if len(fits) > 1:
            same = [fit for fit in fits if left[fit[0]][0] == label]
            fits = sorted(fits, key=lambda fit: _far(tensor, fit[1]) - (1e-9 if fit in same else 0.0))
            if same and _far(tensor, fits[0][1]) > NEAR:  # nothing is near: a wrong value still has its name
                fits = same
        index, turned = fits[0]
        matched.append((label, tensor, turned))
        left.pop(index)
    return matched, missing


def _resized(missing: list[tuple[str, Any]], others: list[tuple[str, Any]], matched: Matched) -> list[Any]:
    """[label, own shape, the other's] of tensors without a partner, where one dimension alone has another size.

    One of size 1 that is not the first is no other size: a mask that is the same for every head is written so.
    """
    taken = [other.data_ptr() for _, _, other in matched]
    left = [list(other.shape) for _, other in others if other.data_ptr() not in taken]
    found = []
    for label, tensor in missing:
        own = list(tensor.shape)
        near = [shape for shape in left if _one_apart(own, shape)]
        found += [[label, own, near[0]]] if near else []
    return found


def _one_apart(own: list[int], other: list[int]) -> bool:
    apart = [i for i, (a, b) in enumerate(zip(own, other, strict=False)) if a != b]
    return len(own) == len(other) and len(apart) == 1 and (not apart[0] or 1 not in (own[apart[0]], other[apart[0]]))


def _far(a: Any, b: Any) -> float:
    return probe.measures(a, b)["rel_l2"] if a.is_floating_point() else float((a != b.to(a)).double().mean())


def _as(other: Any, own: Any) -> Any:
    """`other` in the shape of `own`: as it is, without dimensions of one, flattened alike, or dimensions turned."""
    import itertools

    if other.numel() != own.numel() or other.is_floating_point() != own.is_floating_point() or not own.numel():
        return None
    if other.shape == own.shape:
        return other
    if [n for n in other.shape if n != 1] == [n for n in own.shape if n != 1]:
        return other.reshape(own.shape)
    if not own.is_floating_point() or own.numel() > 1 << 24 or other.dim() > 5:
        return other.reshape(own.shape) if _regrouped(other.shape, own.shape) else None
    flat = [other.reshape(own.shape)] if _regrouped(other.shape, own.shape) else []
    for order in itertools.permutations(range(other.dim())):
        turned = other.permute(order)
        if turned.shape == own.shape or _regrouped(turned.shape, own.shape):
            flat.append(turned.reshape(own.shape))
    return min(flat, key=lambda t: _far(own, t)) if flat else None


def _regrouped(a: Any, b: Any) -> bool:
    """One shape is the other with neighbouring dimensions joined."""
    short, long = sorted(([n for n in a if n != 1], [n for n in b if n != 1]), key=len)
    at = 0
    for size in short:
        product = 1
        while at < len(long) and product < size:
            product *= long[at]
            at += 1
        if product != size:
            return False
    return at == len(long)


def about(root: Any) -> dict[str, dict[str, Any]]:
    """{name: {class, file, line, params, attributes}} of every submodule, in order of registration.

    `tied`: own parameters that an earlier module holds too, under that one's name.
    """
    found = {}
    first: dict[int, str] = {}
    for name, module in root.named_modules():
        cls = type(module)
        file, line = place(cls)
        plain = {k: v for k, v in vars(module).items() if isinstance(v, (bool, int, float, str)) and k[0] != "_"}
        params = {k: list(p.shape) for k, p in module.named_parameters(recurse=False)}
        found[name] = {"class": cls.__name__, "file": file, "line": line, "params": params, "attributes": plain}
        own = {k: (f"{name}.{k}".lstrip("."), p) for k, p in module.named_parameters(recurse=False)}
        found[name]["tied"] = {k: first[id(p)] for k, (full, p) in own.items() if first.setdefault(id(p), full) != full}
        found[name]["children"] = [child for child, _ in module.named_children()]
    return found


def place(cls: type) -> tuple[str, int]:
    """File and line of a class's `forward`; the file from its package on."""
    try:
        forward = inspect.unwrap(cls.forward)  # type: ignore[attr-defined]
        file = Path(inspect.getsourcefile(forward) or "")
        line = inspect.getsourcelines(forward)[1]
    except Exception:  # noqa: BLE001 - a class without source (built in C, made at run time) has no place
        return "", 0
    parts = file.parts
    if "site-packages" in parts:
        return "/".join(parts[parts.index("site-packages") + 1 :]), line
    return str(file), line


def root_of(built: Any) -> Any:
    """The model in what `build_NAME` returned: itself, or the only module it holds; None where there is none."""
    import torch

    if isinstance(built, torch.nn.Module):
        return built
    held = built.values() if isinstance(built, dict) else built if isinstance(built, (tuple, list)) else ()
    held = held or (vars(built).values() if hasattr(built, "__dict__") else ())
    modules = [item for item in held if isinstance(item, torch.nn.Module)]
    return max(modules, key=lambda m: sum(p.numel() for p in m.parameters())) if modules else None
