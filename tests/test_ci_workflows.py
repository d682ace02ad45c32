# SPDX-License-Identifier: Apache-2.0
"""The workflows: pinned, without rights they do not need, one gate in two files, a verdict for every port."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from ci import template_copies

ROOT = Path(__file__).resolve().parent.parent
OURS = ROOT / ".github" / "workflows"


def rendered(name: str = template_copies.WORKFLOW) -> str:
    """A workflow of the port as the template renders it."""
    text = (template_copies.TEMPLATE / name).read_text()
    options = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    return jinja2.Environment(undefined=jinja2.StrictUndefined, **options).from_string(text).render()


WORKFLOWS = {path.name: path.read_text() for path in OURS.glob("*.yml")} | {"port": rendered()}


def parsed(name: str) -> dict[Any, Any]:
    return yaml.safe_load(WORKFLOWS[name])


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_action_is_pinned(name: str) -> None:
    """Each `uses:` names a commit, with the version it stands for beside it."""
    uses = re.findall(r"\buses: (.+)", WORKFLOWS[name])
    assert uses
    assert [line for line in uses if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []


@pytest.mark.parametrize("name", WORKFLOWS)
def test_no_rights_but_reading(name: str) -> None:
    """Nothing by default; a job reads the repository at most; no secret is named; a checkout keeps no credentials."""
    workflow = parsed(name)
    assert workflow["permissions"] == {}
    readers = {key: job for key, job in workflow["jobs"].items() if key != "say"}
    assert all(job["permissions"] in ({}, {"contents": "read"}) for job in readers.values())
    assert "secrets." not in WORKFLOWS[name]
    assert "pull_request_target" not in WORKFLOWS[name]
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    checkouts = [step for step in steps if step.get("uses", "").startswith("actions/checkout@")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_nothing_is_put_into_a_shell_by_the_template(name: str) -> None:
    """Values reach scripts through the environment, never by `${{ }}` inside a script."""
    steps = [step for job in parsed(name)["jobs"].values() for step in job["steps"]]
    assert [step["run"] for step in steps if "${{" in step.get("run", "")] == []


@pytest.mark.parametrize("name", WORKFLOWS)
def test_jobs_have_a_time_limit_and_runs_replace_each_other(name: str) -> None:
    """No job may hang a runner, and a newer push ends the older run."""
    assert all("timeout-minutes" in job for job in parsed(name)["jobs"].values())
    assert parsed(name)["concurrency"]["cancel-in-progress"] is True


def test_port_calls_the_same_workflow() -> None:
    """A port carries the reusable workflow to the letter, and calls it in under 20 lines, when it should run."""
    assert rendered() == WORKFLOWS["alignment-gate.yml"]
    text = rendered(template_copies.CALLER)
    assert len(text.splitlines()) < 20
    caller = yaml.safe_load(text)
    assert set(caller[True]) == {"pull_request", "merge_group", "workflow_dispatch"}  # yaml reads `on` as True
    assert caller["permissions"] == {}
    assert set(caller["jobs"]) == {"gate"}
    assert caller["jobs"]["gate"]["uses"] == "./" + template_copies.WORKFLOW


def test_caller_grants_what_the_jobs_ask_and_no_more() -> None:
    """A called job may have no right that its caller lacks: GitHub refuses the whole run then."""
    gate = yaml.safe_load(rendered(template_copies.CALLER))["jobs"]["gate"]
    asked = [job["permissions"] for job in parsed("alignment-gate.yml")["jobs"].values()]
    assert gate["permissions"] == {key: value for rights in asked for key, value in rights.items()}
    assert set(gate["with"]) <= set(parsed("alignment-gate.yml")[True]["workflow_call"]["inputs"])
    assert "secrets" not in gate


def test_verdict_is_red_unless_everything_ran_and_passed() -> None:
    """The verdict always runs, needs plan and checks, and compares both with success: a skip is no success."""
    verdict = parsed("port")["jobs"]["verdict"]
    assert verdict["if"] == "always()"
    assert set(verdict["needs"]) == {"plan", "check"}
    first = verdict["steps"][0]
    assert set(first["env"].values()) == {"${{ needs.plan.result }}", "${{ needs.check.result }}"}
    assert first["run"].count("!= success") == 2


def test_checks_run_without_network_and_leave_evidence() -> None:
    """The check itself has no network; its evidence is kept also when it is red, and its absence is an error."""
    steps = {step.get("name"): step for step in parsed("port")["jobs"]["check"]["steps"]}
    assert steps["check (without network)"]["env"]["NETWORK"] == "none"
    assert steps["evidence"]["if"] == "always()"
    assert steps["evidence"]["with"]["if-no-files-found"] == "error"


def test_every_job_is_of_one_port() -> None:
    """A job says which port it is about, and two ports' evidence has two names."""
    check = parsed("port")["jobs"]["check"]
    assert check["env"]["FVPORT_SLUG"] == "${{ matrix.slug }}"
    assert "${{ matrix.slug }}-${{ matrix.check }}" in check["steps"][-1]["with"]["name"]
    assert "matrix.slug" in check["name"]


