# SPDX-License-Identifier: Apache-2.0
"""What FastVideo itself says of the branch: its pre-commit set, and its API and contract tests before and after."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from fvport.spec import Port
from fvport.upstream.branch import Made
from fvport.workspace import git, upstream_tests

CONFIG = ".pre-commit-config.yaml"


def run(port: Port, made: Made) -> dict[str, str]:
    """`pre-commit` and `tests`, each `pass`, `fail: ...` or `not run: ...`, on the branch checked out in scratch."""
    with tempfile.TemporaryDirectory(prefix="fvport-pr-") as folder:
        tree = Path(folder, "tree")
        git.git(port.root, "worktree", "add", "-q", "--detach", str(tree), made.commit)
        try:
            return {"pre-commit": _pre_commit(tree, made), "tests": _tests(tree, made)}
        finally:
            git.run(port.root, "worktree", "remove", "--force", str(tree))


def _pre_commit(tree: Path, made: Made) -> str:
    if not (tree / CONFIG).is_file():
        return f"not run: this FastVideo has no {CONFIG} (a wheel holds none; use a checkout)"
    tool = shutil.which("pre-commit")
    if not tool:
        return "not run: pre-commit is not installed here"
    command = [tool, "run", "--files", *made.new, *made.edited]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return "pass"
    red = [line.split("...")[0].rstrip(".") for line in done.stdout.splitlines() if line.endswith("Failed")]
    return f"fail: {', '.join(red) or (done.stdout + done.stderr).strip()[-200:]}"


def _tests(tree: Path, made: Made) -> str:
    found = upstream_tests.compare(tree, made.base)
    return "pass" if not found else f"fail: {len(found)} no longer pass: {'; '.join(found[:3])}"
