# SPDX-License-Identifier: Apache-2.0
"""The workflows: pinned, without rights they do not need, one gate in two files, and a matrix from port.toml."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from ci import plan, template_copies

ROOT = Path(__file__).resolve().parent.parent
OURS = ROOT / ".github" / "workflows"


def rendered() -> str:
    """The port's workflow as the template renders it."""
    text = (template_copies.TEMPLATE / template_copies.WORKFLOW).read_text()
    options = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    return jinja2.Environment(undefined=jinja2.StrictUndefined, **options).from_string(text).render()


WORKFLOWS = {path.name: path.read_text() for path in OURS.glob("*.yml")} | {"port": rendered()}


def parsed(name: str) -> dict[Any, Any]:
    return yaml.safe_load(WORKFLOWS[name])


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_action_is_pinned(name: str) -> None:
    """Each `uses:` names a commit, with the version it stands for beside it."""
    uses = re.findall(r"uses: (.+)", WORKFLOWS[name])
    assert uses
    assert [line for line in uses if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []


@pytest.mark.parametrize("name", WORKFLOWS)
def test_no_rights_but_reading(name: str) -> None:
    """Nothing by default; a job reads the repository at most; no secret is named; a checkout keeps no credentials."""
    workflow = parsed(name)
    assert workflow["permissions"] == {}
    assert all(job["permissions"] in ({}, {"contents": "read"}) for job in workflow["jobs"].values())
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


def test_port_carries_the_same_jobs() -> None:
    """The gate of a port and the reusable one differ in their triggers only."""
    assert parsed("port")["jobs"] == parsed("alignment-gate.yml")["jobs"]
    assert set(parsed("port")[True]) == {"pull_request", "merge_group", "workflow_dispatch"}  # yaml reads `on` as True


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


def test_fastvideos_contract_is_kept() -> None:
    """FastVideo's own tests forbid naming tests/local_tests in ci-*.yml: our file has another name and does not."""
    assert not Path(template_copies.WORKFLOW).name.startswith("ci-")
    assert "tests/local_tests" not in rendered()


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


# --- the plan ---------------------------------------------------------------------------------------------------------


def port(tmp_path: Path, text: str) -> Path:
    folder = tmp_path / "tests" / "local_tests" / "some_model"
    folder.mkdir(parents=True)
    (folder / "port.toml").write_text(text)
    return tmp_path


def test_plan_has_a_job_a_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The matrix lists the checks of port.toml, each with runner, device and minutes; GPU checks go to the label."""
    root = port(tmp_path, '[gate]\nchecks = ["keys", "parity"]\nrequire_device = "cuda"\n')
    assert plan.main(["--root", str(root), "--gpu-label", "h100"]) == 0
    jobs = json.loads(capsys.readouterr().out.removeprefix("matrix="))["include"]
    assert [(job["check"], job["runner"], job["device"]) for job in jobs] == [
        ("keys", "ubuntu-24.04", "cpu"),
        ("parity", "h100", "cuda"),
    ]
    assert all(job["minutes"] > 0 for job in jobs)


def test_plan_of_a_cpu_port_needs_no_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A port whose gate opens on a CPU sends nothing to a GPU runner."""
    root = port(tmp_path, '[gate]\nchecks = ["parity"]\nrequire_device = "cpu"\n')
    assert plan.main(["--root", str(root)]) == 0
    assert '"device": "cpu"' in capsys.readouterr().out


BAD = {"none": ("", "checks"), "bad": ("[gate", "port.toml"), "empty": ("[gate]\nchecks = []\n", "checks")}


@pytest.mark.parametrize(("text", "said"), BAD.values(), ids=BAD)
def test_plan_never_makes_an_empty_matrix(
    tmp_path: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A port that asks for no check, or cannot be read, is an error, not a gate with nothing to do."""
    assert plan.main(["--root", str(port(tmp_path, text))]) == 2
    assert said in capsys.readouterr().err


def test_plan_without_a_port_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A tree without port.toml says so."""
    assert plan.main(["--root", str(tmp_path)]) == 2
    assert "no port" in capsys.readouterr().err


def test_runner_table_names_checks_that_exist() -> None:
    """A check in ci/runners.toml that fvport does not know is a typing error."""
    from fvport.spec import CHECKS

    table = plan.read(ROOT / "ci" / "runners.toml")
    assert set(table["checks"]) <= set(CHECKS)
    assert set(table["labels"]) == {"cpu", "gpu"}
