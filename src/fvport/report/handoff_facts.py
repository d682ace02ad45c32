# SPDX-License-Identifier: Apache-2.0
"""What is known of a port, in the words of the handoff blocks: one function a field, or a group that blocks share.

Read from port.toml, the tree and the evidence. What is not known is `unknown` with the search that was made.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

from fvport import evidence as ev
from fvport.redact import redact
from fvport.report import plan
from fvport.spec import Component, Port
from fvport.verdict import Row, Verdict, speaks_of

Block = dict[str, Any]


def unknown(*searched: str) -> str:
    return f"unknown (looked at: {', '.join(searched)})"


def rel(port: Port, path: Path) -> str:
    return path.relative_to(port.root).as_posix()


def state_files(port: Port) -> Block:
    return {
        "local_tests_readme": rel(port, port.folder / "README.md"),
        "port_state_file": rel(port, port.folder / "PORT_STATUS.md"),
    }


def escape(port: Port, verdict: Verdict, kind: str = "") -> Block:
    """Needed only for what a tool cannot decide: here a waiver that does not hold, or nothing."""
    broken = [risk for risk in verdict.risks if risk.startswith("waiver ")]
    return {
        "needs_user_input": bool(broken),
        "decision_type": "blocker" if broken else "none",
        "question": broken[0] if broken else "",
        "recommended_option": "clear the blocker; else renew the waiver and its row in PORT_STATUS.md"
        if broken
        else "",
        "options": ["clear the blocker", "renew the waiver"] if broken else [],
        "safe_default": "the gate stays shut" if broken else "",
        "blocked_until_answered": bool(broken),
        "state_snapshot": {
            "phase": "{} {}".format(*plan.phase(verdict)),
            "files_changed": changed(port),
            "command_or_test": verdict.next_step,
            "evidence": rel(port, ev.folder(port)),
        },
    }


def changed(port: Port) -> list[str]:
    from fvport.checks import _sources

    return _sources.paths(port)


def ref(port: Port) -> tuple[str, str, str]:
    """(official reference, its folder, its commit)."""
    lock = ev.lock(port).get("official", {})
    if port.official.repo:
        name = port.reference.name if port.reference else ""
        commit = lock.get("commit") or port.official.commit or unknown("port.toml [official]", "port.lock.json")
        return redact(port.official.repo), name, commit
    library = port.official.library or "diffusers"
    version = ev.package_digest(library).partition("==")[2]
    commit = version or unknown("installed distributions")
    return f"{library} {version}".strip(), f"installed package {library}", commit


def index(port: Port, folder: Path) -> Block:
    try:
        found: Block = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError):
        return {}


def strict(verdict: Verdict, component: Component, port: Port) -> str:
    """Strict-load word: not_run, pass, pass_with_documented_exclusions, blocked."""
    word = plan.status(verdict, "conversion", component.name)
    if word == "non_skip_pass":
        return "pass_with_documented_exclusions" if component.mapping.exclude else "pass"
    row = verdict.row("conversion")
    return "not_run" if row is None or row.record is None else "blocked"


def strictness(component: Component) -> str:
    """What FastVideo's own loader checks for this kind (fvport's coverage is strict for all)."""
    if not component.has_weights:
        return "stateless"
    return "strict" if component.kind == "dit" else "non_strict_with_allowed_keys"


def dumps(component: Component, port: Port) -> Block:
    folder = f"converted_weights/{port.slug}/_mapping"
    found = {}
    for side in ("official", "fastvideo"):
        path = f"{folder}/{component.name}_{side}_keys.json"
        found[side] = path if (port.root / path).is_file() else unknown(path)
    return found


def row_status(verdict: Verdict, check: str) -> str:
    row = verdict.row(check)
    return "not in the gate" if row is None else f"{row.verdict} ({row.status})"


def blockers(verdict: Verdict) -> list[str]:
    return [f"{row.label}: {row.reasons[0] if row.reasons else row.state}" for row in verdict.red]


def concerns(port: Port, c: Component) -> list[str]:
    found = [f"config field {key} is ignored: {why}" for key, why in c.config_ignored.items()]
    found += [f"official keys {key} are not loaded: {why}" for key, why in c.mapping.exclude.items()]
    if c.tolerance.mode == "fixed":
        found.append(f"fixed tolerance: {c.tolerance.reason}")
    if c.mode == "external":
        found.append(f"external wrapper: {c.reason}")
    return found


def open_questions(port: Port) -> list[str]:
    """Rows Q### of PORT_STATUS.md that are not closed."""
    status = port.folder / "PORT_STATUS.md"
    lines = status.read_text(encoding="utf-8", errors="replace").splitlines() if status.is_file() else []
    return [line.strip("| ") for line in lines if line.startswith("| Q") and "resolved" not in line.lower()]


def config_file(port: Port, c: Component) -> str:
    name = "scheduler_config.json" if c.kind == "scheduler" else "config.json"
    path = f"{port.official.weights}/{c.weights or c.name}/{name}"
    return path if (port.root / path).is_file() else unknown(path)


def conversion_of(port: Port, verdict: Verdict, c: Component) -> Block:
    entry = index(port, port.load_tree).get(c.name)
    script = f"scripts/checkpoint_conversion/{port.slug}_to_diffusers.py"
    signed = f"signed by {c.mapping.signed_by} on {c.mapping.signed_on}" if c.mapping.signed_by else "not signed"
    return {
        "component": c.name,
        "script": script if (port.root / script).is_file() else "none needed (the load tree links the weights)",
        "converted_component_dir": f"converted_weights/{port.slug}/{c.weights or c.name}",
        "model_index_library": entry[0] if isinstance(entry, list) else unknown("the load tree's model_index.json"),
        "config_file": "scheduler_config.json" if c.kind == "scheduler" else "config.json",
        "config_validation": plan.status(verdict, "config", c.name),
        "mapping_notes": signed,
        "production_loader_strictness": strictness(c),
        "strict_load": strict(verdict, c, port),
        "retry_resolved": plan.status(verdict, "keys", c.name) == "non_skip_pass",
        "concerns": concerns(port, c),
    }


def missing(verdict: Verdict, name: str) -> str:
    row = verdict.row("parity")
    if row is None or row.record is None:
        return "never run"
    return next((i.reason for i in row.record.items if speaks_of(i, name) and i.verdict == "blocked"), "")


def entry(port: Port, folder: str) -> list[str]:
    from fvport.workspace import entries

    files = sorted((port.root / folder).glob("*.py"))
    return [name for file in files for name in entries.entry_class(file) or []] or [unknown(f"{folder}/*.py")]


def classes(path: Path) -> list[str]:
    from fvport.workspace import entries

    tree = entries.parse(path)
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef)] if tree else [unknown(path.name)]


def scheduler(port: Port) -> str:
    return next((c.official for c in port.components.values() if c.kind == "scheduler"), "none declared")


def items(row: Row | None, word: str) -> list[str]:
    items = row.record.items if row and row.record else []
    return [item.reason or item.name for item in items if word in (item.name + item.reason).lower()] or [
        unknown("evidence of smoke")
    ]


def artifacts(verdict: Verdict, check: str) -> list[str]:
    row = verdict.row(check)
    return row.record.artifacts if row and row.record else []