def test_history_is_whole_and_nothing_is_put_into_the_tree() -> None:
    """`boundary` sees the commit before the port, and no folder of the workflow's own among the port's files."""
    for job in ("check", "verdict"):
        steps = parsed("port")["jobs"][job]["steps"]
        checkouts = [step["with"] for step in steps if step.get("uses", "").startswith("actions/checkout@")]
        assert [checkout["fetch-depth"] for checkout in checkouts] == [0]
        paths = [step["with"]["path"] for step in steps if "path" in step.get("with", {})]
        assert paths
        assert all(path.startswith("${{ runner.temp }}/") for path in paths)
        assert "OUT" not in parsed("port")["jobs"][job]["env"]  # in-image.sh takes RUNNER_TEMP


def test_weights_are_the_committed_locks() -> None:
    """Every job that may fetch weights holds them to port.lock.json, and the file says what CI needs."""
    for job in ("check", "verdict"):
        env = parsed("port")["jobs"][job]["env"]
        assert env["FVPORT_LOCKED"] == "yes"
        assert env["FVPORT_COMMIT"] == "${{ inputs.commit || github.sha }}"  # records and verdict name one commit
        assert env["FVPORT_RUN"] == "github-${{ github.run_id }}"
    head = rendered().partition("\nname:")[0]
    assert all(word in head for word in ("hub", "FVPORT_WEIGHTS", "port.lock.json", "FVPORT_SOURCE", "gated"))


STUB = """\
printf '%s|' "$FVPORT_SLUG" "${NETWORK:-}" "$@" >> "$SAID"; echo >> "$SAID"
[ "$1" = prep ] || [ "$FVPORT_SLUG" != "$RED" ]
"""


@pytest.mark.parametrize(("red", "code"), [("", 0), ("one", 1), ("two", 1)])
def test_verdict_asks_the_gate_of_every_port(tmp_path: Path, red: str, code: int) -> None:
    """The verdict's step judges each port, with the jobs' records and no others, and is red when any is."""
    step = next(s for s in parsed("port")["jobs"]["verdict"]["steps"] if s.get("name", "").startswith("verdict of"))
    script = tmp_path / "docker" / "alignment-gate" / "in-image.sh"
    script.parent.mkdir(parents=True)
    script.write_text(STUB)
    for file in ("runner/collected/evidence-one-keys/evidence/one/keys.json", ".fvport/evidence/one/parity.json"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text("{}")
    own = {"SLUGS": "one two", "RUNNER_TEMP": str(tmp_path / "runner"), "SAID": str(tmp_path / "said"), "RED": red}
    own |= {"FVPORT_RUN": "r7", "FVPORT_COMMIT": "abc", "IMAGE": "some/image@sha256:1"}
    only = "--only-run|r7|--only-commit|abc|--only-image|some/image@sha256:1"
    command = ["bash", "-e", "-c", step["run"]]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, **own}, check=False)
    assert done.returncode == code
    out = tmp_path / "runner" / "gate-out"
    assert (tmp_path / "said").read_text().splitlines() == [
        "one||prep|workspace|",
        "two||prep|workspace|",
        f"one|none|gate|--|--markdown|{out}/one/verdict.md|{only}|",
        f"two|none|gate|--|--markdown|{out}/two/verdict.md|{only}|",
    ]
    assert [path.name for path in (tmp_path / ".fvport" / "evidence" / "one").iterdir()] == ["keys.json"]


def test_verdict_without_a_plan_is_red(tmp_path: Path) -> None:
    """No port named is no port judged, which is not green."""
    step = next(s for s in parsed("port")["jobs"]["verdict"]["steps"] if s.get("name", "").startswith("verdict of"))
    done = subprocess.run(["bash", "-e", "-c", step["run"]], cwd=tmp_path, env={**os.environ, "SLUGS": ""}, check=False)
    assert done.returncode != 0


def test_fastvideos_contract_is_kept() -> None:
    """FastVideo's own tests forbid naming tests/local_tests in ci-*.yml: our file has another name and does not."""
    for name in (template_copies.WORKFLOW, template_copies.CALLER):
        assert not Path(name).name.startswith("ci-")
        assert "tests/local_tests" not in rendered(name)


def test_ci_runs_every_session_by_nox_and_gathers_them() -> None:
    """This repository's CI calls nox sessions that exist, and `check` needs every other job."""
    jobs = parsed("ci.yml")["jobs"]
    sessions = jobs["session"]["strategy"]["matrix"]["session"]
    noxfile = (ROOT / "noxfile.py").read_text()
    assert all(f"\ndef {session}(" in noxfile for session in sessions)
    assert set(jobs["check"]["needs"]) == set(jobs) - {"check"}
    assert jobs["check"]["if"] == "always()"


def test_dependabot_waits() -> None:
    """A new version of an action or a base image is not taken in its first week."""
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    assert all(update["cooldown"]["default-days"] >= 7 for update in updates)
