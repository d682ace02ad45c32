# SPDX-License-Identifier: Apache-2.0
"""What a measure found: one value a frame, the worst one kept: one wrong frame in a hundred is a wrong video."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class Series:
    """Values in order; `better` says which end is the worst one. `unit`: what a value belongs to (frame, second)."""

    values: list[float] = field(default_factory=list)
    better: str = "higher"
    name: str = "ssim"
    definition: str = ""
    unit: str = "frame"
    whole: float | None = None  # the figure of the whole, where it is not the mean of its parts

    @property
    def mean(self) -> float:
        return self.whole if self.whole is not None else sum(self.values) / len(self.values)

    @property
    def worst(self) -> float:
        """A value that is no number is the worst there is."""
        if any(math.isnan(value) for value in self.values):
            return math.nan
        return min(self.values) if self.better == "higher" else max(self.values)

    @property
    def worst_frame(self) -> int:
        """Number of the worst frame (or second) from 0; the first of equals."""
        lost = [i for i, value in enumerate(self.values) if math.isnan(value)]
        return lost[0] if lost else self.values.index(self.worst)

    def keeps(self, limit: float) -> bool:
        """Whether even the worst value keeps the limit. Never true for what is not a number."""
        return self.worst >= limit if self.better == "higher" else self.worst <= limit

    def to_json(self, values: bool = True) -> dict[str, object]:
        """Figures and their definition; None for what is not finite (JSON has no word for it)."""
        plain = {"mean": _plain(self.mean), "worst": _plain(self.worst), f"worst_{self.unit}": self.worst_frame}
        more = {"values": [_plain(value) for value in self.values]} if values else {}
        counted = {f"{self.unit}s": len(self.values)}
        return {**plain, **counted, "better": self.better, "definition": self.definition, **more}


def _plain(value: float) -> float | None:
    return float(f"{value:.9g}") if math.isfinite(value) else None
