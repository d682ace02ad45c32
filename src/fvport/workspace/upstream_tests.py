# SPDX-License-Identifier: Apache-2.0
"""FastVideo's own API and contract tests, before and after a port: what passed must still pass."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from fvport.errors import BlockedError, FvportError
from fvport.workspace import git

SUITES = ("fastvideo/tests/api", "fastvideo/tests/contract")


def run(root: Path, suites: tuple[str, ...] = SUITES, timeout: float = 1800) -> dict[str, str]:
    """Run FastVideo's tests on the tree at `root`: node id -> passed | failed | skipped | error.

    The tree comes first on the path of a process of its own. Raises BlockedError when there is nothing to run,
    FvportError when pytest ends without an answer (killed, or a collection error that stops it).
    """
    root = root.resolve()
    there = [suite for suite in suites if (root / suite).is_dir()]
    if not there:
        raise BlockedError(
            "has none of FastVideo's API and contract tests", where=str(root), todo="Run: fvport workspace"
        )
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "outcomes.jsonl")
        env = os.environ | {"FVPORT_OUTCOMES": str(out), "PYTHONDONTWRITEBYTECODE": "1"}
        env["PYTHONPATH"] = os.pathsep.join(
            [str(root), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        )
        options = ["-q", "-p", "no:cacheprovider", "-p", "no:fvport", "-p", "fvport.workspace.outcomes"]
        options += ["--rootdir", str(root), "-c", os.devnull, "--continue-on-collection-errors"]
        command = [sys.executable, "-m", "pytest", *options, *there]
        try:
            done = subprocess.run(
                command, cwd=root, env=env, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            raise FvportError(f"FastVideo's tests did not end within {timeout:.0f} s", where=str(root)) from None
        lines = out.read_text(encoding="utf-8").splitlines() if out.is_file() else []
    if done.returncode not in (0, 1) or not lines:
        words = (done.stdout + done.stderr).strip().splitlines()[-5:]
        raise FvportError(f"pytest ended with {done.returncode}: {' | '.join(words)}", where=str(root))
    return fold(json.loads(line) for line in lines)


def fold(reports: object) -> dict[str, str]:
    """One outcome a test from pytest's reports of its phases: the worst counts."""
    rank = {"passed": 0, "skipped": 1, "failed": 2, "error": 3}
    found: dict[str, str] = {}
    for report in reports:  # type: ignore[attr-defined]
        outcome = report["outcome"]
        if outcome == "failed" and report["when"] != "call":
            outcome = "error"
        known = found.get(report["nodeid"], "passed")
        found[report["nodeid"]] = max(known, outcome, key=rank.__getitem__)
    return found


def regressions(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """`node id: passed before, X now` for every test that passed before and does not now (a test that is gone, too)."""
    found = []
    for name, outcome in sorted(before.items()):
        now = after.get(name, "gone")
        if outcome == "passed" and now != "passed":
            found.append(f"{name}: passed before, {now} now")
    return found


def compare(root: Path, base: str, suites: tuple[str, ...] = SUITES) -> list[str]:
    """Regressions of the tree at `root` against its commit `base`, which is checked out in scratch and run first."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "base")
        folder.mkdir()
        packed = git.run(root, "archive", "--format=tar", base)
        if packed.returncode:
            raise BlockedError(f'has no commit "{base}"', where=str(root), todo="Run: fvport workspace")
        subprocess.run(["tar", "-x", "-C", str(folder)], input=packed.stdout, check=True)
        before = run(folder, suites)
    return regressions(before, run(root, suites))
