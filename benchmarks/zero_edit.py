# SPDX-License-Identifier: Apache-2.0
"""`zero_edit`: of the official classes that an archetype covers, how many are ported with no edit of what a bake writes.

For each case a tiny official checkpoint is made, put into an otherwise complete release, baked with `mode=port`, and
gated with `mapping keys config parity`. Nothing is written into the port by hand. There is nothing like it to compare
with, so there are no baselines; the detail has the share and each failure's reason.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import encoder_cases
from benchmarks.cases import ROOT, Case
from benchmarks.measure import Run, run

CHECKS = ("mapping", "keys", "config", "parity")
QUICK = ("qwen3", "clip_text")


@dataclass(frozen=True)
class Subject:
    """What is ported: `component` of the release that `make(folder)` writes (a whole release in Diffusers layout)."""

    name: str
    official: str
    component: str
    make: Callable[[Path], Path]


def encoders() -> list[Subject]:
    """Every encoder of the archetypes' case table."""

    def subject(case: encoder_cases.EncoderCase) -> Subject:
        return Subject(case.name, case.official, case.component, lambda folder: encoder_release(case, folder))

    return [subject(case) for case in encoder_cases.CASES.values()]


PARTS: dict[str, Callable[[], list[Subject]]] = {"encoders": encoders}


def encoder_release(case: encoder_cases.EncoderCase, folder: Path) -> Path:
    """The tiny Wan with this encoder in its text encoder's place, or beside it."""
    from examples.tiny_wan import make_official

    make_official.make(folder)
    shutil.rmtree(folder / case.component, ignore_errors=True)
    encoder_cases.make(case, folder / case.component)
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    index[case.component] = [case.index_library, case.cls]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    (folder / make_official.RECORD).unlink()
    return folder


def gate(subject: Subject, scratch: Path) -> dict[str, Any]:
    """Bake and gate one subject. `{"name", "official", "ok", "reason", "seconds", "checks"}`; the folder is removed."""
    clock = time.monotonic()
    found: dict[str, Any] = {"name": subject.name, "official": subject.official, "ok": False, "checks": {}}
    folder = scratch / subject.name
    try:
        found["reason"] = _gate(subject, folder, found["checks"])
        found["ok"] = not found["reason"]
    finally:
        if os.environ.get("FVPORT_KEEP_PORTS") != "1":
            shutil.rmtree(folder, ignore_errors=True)
    found["seconds"] = round(time.monotonic() - clock, 1)
    return found


def _gate(subject: Subject, folder: Path, checks: dict[str, str]) -> str:
    """The reason why it is not green, or ''."""
    release = subject.make(folder / "official")
    slug = f"zero_{subject.name}"[:40].rstrip("_")
    answers = [
        f"model_name=Zero {subject.name}",
        f"model_slug={slug}",
        f"official_weights={release}",
        "workload_type=t2v",
        f"components={','.join(dict.fromkeys([f'{subject.component}=port', 'transformer=port']))}",
        "gate_device=cpu",
    ]
    port = folder / slug
    steps: list[Sequence[object]] = [
        ("new", "--no-input", "--output-dir", folder, *answers),
        ("prep", "--port", port),
        ("workspace", "--port", port),
        ("mapping", "review", "--sign", "zero edit", "--port", port),
    ]
    for words in steps:
        done = _fvport(*words)
        if done.returncode:
            return f"{words[0]}: {_last(done.output)}"
    for name in CHECKS:
        done = _fvport("check", name, subject.component, "--port", port, "--json")
        reason, checks[name] = _verdict(done, subject.component)
        if reason:
            return f"{name}: {reason}"
    return ""


def _fvport(*words: object) -> Run:
    env = {"FVPORT_ENV": str(Path(sys.prefix)), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    return run([sys.executable, "-m", "fvport.cli", *words], cwd=ROOT, env=env)


def _verdict(done: Run, component: str) -> tuple[str, str]:
    """(reason or '', what the component's items say) of a check's record."""
    try:
        record = json.loads(done.output[done.output.index("{\n") :])
    except ValueError:
        return _last(done.output), "no record"
    own = [item for item in record.get("items", []) if item.get("component") in (component, "", None)]
    red = [item for item in own if item["verdict"] != "pass"]
    passed = [item for item in own if item["verdict"] == "pass" and item.get("component") == component]
    if red:
        return "; ".join(f"{item['name']} {item['verdict']}: {item['reason']}"[:400] for item in red[:3]), "red"
    if not passed:
        return f"no item speaks of {component} ({_last(done.output)})", "nothing ran"
    return "", f"{len(passed)} items"


def _last(output: str) -> str:
    lines = [line for line in output.strip().splitlines() if line.strip()]
    return " ".join(lines[-3:])[:600] if lines else "it said nothing"


def zero_edit(scratch: Path, quick: bool) -> Case:
    """The bench: every subject once (the result is a share, not a time). FVPORT_ZERO_EDIT names some of them."""
    subjects = [subject for part in PARTS.values() for subject in part()]
    wanted = [name for name in os.environ.get("FVPORT_ZERO_EDIT", "").split(",") if name] or (QUICK if quick else [])
    subjects = [s for s in subjects if not wanted or s.name in wanted]
    found: dict[str, dict[str, Any]] = {}

    def ours() -> Run:
        clock = time.perf_counter()
        for subject in subjects:
            if subject.name not in found:
                found[subject.name] = gate(subject, scratch)
                row = found[subject.name]
                said = "ok" if row["ok"] else row["reason"]
                print(f"zero_edit: {subject.name} ({row['seconds']} s): {said}", file=sys.stderr, flush=True)
        return Run(time.perf_counter() - clock, 0.0, 0, "")

    return Case({"ours": ours}, lambda runs: summary(list(found.values())))


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares by case and by class (a class is green when all its cases are), and each failure's reason."""
    classes: dict[str, bool] = {}
    for row in rows:
        classes[row["official"]] = classes.get(row["official"], True) and row["ok"]
    green = sum(row["ok"] for row in rows)
    return {
        "cases": len(rows),
        "green": green,
        "share": round(green / len(rows), 4) if rows else 0.0,
        "classes": len(classes),
        "class_share": round(sum(classes.values()) / len(classes), 4) if classes else 0.0,
        "failures": {row["name"]: row["reason"] for row in rows if not row["ok"]},
        "rows": rows,
    }
