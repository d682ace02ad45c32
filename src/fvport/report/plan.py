# SPDX-License-Identifier: Apache-2.0
"""PLAN.md's progress, and the one step that writes evidence into the port's Markdown (`fvport plan --sync`).

It ticks the items of PLAN.md that name checks, and fills generated blocks:

    <!-- fvport:begin components -->
    ... made from evidence ...
    <!-- fvport:end components -->

All else is people's. Running it twice changes nothing; no check reads what it writes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fvport import evidence as ev
from fvport import figures, gate, planfile
from fvport.errors import UsageError, did_you_mean
from fvport.spec import Component, Port
from fvport.verdict import Verdict, speaks_of


@dataclass
class Progress:
    """PLAN.md item by item, and which files a sync changed."""

    items: list[dict[str, Any]]
    changed: list[str] = field(default_factory=list)
    synced: bool = False

    def to_json(self) -> dict[str, Any]:
        done = sum(item["done"] for item in self.items)
        return {"done": done, "of": len(self.items), "items": self.items, "changed": self.changed}

    def text(self) -> str:
        lines, section = [], None
        for item in self.items:
            if item["section"] != section:
                section = item["section"]
                lines.append(f"{section}")
            waits = f"  (waits for {', '.join(item['gate'])})" if item["gate"] and not item["done"] else ""
            lines.append(f"  [{'x' if item['done'] else ' '}] {item['text']}{waits}")
        done = sum(item["done"] for item in self.items)
        lines.append(
            f"{done} of {len(self.items)} items done." if self.items else "There is no PLAN.md with checkboxes."
        )
        if self.synced:
            lines.append(f"Brought up to date: {', '.join(self.changed) or 'nothing had changed'}.")
        return "\n".join(lines)


def progress(port: Port) -> Progress:
    """Each item of PLAN.md with `done` from evidence. Reads only."""
    return Progress(gate.decide(port).plan)


def sync(port: Port) -> Progress:
    """Tick PLAN.md and fill the generated blocks of PORT_STATUS.md, README.md and the docs page from evidence."""
    verdict = gate.decide(port)
    new = {path: _filled(port, verdict, path) for path in files(port) if path.is_file()}
    plan = port.folder / "PLAN.md"
    if plan in new:
        new[plan] = _ticked(port, new[plan], plan, verdict)
    result = Progress(verdict.plan, synced=True)
    for path, text in new.items():
        if text != _text(path):
            part = path.with_name(f"{path.name}.{os.getpid()}.part")
            part.write_text(text, encoding="utf-8")
            os.replace(part, path)
            result.changed.append(path.relative_to(port.root).as_posix())
    return result


def files(port: Port) -> list[Path]:
    """The Markdown files that a sync may change."""
    names = ("PLAN.md", "PORT_STATUS.md", "README.md")
    return [*(port.folder / name for name in names), port.root / "docs" / "inference" / f"{port.slug}.md"]


def _ticked(port: Port, text: str, path: Path, verdict: Verdict) -> str:
    lines = text.splitlines(keepends=True)
    for item in planfile.read(path):
        if item.gate:
            done = gate.done(port, item, verdict.rows)
            lines[item.line - 1] = planfile.tick(lines[item.line - 1], done)
    return "".join(lines)


def _text(path: Path) -> str:
    """A file that is to be written back must be read whole: UsageError where it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError("is not UTF-8 text", where=str(path), todo="Save it as UTF-8, then run again") from None


def _filled(port: Port, verdict: Verdict, path: Path) -> str:
    text = _text(path)

    def fill(match: Any) -> str:
        name = match[2]
        if name not in BLOCKS:
            near = did_you_mean(name, BLOCKS)
            raise UsageError(f'unknown generated block "{name}" ({", ".join(BLOCKS)}).{near}', where=str(path))
        return f"{match[1]}{BLOCKS[name](port, verdict)}{match[4]}"

    return ev.GENERATED.sub(fill, text)


