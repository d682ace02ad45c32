# SPDX-License-Identifier: Apache-2.0
"""Is the native output the official one? Judged by the official model's own rounding error, in four measures at once.

The official model in float32 errs against itself in float64: that error is the floor. The native side in float32 may
err against the same float64 reference by at most `factor` times the floor in every measure, never in one of them:

    rel_l2  |a - b| / |b|                       the whole output
    worst   max |a - b| / rms(b)                one bad element
    angle   | a/|a| - b/|b| |                   direction (the square root of twice the cosine distance)
    drift   |mean(a - b)| / rms(b)              a bias

Lower bounds. A floor may be zero by luck (a pure copy, few elements), so each has a lower bound of a few float32 ulp,
and the floors of `worst` and `drift` are not taken below what a `rel_l2` of that size makes in an output of n elements:
sqrt(2 ln n) standard deviations for the largest of n, and two standard errors for the mean. A floor measured on few
elements is itself uncertain: it is taken 1 + 2/sqrt(n) times (1.7 for 8 elements, 1.03 for 4096).

Where float64 cannot run, the floor is the official model's answer to one-ulp noise on its weights and inputs, and the
reference is its float32 output (`oracle_runner.py`); the figures then say `floor_from: "noise"`.

Integers and booleans are equal or not. Names, shapes, dtypes and containers must agree. Non-finite or constant outputs
prove nothing and fail.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from fvport.parity.probe import MEASURES, measures, real
from fvport.spec import Tolerance

__all__ = ["MEASURES", "Outputs", "Result", "compare_output", "compare_outputs", "first_worst", "measures", "series"]

EPS = 2.0**-23  # one float32 ulp at 1.0
LOWER = {"rel_l2": EPS, "worst": 4 * EPS, "angle": EPS, "drift": EPS}  # floors are never taken below these
MAX_FLOOR = 1e-3  # a float32 model that differs more than this from itself can prove nothing
LOOSE = 100.0  # a fixed tolerance above this many floors needs a written reason
CLASSIC = 1e-4  # the figure that people know; always shown, never decides


@dataclass
class Result:
    """What became of one output of one case. `ok` decides; `problem` is empty or one sentence."""

    output: str
    ok: bool
    problem: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)
    tolerance: dict[str, Any] = field(default_factory=dict)

    @property
    def use(self) -> float:
        """How much of the budget is used, worst measure: above 1 is over it."""
        return float(self.metrics.get("budget_use", 0.0 if self.ok else math.inf))


def compare_outputs(official: Outputs, native: Outputs, tolerance: Tolerance) -> list[Result]:
    """One result per output name of either side. Nothing on both sides is one failed result: it compared nothing."""
    if not official.tensors and not native.tensors:
        return [Result("outputs", False, "neither side returned anything to compare")]
    results = []
    for name in list(dict.fromkeys([*official.tensors, *native.tensors])):
        if name not in native.tensors:
            results.append(Result(name, False, f"the native side returned no {name} (it has {_names(native)})"))
        elif name not in official.tensors:
            results.append(Result(name, False, f"the official side returned no {name} (it has {_names(official)})"))
        else:
            results.append(compare_output(name, official, native, tolerance))
    return results


@dataclass
class Outputs:
    """One side's outputs of one case: tensors by name; on the official side the float64 or noisy ones too."""

    tensors: dict[str, Any]
    containers: dict[str, str] = field(default_factory=dict)
    exact: dict[str, Any] = field(default_factory=dict)  # official in float64
    noisy: dict[str, Any] = field(default_factory=dict)  # official under one-ulp noise, where float64 cannot run
    no_float64: str = ""  # why not


def compare_output(name: str, official: Outputs, native: Outputs, tolerance: Tolerance) -> Result:
    """Compare one output. Never raises for what a model returned."""
    a, b = native.tensors[name], official.tensors[name]
    problem = _form(name, a, b, native.containers.get(name), official.containers.get(name))
    if problem:
        return Result(name, False, problem)
    if not (b.is_floating_point() or b.is_complex()):
        return _exact(name, a, b)
    problem = _sense(a, b)
    if problem:
        return Result(name, False, problem)
    reference = b if name in official.noisy else official.exact.get(name, b)
    floor = _floor(official, name, b)
    if floor is None:
        why = official.no_float64 or "the float64 run lacks it"
        return Result(name, False, f"there is no floor for {name} ({why})")
    floors, origin = floor
    found = measures(a, reference)
    budget = _budget(floors, tolerance)
    metrics = {
        **{f"{m}": found[m] for m in MEASURES},
        **{f"floor_{m}": floors[m] for m in MEASURES},
        "floor_from": origin,
        "max_abs": _max_abs(a, b),
        "within_1e-4": _classic(a, b),
        "elements": int(b.numel()),
    }
    if tolerance.mode == "fixed":
        return _fixed(name, a, b, tolerance, floors, metrics)
    if floors["rel_l2"] > MAX_FLOOR:
        problem = f"the official model differs from itself by {floors['rel_l2']:.1e} in float32: it proves nothing"
        return Result(name, False, problem, metrics)
    uses = {m: found[m] / budget[m] for m in MEASURES}
    worst = max(uses, key=lambda m: uses[m])
    metrics["budget_use"] = round(uses[worst], 4)
    limits = {"mode": "calibrated", "factor": tolerance.factor, **budget}
    if uses[worst] <= 1:
        return Result(name, True, "", metrics, limits)
    metrics["first_worst_index"] = first_worst(a, reference)
    problem = (
        f"{worst} is {found[worst]:.2e}, {uses[worst]:.3g} times its budget of {budget[worst]:.2e} "
        f"({tolerance.factor:g} x floor {floors[worst]:.2e}); worst at index {metrics['first_worst_index']}"
    )
    return Result(name, False, problem, metrics, limits)


