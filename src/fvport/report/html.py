# SPDX-License-Identifier: Apache-2.0
"""The verdict as one HTML file: no script, no address outside, light and dark, readable on a phone."""

from __future__ import annotations

from html import escape
from typing import Any

from fvport.evidence import Item
from fvport.gate import Row, Verdict

STYLE = """
:root{color-scheme:light dark;--ink:#1c2126;--paper:#fff;--line:#d8dde2;--soft:#f4f6f8;--pass:#1a7f37;--fail:#c0242c;
--blocked:#9a6700;--waived:#7a3fb0}
@media (prefers-color-scheme:dark){:root{--ink:#e4e8ec;--paper:#15191d;--line:#363d44;--soft:#1e2429;--pass:#4cc26a;
--fail:#ff7b72;--blocked:#e3b341;--waived:#c297ff}}
*{box-sizing:border-box}body{margin:0 auto;max-width:72rem;padding:1.5rem 1rem 4rem;font:16px/1.5 system-ui,sans-serif;
color:var(--ink);background:var(--paper)}h1{font-size:1.5rem;margin:0 0 .3rem}h2{font-size:1.1rem;margin:2rem 0 .5rem}
code,pre{font:.9em ui-monospace,monospace}table{border-collapse:collapse;width:100%;font-size:.9rem}
.wide{overflow-x:auto}th,td{text-align:left;padding:.35rem .7rem .35rem 0;border-bottom:1px solid var(--line);
vertical-align:top}td{overflow-wrap:anywhere}details{border:1px solid var(--line);border-radius:6px;margin:.5rem 0;
padding:.4rem .8rem;background:var(--soft)}summary{cursor:pointer;font-weight:600}ul{padding-left:1.2rem}
.pass{color:var(--pass)}.fail{color:var(--fail)}.blocked{color:var(--blocked)}.waived{color:var(--waived)}
.badge{font-weight:700}.next{border-left:4px solid var(--line);padding:.3rem .8rem;margin:1rem 0}
"""


def page(verdict: Verdict) -> str:
    """A whole HTML document. Everything that came from a port is escaped."""
    body = [
        f"<h1>Alignment gate: {escape(verdict.model)} {_badge(verdict.verdict)}</h1>",
        f"<p>{escape(verdict.summary)}; {escape(_required(verdict))}.</p>",
        f'<p class="next">Next: <code>{escape(verdict.next_step)}</code></p>',
        _table(
            ("check", "verdict", "status", "device", "scale", "seconds", "row of the gate"), map(_row, verdict.rows)
        ),
        "<h2>Each check</h2>",
        *map(_details, verdict.rows),
        "<h2>Workspace</h2>",
        _list([f"path: {verdict.workspace}", f"branch: {verdict.branch or 'none'}", _commit(verdict)]),
        "<h2>Who signed the mappings</h2>",
        _list([f"{s['component']}: {s['by'] or 'nobody'} {s['on']}" for s in verdict.signatures] or ["none needed"]),
        "<h2>PLAN.md</h2>",
        _list([f"{'done' if i['done'] else 'open'}: {i['text']}" for i in verdict.plan] or ["no PLAN.md"]),
        "<h2>Residual risks</h2>",
        _list(verdict.risks or ["none known"]),
    ]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
    title = f"<title>{escape(verdict.port)}: {escape(verdict.verdict)}</title>"
    return f'<!doctype html>\n<html lang="en"><head>{head}{title}<style>{STYLE}</style></head>\n<body>\n' + "\n".join(
        [*body, "</body></html>", ""]
    )


def _required(verdict: Verdict) -> str:
    return f"requires {verdict.requires.get('device')} evidence at {verdict.requires.get('scale')} scale"


def _commit(verdict: Verdict) -> str:
    return f"commit: {verdict.commit or 'none'}{', with uncommitted changes' if verdict.dirty else ''}"


def _badge(word: str) -> str:
    return f'<span class="badge {escape(word)}">{escape(word)}</span>'


def _row(row: Row) -> list[str]:
    cells = [row.check, "", row.status, row.device, row.scale, f"{row.seconds:.1f}", row.title]
    return [_badge(row.verdict) if n == 1 else escape(cell) for n, cell in enumerate(cells)]


def _details(row: Row) -> str:
    reasons = _list(row.reasons) if row.reasons else ""
    todo = "" if row.verdict == "pass" else f'<p class="next">Run: <code>{escape(row.todo)}</code></p>'
    items = ""
    if row.record:
        order = {"fail": 0, "blocked": 1, "pass": 2}
        shown = sorted(row.record.items, key=lambda item: order[item.verdict])
        items = _table(("item", "verdict", "reason", "figures", "tolerance"), map(_item, shown))
        items += _list([f"note: {note}" for note in row.record.notes]) if row.record.notes else ""
        made = (
            f"{row.record.started}, commit {row.record.commit[:12] or 'none'}{' (dirty)' if row.record.dirty else ''}"
        )
        items += (
            f"<p>Made {escape(made)} from {len(row.record.inputs)} inputs; {escape(_words(row.record.environment))}</p>"
        )
    opened = " open" if row.verdict in ("fail", "blocked") else ""
    head = f"<summary>{escape(row.check)} {_badge(row.verdict)} <small>{escape(row.state)}</small></summary>"
    return f"<details{opened}>{head}{reasons}{todo}{items}</details>"


def _item(item: Item) -> list[str]:
    cells = [item.name, "", item.reason, _words(item.metrics), _words(item.tolerance)]
    return [_badge(item.verdict) if n == 1 else escape(cell) for n, cell in enumerate(cells)]


def _words(values: dict[str, Any]) -> str:
    def figure(value: Any) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    return ", ".join(f"{key} {figure(value)}"[:160] for key, value in values.items())


def _table(head: tuple[str, ...], rows: Any) -> str:
    cells = "".join(f"<th>{escape(word)}</th>" for word in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in rows)
    return f'<div class="wide"><table><thead><tr>{cells}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _list(lines: list[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"
