# SPDX-License-Identifier: Apache-2.0
"""`component_skill_handoff` of one component: what was done, what the evidence says of it, what is next, what to ask.

Every status comes from a record that still speaks of this tree; a record that is stale is said to be so. A conversion
fault becomes a retry request with its keys, shapes and evidence: it is answered in the conversion, never in the model.
"""

from __future__ import annotations

import ast
import re
from typing import Any

from fvport import evidence as ev
from fvport.report import handoff_facts as facts
from fvport.report import official_files, packet, plan
from fvport.report.handoff_facts import Block, unknown
from fvport.spec import Component, Port
from fvport.verdict import Verdict, speaks_of

WEIGHT_FAULTS = {  # family of a confirmed cause -> what the conversion got wrong
    "swap": "fuse",
    "layout": "split",
    "missing weight": "rename",
    "missing bias": "rename",
    "norm affine": "rename",
    "weight": "rename",
}
LOADER = re.compile(r"has no weights for (?P<missing>[^;]+)|^(?P<unknown>\S+): no rule names this", re.MULTILINE)


def block(port: Port, verdict: Verdict, c: Component) -> Block:
    """The block, its fields in the contract's order."""
    known = packet.block(port, c.name)
    retry_ = retry(port, verdict, c)
    hatch = escape(port, verdict, c)
    mine = _items(verdict, "parity", c)
    red = [item for item in mine if item.verdict != "pass"]
    parity = plan.status(verdict, "parity", c.name) if c.needs_parity else "not needed (passthrough)"
    state = _state(verdict, "parity")
    return {
        "component": c.name,
        "mode": known["mode"],
        "files_changed": _files(port, c),
        "official_files_used": [entry["path"] for entry in known["official_definition_files"]],
        "prototype_key_dumps": known["prototype_key_dumps"],
        "port_state_file": known["port_state_file"],
        "concerns_or_unknowns": known["concerns_or_unknowns"],
        "parity_test": known["parity_test"],
        "parity_status": parity,
        "production_loader_strictness": facts.strictness(c),
        "strict_load": facts.strict(verdict, c, port),
        "pytest_output": _said(mine, state) or unknown(facts.rel(port, ev.folder(port) / "parity.json")),
        "blocker": _blocker(red, state),
        "conversion_retry_request": retry_,
        "readme_updated": _in_readme(port, c),
        "next_step": _next(c, parity, retry_, hatch, plan.status(verdict, "keys", c.name)),
        "escape_hatch": hatch,
    }


def _files(port: Port, c: Component) -> list[str]:
    files = [c.native_file, c.config_file] if c.mode == "port" else []
    return [path for path in [*files, port.test_file(c)] if (port.root / path).is_file()]


def _items(verdict: Verdict, check: str, c: Component) -> list[ev.Item]:
    row = verdict.row(check)
    return [item for item in (row.record.items if row and row.record else []) if speaks_of(item, c.name)]


def _state(verdict: Verdict, check: str) -> str:
    row = verdict.row(check)
    return "" if row is None or row.record is None or row.state == "current" else str(row.state)


def _said(mine: list[ev.Item], state: str) -> str:
    text = "; ".join(f"{item.name}: {item.verdict}" for item in mine)
    return f"{text} (the record is {state}: run it again)" if text and state else text


def _blocker(red: list[ev.Item], state: str) -> str:
    """The walk's answer before any other red sentence."""
    first = next((item for item in red if item.name.endswith(": walk")), red[0] if red else None)
    return first.reason if first else f"the record of parity is {state}" if state else ""


def _in_readme(port: Port, c: Component) -> bool:
    """Whether README.md speaks of the component."""
    file = port.folder / "README.md"
    return file.is_file() and c.name in file.read_text(encoding="utf-8", errors="replace")


def _next(c: Component, parity: str, retry_: Block, hatch: Block, keys: str) -> str:
    if hatch["needs_user_input"]:
        return "ask_user"
    if not c.needs_parity or parity == "non_skip_pass":
        return "none: this component is done"
    if retry_["failing_keys"]:
        return "phase_5_conversion_retry"
    if keys != "non_skip_pass" and c.has_weights and c.mode in ("port", "reuse"):
        return "phase_5_conversion"
    return "phase_6_continue"


# --- a conversion fault -----------------------------------------------------------------------------------------------


