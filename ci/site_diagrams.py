# SPDX-License-Identifier: Apache-2.0
"""The site's drawings, as SVG from text: boxes in rows, arrows between neighbours. Legible on light and dark pages."""

from __future__ import annotations

from html import escape

WIDE, HIGH, GAP, EDGE = 158, 58, 34, 10
HEAD = (
    '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0L8 4L0 8z" fill="#7b8794"/></marker></defs>'
)
FONT = 'font-family="ui-sans-serif, system-ui, Helvetica, Arial, sans-serif"'

# file -> rows of boxes; a box is a title and a line below it. An arrow goes from each box to the next of its row.
DRAWINGS: dict[str, list[list[tuple[str, str]]]] = {
    "way.svg": [
        [
            ("checkpoint", "headers, configs"),
            ("fvport new", "port, oracle, tests"),
            ("your decisions", "native code, mapping"),
        ],
        [("11 checks", "each a process"), ("evidence", "digests, figures"), ("verdict", "pass, fail, blocked")],
    ],
    "order.svg": [
        [("mapping", "rules, signature"), ("keys", "names, shapes"), ("config", "fields, schedules")],
        [("conversion", "bytes, bit for bit"), ("parity", "components"), ("smoke", "what resolves")],
        [("pipeline", "steps, frames"), ("ssim", "the video"), ("example", "as a user")],
    ],
    "floor.svg": [
        [
            ("official float64", "the reference"),
            ("official float32", "differs by the floor"),
            ("native float32", "at most 3 floors"),
        ],
    ],
    "house.svg": [
        [("spec", "port.toml"), ("weights, models", "both sides"), ("parity, media", "comparisons")],
        [("checks", "one job each"), ("evidence", "records"), ("gate, report", "the verdict")],
    ],
}


def draw(rows: list[list[tuple[str, str]]]) -> str:
    """One SVG. Rows follow each other: a bent arrow leads from the end of a row to the beginning of the next."""
    width = EDGE * 2 + max(len(row) * (WIDE + GAP) - GAP for row in rows)
    height = EDGE * 2 + len(rows) * (HIGH + GAP) - GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" {FONT} role="img">',
        HEAD,
        f'<rect width="{width}" height="{height}" rx="6" fill="#fff"/>',
    ]
    for number, row in enumerate(rows):
        top = EDGE + number * (HIGH + GAP)
        for place, box in enumerate(row):
            parts += _box(EDGE + place * (WIDE + GAP), top, *box)
            if place:
                left = EDGE + place * (WIDE + GAP)
                parts.append(_arrow(f"M{left - GAP + 3} {top + HIGH // 2}H{left - 3}"))
        if number + 1 < len(rows):
            from_x, middle = EDGE + (len(row) - 1) * (WIDE + GAP) + WIDE // 2, top + HIGH + GAP // 2
            parts.append(_arrow(f"M{from_x} {top + HIGH + 3}V{middle}H{EDGE + WIDE // 2}V{top + HIGH + GAP - 3}"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _box(x: int, y: int, title: str, below: str) -> list[str]:
    middle = x + WIDE // 2
    bold = 'text-anchor="middle" font-size="14" font-weight="600" fill="#1f2933"'
    plain = 'text-anchor="middle" font-size="12" fill="#3e4c59"'
    return [
        f'<rect x="{x}" y="{y}" width="{WIDE}" height="{HIGH}" rx="6" fill="#eef2ff" stroke="#4051b5"/>',
        f'<text x="{middle}" y="{y + 25}" {bold}>{escape(title)}</text>',
        f'<text x="{middle}" y="{y + 44}" {plain}>{escape(below)}</text>',
    ]


def _arrow(path: str) -> str:
    return f'<path d="{path}" fill="none" stroke="#7b8794" stroke-width="1.5" marker-end="url(#a)"/>'


def pages() -> dict[str, str]:
    return {f"assets/{name}": draw(rows) for name, rows in DRAWINGS.items()}
