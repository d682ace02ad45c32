# SPDX-License-Identifier: Apache-2.0
"""The verdict, made where the test cannot reach: from what both sides left on disk, in the process of the check.

A test may patch whatever it likes in its own process. What the native side answered lies in safetensors, the official
results in the oracle's cache with digests taken before the test began; both are read here and compared again, and so
are the answers with a planted fault, of which one of each kind must be red. The test's own word only makes it worse.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fvport import evidence as ev
from fvport.errors import FvportError
from fvport.parity import compare, faults, oracle
from fvport.spec import Component, Port

KINDS = {True: ("swap", "row"), False: ("schedule", "step")}


def seal(official: oracle.Oracle) -> dict[str, str]:
    """Digest of each file of the official results."""
    return {f.name: ev.blake3(f.read_bytes()) for f in sorted(official.folder.iterdir()) if f.is_file()}


def judge(
    port: Port, name: str, found: dict[str, Any], folder: Path, device: str, sealed: dict[str, str]
) -> dict[str, Any]:
    """`found` (what the test's process says) with results and fault as judged here. Never better than it was."""
    component = port.component(name)
    if found.get("problem"):
        return found
    official = oracle.results(port, name, device=device)
    if sealed and seal(official) != sealed:
        return {**found, "passed": False, "problem": "the official results on disk changed while the test ran"}
    entries = _entries(folder)
    if not entries:
        return {**found, "passed": False, "problem": "the test's process left no outputs to judge"}
    rows = results(component, official, entries, folder)
    fault = planted(component, official, entries, folder)
    mine = all(row["ok"] for row in rows) and bool(rows)
    if mine and not all(row["ok"] for row in found.get("results", [])):
        return {**found, "passed": False}  # red there, for a reason that is not on disk
    judged = {**found, "results": rows}
    if mine:
        said = found.get("fault", {})
        judged["fault"] = fault if not fault["seen"] or said.get("seen") else said
    judged["passed"] = mine and bool(judged.get("fault", {}).get("seen"))
    if bool(found.get("passed")) and not mine:
        judged["notes"] = [*found.get("notes", []), f"{name}: the test's process called this equal; the judge does not"]
    return judged


def judge_late(component: Component, found: dict[str, Any], official: oracle.Oracle, folder: Path) -> dict[str, Any]:
    """`found`, worse where the native side's answers to the late inputs differ from what the official side says now.

    Whoever looked up official results while the test ran had none of these.
    """
    entries = {entry["case"]: entry for entry in _entries(folder) if entry["kind"] == "late"}
    rows = []
    for case in official.cases:
        native = _outputs(entries[case], folder) if case in entries else compare.Outputs({})
        compared = compare.compare_outputs(official.outputs(case), native, component.tolerance)
        rows += [{"case": "late", **asdict(row)} for row in compared]
    if bad := [row for row in rows if not row["ok"]]:
        note = f"{component.name}: agrees on inputs whose official outputs were kept, not on inputs of another seed"
        return {**found, "passed": False, "results": [*found["results"], *bad], "notes": [*found["notes"], note]}
    note = f"{component.name}: agrees on inputs whose official outputs did not exist yet ({len(rows)} outputs)"
    return {**found, "notes": [*found["notes"], note]}


def _entries(folder: Path) -> list[dict[str, Any]]:
    try:
        return list(json.loads((folder / "outputs.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return []


def _outputs(entry: dict[str, Any], folder: Path) -> compare.Outputs:
    from safetensors.torch import load_file

    try:
        return compare.Outputs(load_file(str(folder / entry["file"])), entry["containers"])
    except Exception as error:  # noqa: BLE001 - half a file, another form: nothing is proven
        raise FvportError(f"an output of the native side cannot be read ({error})", where=str(folder)) from None


def results(
    component: Component, official: oracle.Oracle, entries: list[dict[str, Any]], folder: Path
) -> list[dict[str, Any]]:
    """One row an output of every case of the oracle; a case that the test left out is a failed row."""
    rows = []
    given = {e["case"]: e for e in entries if e["kind"] == "right"}
    for case in official.cases:
        if case not in given:
            row = compare.Result("outputs", False, "the native side was not run on this case")
            rows.append({"case": case, **asdict(row)})
            continue
        found = compare.compare_outputs(official.outputs(case), _outputs(given[case], folder), component.tolerance)
        rows += [{"case": case, **asdict(row)} for row in found]
    for entry in entries:
        if entry["kind"] == "again":
            outputs = _outputs(entry, folder)
            found = compare.compare_outputs(official.outputs(entry["case"]), outputs, component.tolerance)
            rows += [{"case": "again", **asdict(row)} for row in found if not row.ok]
    return rows


def planted(
    component: Component, official: oracle.Oracle, entries: list[dict[str, Any]], folder: Path
) -> dict[str, Any]:
    """The self test from the recorded answers: every kind that applies must have been red once."""
    right = {e["case"]: _outputs(e, folder) for e in entries if e["kind"] == "right"}
    tried: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in entries:
        if entry["kind"] in ("right", "again", "late"):
            continue
        outputs = _outputs(entry, folder)
        rows = compare.compare_outputs(official.outputs(entry["case"]), outputs, component.tolerance)
        head = {"kind": entry["kind"], "fault": entry["words"], "red": False, "changed": False}
        fault = tried.setdefault((entry["kind"], entry["words"]), head)
        fault["red"] = fault["red"] or not all(row.ok for row in rows)
        fault["changed"] = fault["changed"] or not faults.equal(outputs, right[entry["case"]])
    own = faults.output_fault(component, official, right) if right else None
    every = [*([own] if own else []), *tried.values()]
    kinds = {fault["kind"] for fault in every}
    red = {fault["kind"] for fault in every if fault["red"]}
    wanted = KINDS[component.has_weights]
    missing = [kind for kind in kinds if kind not in red]
    if not kinds & set(wanted):
        missing.append("of the native object")
    problem = ""
    if missing:
        shown = [f["fault"] for f in every if f["kind"] in missing]
        problem = f"a stock fault stayed green, so this comparison proves nothing: {'; '.join(shown[:3]) or missing[0]}"
    return {"seen": not missing, "problem": problem, "faults": every}
