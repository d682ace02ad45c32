# SPDX-License-Identifier: Apache-2.0
"""Small pictures as SVG text: a curve over frames with its limit, and how much of a budget is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

WIDTH, HEIGHT, LEFT, BOTTOM = 640, 150, 60, 24
LABEL = 14  # pixels between two labels


def curve(values: Sequence[float], limit: float, title: str, *, unit: str = "frame") -> str:
    """One value a frame (or second), the limit as a dashed line, each point that breaks it in red."""
    low, high = min([*values, limit]), max([*values, limit])
    room = (high - low) * 0.1 or abs(high) * 0.01 or 1.0
    low, high = low - room, high + room
    higher_is_better = values and (sum(values) / len(values) >= limit)

    def x(index: int) -> float:
        return LEFT + 6 + index * (WIDTH - LEFT - 20) / max(len(values) - 1, 1)

    def y(value: float) -> float:
        return 8 + (high - value) * (HEIGHT - BOTTOM - 12) / (high - low)

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for value in _apart([limit, min(values, default=limit), max(values, default=limit)], y):
        parts.append(f'<text x="{LEFT - 4}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - 8}"/>')
    parts.append(f'<path class="limit" d="M{LEFT} {y(limit):.1f}H{WIDTH - 8}"/>')
    parts.append(
        f'<polyline class="curve" points="{" ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in enumerate(values))}"/>'
    )
    for index, value in enumerate(values):
        bad = value < limit if higher_is_better else value > limit
        told = f"{unit} {index}: {value:.6g}"
        parts.append(
            f'<circle class="dot{" bad" if bad else ""}" cx="{x(index):.1f}" cy="{y(value):.1f}" r="3">'
            f"<title>{escape(told)}</title></circle>"
        )
    last = f"{unit} {len(values) - 1}"
    parts.append(f'<text x="{LEFT + 6}" y="{HEIGHT - 6}">{unit} 0</text>')
    parts.append(f'<text x="{WIDTH - 14}" y="{HEIGHT - 6}" text-anchor="end">{escape(last)}</text></svg>')
    return "".join(parts)


def _apart(values: Sequence[float], y: Callable[[float], float]) -> list[float]:
    """The values whose labels do not lie on one another, the first ones kept."""
    found: list[float] = []
    for value in values:
        if all(abs(y(value) - y(other)) > LABEL for other in found):
            found.append(value)
    return found


def used(share: float) -> str:
    """A bar: how much of its budget a comparison used; beyond 1 it is red and full."""
    width = 110 * min(max(share, 0.0), 1.0)
    told = f"{share:.2f} of the budget" if share < 1e6 else "far beyond the budget"
    return (
        f'<svg viewBox="0 0 112 12" width="112" height="12" role="img" aria-label="{told}"><title>{told}</title>'
        f'<rect class="track" width="112" height="12" rx="2"/>'
        f'<rect class="bar{" bad" if share > 1 else ""}" x="1" y="1" width="{width:.1f}" height="10" rx="2"/></svg>'
    )