def retry(port: Port, verdict: Verdict, c: Component) -> Block:
    """The retry request: from `keys`, from what the loader refused, from a weight that parity's trace found wrong."""
    keys = [item for item in _items(verdict, "keys", c) if item.verdict == "fail"]
    failing = [name for item in keys for name in item.metrics.get("names", [])] or [item.reason for item in keys]
    evidence = [facts.rel(port, ev.folder(port) / "keys.json")] if keys else []
    fixes = [_fix(item) for item in keys]
    for item in _items(verdict, "parity", c):
        found = _loader(item) or _weights(item)
        if item.verdict == "fail" and found:
            failing += found[0]
            fixes.append(found[1])
            evidence.append(facts.rel(port, ev.folder(port) / "parity.json"))
    return {
        "component": c.name,
        "parity_test": port.test_file(c),
        "failing_keys": list(dict.fromkeys(failing)),
        "expected_actual_shapes": [item.reason for item in keys if item.name.endswith(": shape")],
        "source_prefix_or_path": c.weights or c.name,
        "evidence": ", ".join(dict.fromkeys(evidence)) or "none",
        "suspected_fix": next((fix for fix in fixes if fix != "unknown"), "unknown" if fixes else "none"),
    }


def _fix(item: ev.Item) -> str:
    """rename, split, fuse, skip ... as far as the finding itself says it."""
    kind = item.name.rpartition(": ")[2]
    if kind == "shape":
        return "fuse" if " + " in item.reason else "split"
    if "Did you mean" in item.reason:
        return "rename"
    return {"unexpected": "skip", "missing": "rename"}.get(kind, "unknown")


def _loader(item: ev.Item) -> tuple[list[str], str] | None:
    """Names that FastVideo's loader or the class's load_weights refused."""
    found = LOADER.search(item.reason.replace("ValueError: ", "\n"))
    if found is None:
        return None
    names = re.split(r",\s*", found["missing"] or found["unknown"])
    return [name.strip(" .)") for name in names if name.strip(" .)")], "rename"


def _weights(item: ev.Item) -> tuple[list[str], str] | None:
    """A parameter whose values are not the official ones, as the trace's test showed."""
    cause = item.metrics.get("cause") or {}
    if cause.get("family") not in WEIGHT_FAULTS or "with the official values" not in cause.get("words", ""):
        return None
    return [f"{cause['native']}: {cause['words']}"], WEIGHT_FAULTS[cause["family"]]


# --- what only a person can decide ------------------------------------------------------------------------------------


def escape(port: Port, verdict: Verdict, c: Component) -> Block:
    """A question where evidence shows one: code of the release, a library that is not there, a waiver that broke."""
    hatch = facts.escape(port, verdict)
    if hatch["needs_user_input"]:
        return hatch
    if where := _own_code(port, verdict, c):
        return {**hatch, **_ask_code(c, where)}
    if lacking := _lacking(verdict, c):
        return {**hatch, **_ask_library(c, lacking)}
    return hatch


def _own_code(port: Port, verdict: Verdict, c: Component) -> str:
    """Where the release's own code would be run: the official class is in no library, or somebody asks for it."""
    asked = _trusting(port)
    if asked:
        return asked
    for check in ("parity", "config"):
        for item in _items(verdict, check, c):
            if item.verdict != "pass" and "trust_remote_code" in item.reason:
                return f"evidence of {check}: {item.reason[:200]}"
    mapped = packet.remote_code(port, c)
    nowhere = official_files.definition(port, c, "")["path"].startswith("unknown")
    return mapped[0] if mapped and nowhere else ""


def _trusting(port: Port) -> str:
    """`oracle.py:12` where a call of oracle.py says trust_remote_code=True."""
    file = port.folder / "oracle.py"
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code" and getattr(node.value, "value", None):
            return f"{facts.rel(port, file)}:{node.value.lineno}"
    return ""


def _lacking(verdict: Verdict, c: Component) -> str:
    """The sentence of a blocked item that says which library the official side needs."""
    for item in _items(verdict, "parity", c):
        if item.verdict == "blocked" and re.search(
            r"ImportError|ModuleNotFoundError|requires the \w+ library", item.reason
        ):
            return item.reason
    return ""


def _ask_code(c: Component, where: str) -> dict[str, Any]:
    return {
        "needs_user_input": True,
        "decision_type": "dependency",
        "question": f"May code that the release of {c.name} brings itself be run ({where})?",
        "recommended_option": "read it, and give it as [official] repo at a fixed commit, which the oracle runs apart",
        "options": [
            "name the class of an installed library that computes the same",
            "leave the component out of this port (a scope cut, to be written down)",
        ],
        "safe_default": "code of a release is never run",
        "blocked_until_answered": True,
    }


def _ask_library(c: Component, sentence: str) -> dict[str, Any]:
    return {
        "needs_user_input": True,
        "decision_type": "dependency",
        "question": f"The official side of {c.name} needs a library that is not installed: {sentence[:300]}",
        "recommended_option": "give the oracle an environment of its own: [official] requirements in port.toml",
        "options": ["add the library to the lock of all sessions (a core dependency)"],
        "safe_default": "nothing is installed, and the component stays blocked",
        "blocked_until_answered": True,
    }
