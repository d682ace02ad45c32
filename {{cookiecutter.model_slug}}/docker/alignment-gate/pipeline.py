# SPDX-License-Identifier: Apache-2.0
"""The gate's pipeline for Buildkite, from the plan and runner table of the workflow: one step a check, one verdict.

Standard library only, Python 3.11 or later. It is taken with plan.py and runners.toml from the base branch (docs/ci.md
has the step), for a fork could take its own block out of its checkout's copy:
    python3 -I COPY/pipeline.py > steps.json && buildkite-agent pipeline upload --no-interpolation steps.json
The labels of runners.toml are the agents' queues (FVPORT_GPU_LABEL and FVPORT_CPU_LABEL win). A fork's code waits for a
maintainer to unblock this very commit. Only a lost agent is retried, twice at most; a red check never is.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomllib

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # beside plan.py in a port, below it in the template's repository
import plan  # noqa: E402

LOST = [{"exit_status": code, "limit": 2} for code in (-1, 255)]  # the agent is gone, or was told to stop
HANDED_ON = ("FVPORT_SOURCE", "FVPORT_GATE_IMAGE", "FVPORT_WEIGHTS")


def main() -> int:
    """Print the pipeline as JSON, which Buildkite reads as YAML. Exit 2 with a sentence where there is no plan."""
    try:
        print(json.dumps(pipeline(Path("."), os.environ), indent=1))
    except (OSError, LookupError, tomllib.TOMLDecodeError) as error:
        print(f"pipeline: {error.args[0] if isinstance(error, LookupError) else error}", file=sys.stderr)
        return 2
    return 0


def pipeline(root: Path, env: Mapping[str, str]) -> dict[str, Any]:
    """The steps for the tree at `root`; `env` is the uploading step's, which knows build, commit and pull request."""
    if fork(env) and HERE.is_relative_to(root.resolve()):
        raise LookupError("this copy is the fork's own: run the base branch's (docs/ci.md, Buildkite, has the step)")
    files = sorted(root.glob("tests/local_tests/*/port.toml"))
    if not files:
        raise LookupError(f"{root.resolve()} holds no port to gate")
    ports = {file.parent.name: plan.read(file) for file in files}
    table = plan.read(plan.TABLE)
    labels = {name: env.get(f"FVPORT_{name.upper()}_LABEL") or label for name, label in table["labels"].items()}
    jobs = plan.jobs(ports, table, labels, {})
    shared = {name: env[name] for name in HANDED_ON if env.get(name)}
    shared |= {"FVPORT_RUN": f"buildkite-{env['BUILDKITE_BUILD_ID']}", "FVPORT_COMMIT": env["BUILDKITE_COMMIT"]}
    checks = [step(job, shared) for job in jobs]
    first = [{"block": f"Run a fork's code, commit {env['BUILDKITE_COMMIT']}", "key": "trusted"}] if fork(env) else []
    for check in checks:
        check["depends_on"] = [wait["key"] for wait in first]
    return {"steps": [*first, *checks, verdict(checks, list(ports), labels["cpu"], shared)]}


def fork(env: Mapping[str, str]) -> bool:
    """Whether the build is of a pull request from another repository; one that does not say which counts as such."""
    if env.get("BUILDKITE_PULL_REQUEST", "false") == "false":
        return False
    return env.get("BUILDKITE_PULL_REQUEST_REPO", "") != env.get("BUILDKITE_REPO", "-")


def step(job: Mapping[str, Any], shared: Mapping[str, str]) -> dict[str, Any]:
    """One check on its queue. It runs step.sh, which says `prep`, the check without network, and keeps the evidence."""
    own = {"FVPORT_SLUG": job["slug"], "DEVICE": job["device"], "PREPARE": job["prepare"]}
    return {  # yapf: disable, one line an entry
        "label": f"{job['slug']} {job['check']}",
        "key": f"{job['slug']}-{job['check']}",
        "command": f"bash docker/alignment-gate/step.sh check {job['check']}",
        "agents": {"queue": job["runner"]},
        "timeout_in_minutes": job["minutes"],
        "env": {**shared, **own, "FVPORT_LOCKED": "yes"},
        "artifact_paths": [f"gate-out/{job['slug']}-{job['check']}/**/*"],
        "retry": {"automatic": LOST, "manual": {"permit_on_passed": False}},
    }


def verdict(checks: list[dict[str, Any]], slugs: list[str], queue: str, shared: Mapping[str, str]) -> dict[str, Any]:
    """The one required step: runs whatever became of the checks, and counts this build's records only."""
    return {  # yapf: disable, one line an entry
        "label": "alignment-gate",
        "key": "alignment-gate",
        "command": f"bash docker/alignment-gate/step.sh verdict {' '.join(slugs)}",
        "agents": {"queue": queue},
        "timeout_in_minutes": 30,
        "env": {**shared, "DEVICE": "cpu", "FVPORT_LOCKED": "yes"},
        "depends_on": [{"step": check["key"], "allow_failure": True} for check in checks],
        "artifact_paths": ["gate-out/verdict/**/*"],
        "retry": {"automatic": LOST},
    }


if __name__ == "__main__":
    sys.exit(main())
