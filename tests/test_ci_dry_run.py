# SPDX-License-Identifier: Apache-2.0
"""The workflow without GitHub: the driver runs what alignment-gate.yml says, on a tree as small as can be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ci import dry_run, expressions

ROOT = Path(__file__).resolve().parent.parent
# Stands for gate.sh of a port: leaves a record as a session would, and the verdict is what the records say.
GATE = """\
set -e
say() { echo "$FVPORT_SLUG $* run=$FVPORT_RUN image=$FVPORT_IMAGE" >> "$SAID"; }
say "$@"
case $1 in
  prep|workspace) exit 0 ;;
  gate) [ "$(ls .fvport/evidence/toy | wc -l)" = 11 ] && ! grep -q fail .fvport/evidence/toy/* ;;
  *) mkdir -p "$FVPORT_OUT/evidence/toy"; word=pass; [ "$1" = "$RED" ] && word=fail
     echo "$word" > "$FVPORT_OUT/evidence/toy/$1.json"; [ $word = pass ] ;;
esac
"""


@pytest.fixture
def port(tmp_path: Path) -> Path:
    """A git tree with one port, the files that the workflow calls, and one change that is not committed."""
    root = tmp_path / "port"
    folder = root / "docker" / "alignment-gate"
    folder.mkdir(parents=True)
    for name in ("in-image.sh", "plan.py", "runners.toml"):
        (folder / name).write_text((ROOT / "ci" / name).read_text())
    (root / "noxfile.py").write_text('SOURCE = os.environ.get("FVPORT_SOURCE", "")\n')
    toml = root / "tests" / "local_tests" / "toy" / "port.toml"
    toml.parent.mkdir(parents=True)
    toml.write_text('[gate]\nrequire_device = "cpu"\n')
    who = ["-c", "user.name=t", "-c", "user.email=t@t"]
    for words in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "port"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    (folder / "gate.sh").write_text(GATE)  # not committed
    return root


def run(port: Path, monkeypatch: pytest.MonkeyPatch, red: str = "", *more: str) -> tuple[int, list[str]]:
    said = port.parent / "said"
    said.unlink(missing_ok=True)
    monkeypatch.setenv("SAID", str(said))
    monkeypatch.setenv("RED", red)
    code = dry_run.main(["--port", str(port), "--scratch", str(port.parent), *more])
    return code, said.read_text().splitlines()


def test_every_check_runs_and_the_verdict_counts_their_records(port: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """plan, eleven jobs in clones of their own, verdict: green, all on one run, with the sessions the file names."""
    code, said = run(port, monkeypatch)
    assert code == 0
    checks = [line.split()[1] for line in said if line.split()[1] not in ("prep", "workspace", "gate")]
    assert checks == list(dry_run_checks())
    assert all("run=github-dry-run image=host" in line for line in said)
    assert "--only-run github-dry-run --only-commit" in said[-1]


def test_a_red_check_is_a_red_verdict(port: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One job's fail ends the run with 1; the other jobs ran all the same."""
    code, said = run(port, monkeypatch, "keys")
    assert code == 1
    assert any(" boundary" in line for line in said)


def test_a_check_that_did_not_run_is_a_red_verdict(port: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of the matrix is not the matrix."""
    assert run(port, monkeypatch, "", "--only", "boundary,keys")[0] == 1


def test_the_port_is_as_it_was(port: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No ref, no commit and no file is left; what was not committed still is not."""

    def state() -> list[str]:
        words = (["status", "--porcelain"], ["for-each-ref"], ["rev-parse", "HEAD"])
        return [subprocess.check_output(["git", *w], cwd=port, text=True) for w in words]

    before = state()
    run(port, monkeypatch, "", "--only", "boundary")
    assert state() == before
    assert "gate.sh" in before[0]


def test_what_is_committed_is_gated_under_its_own_name(
    port: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A tree without changes is HEAD; one with changes is said to be another commit."""
    run(port, monkeypatch, "", "--only", "boundary")
    assert "which is on no branch" in capfd.readouterr().out
    subprocess.run(["git", "add", "--all"], cwd=port, check=True)
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "all"], cwd=port, check=True)
    assert dry_run.snapshot(port) == subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=port, text=True).strip()


def test_artifacts_and_summaries_are_left(port: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What GitHub would show: the evidence of each check, and the plan's table."""
    run(port, monkeypatch, "", "--only", "boundary")
    left = {file.name for file in (port / ".fvport/dry-run").iterdir()}
    assert {"evidence-toy-boundary", "plan.md"} <= left, left
    assert "| toy | boundary |" in (port / ".fvport/dry-run/plan.md").read_text()


def test_a_job_that_leaves_nothing_is_red_and_the_others_go_on(tmp_path: Path) -> None:
    """`if-no-files-found: error`: the step is red, as on GitHub; the run does not end there. Else it is only told."""
    none = dry_run.Run(tmp_path, tmp_path, "", {}, {})
    given = {"path": str(tmp_path / "gate-out"), "name": "evidence"}
    (tmp_path / "gate-out" / "empty").mkdir(parents=True)
    assert dry_run.action(none, "actions/upload-artifact", given, tmp_path)
    assert not dry_run.action(none, "actions/upload-artifact", given | {"if-no-files-found": "error"}, tmp_path)


def test_no_port_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that is none: one sentence, exit 2."""
    assert dry_run.main(["--port", str(tmp_path)]) == 2
    assert "is no port" in capsys.readouterr().out


def test_every_action_and_expression_of_the_workflow_is_known() -> None:
    """The driver leaves nothing of the file out: another action, or an expression it cannot read, would be an error."""
    text = dry_run.WORKFLOW.read_text()
    jobs = yaml.safe_load(text)["jobs"]
    uses = {step["uses"].partition("@")[0] for job in jobs.values() for step in job["steps"] if "uses" in step}
    assert uses == {"actions/checkout", "actions/upload-artifact", "actions/download-artifact"}
    names = ("github", "inputs", "vars", "needs", "steps", "matrix", "runner")
    context = {name: {} for name in names}
    for job in jobs.values():
        for step in job["steps"]:
            expressions.fill(step.get("env", {}), context)
        expressions.fill(job.get("env", {}), context)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${{ inputs.a || vars.B }}", "b"),
        ("${{ matrix.p != 'workspace' && vars.B || '' }}", ""),
        ("${{ matrix.p == 'workspace' && vars.B || 'x' }}", "b"),
        ("${{ !github.event.pull_request.head.repo.fork }}", True),
        ("${{ fromJSON(vars.J).include }}", [1]),
        ("a-${{ vars.B }}-${{ vars.none }}", "a-b-"),
        ("plain", "plain"),
    ],
)
def test_expressions(text: str, value: object) -> None:
    """What the workflow language gives for the forms that ours use."""
    context = {"inputs": {}, "vars": {"B": "b", "J": json.dumps({"include": [1]})}}
    context |= {"matrix": {"p": "workspace"}, "github": {"event": {}}}
    assert expressions.fill(text, context) == value


@pytest.mark.parametrize("text", ["${{ hashFiles('a') }}", "${{ nowhere.x }}", "${{ a b }}", "${{ vars.B > 1 }}"])
def test_an_expression_that_is_not_understood_is_an_error(text: str) -> None:
    """Never a guess."""
    with pytest.raises(ValueError, match="not understood"):
        expressions.fill(text, {"vars": {}})


def dry_run_checks() -> tuple[str, ...]:
    from fvport.spec import CHECKS

    return CHECKS


def test_the_host_engine_refuses_what_it_is_not(tmp_path: Path) -> None:
    """`build` needs a real engine."""
    command = [sys.executable, str(ROOT / "ci" / "host_engine.py"), "build", "."]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False)
    assert (done.returncode, done.stderr) == (2, "host engine: does not know build .\n")
