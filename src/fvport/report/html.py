# SPDX-License-Identifier: Apache-2.0
"""The verdict as one HTML file: no address outside, light and dark, readable on a phone and on paper.

What is red comes first, with the reason and the next command; then what the records show, from the outside in.
"""

from __future__ import annotations

from html import escape

from fvport.evidence import Item
from fvport.report import glossary, sections
from fvport.report.parts import SCRIPT, anchor, badge, document, heading, listing, table, words
from fvport.verdict import Row, Verdict

HEAD = ("check", "verdict", "status", "device", "scale", "seconds", "row of the gate")
ITEM = ("item", "verdict", "reason", "figures", "tolerance")
FEW = 6  # notes that stand open
PICTURES = "<p>The frames side by side, where both sides generated them: <code>fvport report</code></p>"


def page(verdict: Verdict, pictures: str = "", drifts: dict[str, str] | None = None) -> str:
    """A whole HTML document. `pictures`: what `pictures.make` made; `drifts`: the last trace of a component, as SVG."""
    parts = {
        "Residual risks": listing(verdict.risks or ["none known"]),
        "Each check": "\n".join(map(_details, verdict.rows)),
        "Components": sections.components(verdict, drifts or {}),
        "Mapping": sections.mapping(verdict),
        "Pipeline": sections.pipeline(verdict),
        "Media": (pictures or PICTURES) + sections.media(verdict),
        "Workspace": _workspace(verdict),
        "PLAN.md": listing([f"{'done' if i['done'] else 'open'}: {i['text']}" for i in verdict.plan] or ["no PLAN.md"]),
        "Environment and digests": sections.runs(verdict),
        "Words": glossary.listing(),
    }
    contents = "".join(f'<a href="#{anchor(title)}">{escape(title)}</a>' for title in parts)
    body = [
        f"<h1>Alignment gate: {escape(verdict.model)} {badge(verdict.verdict)}</h1>",
        f"<p>{escape(verdict.summary)}; {escape(_required(verdict))}.</p>",
        f'<p class="quiet">{escape(_made(verdict))}</p>',
        f'<p class="next">Next: <code>{escape(verdict.next_step)}</code></p>',
        f'<div class="gate">{table(HEAD, map(_row, verdict.rows))}</div>',
        f'<nav aria-label="contents">{contents}</nav>',
    ]
    body += [heading(title) + text for title, text in parts.items()]
    return document(f"{verdict.port}: {verdict.verdict}", body, SCRIPT if pictures else "")


def _workspace(verdict: Verdict) -> str:
    signed = [f"mapping of {s['component']} signed by {s['by'] or 'nobody'} {s['on']}" for s in verdict.signatures]
    where = [f"path: {verdict.workspace}", f"branch: {verdict.branch or 'none'}", _commit(verdict)]
    return listing([*where, *(signed or ["no mapping has to be signed"])])


def _made(verdict: Verdict) -> str:
    """When the newest record was made, of what, with which versions, and who signed."""
    records = [row.record for row in verdict.rows if row.record]
    versions: dict[str, str] = {}
    for record in records:
        versions |= record.environment.get("versions", {})
    newest = max((record.started for record in records), default="")
    parts = [f"newest record of {newest[:16].replace('T', ' ')} UTC" if newest else "no record", _commit(verdict)]
    parts += [", ".join(f"{name} {version}" for name, version in versions.items())] if versions else []
    signers = dict.fromkeys(s["by"] or "nobody" for s in verdict.signatures)
    parts += [f"mappings signed by {', '.join(signers)}"] if signers else []
    return "; ".join(parts)


def _required(verdict: Verdict) -> str:
    return f"requires {verdict.requires.get('device')} evidence at {verdict.requires.get('scale')} scale"


def _commit(verdict: Verdict) -> str:
    return f"commit: {verdict.commit or 'none'}{', with uncommitted changes' if verdict.dirty else ''}"


def _row(row: Row) -> list[str]:
    status = row.status if row.state == "current" else row.state
    cells = [row.label, "", status, row.device, row.scale, f"{row.seconds:.1f}", row.title]
    return [badge(row.verdict) if n == 1 else escape(cell) for n, cell in enumerate(cells)]


def _details(row: Row) -> str:
    reasons = listing(row.reasons) if row.reasons else ""
    todo = "" if row.verdict == "pass" else f'<p class="next">Run: <code>{escape(row.todo)}</code></p>'
    items = ""
    if row.record:
        red = [item for item in row.record.items if item.verdict != "pass"]
        green = [item for item in row.record.items if item.verdict == "pass"]
        items = table(ITEM, map(_item, sorted(red, key=lambda item: item.verdict == "blocked"))) if red else ""
        held = table(ITEM, map(_item, green)) if green else ""
        items += f"<details><summary>{len(green)} items hold</summary>{held}</details>" if red and green else held
        items += _notes(row.record.notes)
    opened = " open" if row.verdict == "fail" or (row.verdict == "blocked" and row.state != "stale") else ""
    head = f"<summary>{escape(row.label)} {badge(row.verdict)} <small>{escape(row.state)}</small></summary>"
    return f"<details{opened}>{head}{reasons}{todo}{items}</details>"


def _notes(notes: list[str]) -> str:
    """Short ones as they are; a long list is folded away."""
    if len(notes) <= FEW:
        return listing([f"note: {note}" for note in notes]) if notes else ""
    return f"<details><summary>{len(notes)} notes</summary>{listing(notes)}</details>"


def _item(item: Item) -> list[str]:
    cells = [item.name, "", item.reason, words(item.metrics), words(item.tolerance)]
    return [badge(item.verdict) if n == 1 else escape(cell) for n, cell in enumerate(cells)]