def series(output: str) -> tuple[str, int | None]:
    """`hidden_states.03` or `hidden_states/003` is (`hidden_states`, 3): one of a series; else (the name, None)."""
    found = re.fullmatch(r"(.+)[./](\d+)", output)
    return (found[1], int(found[2])) if found else (output, None)


def first_worst(a: Any, b: Any) -> list[int]:
    """Index of the first element with the largest difference."""
    import numpy as np  # torch's own unravel_index imports sympy, which takes a second
    import torch

    d = (a.to(b.dtype) if not a.is_complex() else a).sub(b).abs()
    flat = int(torch.argmax(d.double().flatten()))
    return [int(i) for i in np.unravel_index(flat, tuple(d.shape))] if d.dim() else []


def _floor(official: Outputs, name: str, b: Any) -> tuple[dict[str, float], str] | None:
    """({measure: floor}, where it comes from), with the lower bounds of the module's docstring."""
    origin, other = ("noise", official.noisy) if name in official.noisy else ("float64", official.exact)
    if name not in other or tuple(other[name].shape) != tuple(b.shape):
        return None
    raw = measures(other[name], b) if origin == "noise" else measures(b, other[name])
    if not all(math.isfinite(value) for value in raw.values()):
        return None
    n = max(int(b.numel()), 2)
    luck = 1 + 2 / math.sqrt(n)
    floors = {m: max(raw[m] * luck, LOWER[m]) for m in MEASURES}
    floors["worst"] = max(floors["worst"], floors["rel_l2"] * math.sqrt(2 * math.log(n)))
    floors["drift"] = max(floors["drift"], floors["rel_l2"] * 2 / math.sqrt(n))
    return floors, origin


def _budget(floors: dict[str, float], tolerance: Tolerance) -> dict[str, float]:
    return {m: tolerance.factor * floors[m] for m in MEASURES}


def _fixed(
    name: str, a: Any, b: Any, tolerance: Tolerance, floors: dict[str, float], metrics: dict[str, Any]
) -> Result:
    """atol and rtol as asked for; far above the floor only with a reason, and the figure is shown beside it."""
    d, scale = real(a).sub(real(b)).abs(), real(b).abs()
    over = float((d / (tolerance.atol + tolerance.rtol * scale).clamp_min(1e-300)).max())
    rms = float(real(b).norm()) / math.sqrt(max(b.numel(), 1)) or 1.0
    floor_multiple = (tolerance.atol / rms + tolerance.rtol) / floors["worst"]
    metrics |= {"budget_use": round(over, 4), "tolerance_in_floors": round(floor_multiple, 1)}
    limits = {"mode": "fixed", "atol": tolerance.atol, "rtol": tolerance.rtol, "reason": tolerance.reason}
    if floor_multiple > LOOSE and not tolerance.reason.strip():
        problem = f"the fixed tolerance is {floor_multiple:.0f} times the measured floor and has no written reason"
        return Result(name, False, problem, metrics, limits)
    if over <= 1:
        return Result(name, True, "", metrics, limits)
    metrics["first_worst_index"] = first_worst(a, b)
    problem = (
        f"differs by {metrics['max_abs']:.2e}, {over:.3g} times the fixed tolerance (atol {tolerance.atol:g}, rtol "
        f"{tolerance.rtol:g}); worst at index {metrics['first_worst_index']}"
    )
    return Result(name, False, problem, metrics, limits)


def _exact(name: str, a: Any, b: Any) -> Result:
    wrong = (a != b).nonzero()
    metrics: dict[str, Any] = {"different": len(wrong), "elements": int(b.numel()), "budget_use": 0.0}
    limits = {"mode": "exact"}
    if len(wrong) == 0:
        return Result(name, True, "", metrics, limits)
    index = [int(i) for i in wrong[0]]
    metrics |= {"first_worst_index": index, "budget_use": 1e9}
    place = tuple(index)
    problem = (
        f"{len(wrong)} of {b.numel()} values differ, first at index {index}: {a[place].item()}, not {b[place].item()}"
    )
    return Result(name, False, problem, metrics, limits)


def _form(name: str, a: Any, b: Any, container_a: str | None, container_b: str | None) -> str:
    if container_a and container_b and container_a != container_b:
        return f"is {container_a} on the native side, {container_b} on the official one"
    if tuple(a.shape) != tuple(b.shape):
        return f"has shape {tuple(a.shape)} on the native side, {tuple(b.shape)} on the official one"
    if a.dtype != b.dtype:
        return f"is {_dtype(a)} on the native side, {_dtype(b)} on the official one"
    if b.numel() == 0:
        return "is empty: nothing was compared"
    return ""


def _sense(a: Any, b: Any) -> str:
    for side, tensor in (("official", b), ("native", a)):
        finite = tensor.isfinite()
        if not bool(finite.all()):
            index = [int(i) for i in (~finite).nonzero()[0]]
            return f"the {side} output has {int((~finite).sum())} values that are not finite, first at index {index}"
    for side, tensor in (("official", b), ("native", a)):
        if tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all()):
            return f"the {side} output is constant ({tensor.flatten()[0].item():.3g} everywhere): it proves nothing"
    return ""


def _max_abs(a: Any, b: Any) -> float:
    return float(real(a).sub(real(b)).abs().max())


def _classic(a: Any, b: Any) -> bool:
    import torch

    return bool(torch.allclose(real(a), real(b), rtol=CLASSIC, atol=CLASSIC))


def _names(outputs: Outputs) -> str:
    names = list(outputs.tensors)
    return ", ".join(names[:6]) + (" ..." if len(names) > 6 else "") if names else "none"


def _dtype(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")
