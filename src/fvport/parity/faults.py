# SPDX-License-Identifier: Apache-2.0
"""The comparison must go red on a stock fault before its green counts: the self test of every parity run.

Two kinds, each put in and taken out again: a fault in an output (one element off by a thousandth of its rms: the
comparison itself), and faults in the native object, the whole way from the native class to the verdict: two weights of
one shape swapped, one row scaled by one percent; in a scheduler, which has no weights, its schedule and its step one
percent off. A test whose `call` does not use the native object sees none of these and is red.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

from fvport.parity import compare
from fvport.spec import Component

Keep = Callable[[str, str, str, compare.Outputs], None]
TRIES = 6  # weight faults tried until one of each kind was seen; a weight may be unused by the cases


def self_test(
    component: Component,
    module: Any,
    official: Any,
    outputs: dict[str, compare.Outputs],
    rerun: Callable[[str], compare.Outputs],
    keep: Keep = lambda kind, words, case, outputs: None,
) -> dict[str, Any]:
    """`{"seen": bool, "faults": [{"fault", "red", "changed"}], "problem"}`; the module is as before afterwards.

    `keep` is given what the native side answered with each fault in, for the judge.
    """
    tried = [output_fault(component, official, outputs)]
    if _parameters(module):
        for kind in (_swap, _row):
            tried += _weight_faults(kind, component, module, official, outputs, rerun, keep)
    elif faults := [kind for kind in (_schedule, _step) if kind(module, 0) is not None]:
        for kind in faults:
            tried += _weight_faults(kind, component, module, official, outputs, rerun, keep)
    else:
        what = f"no fault can be planted in {type(module).__name__}: it has no weights, no set_timesteps and no step"
        tried.append({"kind": "native", "fault": what, "red": False, "changed": False})
    kinds = list(dict.fromkeys(fault["kind"] for fault in tried))
    unseen = [kind for kind in kinds if not any(fault["red"] for fault in tried if fault["kind"] == kind)]
    missed = [fault["fault"] for fault in tried if fault["kind"] in unseen]
    problem = ""
    if unseen:
        problem = f"a stock fault stayed green, so this comparison proves nothing: {'; '.join(missed[:3])}"
    return {"seen": not unseen, "problem": problem, "faults": tried}


def blind_inputs(
    official: Any, outputs: dict[str, compare.Outputs], rerun: Callable[..., compare.Outputs]
) -> list[str]:
    """Names of input tensors whose change changes no output of any case: what depends on them alone is not compared.

    `rerun(case, change)` runs the native side with `change(name, tensor)` applied to each input tensor.
    """
    seen: dict[str, bool] = {}
    for case, right in outputs.items():
        for key in [k for k in official.tensors["inputs"] if k.startswith(case + "/")]:
            name = key[len(case) + 1 :]
            if seen.get(name):
                continue
            try:
                other = rerun(case, lambda k, tensor, key=key: _other(tensor) if k == key else tensor)
                seen[name] = not equal(other, right)
            except Exception:  # noqa: BLE001 - a value that the model refuses is one that it looks at
                seen[name] = True
    return [name for name, changes in seen.items() if not changes]


def _other(tensor: Any) -> Any:
    """A different tensor of the same kind: a mask flipped, ids rolled, floats scaled and moved."""
    if tensor.is_floating_point() or tensor.is_complex():
        return tensor * 1.25 + 0.25
    if set(tensor.long().unique().tolist()) <= {0, 1}:
        return (1 - tensor.long()).to(tensor.dtype)
    rolled = tensor.roll(1, -1) if tensor.dim() else tensor
    return tensor - tensor.sign() if bool(rolled.eq(tensor).all()) else rolled


def output_fault(component: Component, official: Any, outputs: dict[str, compare.Outputs]) -> dict[str, Any]:
    """One element of the largest output moved by 1e-3 of its rms (an integer by one)."""
    import torch

    case = next(iter(outputs))
    name = max(outputs[case].tensors, key=lambda n: outputs[case].tensors[n].numel())
    tensor = outputs[case].tensors[name].clone()
    flat = tensor.view(-1)
    place = flat.numel() // 2
    if tensor.is_floating_point() or tensor.is_complex():
        rms = float(tensor.abs().double().pow(2).mean().sqrt()) or 1.0
        flat[place] += max(1e-3 * rms, float(abs(flat[place])) * 1e-3)
    elif tensor.dtype == torch.bool:
        flat[place] = ~flat[place]
    else:
        flat[place] = flat[place] + 1
    wrong = compare.Outputs({**outputs[case].tensors, name: tensor}, outputs[case].containers)
    red = not all(r.ok for r in compare.compare_outputs(official.outputs(case), wrong, component.tolerance))
    return {
        "kind": "output",
        "fault": f"one element of {case}/{name} off by 1e-3 of its rms",
        "red": red,
        "changed": True,
    }


def _weight_faults(
    kind: Callable[[Any, int], Any],
    component: Component,
    module: Any,
    official: Any,
    outputs: dict[str, compare.Outputs],
    rerun: Callable[[str], compare.Outputs],
    keep: Keep,
) -> list[dict[str, Any]]:
    """Faults of one kind, until one changed an output: only then can the comparison be asked to see it."""
    tried = []
    for attempt in range(TRIES):
        fault = kind(module, attempt)
        if fault is None:
            break
        words, context = fault
        changed = red = False
        with context:
            for case, right in outputs.items():
                wrong = rerun(case)
                keep(kind.__name__.strip("_"), words, case, wrong)
                changed = changed or not equal(wrong, right)
                rows = compare.compare_outputs(official.outputs(case), wrong, component.tolerance)
                red = red or not all(row.ok for row in rows)
                if red:
                    break
        tried.append({"kind": kind.__name__.strip("_"), "fault": words, "red": red, "changed": changed})
        if red:
            break
    return tried


def _parameters(module: Any) -> list[tuple[str, Any]]:
    named = getattr(module, "named_parameters", None)
    return [(n, p) for n, p in named() if p.is_floating_point() and p.numel() > 1] if named else []


def _spread(items: list[Any], attempt: int) -> Any:
    """Different places for different attempts: middle, first, last, then between."""
    order = [len(items) // 2, 0, len(items) - 1, len(items) // 4, 3 * len(items) // 4, len(items) // 3]
    return items[order[attempt % len(order)]]


def _swap(module: Any, attempt: int) -> tuple[str, Any] | None:
    """Two parameters of one shape and different values, exchanged."""
    shapes: dict[tuple[int, ...], list[tuple[str, Any]]] = {}
    for name, parameter in _parameters(module):
        shapes.setdefault(tuple(parameter.shape), []).append((name, parameter))
    groups = [group for shape, group in shapes.items() if len(group) > 1 and len(shape) > 1]
    groups = groups or [group for group in shapes.values() if len(group) > 1]
    if not groups:
        return None
    group = _spread(groups, attempt)
    (name_a, a), (name_b, b) = group[0], group[-1]
    return f"{name_a} and {name_b} swapped", _values([(a, b.detach().clone()), (b, a.detach().clone())])


def _row(module: Any, attempt: int) -> tuple[str, Any] | None:
    """One row of one parameter (preferably of a matrix) scaled by one percent."""
    matrices = [(n, p) for n, p in _parameters(module) if p.dim() > 1 and "embed" not in n]
    name, parameter = _spread(matrices or _parameters(module), attempt)
    wrong = parameter.detach().clone()
    row = wrong.shape[0] // 2
    wrong[row] = wrong[row] * 1.01 + 0.01
    return f"row {row} of {name} scaled by 1.01", _values([(parameter, wrong)])


def _schedule(module: Any, attempt: int) -> tuple[str, Any] | None:
    """A native scheduler whose tables are one percent off once they are set."""

    def wrong(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        for name, table in vars(module).items():
            if name.strip("_") in ("sigmas", "timesteps") and hasattr(table, "dtype"):
                setattr(module, name, (table * 1.01 + 0.01).astype(table.dtype) if _numpy(table) else _off(table))
        return result

    return _method(module, "set_timesteps", wrong, attempt, "the schedule of the native scheduler 1 % off")


def _numpy(table: Any) -> bool:
    return hasattr(table, "astype")


def _off(table: Any) -> Any:
    return table * 1.01 + 0.01 if table.is_floating_point() else table + 1


def _step(module: Any, attempt: int) -> tuple[str, Any] | None:
    """A native scheduler whose step moves one percent too far."""
    import torch

    def further(value: Any) -> Any:
        return value * 1.01 + 0.01 if torch.is_tensor(value) and value.is_floating_point() else value

    def wrong(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if isinstance(result, tuple):
            return (further(result[0]), *result[1:])
        if hasattr(result, "prev_sample"):
            result.prev_sample = further(result.prev_sample)
            return result
        return further(result)

    return _method(module, "step", wrong, attempt, "the result of the native scheduler's step 1 % off")


def _method(module: Any, name: str, wrong: Any, attempt: int, words: str) -> tuple[str, Any] | None:
    """A method of this one object replaced: a `call` that builds a scheduler of its own never meets it."""
    original = getattr(module, name, None)
    if attempt or not callable(original):
        return None
    return words, _replaced(module, name, functools.wraps(original)(functools.partial(wrong, original)))


@contextlib.contextmanager
def _replaced(module: Any, name: str, method: Any) -> Iterator[None]:
    kept = dict(vars(module))
    setattr(module, name, method)
    try:
        yield
    finally:
        vars(module).clear()
        vars(module).update(kept)


@contextlib.contextmanager
def _values(pairs: list[tuple[Any, Any]]) -> Iterator[None]:
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


def equal(a: compare.Outputs, b: compare.Outputs) -> bool:
    if a.tensors.keys() != b.tensors.keys():
        return False
    return all(t.shape == b.tensors[n].shape and bool(t.eq(b.tensors[n]).all()) for n, t in a.tensors.items())