# --- the blocks ------------------------------------------------------------------------------------------------------


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    lines += [f"| {' | '.join(' '.join(str(c).replace('|', '/').split()) or '-' for c in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def status(verdict: Verdict, check: str, component: str) -> str:
    """FastVideo's status word for one component of one check."""
    row = verdict.row(check)
    if row is None:
        return "not in the gate"
    if row.record is None or row.state != "current":
        return "blocked" if row.record is None else f"blocked ({row.state})"
    mine = [item for item in row.record.items if speaks_of(item, component)]
    if not mine:
        return "scaffold_skip"
    words = {item.verdict for item in mine}
    return "debug_red" if "fail" in words else "blocked" if "blocked" in words else "non_skip_pass"


def component_status(verdict: Verdict, component: Component) -> str:
    """The component inventory's word: reuse_pending, reuse_proven, port_pending, non_skip_pass, blocked."""
    if component.mode == "passthrough":
        return "passthrough"
    word = status(verdict, "parity", component.name)
    if word == "non_skip_pass":
        return "reuse_proven" if component.mode == "reuse" else word
    return "reuse_pending" if component.mode == "reuse" else "port_pending"


def _components(port: Port, verdict: Verdict) -> str:
    said = ("Component", "Type", "Reuse/Port", "Official Definition", "Official Instantiation", "FastVideo Target")
    rows = []
    for name, c in port.components.items():
        built = f"oracle.py build_{name}" if c.needs_parity else "pipeline"
        words = [status(verdict, check, name) for check in ("keys", "conversion", "parity")]
        if not c.needs_parity:
            words = ["n/a", words[1], "n/a"]
        elif c.mode == "reuse":
            words[0] = "n/a"
        rows.append((name, c.kind, c.mode, c.official, built, c.native or "copied", *words, _issue(verdict, name)))
    return table((*said, "Prototype", "Conversion", "Parity", "Open Issues"), rows)


def _issue(verdict: Verdict, component: str) -> str:
    """The first red sentence of any check that names the component."""
    for row in verdict.rows:
        for item in row.record.items if row.record and row.state == "current" else ():
            if item.component == component and item.verdict == "fail":
                return f"{row.label}: {item.reason[:120]}"
    return ""


def _conversion(port: Port, verdict: Verdict) -> str:
    script = f"scripts/checkpoint_conversion/{port.slug}_to_diffusers.py"
    has = (port.root / script).is_file()
    row = verdict.row("conversion")
    word = "not_run" if row is None or row.record is None or row.state != "current" else row.verdict
    rows = [("converted_weights_dir", f"converted_weights/{port.slug}")]
    rows.append(("conversion_script", script if has else "none: the load tree links the weights"))
    rows.append(("strict_load", word))
    signed = ", ".join(f"{s['component']} by {s['by'] or 'nobody'}" for s in verdict.signatures)
    return table(("item", "value"), [*rows, ("mapping signed", signed or "none needed")])


def _parity(port: Port, verdict: Verdict) -> str:
    rows = [
        (name, f"`nox -s parity -- {name}`", status(verdict, "parity", name), port.test_file(c))
        for name, c in port.components.items()
        if c.needs_parity
    ]
    rows += [
        (
            row.label,
            f"`nox -s {row.check}`",
            f"{row.verdict} ({row.status})",
            row.reasons[0] if row.reasons else row.title,
        )
        for row in verdict.rows
        if row.check != "parity" or row.variant
    ]
    return table(("Scope", "Command", "Last Result", "Notes"), rows)


def _status(port: Port, verdict: Verdict) -> str:
    rows = []
    for name, c in port.components.items():
        if c.needs_parity:
            concern = c.reason or (
                "reused class, compared all the same" if c.mode == "reuse" else _issue(verdict, name)
            )
            rows.append((name, f"`{c.official}`", f"`{port.test_file(c)}`", concern, status(verdict, "parity", name)))
    pipeline, file = verdict.row("pipeline"), f"tests/local_tests/pipelines/test_{port.slug}_pipeline_parity.py"
    word = pipeline.status if pipeline and pipeline.state == "current" else "scaffold_skip"
    rows.append(("pipeline", f"`{port.official.pipeline.cls}`", f"`{file}`", "", word))
    return table(("component", "official", "test", "concerns", "status"), rows)


def _gate(port: Port, verdict: Verdict) -> str:
    rows = [(row.label, row.verdict, row.device or "-", row.scale or "-", row.title) for row in verdict.rows]
    return table(("Check", "Verdict", "Device", "Scale", "Row of the gate"), rows)


def _facts(rows: str, port: Port, verdict: Verdict) -> str:
    """A table of what the first step found; imported late, for its module reads this one."""
    from fvport.report import handoff_prep

    return table(("item", "value"), getattr(handoff_prep, rows)(port, verdict))


def _reuse(port: Port, verdict: Verdict) -> str:
    """The reuse proofs, aspect by aspect, and what parity says beside them; imported late, it asks no library."""
    from fvport.reuse import commands

    found = commands.rows(port)
    parity = dict.fromkeys(row[0] for row in found)
    beside = [(name, "", "parity (still required)", status(verdict, "parity", name), "") for name in parity]
    none = [("none", "", "", "", "no component is reused")]
    return table(("Component", "Native class", "Aspect", "Verdict", "What"), [*found, *beside] or none)


def _phase(port: Port, verdict: Verdict) -> str:
    number, name = phase(verdict)
    records = [row.record for row in verdict.rows if row.record]
    updated = max((record.started[:10] for record in records), default="")
    said = verdict.summary if records else "baked, nothing run"
    return table(("phase", "status", "owner", "last_updated"), [(f"{number} {name}", said, "", updated)])


def phase(verdict: Verdict) -> tuple[int, str]:
    """FastVideo's phase as the evidence shows it: the first one whose checks are not all green."""
    if all(row.record is None for row in verdict.rows):
        return 2, "parity scaffolds"
    steps = (
        (5, "mapping and conversion", ("mapping", "keys", "config", "conversion")),
        (6, "component parity", ("parity",)),
        (9, "activation and local verification", ("smoke", "pipeline", "example")),
        (10, "quality regression", ("ssim",)),
        (11, "hot-path review and handoff", ("docs", "boundary")),
    )
    for number, name, checks in steps:
        if any(row.check in checks and row.verdict not in ("pass", "waived") for row in verdict.rows):
            return number, name
    return 11, "hot-path review and handoff"


BLOCKS: dict[str, Callable[[Port, Verdict], str]] = {
    "figures": lambda port, verdict: figures.render(port),
    "components": _components,
    "conversion": _conversion,
    "parity": _parity,
    "status": _status,
    "gate": _gate,
    "phase": _phase,
    "reuse": _reuse,
    "prep": lambda port, verdict: _facts("status_rows", port, verdict),
    "environment": lambda port, verdict: _facts("environment_rows", port, verdict),
}
