# SPDX-License-Identifier: Apache-2.0
"""`slurm`: four checks of a gated port as jobs of a real two-node Slurm cluster, against the same ones on this machine.

Both nodes are this machine (`ci.slurm_cluster`, as root), so nothing can be faster: the ratio is what travelling,
queueing and a job for each check cost. Before each run the four records go; the others stay, and the gate must open.
"""

from __future__ import annotations

import os
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.cases import FVPORT, ROOT, Case, fresh
from benchmarks.measure import Run, run

CHECKS = ("mapping", "keys", "config", "parity")
QUICK = ("mapping", "keys")


def slurm(scratch: Path, quick: bool) -> Case:
    """The bench. `--quick`: two checks of a port whose other records are not there, so its gate stays shut."""
    from ci import slurm_cluster

    if missing := slurm_cluster.lacking():
        raise SystemExit(f"benchmarks: not on this machine: {', '.join(missing)} (Debian: slurmctld slurmd munge)")
    chosen = QUICK if quick else CHECKS
    port = _port(scratch, chosen if quick else ())
    shared = fresh(scratch / "shared")
    env = {"FVPORT_ENV": str(Path(sys.prefix)), "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    cluster = slurm_cluster.start(scratch / "cluster")

    def gate(*words: object) -> Run:
        for check in chosen:
            (port / ".fvport" / "evidence" / "tiny_wan" / f"{check}.json").unlink()
        done = run([FVPORT, "gate", "--port", port, *words], cwd=ROOT, env={**env, **cluster.env})
        if done.returncode != (3 if quick else 0):
            cluster.stop()
            raise SystemExit(f"benchmarks: the gate ended with {done.returncode}:\n{done.output[-2000:]}")
        return Run(done.seconds, done.peak_mb, 0, done.output)

    def detail(runs: dict[str, list[Run]]) -> dict[str, Any]:
        cluster.stop()
        ours, here = (statistics.median(r.seconds for r in runs[name]) for name in ("ours", "one_machine"))
        return {"checks": list(chosen), "nodes": 2, "overhead_seconds": round(ours - here, 2)}

    commands = {
        "ours": lambda: gate("--on", "slurm", "--shared", shared),
        "one_machine": lambda: gate("--run"),
        "local_jobs": lambda: gate("--on", "local", "--shared", shared),
    }
    return Case(commands, detail)


def _port(scratch: Path, only: tuple[str, ...]) -> Path:
    build = fresh(scratch / "build")
    words = ["--only", ",".join(only)] if only else []
    made = run([sys.executable, "-m", "examples.demo", "--build", build, *words], cwd=ROOT)
    if made.returncode != (3 if only else 0):
        raise SystemExit(f"benchmarks: the demo ended with {made.returncode}:\n{made.output[-2000:]}")
    return build / "tiny_wan"
