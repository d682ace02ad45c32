# SPDX-License-Identifier: Apache-2.0
"""A verdict as Markdown (a pull request's comment) and as JUnit XML (what CI shows). The HTML page is `html.py`."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from fvport.evidence import Item
from fvport.verdict import Row, Verdict

WORDS = {"pass": "pass", "fail": "**fail**", "blocked": "**blocked**", "waived": "waived"}


def markdown(verdict: Verdict) -> str:
    """The gate's table, the red rows' reasons, progress, signatures, risks and the next step."""
    lines = [f"# Alignment gate: {cell(verdict.model)}: {verdict.verdict}", "", f"{verdict.summary}.", ""]
    lines += ["| check | verdict | status | device | scale | seconds | what it says |", "|---|---|---|---|---|---|---|"]
    for row in verdict.rows:
        said = row.reasons[0] if row.reasons else row.title
        cells = (row.label, WORDS[row.verdict], row.status, row.device, row.scale, f"{row.seconds:.1f}", cell(said))
        lines.append(f"| {' | '.join(cells)} |")
    for row in (r for r in verdict.rows if r.verdict != "pass"):
        lines += ["", f"## {row.label}: {row.verdict}", "", *(f"- {cell(reason)}" for reason in row.reasons)]
        lines += ["", f"Next: `{row.todo}`"]
    lines += [
        "",
        "## Workspace",
        "",
        f"- branch: `{verdict.branch or 'none'}`",
        f"- commit: `{verdict.commit or 'none'}`",
    ]
    lines += [f"- uncommitted changes: {'yes' if verdict.dirty else 'no'}"]
    lines += [
        f"- {s['component']} mapping signed by {s['by'] or 'nobody'} {s['on']}".rstrip() for s in verdict.signatures
    ]
    if verdict.plan:
        lines += ["", "## PLAN.md", ""]
        lines += [f"- [{'x' if item['done'] else ' '}] {cell(item['text'])}" for item in verdict.plan]
    if verdict.risks:
        lines += ["", "## Residual risks", "", *(f"- {cell(risk)}" for risk in verdict.risks)]
    return "\n".join([*lines, "", f"Next step: `{verdict.next_step}`", ""])


def cell(text: str) -> str:
    """Text that neither ends a table's cell nor starts HTML."""
    return re.sub(r"\s+", " ", str(text)).replace("|", "\\|").replace("<", "&lt;")


def junit(verdict: Verdict) -> str:
    """One suite a check, one case an item; red items are failures, what did not run is an error, never `skipped`."""
    root = ET.Element("testsuites", name=f"alignment gate {verdict.port}")
    for row in verdict.rows:
        suite = ET.SubElement(root, "testsuite", name=row.label, time=f"{row.seconds:.3f}")
        cases = [_gate_case(row)]
        if row.record and row.state == "current":
            cases += [_case(row.label, item) for item in row.record.items]
        suite.extend(cases)
        suite.set("tests", str(len(cases)))
        suite.set("failures", str(sum(case.find("failure") is not None for case in cases)))
        suite.set("errors", str(sum(case.find("error") is not None for case in cases)))
        suite.set("skipped", "0")
    for key in ("tests", "failures", "errors"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _gate_case(row: Row) -> ET.Element:
    case = ET.Element("testcase", classname=f"gate.{row.label}", name=row.title, time=f"{row.seconds:.3f}")
    _mark(case, row.verdict, "; ".join(row.reasons) or row.state)
    if row.waiver:
        ET.SubElement(case, "system-out").text = _plain("; ".join(row.reasons))
    return case


def _case(check: str, item: Item) -> ET.Element:
    case = ET.Element("testcase", classname=f"{check}.{item.component or 'port'}", name=_plain(item.name))
    _mark(case, item.verdict, item.reason)
    return case


def _mark(case: ET.Element, verdict: str, reason: str) -> None:
    if verdict in ("fail", "blocked"):
        tag = "failure" if verdict == "fail" else "error"
        ET.SubElement(case, tag, message=_plain(reason)[:400]).text = _plain(reason)


def _plain(text: str) -> str:
    """Text without the control characters that XML forbids."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)
