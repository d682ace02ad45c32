# SPDX-License-Identifier: Apache-2.0
"""Text for people: sizes, collapsed layer indices, and an inspection as a table. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fvport.weights.layout import Inspection


def size(count: int) -> str:
    """1536 -> '1.5 KB' (powers of 1000, as disks are sold)."""
    value = float(count)
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return ""


def collapse(names: Iterable[str]) -> list[str]:
    """`blocks.0.a`, `blocks.1.a`, `blocks.3.a` -> `blocks.{0,1,3}.a`; runs of three or more become `{0..2}`.

    Only the first index that differs is collapsed; names stay in natural order.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for name in names:
        parts = re.split(r"(?:(?<=\.)|^)(\d+)(?=\.|$)", name, maxsplit=1)
        key = (parts[0], parts[2]) if len(parts) == 3 else (name,)
        groups.setdefault(key, []).append(int(parts[1]) if len(parts) == 3 else -1)
    return [
        key[0] if len(key) == 1 else key[0] + _numbers(sorted(set(found))) + key[1] for key, found in groups.items()
    ]


def _numbers(found: list[int]) -> str:
    if len(found) == 1:
        return str(found[0])
    runs: list[list[int]] = []
    for number in found:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    words = [f"{run[0]}..{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs]
    return "{" + ",".join(words) + "}"


def listing(names: Iterable[str], limit: int = 8) -> str:
    """Collapsed names in one line, at most `limit` of them, then how many more."""
    shown = collapse(names)
    more = f" and {len(shown) - limit} more" if len(shown) > limit else ""
    return ", ".join(shown[:limit]) + more


def table(rows: list[tuple[str, ...]]) -> str:
    """Columns of text, left-aligned, as wide as their widest cell."""
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def inspection(found: Inspection) -> str:
    head = f"{found.layout}: {found.reason}\n"
    head += f"from: {found.source}\n" if found.source else ""
    if found.pipeline_class:
        head += f"pipeline: {found.pipeline_class}\n"
    rows: list[tuple[str, ...]] = [
        ("component", "kind", "class", "tensors", "parameters", "bytes", "conversion", "dtypes")
    ]
    for component in found.components.values():
        dtypes = ", ".join(f"{name} x{count}" for name, count in component.dtypes.items())
        needs = "yes" if component.conversion else "no"
        counts = (str(len(component.tensors)), f"{component.parameters:,}", size(component.bytes), needs)
        cells = counts if component.has_weights else ("", "", "", "")
        rows.append((component.name, component.kind, component.official or component.cls or "?", *cells, dtypes))
    lines = [head, table(rows), "", *_where(found)]
    lines += [f"absent (null in model_index.json): {', '.join(found.absent)}"] if found.absent else []
    lines += [f"to look at: {concern}" for concern in found.concerns]
    why = sorted({component.conversion for component in found.components.values() if component.conversion})
    lines.append(
        "needs conversion: " + (f"yes ({'; '.join(why) or 'no model_index.json'})" if found.needs_conversion else "no")
    )
    return "\n".join(lines)


def _where(found: Inspection) -> list[str]:
    """Prefixes, tied tensors, and what is no component's."""
    lines = []
    for component in found.components.values():
        if component.prefix:
            files = listing(component.weights, 3)
            lines.append(f"{component.name}: every name in {files} begins with {component.prefix} ({component.why})")
        for group in component.tied[:5]:
            lines.append(f"{component.name}: tied: {' = '.join(group)}")
    for aside in found.aside:
        of = f" of {aside.of}" if aside.of else ""
        count = f"{aside.tensors} tensors, " if aside.tensors else ""
        under = f" under {aside.prefix}" if aside.prefix else ""
        lines.append(f"no component: {aside.role}{of} in {aside.file}{under}: {count}{size(aside.bytes)} ({aside.why})")
    return lines
