# SPDX-License-Identifier: Apache-2.0
"""What became of a job, asked from Slurm's controller: `squeue`, then `scontrol`. No accounting database is needed."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable

WAITING = ("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SUSPENDED")
MEANS = {
    "OUT_OF_MEMORY": "was killed by its memory limit ({memory_gb:g} GB); raise memory_gb in the runner table",
    "TIMEOUT": "ran into its time limit ({minutes} minutes); raise minutes in the runner table",
    "CANCELLED": "was cancelled, or killed by a limit of the cluster ({memory_gb:g} GB, {minutes} minutes)",
    "NODE_FAIL": "was lost with its node, and the cluster did not queue it again",
    "PREEMPTED": "was preempted, and the cluster did not queue it again",
    "FAILED": "ended without an answer (its limits: {memory_gb:g} GB, {minutes} minutes)",
    "GONE": "ended without an answer, and the controller no longer knows it",
}


def states(ids: Iterable[str]) -> dict[str, str]:
    """{job id: Slurm's state}. One that nobody knows any more is GONE; no answer at all gives {}: ask again."""
    wanted = list(ids)
    if not wanted:
        return {}
    queue = _ask("squeue", "-h", "-a", "-r", "-t", "all", "-o", "%i|%F_%K|%T", "-j", ",".join(wanted))
    if queue is None:
        return {}
    found: dict[str, str] = {}
    for line in queue.splitlines():
        plain, array, state = [word.strip() for word in [*line.split("|"), "", "", ""][:3]]
        for name in (plain, array):
            if name in wanted:
                found[name] = state
    for name in [name for name in wanted if name not in found]:
        said = _ask("scontrol", "-o", "show", "job", name)
        if said is None:
            continue
        word = re.search(r"\bJobState=(\w+)", said)
        found[name] = word[1] if word else "GONE"
    return found


def _ask(*words: str) -> str | None:
    """A command's output; '' where it says that it does not know the job, None where nobody answers."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode == 0:
        return done.stdout
    return "" if "nvalid job id" in done.stderr else None
