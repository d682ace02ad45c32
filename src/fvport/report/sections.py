# SPDX-License-Identifier: Apache-2.0
"""The parts of the page below the gate's table, from the records alone: components, mapping, pipeline, media, runs."""

from __future__ import annotations

import re
from collections import defaultdict
from html import escape
from typing import Any

from fvport.evidence import Evidence, Item
from fvport.report import charts
from fvport.report.parts import badge, listing, table, words
from fvport.verdict import Verdict

# The order in which a generation goes; the first red stage is where to look, what follows inherits it.
STAGES = [
    *("arguments", "pipeline class", "model evaluations", "timesteps", "sigmas", "input pixels", "encode"),
    *("input latents", "initial noise", "noised start", "conditioning"),
    *("denoiser", "guidance", "step noise", "latents", "decode input", "decode", "frames", "audio"),
]


def record(verdict: Verdict, check: str) -> Evidence | None:
    """What a check left, however old: the table above says whether it still counts."""
    return next((row.record for row in verdict.rows if row.check == check), None)


def components(verdict: Verdict, drifts: dict[str, str]) -> str:
    """What is held against what, each comparison against its budget, what it can see at all, and the last trace."""
    found = record(verdict, "parity")
    if found is None:
        return f"{_sides(verdict)}<p>No component was compared yet. Run: <code>fvport check parity</code></p>"
    by_component: dict[str, list[Item]] = defaultdict(list)
    for item in found.items:
        by_component[item.component or "port"].append(item)
    parts = [_component(name, items, drifts.get(name, "")) for name, items in by_component.items()]
    return "\n".join([_sides(verdict), *parts])


def _sides(verdict: Verdict) -> str:
    """The official and the native class of each component, and why it is ported or reused."""
    rows = []
    for c in verdict.components:
        classes = [f"<code>{_breakable(c[side])}</code>" if c[side] else "" for side in ("official", "native")]
        whole = [f'<span class="whole">{escape(c[key])}</span>' for key in ("name", "mode")]
        rows.append([*whole, *classes, escape(c["why"])])
    return table(("component", "mode", "official", "native", "why this mode"), rows) if rows else ""


def _breakable(path: str) -> str:
    """A dotted name that a narrow cell breaks between its parts, not inside of one."""
    return re.sub(r"([.:])", r"\1<wbr>", escape(path))


def called(verdict: Verdict, name: str) -> str:
    """An item's name with the call in it as a reader knows it: `frames (p1s0)` is `frames ("a fox runs", seed 0)`."""
    return re.sub(r"\bp\d+s-?\d+\b", lambda found: verdict.calls.get(found[0], found[0]), name)


def _component(name: str, items: list[Item], drift: str) -> str:
    compared = [item for item in items if "budget_use" in item.metrics]
    others = [item for item in items if "budget_use" not in item.metrics]
    rows = []
    for item in sorted(compared, key=lambda item: -float(item.metrics["budget_use"])):
        share, figures = float(item.metrics["budget_use"]), item.metrics
        told = f"{share:.2f}" if share < 1e6 else "beyond"
        own = _beside(figures.get("rel_l2"), figures.get("floor_rel_l2"))
        rows.append(
            [escape(_short(item, name)), badge(item.verdict), charts.used(share), told, own, escape(item.reason)]
        )
    worst = max((float(item.metrics["budget_use"]) for item in compared), default=0.0)
    verdict = "fail" if any(i.verdict == "fail" for i in items) else "blocked"
    verdict = "pass" if all(i.verdict == "pass" for i in items) else verdict
    opened = "" if verdict == "pass" else " open"
    head = f"<summary>{escape(name)} {badge(verdict)} <small>{_summary(compared, others, worst)}</small></summary>"
    figures_table = table(("output", "", "budget", "used", "relative L2, official's own", ""), rows) if rows else ""
    traced = f"<h3>Drift over depth, from the last trace</h3>{drift}" if drift else ""
    return f"<details{opened}>{head}{figures_table}{_seen(others, name)}{traced}</details>"


def _summary(compared: list[Item], others: list[Item], worst: float) -> str:
    strength = next((i.metrics for i in others if "strength" in i.metrics), {})
    told = f"{len(compared)} outputs, {worst:.2f} of the budget used" if compared else "nothing was compared by value"
    return told + (f", {strength['caught']} of {strength['total']} planted faults seen" if strength else "")


def _beside(own: Any, floor: Any) -> str:
    figures = [f"{float(v):.2e}" if isinstance(v, (int, float)) else "" for v in (own, floor)]
    return escape(" beside ".join(f for f in figures if f))


def _short(item: Item, component: str) -> str:
    return item.name.removeprefix(f"{component}: ")


