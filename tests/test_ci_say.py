# SPDX-License-Identifier: Apache-2.0
"""The workflow's last job, one comment kept up to date in place, and a fork's commit named by its digits."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
JOBS = yaml.safe_load((ROOT / ".github" / "workflows" / "alignment-gate.yml").read_text())["jobs"]
SHELL = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"]
SHA = "0123456789abcdef0123456789abcdef01234567"
GH = r"""#!/usr/bin/env python3
import json, os, sys
words = sys.argv[2:]
with open(os.environ["ASKED"], "a") as out:
    body = next((open(w[6:]).read() for w in words if w.startswith("body=@")), "")
    print(json.dumps({"words": words, "body": body}), file=out)
if "--paginate" in words:
    print(os.environ.get("THERE", ""), end="")
"""


def said(tmp_path: Path, **env: str) -> list[dict[str, Any]]:
    """What the job's script asks `gh` for."""
    (tmp_path / "gh").write_text(GH)
    (tmp_path / "gh").chmod(0o755)
    asked = tmp_path / "asked"
    asked.write_text("")
    given = {"COMMIT": SHA, "PULL": "", "REPOSITORY": "org/repo", "RUN": "run", "VERDICT": "success", **env}
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    step = JOBS["say"]["steps"][-1]["run"]
    whole = {**os.environ, **given, "PATH": path, "ASKED": str(asked), "RUNNER_TEMP": str(tmp_path)}
    subprocess.run([*SHELL, step], env=whole, check=True)
    return [json.loads(line) for line in asked.read_text().splitlines()]


def verdict(tmp_path: Path, slug: str, text: str) -> None:
    (tmp_path / "gate" / slug).mkdir(parents=True)
    (tmp_path / "gate" / slug / "verdict.md").write_text(text)


def test_first_verdict_is_posted_and_the_next_replaces_it(tmp_path: Path) -> None:
    """No comment of ours yet: one is written, with every port's verdict. One is there: it is changed, none is added."""
    verdict(tmp_path, "one", "one is **green**")
    verdict(tmp_path, "two", "two is **red**")
    _, first, _ = said(tmp_path, PULL="7", VERDICT="failure")
    assert first["words"][:4] == ["--silent", "--method", "POST", "repos/org/repo/issues/7/comments"]
    assert first["body"].startswith("<!-- alignment-gate -->")
    assert all(words in first["body"] for words in ("**failure**", "one is **green**", "two is **red**"))
    _, second, _ = said(tmp_path, PULL="7", THERE="41\n42\n")
    assert second["words"][2:4] == ["PATCH", "repos/org/repo/issues/comments/41"]


def test_a_verdict_that_never_came_is_said(tmp_path: Path) -> None:
    """Without an artifact the comment still says how the verdict job ended."""
    _, post, _ = said(tmp_path, PULL="7", VERDICT="cancelled")
    assert "**cancelled**" in post["body"]


def test_a_long_verdict_fits_a_comment(tmp_path: Path) -> None:
    """GitHub refuses more than 65,536 characters."""
    for slug in ("one", "two"):
        verdict(tmp_path, slug, "x" * 80_000)
    assert len(said(tmp_path, PULL="7")[1]["body"]) == 65_000


@pytest.mark.parametrize(("result", "state"), [("success", "success"), ("failure", "failure"), ("skipped", "failure")])
def test_every_commit_gets_the_one_status(tmp_path: Path, result: str, state: str) -> None:
    """A pull request's head, a merge queue's commit and one that a maintainer named: one context can be required."""
    (post,) = said(tmp_path, COMMIT=SHA, VERDICT=result)
    assert JOBS["say"]["steps"][-1]["env"]["COMMIT"] == (
        "${{ inputs.commit || github.event.pull_request.head.sha || github.sha }}"
    )
    assert post["words"][3] == f"repos/org/repo/statuses/{SHA}"
    assert f"state={state}" in post["words"]


def test_nothing_of_a_fork_runs_by_itself() -> None:
    """Not the plan, which says where to run; not a check; and of the verdict's steps only the one that is red."""
    fork = "!github.event.pull_request.head.repo.fork"
    assert all(fork in JOBS[name]["if"] for name in ("plan", "check", "say"))
    first, *others = JOBS["verdict"]["steps"]
    assert "if" not in first
    assert "uses" not in first
    assert {step["if"] for step in others} == {"${{ always() && needs.plan.result == 'success' }}"}
    assert JOBS["verdict"]["runs-on"] == "${{ needs.plan.outputs.cpu || 'ubuntu-24.04' }}"  # no plan, no runner of ours


def test_the_writing_job_runs_nothing_of_the_port() -> None:
    """The one job with a right to write checks nothing out, and has no right but a comment's and a status's."""
    job = JOBS["say"]
    assert job["permissions"] == {"pull-requests": "write", "statuses": "write"}
    assert not [step for step in job["steps"] if "checkout" in step.get("uses", "")]
    assert "in-image" not in job["steps"][-1]["run"]


@pytest.mark.parametrize(("commit", "code"), [("", 0), (SHA, 0), ("main", 2), (SHA[:12], 2), (f"{SHA}\nx", 2)])
def test_only_a_whole_commit_may_be_named(commit: str, code: int) -> None:
    """A branch or a short name may move between the reading and the run."""
    script = JOBS["plan"]["steps"][0]["run"]
    done = subprocess.run(
        [*SHELL, script], env={**os.environ, "COMMIT": commit}, check=False, stdout=subprocess.DEVNULL
    )
    assert done.returncode == code


def test_every_job_takes_the_named_commit() -> None:
    """What is checked out, what records carry and what the verdict asks for is one commit."""
    wanted = "${{ inputs.commit || github.sha }}"
    for name in ("plan", "check", "verdict"):
        steps = [step["with"] for step in JOBS[name]["steps"] if step.get("uses", "").startswith("actions/checkout@")]
        assert [step["ref"] for step in steps] == [wanted]
    assert {JOBS[name]["env"]["FVPORT_COMMIT"] for name in ("check", "verdict")} == {wanted}
