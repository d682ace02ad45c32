# SPDX-License-Identifier: Apache-2.0
"""Records and verdicts as text for a person: a table, what is wrong, and one sentence on what to do."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Sequence

from fvport.evidence import Evidence, Item
from fvport.verdict import Row, Verdict

COLOURS = {"pass": "32", "fail": "31;1", "blocked": "33", "waived": "35"}
MARKS = {"pass": "ok", "fail": "FAIL", "blocked": "blocked", "waived": "waived"}
MOST_RED, MOST_GREEN = 8, 12  # a record fits one screen


def record(record: Evidence, components: Sequence[str] = ()) -> str:
    """A check's record: its red items with reasons, a count of the rest, and a last sentence that says what to do.

    `components`: those that were asked for, whose items come first.
    """
    red = [item for item in record.items if item.verdict != "pass"]
    green = [item for item in record.items if item.verdict == "pass"]
    green.sort(key=lambda item: item.component not in components)
    label = f"{record.check} [{record.variant}]" if record.variant else record.check
    lines = [f"{label}: {_word(record.verdict)} ({_made(record)})"]
    lines += _items(sorted(red, key=lambda item: item.verdict != "fail")[:MOST_RED])
    if len(red) > MOST_RED:
        lines.append(f"  and {len(red) - MOST_RED} more: .fvport/evidence/{_place(record)}.json")
    if not red:
        lines += _items(green[:MOST_GREEN])
    if not red and len(green) > MOST_GREEN:
        lines.append(f"  and {len(green) - MOST_GREEN} more: .fvport/evidence/{_place(record)}.json")
    lines += [_wrap(f"note: {note}") for note in record.notes[:6]]
    if len(record.notes) > 6:
        lines.append(f"  and {len(record.notes) - 6} more notes in the record")
    lines.append(_last(record, red, green))
    return "\n".join(lines)


def _place(record: Evidence) -> str:
    return "/".join(filter(None, (record.port, record.variant, record.check)))


def _last(record: Evidence, red: list[Item], green: list[Item]) -> str:
    if not record.items:
        return "Nothing was compared, so nothing is proven."
    if not red:
        return f"All {len(green)} items of {record.check} hold."
    first = next((item for item in red if item.verdict == "fail"), red[0])
    where = f" in {first.component}" if first.component else ""
    todo = next((item.todo for item in [first, *red] if item.todo), f"Correct it and run: fvport check {record.check}")
    return (
        f"{len(red)} of {len(record.items)} items of {record.check} are red, first{where}: {first.name}. {_dot(todo)}"
    )


def _made(record: Evidence) -> str:
    device = record.device.get("kind", "none")
    parts = [f"{record.seconds:.1f} s", f"scale {record.scale}", *([] if device == "none" else [f"on {device}"])]
    return ", ".join(parts)


def _items(items: list[Item]) -> list[str]:
    lines = []
    for item in items:
        reason = item.reason if item.name in item.reason else f"{item.name}: {item.reason}".rstrip(": ")
        figures = " ".join(f"{k}={_figure(v)}" for k, v in list(item.metrics.items())[:5] if _scalar(v))
        lines.append(_wrap(f"{_word(item.verdict)} {reason}" + (f" [{figures}]" if figures else "")))
    return lines


def gate(verdict: Verdict) -> str:
    """The gate's table, what is red and why, the plan's progress, what a reader must know, and the next step."""
    rows = [("check", "verdict", "device", "scale", "seconds", "row of the gate")]
    rows += [(r.label, MARKS[r.verdict], r.device, r.scale, f"{r.seconds:.1f}", r.title) for r in verdict.rows]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = [f"Alignment gate of {verdict.model} ({verdict.port}): {_word(verdict.verdict)} ({verdict.summary})", ""]
    for number, told in enumerate(rows):
        cells = [cell.ljust(width) for cell, width in zip(told, widths, strict=False)]
        if number:
            cells[1] = _paint(cells[1], verdict.rows[number - 1].verdict)
        lines.append("  ".join([*cells, told[5]]))
    for row in [r for r in verdict.rows if r.verdict != "pass"]:
        lines += ["", f"{row.label}: {_word(row.verdict)} ({row.state})", *[_wrap(r) for r in row.reasons[:4]]]
        if len(row.reasons) > 4:
            lines.append(f"  and {len(row.reasons) - 4} more: .fvport/report/index.html")
    lines += ["", *_around(verdict), "", _sentence(verdict)]
    return "\n".join(lines)


def _around(verdict: Verdict) -> list[str]:
    done = sum(item["done"] for item in verdict.plan)
    signed = ", ".join(f"{s['component']} by {s['by'] or 'nobody'}" for s in verdict.signatures) or "none needed"
    dirty = ", with uncommitted changes" if verdict.dirty else ""
    lines = [
        f"workspace  {verdict.workspace}",
        f"branch     {verdict.branch or 'none'} at {verdict.commit[:12] or 'no commit'}{dirty}",
        f"requires   {verdict.requires['device']} evidence at {verdict.requires['scale']} scale",
        f"PLAN.md    {done} of {len(verdict.plan)} items done (fvport plan lists them)",
        f"mappings   signed: {signed}",
    ]
    if verdict.risks:
        lines.append(f"risks      {len(verdict.risks)} to know of:")
        lines += [_wrap(f"- {risk}") for risk in verdict.risks[:6]]
        if len(verdict.risks) > 6:
            lines.append(f"  and {len(verdict.risks) - 6} more: .fvport/report/index.html")
    return lines


def _sentence(verdict: Verdict) -> str:
    if verdict.verdict == "pass":
        waived = [row.label for row in verdict.rows if row.verdict == "waived"]
        tail = f", {', '.join(waived)} by waiver" if waived else ""
        return f"The gate is open{tail}. Next: {verdict.next_step}"
    first = verdict.red[0] if verdict.red else None
    return f"The gate is shut by {first.label if first else 'nothing having run'}. Next: {verdict.next_step}"


def status(verdict: Verdict) -> str:
    """A few lines: where the port stands, the first red row, the one thing to do next."""
    lines = [f"{verdict.model} ({verdict.port}): {_word(verdict.verdict)} ({verdict.summary})"]
    stale = [row.label for row in verdict.rows if row.state == "stale"]
    if len(stale) > 1:
        lines.append(_wrap(f"{len(stale)} records are stale: {', '.join(stale)}"))
    if verdict.red:
        row: Row = verdict.red[0]
        lines.append(_wrap(f"{row.label}: {row.reasons[0] if row.reasons else row.state}"))
    lines.append(f"Next: {verdict.next_step}")
    return "\n".join(lines)


# --- words -----------------------------------------------------------------------------------------------------------


def _word(verdict: str) -> str:
    return _paint(MARKS[verdict], verdict)


def _paint(text: str, verdict: str) -> str:
    if os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        return text
    return f"\033[{COLOURS[verdict]}m{text}\033[0m"


def _wrap(text: str) -> str:
    return textwrap.fill(text, 118, initial_indent="  ", subsequent_indent="    ", break_long_words=False)


def _dot(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _scalar(value: object) -> bool:
    return isinstance(value, int | float | str | bool) and len(str(value)) < 40


def _figure(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
