# SPDX-License-Identifier: Apache-2.0
"""`gate_incremental`: `nox -s gate` on a gated port where nothing changed, against a nox session that does nothing.

The goal is under 2 s beyond nox's own start: digests decide, and nothing is imported that is not needed.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.cases import BIN, ROOT, Case, fresh
from benchmarks.measure import Run, run

GOAL = 2.0  # seconds beyond nox itself
NOTHING = """import nox

nox.options.default_venv_backend = "none"


@nox.session
def nothing(session):
    pass
"""


def gate_incremental(scratch: Path, quick: bool) -> Case:
    """The bench. `--quick` has two checks' records in place of all, so its gate is closed and reads less."""
    options = ["--only", "mapping,keys"] if quick else []
    build = fresh(scratch / "build")
    made = run([sys.executable, "-m", "examples.demo", "--build", build, *options], cwd=ROOT)
    if made.returncode not in ((3,) if quick else (0,)):
        raise SystemExit(f"benchmarks: the demo ended with {made.returncode}:\n{made.output[-2000:]}")
    port = build / "tiny_wan"
    plain = fresh(scratch / "plain") / "noxfile.py"
    plain.write_text(NOTHING, encoding="utf-8")
    env = {"FVPORT_ENV": str(Path(sys.prefix))}

    def ours() -> Run:
        return accepted(run([BIN / "nox", "-s", "gate"], cwd=port, env=env), quick)

    def nothing() -> Run:
        return run([BIN / "nox", "-f", plain, "-s", "nothing"], cwd=plain.parent, env=env)

    return Case({"ours": ours, "nox": nothing}, lambda runs: detail(runs, quick))


def accepted(done: Run, quick: bool) -> Run:
    """A gate that was decided; a closed one too where only some of its checks were run."""
    verdict = "The gate is open" in done.output
    decided = verdict if not quick else "Alignment gate of" in done.output
    return Run(done.seconds, done.peak_mb, 0 if decided else 1, done.output)


def detail(runs: dict[str, list[Run]], quick: bool) -> dict[str, Any]:
    """Seconds beyond nox itself, and whether that is under the goal."""
    ours, nox = (statistics.median(run.seconds for run in runs[name]) for name in ("ours", "nox"))
    beyond = round(ours - nox, 3)
    return {"beyond_nox_seconds": beyond, "goal_seconds": GOAL, "met": beyond < GOAL, "all_checks": not quick}
