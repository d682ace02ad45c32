# SPDX-License-Identifier: Apache-2.0
"""The census: a family of cases in one process that forks, against a process for each of its cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.cases import FVPORT, Case
from benchmarks.measure import Run, run

FAMILY = ["clip_text", "clip_text/gelu", "clip_text/eos2", "clip_text/padding_right"]


def audit(scratch: Path, quick: bool) -> Case:
    """`--quick` takes two cases. The whole census is its detail, from the last line of its own record."""
    names = FAMILY[:2] if quick else FAMILY

    def each() -> Run:
        runs = [run([FVPORT, "audit", name, "--json"]) for name in names]
        code = max(one.returncode for one in runs)
        return Run(sum(one.seconds for one in runs), max(one.peak_mb for one in runs), code, runs[-1].output)

    def whole() -> Run:
        file = scratch / "census.json"
        done = run(["sh", "-c", f"{FVPORT} audit --json > {file}"])
        return Run(done.seconds, done.peak_mb, done.returncode, file.read_text(encoding="utf-8"))

    commands = {"ours": lambda: run([FVPORT, "audit", *names, "--json"]), "a process a case": each}
    if not quick:
        commands["fvport audit"] = whole
    return Case(commands, lambda runs: {"cases": len(names), **census(runs)})


def census(runs: dict[str, list[Run]]) -> dict[str, Any]:
    """What the whole census found and took, where it ran."""
    if "fvport audit" not in runs:
        return {}
    made = json.loads(runs["fvport audit"][-1].output)
    return {"census": {**made["counts"], "findings": len(made["findings"]), "seconds": made["seconds"]}}
