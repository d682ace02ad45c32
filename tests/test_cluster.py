# SPDX-License-Identifier: Apache-2.0
"""The gate's checks as jobs: which jobs, what they need, what comes back, and what becomes of one that dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import gate_support as g
import pytest

from fvport import checks, gate, spec
from fvport import evidence as ev
from fvport.cluster import plan, runner, states, tree
from fvport.errors import BlockedError, UsageError
from fvport.spec import Port

CHEAP = g.TOML + 'checks = ["boundary", "docs"]\n'  # checks that read text only


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Port:
    """A toy port; a job's process finds the functions of this file."""
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
    return g.make(tmp_path / "port", CHEAP)


def runners(port: Port, text: str) -> None:
    file = port.root / plan.TABLE
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def test_a_check_is_a_job_and_parity_one_a_component(port: Port) -> None:
    """Needs come from the table; ssim waits for pipeline; a GPU is asked for only where the gate wants CUDA."""
    runners(port, "[default]\nminutes = 9\n[checks.parity]\ngpu = true\nmemory_gb = 40\n")
    jobs = plan.jobs(port, ["ssim", "pipeline", "parity", "keys"], "cuda")
    assert [one.name for one in jobs] == ["keys", "parity-transformer", "parity-scheduler", "pipeline", "ssim"]
    assert jobs[1].needs == plan.Needs(True, 9, 40, 2)
    assert jobs[4].after == "pipeline"
    assert not plan.jobs(port, ["parity"], "cpu")[0].needs.gpu
    assert plan.jobs(port, ["ssim"], "cpu")[0].after == ""  # nothing to wait for


def test_a_wrong_need_names_file_and_key(port: Port) -> None:
    """The table is a person's file: a text where a number belongs is said."""
    runners(port, '[checks.parity]\nmemory_gb = "much"\n')
    with pytest.raises(UsageError, match=r"runners.toml: checks.parity.memory_gb must be a number"):
        plan.jobs(port, ["parity"], "cpu")


def test_jobs_leave_the_evidence_that_one_machine_leaves(port: Port, tmp_path: Path) -> None:
    """Through submitit's local executor, on a copy in a shared folder: the same items, inputs and verdicts."""
    said: list[str] = []
    verdict = runner.run(port, "local", shared=tmp_path / "shared", say=said.append)
    jobs = {check: ev.read(port, check) for check in ("boundary", "docs")}
    assert [row.state for row in verdict.rows[:2]] == ["current", "current"]
    for check, record in jobs.items():
        here = checks.run_check(port, check)
        assert record is not None
        assert (record.items, record.inputs, record.verdict) == (here.items, here.inputs, here.verdict)
    assert any(line.startswith("[2/2]") for line in said)
    assert len(list((tmp_path / "shared").iterdir())) == 1


def test_nothing_runs_again_when_nothing_changed(port: Port, tmp_path: Path) -> None:
    """Digests decide: the second call submits no job; a red one stays red without one."""
    first = runner.run(port, "local", say=lambda line: None)
    said: list[str] = []
    second = runner.run(port, "local", say=said.append)
    assert said == []
    assert [row.verdict for row in first.rows] == [row.verdict for row in second.rows]


def test_the_tree_travels_once_for_each_content(port: Port, tmp_path: Path) -> None:
    """Same content, same folder; one byte more, another; links to weights point to where they lie."""
    weights = tmp_path / "weights"
    weights.mkdir()
    (port.root / "official_weights" / "linked").symlink_to(os.path.relpath(weights, port.root / "official_weights"))
    first = tree.place(port, tmp_path / "shared")
    assert tree.place(port, tmp_path / "shared").root == first.root
    assert (first.root / "official_weights" / "linked").resolve() == weights
    g.edit(port, "docs/inference/toy.md", "fox", "hare")
    assert tree.place(port, tmp_path / "shared").root != first.root


