# SPDX-License-Identifier: Apache-2.0
"""What the official pipeline differs from itself, tensor by tensor: what a walk may find without a fault."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from fvport.parity import compare

FACTOR = 3.0
Tensors = dict[str, Any]


@dataclass(frozen=True)
class Floors:
    """What the official pipeline differs from itself, by tensor name and measure. `exact`: its float64 run, if any."""

    values: dict[str, dict[str, float]]
    exact: Tensors = field(default_factory=dict)
    origin: str = "noise"
    factor: float = FACTOR

    def for_variation(self) -> Floors:
        """The same sizes for the same call with one argument changed (its float64 values are not those here)."""
        return Floors(self.values, {}, self.origin, self.factor)


def measure_floors(official: Tensors, noisy: Tensors, exact: Tensors | None = None) -> Floors:
    """For each tensor the larger of float64 and rounding noise, never under a few ulp."""
    values = {}
    for name, a in official.items():
        others = [o[name] for o in (noisy, exact or {}) if name in o and o[name].shape == a.shape]
        if not others or not a.is_floating_point():
            continue
        found = [compare.measures(other, a) for other in others]
        floor = {m: max(compare.LOWER[m], *(f[m] for f in found)) for m in compare.MEASURES}
        if all(math.isfinite(value) for value in floor.values()):
            n = max(int(a.numel()), 2)
            floor["worst"] = max(floor["worst"], floor["rel_l2"] * math.sqrt(2 * math.log(n)))
            floor["drift"] = max(floor["drift"], floor["rel_l2"] * 2 / math.sqrt(n))
            values[name] = floor
    return Floors(values, exact or {}, "noise and float64" if exact else "noise")
