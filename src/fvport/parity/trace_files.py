# SPDX-License-Identifier: Apache-2.0
"""What a trace leaves for people and other tools: FastVideo's activation-trace JSONL of both sides, a table, a plot."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fvport.errors import UsageError
from fvport.parity.trace import Sides, Trace

STATS = ("abs_mean", "mean", "std", "min", "max", "sum")
WIDTH, HEIGHT, LEFT, TOP = 960, 420, 60, 30


def write(folder: Path, found: Trace, sides: Sides) -> list[str]:
    """Names of the files written into `folder`: two JSONL, pairs, a table as TSV and Markdown, a plot as SVG."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "official.jsonl": jsonl(sides.found["modules"]),
        "native.jsonl": jsonl(found.native_modules),
        "pairs.json": json.dumps([pair.to_json() for pair in sides.pairs.pairs.values()], indent=1) + "\n",
        "drift.tsv": table(found),
        "drift.svg": plot(found),
        "trace.json": json.dumps({k: v for k, v in found.to_json().items() if k != "native_modules"}, indent=1) + "\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [str(folder / name) for name in texts]


# --- FastVideo's activation trace -------------------------------------------------------------------------------------


def jsonl(modules: Mapping[str, Any], step: int | None = None) -> str:
    """One record a tensor, as FASTVIDEO_TRACE_ACTIVATIONS writes them: module, tensor, step, and the statistics."""
    lines = []
    for name, found in modules.items():
        for label, about in found.get("last", {}).get("out", []):
            lines.append(json.dumps({"module": name, "tensor": label, "step": step, **about}))
    return "\n".join(lines) + "\n" if lines else ""


def read_jsonl(file: Path) -> list[dict[str, Any]]:
    """The records of an activation trace. UsageError names the line that is none."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot be read ({error})", where=str(file)) from None
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            records.append({"tensor": "out", "step": None, **record, "module": record["module"]})
        except (ValueError, TypeError, KeyError):
            todo = "Give a file that FASTVIDEO_TRACE_ACTIVATIONS=1 wrote"
            raise UsageError(f"line {number} is no record of an activation trace", where=str(file), todo=todo) from None
    return records


def first_difference(
    official: Iterable[Mapping[str, Any]],
    native: Iterable[Mapping[str, Any]],
    partners: Mapping[str, str] | None = None,
    tolerance: float = 1e-4,
) -> dict[str, Any]:
    """`{"compared", "first", "sentence"}` of two traces, in the official one's order. `partners`: official -> native.

    Statistics see less than a comparison: two tensors with the same figures may differ.
    """
    partners = partners or {}
    mine: dict[tuple[str, str, Any], Mapping[str, Any]] = {}
    for record in native:
        mine[record["module"], record["tensor"], record.get("step")] = record
    compared = 0
    for record in official:
        name = partners.get(record["module"], record["module"])
        other = mine.get((name, record["tensor"], record.get("step")))
        if other is None:
            continue
        compared += 1
        for stat in STATS:
            a, b = record.get(stat), other.get(stat)
            if not isinstance(a, (int, float)) or not isinstance(b, (int, float)):
                continue
            scale = max(abs(a), float(record.get("abs_mean") or 0.0), 1e-12)
            if not abs(a - b) <= tolerance * scale:
                words = f"first to differ is {name}, {record['tensor']}: {stat} is {b:.6g}, not {a:.6g}"
                first = {"native": name, "official": record["module"], "stat": stat, "is": b, "should": a}
                return {"compared": compared, "first": first, "sentence": words}
    words = f"none of {compared} tensors differs in its statistics by more than {tolerance:g}"
    if not compared:
        words = "the two traces have no tensor in common"
    return {"compared": compared, "first": None, "sentence": words}


# --- for people -------------------------------------------------------------------------------------------------------


def table(found: Trace) -> str:
    """One line a paired boundary: drift of a free run beside its floor, the module's own error beside its budget."""
    lines = ["native\tofficial\tcall\tinputs\tdrift\tdrift_floor\town_error\tbudget\twrong"]
    for row in found.rows:
        figures = [row[k] for k in ("inputs", "drift", "drift_floor", "local", "budget")]
        shown = ["" if f is None else f"{f:.3e}" for f in figures]
        lines.append(
            "\t".join(
                [row["native"], "+".join(row["official"]), str(row["call"]), *shown, "yes" if row["wrong"] else ""]
            )
        )
    return "\n".join(lines) + "\n"


def plot(found: Trace) -> str:
    """Drift over depth as SVG, on a logarithmic scale: the free run, the official model itself, each module alone."""
    rows = [row for row in found.rows if row["call"] == 0]
    series = {
        "drift": ("#1f77b4", [row["drift"] for row in rows]),
        "official model's own drift": ("#999999", [row["drift_floor"] for row in rows]),
        "module's own error": ("#d62728", [row["local"] for row in rows]),
    }
    known = [v for _, values in series.values() for v in values if v]
    low, high = (math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))) if known else (-8, 0)
    high = max(high, low + 1)

    def x(index: int) -> float:
        return LEFT + index * (WIDTH - LEFT - 20) / max(len(rows) - 1, 1)

    def y(value: float) -> float:
        return TOP + (high - math.log10(max(value, 10.0**low))) * (HEIGHT - TOP - 60) / (high - low)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">']
    parts.append(f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>')
    title = html.escape(
        f"{found.component}, case {found.case}: relative L2 difference by module, in order of execution"
    )
    parts.append(f'<text x="{LEFT}" y="18" font-size="13">{title}</text>')
    for power in range(low, high + 1):
        at = y(10.0**power)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - 20}" stroke="#eee"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" font-size="11" text-anchor="end">1e{power}</text>')
    for number, (name, (colour, values)) in enumerate(series.items()):
        points = " ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in enumerate(values) if v)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        at = LEFT + number * 260
        parts.append(f'<text x="{at}" y="{HEIGHT - 12}" font-size="12" fill="{colour}">{html.escape(name)}</text>')
    first = next(
        (i for i, row in enumerate(rows) if found.native is not None and row["native"] == (found.at or found.native)),
        None,
    )
    if first is not None:
        label = html.escape(found.native or "(the model itself)")
        parts.append(f'<path d="M{x(first):.1f} {TOP}V{HEIGHT - 50}" stroke="#d62728" stroke-dasharray="4 3"/>')
        parts.append(f'<text x="{x(first) + 4:.1f}" y="{HEIGHT - 36}" font-size="12" fill="#d62728">{label}</text>')
    return "\n".join([*parts, "</svg>", ""])