def test_a_job_that_dies_is_a_blocked_record_with_the_reason(
    port: Port, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle, as by a limit: the row is blocked, never green, and nothing hangs."""
    monkeypatch.setattr(runner.job, "run", killed)
    verdict = runner.run(port, "local", say=lambda line: None)
    row = verdict.row("boundary")
    assert row is not None
    assert row.verdict == "blocked"
    assert "ended without an answer" in " ".join(row.reasons)


def killed(*_: object) -> dict[str, str]:
    os.kill(os.getpid(), 9)
    return {}


def test_a_job_that_raises_is_told_in_its_words(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception outside the check is that job's blocked record."""
    monkeypatch.setattr(runner.job, "run", broken)
    row = runner.run(port, "local", say=lambda line: None).row("docs")
    assert row is not None
    assert "the node has no such folder" in " ".join(row.reasons)


def broken(*_: object) -> dict[str, str]:
    raise RuntimeError("the node has no such folder")


def test_an_interrupt_leaves_nothing_running(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while jobs are in flight cancels each of them."""
    handles = []

    def stop(self: runner._Watch) -> None:
        handles.extend(self.flying.values())
        raise KeyboardInterrupt

    monkeypatch.setattr(runner.job, "run", asleep)
    monkeypatch.setattr(runner._Watch, "collect", stop)
    with pytest.raises(KeyboardInterrupt):
        runner.run(port, "local", say=lambda line: None)
    assert handles
    for handle in handles:
        handle._process.wait(timeout=20)


def asleep(*_: object) -> dict[str, str]:
    import time

    time.sleep(60)
    return {}


def test_places_and_programs_that_are_not_there_are_said(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another place is wrong use; Slurm without its client is blocked, with what to do."""
    with pytest.raises(UsageError, match="slurm, local"):
        runner.run(port, "moon")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BlockedError, match="sbatch is not on this machine"):
        runner.run(port, "slurm")


SQUEUE = """#!{python}
import sys
print("7_0|7_0|RUNNING\\n7_1|7_1|OUT_OF_MEMORY\\n8|8_N/A|PENDING")
"""
SCONTROL = """#!{python}
import sys
if sys.argv[-1] == "9":
    print("JobId=9 JobState=NODE_FAIL Reason=None")
else:
    sys.exit("slurm_load_jobs error: Invalid job id specified")
"""


def test_what_became_of_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queue first, then the controller's memory of it; a job nobody knows is gone; no answer at all says nothing."""
    for name, text in (("squeue", SQUEUE), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text.format(python=sys.executable))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = states.states(["7_0", "7_1", "8", "9", "10"])
    expected = {"7_0": "RUNNING", "7_1": "OUT_OF_MEMORY", "8": "PENDING", "9": "NODE_FAIL", "10": "GONE"}
    assert found == expected
    monkeypatch.setenv("PATH", "/nowhere")
    assert states.states(["7_0"]) == {}


def test_two_runs_of_two_components_keep_both_answers(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are written one at a time: a lock that somebody holds too long is said, the old record stays."""
    monkeypatch.setattr(checks, "LOCK_SECONDS", 0.2)
    with checks.writing(port, "docs"):
        code = "import sys; from pathlib import Path; from fvport import checks, spec; checks.LOCK_SECONDS = 0.2\n"
        code += "checks.run_check(spec.load(Path(sys.argv[1])), 'docs')"
        done = subprocess.run([sys.executable, "-c", code, str(port.root)], capture_output=True, text=True, check=False)
    assert "another run has held the record of docs" in done.stderr
    assert not (ev.folder(port) / "docs.json").exists()


def test_the_command(port: Port, tmp_path: Path) -> None:
    """fvport gate --on local --json: one document, the verdict's exit code, progress on standard error."""
    command = [sys.executable, "-m", "fvport.cli", "gate", "--on", "local", "--json", "--port", str(port.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = json.loads(done.stdout)
    assert said["verdict"] == gate.decide(spec.load(port.root)).verdict
    assert "[2/2]" in done.stderr
    assert done.returncode != 0  # the other checks are left out of this port's gate
