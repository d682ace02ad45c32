# SPDX-License-Identifier: Apache-2.0
"""The census on a terminal."""

from __future__ import annotations

from typing import Any

MARKS = {"equal": "equal", "differs": "DIFFERS", "blocked": "BLOCKED"}


def text(census: dict[str, Any]) -> str:
    """One line a case, then the findings, what is unexplained, and the sums."""
    lines = [f"{'case':34} {'verdict':8} {'worst':>9} {'floor':>9} {'x budget':>9} {'s':>5}  finding"]
    lines += [_line(row) for row in census["cases"]]
    for finding in census["findings"]:
        lines += ["", *_finding(finding)]
    lines += ["", *_sums(census)]
    return "\n".join(lines)


def _line(row: dict[str, Any]) -> str:
    worst, verdict = row["worst"] or {}, MARKS[row["verdict"]]
    figures = f"{_number(worst.get('value'))} {_number(row['floor'])} {_number(worst.get('times_budget'))}"
    told = row["finding"] or ("" if row["verdict"] == "equal" else "unexplained")
    if row["control"] is not None and not row["control"]["caught"]:
        told += " CONTROL MISSED"
    return f"{row['case']:34} {verdict:8} {figures} {row['seconds']:5.1f}  {told}".rstrip()


def _number(value: Any) -> str:
    return f"{value:9.2g}" if isinstance(value, (int, float)) else f"{'-':>9}"


def _finding(finding: dict[str, Any]) -> list[str]:
    tried = ", ".join(f"{t['case']}: {t['verdict']}" for t in finding["tried"])
    return [
        f"{finding['id']} {finding['title']}",
        f"  official {finding['official']}",
        f"  native   {finding['native']}",
        f"  {finding['what']}",
        f"  change: {finding['change']} (tried: {tried})",
        f"  again:  {finding['reproduce']}",
    ]


def _sums(census: dict[str, Any]) -> list[str]:
    counts = census["counts"]
    total = sum(counts.values())
    lines = [
        (
            f"{total} cases of FastVideo {census['fastvideo']}: {counts['equal']} equal, {counts['differs']} differ, "
            f"{counts['blocked']} blocked; {len(census['findings'])} findings; {census['seconds']['total']:.0f} s "
            f"(import {census['seconds']['boot']:.0f} s)"
        )
    ]
    if census["gone"]:
        lines.append(f"no longer seen: {', '.join(census['gone'])}")
    if census["unexplained"]:
        lines.append(f"unexplained: {', '.join(census['unexplained'])}")
    if census["control"]:
        control = census["control"]
        lines.append(
            f"control: noise of {control['noise']} on every native parameter is seen in {control['caught']} of "
            f"{control['green']} green cases"
            + (f"; missed: {', '.join(control['missed'])}" if control["missed"] else "")
        )
    return lines