def _seen(items: list[Item], component: str) -> str:
    """Strength, blind spots, what was planted, the contract: items without a budget."""
    lines = []
    for item in items:
        figures = {k: v for k, v in item.metrics.items() if v not in (None, [], "", {})}
        lines.append(
            [escape(_short(item, component)), badge(item.verdict), escape(item.reason), escape(words(figures))]
        )
    blind = [str(spot) for item in items for spot in item.metrics.get("blind", []) or []]
    inputs = [str(name) for item in items for name in item.metrics.get("blind_inputs", []) or []]
    more = f"<h3>Blind spots</h3>{listing(blind)}" if blind else ""
    more += f"<h3>Inputs that change nothing</h3>{listing(inputs)}" if inputs else ""
    return (table(("beside it", "", "", "figures"), lines) if lines else "") + more


def mapping(verdict: Verdict) -> str:
    """Rules, keys and signature of each component, and the pairs that a swap would not show by shape."""
    found = record(verdict, "mapping")
    if found is None:
        return "<p>No mapping was read yet. Run: <code>fvport check mapping</code></p>"
    rows = [[escape(i.name), badge(i.verdict), escape(i.reason), escape(words(i.metrics))] for i in found.items]
    notes = [note.partition(": ") for note in found.notes]
    alike = [[escape(name), escape(rule), escape(text)] for name, _, rest in notes for rule, text in [_numbered(rest)]]
    told = f"<details><summary>{len(alike)} findings and pairs of one shape</summary>"
    told += table(("component", "rule", "what a swap would not show, and why this pairing"), alike) + "</details>"
    return table(("item", "", "", "figures"), rows) + (told if alike else "")


def _numbered(text: str) -> tuple[str, str]:
    found = re.match(r"(FV\d+) (.*)", text, re.DOTALL)
    return (found[1], found[2]) if found else ("", text)


def pipeline(verdict: Verdict) -> str:
    """The stages of a generation in order; the first red one is marked, later ones may only inherit it."""
    found = record(verdict, "pipeline")
    if found is None:
        return "<p>No pipeline was compared yet. Run: <code>fvport check pipeline</code></p>"
    stages = [item for item in found.items if item.name in STAGES]
    first = next((n for n, item in enumerate(stages) if item.verdict != "pass"), len(stages))
    cells = []
    for number, item in enumerate(stages):
        classes = ("" if item.verdict == "pass" else item.verdict) if number <= first else f"{item.verdict} after"
        use = _use(item)
        told = f"{item.name}: {item.verdict}{f', {use}' if use else ''}"
        mark = " (first)" if number == first else ""
        cells.append(f'<li class="{escape(classes)}" title="{escape(told)}">{escape(item.name + mark)}</li>')
    strip = f'<ol class="strip" aria-label="stages of a generation">{"".join(cells)}</ol>'
    said = f'<p class="fail">{escape(stages[first].reason)}</p>' if first < len(stages) else ""
    rest = [i for i in found.items if i not in stages]
    rows = [
        [escape(called(verdict, i.name)), badge(i.verdict), escape(i.reason), escape(words(i.metrics))] for i in rest
    ]
    head = "<details><summary>What else was changed or planted, and where it was seen</summary>"
    return strip + said + (head + table(("call", "", "", "figures"), rows) + "</details>" if rows else "")


def _use(item: Item) -> str:
    own, limit = item.metrics.get("rel_l2"), item.tolerance.get("rel_l2")
    return f"{own / limit:.2f} of its budget" if isinstance(own, float) and isinstance(limit, float) and limit else ""


def media(verdict: Verdict) -> str:
    """The measure over time of each call."""
    found = record(verdict, "ssim")
    if found is None:
        return "<p>No media were compared yet. Run: <code>fvport check ssim</code></p>"
    parts = []
    for item in found.items:
        values = item.metrics.get("per_frame") or item.metrics.get("per_second") or []
        unit = "frame" if "per_frame" in item.metrics else "second"
        limit = float(item.tolerance.get("worst", 0.0))
        told = f"{item.metrics.get('metric', 'measure')} by {unit}, {limit:g} is asked"
        figures = {k: v for k, v in item.metrics.items() if k not in ("per_frame", "per_second", "definition")}
        parts.append(f"<h3>{escape(called(verdict, item.name))} {badge(item.verdict)}</h3>")
        parts.append(f"<p>{escape(item.reason or words(figures))}</p>")
        parts.append(charts.curve([float(v) for v in values], limit, told, unit=unit) if values else "")
    notes = f'<p class="quiet">{escape("; ".join(found.notes))}</p>' if found.notes else ""
    return "\n".join(parts) + notes


def runs(verdict: Verdict) -> str:
    """When, where and from what each record was made: versions, device, commit, digests."""
    parts = []
    for row in verdict.rows:
        found = row.record
        if found is None:
            continue
        made = {"made": found.started, "commit": found.commit[:12] or "none", "dirty": found.dirty}
        made |= {"device": words(found.device) or "none"} | {f"run {k}": v for k, v in found.origin.items()}
        lines = [f"{key}: {value}" for key, value in (made | found.environment).items()]
        digests = table(
            ("input", "digest"), [[escape(k), f"<code>{escape(v)}</code>"] for k, v in found.inputs.items()]
        )
        parts.append(f"<details><summary>{escape(row.label)}</summary>{listing(lines)}{digests}</details>")
    return "\n".join(parts)
