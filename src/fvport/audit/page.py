# SPDX-License-Identifier: Apache-2.0
"""The census as a page for docs/ (Markdown) and as one HTML file without script or address."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Any

from fvport.errors import UsageError

INTRO = """# Parity census of FastVideo {fastvideo}

Every native class of FastVideo {fastvideo} that has an official twin in diffusers {diffusers} or transformers
{transformers}, at tiny size with drawn weights, in float32 on a CPU, through the comparison of a port's parity check:
the official model's own rounding error against itself in float64 is the floor, the native side may use three times of
it in each of four measures. The native side is what FastVideo's production loader makes of the checkpoint that the
official class wrote. This page is made by `fvport audit --docs docs/census.md`; do not edit it.

**{total} cases: {equal} equal, {differs} differ, {blocked} blocked; {findings} findings, {unexplained} unexplained.**
`blocked` means that the native side could not be built or called at all.

Again: `fvport audit` (or `nox -s audit`), one case: `fvport audit cosmos2/fps24`, the negative control:
`fvport audit --control`.
"""


def writable(*files: Path | None) -> None:
    """Before minutes of work: UsageError where one of the pages that will be written cannot be."""
    for file in files:
        if file is None:
            continue
        new = not file.exists()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a", encoding="utf-8"):
                pass
            if new:
                file.unlink()
        except OSError as error:
            raise UsageError(f"the page cannot be written: {error.strerror}", where=str(file)) from None


def markdown(census: dict[str, Any]) -> str:
    """docs/census.md. No times: the page changes only where a verdict or a figure does."""
    counts = census["counts"]
    words = {
        **census["versions"],
        **counts,
        "fastvideo": census["fastvideo"],
        "total": sum(counts.values()),
        "findings": len(census["findings"]),
        "unexplained": len(census["unexplained"]),
    }
    parts = [INTRO.format(**words), "## Findings\n"]
    parts += [_finding(finding) for finding in census["findings"]]
    parts += ["## Unexplained\n", "\n".join(f"- `{name}`" for name in census["unexplained"]) or "None.", ""]
    parts += [_control(census), "## Cases\n", _table(census["cases"]), "", "## Classes without a case\n"]
    parts += [f"- `{row['native']}`: {row['reason']}." for row in census["left_out"]]
    return "\n".join(parts) + "\n"


def _finding(finding: dict[str, Any]) -> str:
    lines = [f"### {finding['id']}: {finding['title']}\n", finding["what"], ""]
    lines += [f"- official: `{finding['official']}`", f"- native: `{finding['native']}`"]
    lines += [
        f"- evidence: `{row['case']}` {row['verdict']}: {_cut(row['problem'])}" for row in finding["evidence"][:3]
    ]
    rest = [row["case"] for row in finding["evidence"][3:]]
    lines += [f"- and: {', '.join(f'`{name}`' for name in rest)}"] if rest else []
    lines += [f"- reproduce: `{finding['reproduce']}`", f"- smallest change: {finding['change']}"]
    lines += ["- tried: " + "; ".join(_tried(row) for row in finding["tried"])]
    if isinstance(finding["edits"], list) and finding["edits"]:
        lines += ["", "```diff"]
        for target, old, new in finding["edits"]:
            lines += [f"@@ {target}", *_marked("-", old), *_marked("+", new)]
        lines += ["```"]
    return "\n".join([*lines, ""])


def _marked(mark: str, text: str) -> list[str]:
    return [f"{mark} {line.strip()}" for line in text.strip("\n").splitlines() if line.strip()]


def _tried(row: dict[str, Any]) -> str:
    if row["verdict"] == "not tried":
        return f"`{row['case']}` not tried"
    use = (row.get("worst") or {}).get("times_budget")
    return f"`{row['case']}` {row['verdict']}" + (f" ({use:.2f} of the budget)" if isinstance(use, float) else "")


def _cut(text: str, limit: int = 220) -> str:
    text = re.sub(r"\{'[^}]*(\}|$)", "{…}", " ".join(text.split()))  # a set of names: another order in each run
    text = text.replace("|", "\\|").replace("<", "&lt;")
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _control(census: dict[str, Any]) -> str:
    control = census["control"]
    if not control:
        return "## Negative control\n\nNot run with this page (`fvport audit --control`).\n"
    missed = f"; missed: {', '.join(control['missed'])}" if control["missed"] else ""
    return (
        f"## Negative control\n\nNoise of {control['noise']} on every native parameter (a scheduler's sigmas) turns "
        f"{control['caught']} of {control['green']} green cases red{missed}.\n"
    )


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| case | official | native | worst | floor | of the budget | verdict | finding |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        worst = row["worst"] or {}
        what = f"<br>{escape(row['what'], quote=False)}" if row["what"] else ""
        cells = [
            f"`{row['case']}`{what}",
            row["official"].rpartition(":")[2],
            row["native"].rpartition(":")[2],
            _number(worst.get("value")),
            _number(row["floor"]),
            _number(worst.get("times_budget")),
            row["verdict"],
            row["finding"] or ("" if row["verdict"] == "equal" else "unexplained"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _number(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, (int, float)) else ""


def html(census: dict[str, Any]) -> str:
    """A whole HTML document: sums, findings folded, one table."""
    from fvport.report.parts import STYLE

    colours = {"equal": "pass", "differs": "fail", "blocked": "blocked"}
    counts = census["counts"]
    sums = f"{counts['equal']} equal, {counts['differs']} differ, {counts['blocked']} blocked"
    body = [f"<h1>Parity census of FastVideo {escape(census['fastvideo'])}</h1>", f"<p>{sums}; {_seconds(census)}.</p>"]
    body += [
        f"<p class='next'>Unexplained: {escape(', '.join(census['unexplained']) or 'none')}</p>",
        "<h2>Findings</h2>",
    ]
    for finding in census["findings"]:
        items = [
            ("official", finding["official"]),
            ("native", finding["native"]),
            ("evidence", "; ".join(f"{r['case']} {r['verdict']}: {_cut(r['problem'])}" for r in finding["evidence"])),
            ("again", finding["reproduce"]),
            ("change", finding["change"]),
            ("tried", "; ".join(_tried(row) for row in finding["tried"]).replace("`", "")),
        ]
        rows = "".join(f"<li><b>{key}</b> {escape(value)}</li>" for key, value in items)
        title = f"{escape(finding['id'])} {escape(finding['title'])}"
        body.append(f"<details><summary>{title}</summary><p>{escape(finding['what'])}</p><ul>{rows}</ul></details>")
    head = "".join(f"<th>{name}</th>" for name in ("case", "official", "native", "worst", "floor", "verdict", "s", ""))
    lines = []
    for row in census["cases"]:
        worst = row["worst"] or {}
        cells = [row["case"], row["official"].rpartition(":")[2], row["native"].rpartition(":")[2]]
        cells += [_number(worst.get("value")), _number(row["floor"])]
        mark = f"<td class='badge {colours[row['verdict']]}'>{row['verdict']}</td>"
        tail = f"<td>{row['seconds']:.1f}</td><td>{escape(row['finding'] or '')}</td>"
        lines.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + mark + tail + "</tr>")
    body += ["<h2>Cases</h2>", f"<div class='wide'><table><tr>{head}</tr>{''.join(lines)}</table></div>"]
    left = "".join(f"<li><code>{escape(r['native'])}</code> {escape(r['reason'])}</li>" for r in census["left_out"])
    body += ["<h2>Classes without a case</h2>", f"<ul>{left}</ul>"]
    start = '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
    return (
        f'<!doctype html>\n<html lang="en"><head>{start}<title>Parity census</title><style>{STYLE}</style></head>\n'
        "<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _seconds(census: dict[str, Any]) -> str:
    return f"{census['seconds']['total']:.0f} s, {census['seconds']['boot']:.0f} s of them imports"
