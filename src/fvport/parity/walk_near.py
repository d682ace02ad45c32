# SPDX-License-Identifier: Apache-2.0
"""Is one native tensor the official one, within its floor: what every stage of a walk asks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from fvport.parity import compare
from fvport.parity.walk_floors import Floors

TABLE_ULP = 8  # of the largest entry: numpy and torch round a linspace differently


@dataclass
class Finding:
    """What became of one stage."""

    stage: str
    ok: bool
    reason: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)
    tolerance: dict[str, Any] = field(default_factory=dict)


def near(name: str, a: Any, b: Any, floors: Floors, label: str = "") -> Finding:
    """Is native `b` the official `a`, within the floor of `name`?"""
    label = label or name
    b, problem = aligned(a, b)
    if problem:
        return Finding("", False, f"{label} {problem}")
    for side, tensor in (("official", a), ("native", b)):
        if not bool(tensor.isfinite().all()):
            return Finding("", False, f"{label}: the {side} side has values that are not finite")
    floor = floors.values.get(name)
    if floor is None:
        return Finding("", False, f"{label}: no floor was measured for it")
    if floor["rel_l2"] > compare.MAX_FLOOR:
        size = f"{floor['rel_l2']:.1e}"
        return Finding("", False, f"{label}: the official pipeline differs from itself by {size}: it proves nothing")
    reference = floors.exact.get(name, a)
    reference = reference if reference.shape == a.shape else a
    found = compare.measures(b, reference)
    shares = {m: found[m] / (floors.factor * floor[m]) for m in compare.MEASURES}
    worst = max(shares, key=lambda m: shares[m])
    metrics = {m: as_json(found[m]) for m in compare.MEASURES}
    metrics |= {f"floor_{m}": floor[m] for m in compare.MEASURES}
    metrics |= {
        "max_abs": as_json(float((a.double() - b.double()).abs().max())),
        "budget_use": as_json(round(shares[worst], 4)),
    }
    metrics["floor_from"] = floors.origin
    limits = {"mode": "calibrated", "factor": floors.factor, **{m: floors.factor * floor[m] for m in compare.MEASURES}}
    if shares[worst] <= 1:
        return Finding("", True, "", metrics, limits)
    index = compare.first_worst(b, a)
    reason = f"{label} differ" + ("" if label.endswith("s") else "s")
    reason += f": {worst} {found[worst]:.2e}, {shares[worst]:.3g} times the budget; worst at index {index}"
    return Finding("", False, reason, metrics, limits)


def aligned(a: Any, b: Any) -> tuple[Any, str]:
    """`b` in the shape of `a` where they differ in dimensions of size one only (an image without its time axis)."""
    if a.shape == b.shape:
        return b, ""
    if [n for n in a.shape if n != 1] == [n for n in b.shape if n != 1]:
        return b.reshape(a.shape), ""
    return b, f"has shape {tuple(a.shape)} officially, {tuple(b.shape)} natively"


def use(finding: Finding) -> float:
    return float(finding.metrics.get("budget_use") or 0.0)


def as_json(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
