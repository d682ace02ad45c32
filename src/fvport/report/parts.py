# SPDX-License-Identifier: Apache-2.0
"""What the pages of a report are made of: style, script, table, list, badge. Everything from a port is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

MOST, LINE = 6, 160  # entries of a list, characters of a value

STYLE = """
:root{color-scheme:light dark;--ink:#1c2126;--paper:#fff;--line:#d8dde2;--soft:#f4f6f8;--quiet:#59636e;--pass:#1a7f37;
--fail:#c0242c;--blocked:#9a6700;--waived:#7a3fb0;--one:#0b62c4}
@media (prefers-color-scheme:dark){:root{--ink:#e4e8ec;--paper:#15191d;--line:#363d44;--soft:#1e2429;--quiet:#9aa5b0;
--pass:#4cc26a;--fail:#ff7b72;--blocked:#e3b341;--waived:#c297ff;--one:#6cb0ff}}
*{box-sizing:border-box}body{margin:0 auto;max-width:72rem;padding:1.5rem 1rem 4rem;font:16px/1.5 system-ui,sans-serif;
color:var(--ink);background:var(--paper)}h1{font-size:1.5rem;margin:0 0 .3rem}h2{font-size:1.1rem;margin:2rem 0 .5rem}
h3{font-size:1rem;margin:1.2rem 0 .3rem}small,.quiet{color:var(--quiet)}
.whole,.gate td:first-child{white-space:nowrap}a{color:var(--one)}
code,pre{font:.9em ui-monospace,monospace}table{border-collapse:collapse;width:100%;font-size:.9rem}
.wide{overflow-x:auto}th,td{text-align:left;padding:.35rem .7rem .35rem 0;border-bottom:1px solid var(--line);
vertical-align:top}td{overflow-wrap:anywhere;min-width:5rem}details{border:1px solid var(--line);border-radius:6px;
margin:.5rem 0;padding:.4rem .8rem;background:var(--soft)}summary{cursor:pointer;font-weight:600}ul{padding-left:1.2rem}
li,dd{overflow-wrap:anywhere}dt{font-weight:600}dd{margin:0 0 .4rem 1.2rem}
.pass{color:var(--pass)}.fail{color:var(--fail)}.blocked{color:var(--blocked)}.waived{color:var(--waived)}
.badge{font-weight:700}.next{border-left:4px solid var(--line);padding:.3rem .8rem;margin:1rem 0}
nav{display:flex;flex-wrap:wrap;gap:.2rem 1rem;margin:.8rem 0;font-size:.9rem}svg{max-width:100%;
height:auto}svg.chart{width:100%;max-width:46rem}
svg text{fill:var(--ink);font:11px system-ui,sans-serif}.axis{stroke:var(--line)}.limit{stroke:var(--fail);
stroke-dasharray:4 3}.curve{fill:none;stroke:var(--one);stroke-width:2}.dot{fill:var(--one)}.dot.bad{fill:var(--fail)}
.bar{fill:var(--one)}.bar.bad{fill:var(--fail)}.track{fill:var(--line)}
.strip{display:flex;flex-wrap:wrap;gap:.3rem;list-style:none;padding:0;margin:.5rem 0}.strip li{border:1px solid
var(--line);border-top:4px solid var(--pass);border-radius:4px;padding:.25rem .55rem;font-size:.85rem;background:
var(--soft)}.strip li.fail{border-top-color:var(--fail);outline:2px solid var(--fail);color:inherit}.strip li.blocked{
border-top-color:var(--blocked);color:inherit}.strip li.after{opacity:.55}
.media{display:grid;grid-template-columns:repeat(auto-fit,minmax(12rem,1fr));gap:.6rem}.media figure{margin:0}
.drift{margin:0}.drift img{max-width:100%}
.media img{width:100%;display:block;border:1px solid var(--line);image-rendering:auto}figcaption{font-size:.85rem;
color:var(--quiet)}.player{margin:.6rem 0 1.4rem}.player .controls{display:flex;gap:.6rem;align-items:center;
margin:.4rem 0}.player input[type=range]{flex:1;accent-color:var(--one)}
.player button{font:inherit;padding:.15rem .7rem;border:1px solid var(--line);border-radius:4px;background:var(--soft);
color:inherit;min-width:4.5rem}
:focus-visible{outline:2px solid var(--one);outline-offset:2px}
@media (max-width:44rem){.wide table{min-width:40rem}.gate .wide table{min-width:0}.gate td,.gate th{min-width:0}
.gate :is(td,th):is(:nth-child(3),:nth-child(4),:nth-child(5),:nth-child(6)){display:none}}
@media print{details::details-content{content-visibility:visible;block-size:auto}
nav,.controls{display:none!important}body{max-width:none;font-size:11pt}details{break-inside:avoid}}
"""

SCRIPT = """
for (const player of document.querySelectorAll('.player')) {
  const data = JSON.parse(player.querySelector('script').textContent);
  const range = player.querySelector('input'), button = player.querySelector('button');
  const told = player.querySelector('output'), images = player.querySelectorAll('img');
  const show = () => {
    const at = Number(range.value);
    images.forEach((image, side) => { image.src = data.sides[side][at]; });
    told.textContent = data.words[at];
  };
  let timer = 0;
  const stop = () => { clearInterval(timer); timer = 0; button.textContent = 'Play'; };
  range.addEventListener('input', () => { stop(); show(); });
  button.addEventListener('click', () => {
    if (timer) { stop(); return; }
    button.textContent = 'Pause';
    timer = setInterval(() => { range.value = (Number(range.value) + 1) % data.words.length; show(); }, data.pause);
  });
  show();
}
"""


def document(title: str, body: Iterable[str], script: str = "") -> str:
    """A whole HTML document without an address outside."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
    head += f"<title>{escape(title)}</title><style>{STYLE}</style>"
    end = f"<script>{script}</script>" if script else ""
    return "\n".join(
        ['<!doctype html>\n<html lang="en"><head>' + head + "</head>\n<body>", *body, f"{end}</body></html>", ""]
    )


def badge(word: str) -> str:
    return f'<span class="badge {escape(word)}">{escape(word)}</span>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML already; the head is text."""
    cells = "".join(f"<th>{escape(word)}</th>" for word in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in rows)
    return f'<div class="wide"><table><thead><tr>{cells}</tr></thead><tbody>\n{body}</tbody></table></div>'


def listing(lines: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def words(values: dict[str, Any]) -> str:
    """Figures for a cell: four digits, nothing empty, and no value longer than a line; the record has them whole."""
    told = {key: value for key, value in values.items() if value not in (None, "", [], {}, ())}
    return ", ".join(f"{key.replace('_', ' ')} {_short(_value(value))}" for key, value in told.items())


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key}: {_value(inner)}" for key, inner in value.items()) + ")"
    if isinstance(value, (list, tuple)):
        more = f" and {len(value) - MOST} more" if len(value) > MOST else ""
        return ", ".join(_value(inner) for inner in value[:MOST]) + more
    return str(value)


def _short(text: str) -> str:
    return text if len(text) <= LINE else f"{text[: LINE - 1].rstrip()}…"


def heading(title: str) -> str:
    """A heading that the page's list of contents can point at."""
    return f'<h2 id="{anchor(title)}">{escape(title)}</h2>'


def anchor(title: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in title.lower())
