# SPDX-License-Identifier: Apache-2.0
"""The gate on Buildkite: the plan and table of the workflow, and nothing that FastVideo's contract test forbids."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from ci import plan, template_copies
from ci.buildkite import pipeline

ROOT = Path(__file__).resolve().parent.parent
FOLDER = template_copies.TEMPLATE / template_copies.FOLDER
BUILD = {"BUILDKITE_BUILD_ID": "b7", "BUILDKITE_COMMIT": "c" * 40, "BUILDKITE_REPO": "us", "FVPORT_SOURCE": "here"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for slug, device in (("one", "cuda"), ("two", "cpu")):
        file = tmp_path / "tests" / "local_tests" / slug / "port.toml"
        file.parent.mkdir(parents=True)
        file.write_text(f'[gate]\nchecks = ["keys", "parity"]\nrequire_device = "{device}"\n')
    return tmp_path


def made(tree: Path, **env: str) -> dict[str, dict[str, Any]]:
    steps = pipeline.pipeline(tree, {**BUILD, **env})["steps"]
    return {step["key"]: step for step in steps}


def test_a_step_for_each_job_of_the_plan(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Checks, queues and minutes are those of plan.py, which reads the same ci/runners.toml."""
    assert plan.main(["--root", str(tree)]) == 0
    jobs = json.loads(capsys.readouterr().out.splitlines()[0].removeprefix("matrix="))["include"]
    steps = made(tree)
    assert list(steps) == [*(f"{job['slug']}-{job['check']}" for job in jobs), "alignment-gate"]
    for job in jobs:
        step = steps[f"{job['slug']}-{job['check']}"]
        assert step["agents"] == {"queue": job["runner"]}
        assert step["timeout_in_minutes"] == job["minutes"]
        assert step["env"]["DEVICE"] == job["device"]
    assert steps["one-parity"]["agents"] == {"queue": plan.read(plan.TABLE)["labels"]["gpu"]}
    assert made(tree, FVPORT_GPU_LABEL="h200")["one-parity"]["agents"] == {"queue": "h200"}


def test_verdict_waits_for_all_and_counts_this_build(tree: Path) -> None:
    """Every check is waited for, red or not; records are bound to build and commit; a red check is not retried."""
    steps = made(tree)
    verdict = steps.pop("alignment-gate")
    assert verdict["depends_on"] == [{"step": key, "allow_failure": True} for key in steps]
    assert verdict["command"].endswith("verdict one two")
    for step in (*steps.values(), verdict):
        assert (step["env"]["FVPORT_RUN"], step["env"]["FVPORT_COMMIT"]) == ("buildkite-b7", "c" * 40)
        assert step["env"]["FVPORT_LOCKED"] == "yes"
        assert {rule["exit_status"] for rule in step["retry"]["automatic"]}.isdisjoint({0, 1, 2, 3})
        assert all(rule["limit"] <= 2 for rule in step["retry"]["automatic"])


@pytest.mark.parametrize(
    ("env", "waits"),
    [
        ({"BUILDKITE_PULL_REQUEST": "false"}, False),
        ({"BUILDKITE_PULL_REQUEST": "12", "BUILDKITE_PULL_REQUEST_REPO": "us"}, False),
        ({"BUILDKITE_PULL_REQUEST": "12", "BUILDKITE_PULL_REQUEST_REPO": "them"}, True),
        ({"BUILDKITE_PULL_REQUEST": "12"}, True),
    ],
)
def test_a_forks_code_waits_for_a_maintainer(tree: Path, env: dict[str, str], waits: bool) -> None:
    """Each check of a fork's build depends on a block that names the commit."""
    steps = made(tree, **env)
    assert ("trusted" in steps) == waits
    assert steps["one-keys"]["depends_on"] == (["trusted"] if waits else [])
    if waits:
        assert "c" * 40 in steps["trusted"]["block"]


def test_a_port_carries_it_and_a_bare_python_runs_it(tree: Path) -> None:
    """The copy in a port finds plan.py and the table beside it, without any package of ours."""
    command = [sys.executable, "-I", "-S", "-B", str(FOLDER / "pipeline.py")]
    done = subprocess.run(command, cwd=tree, env=BUILD, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == pipeline.pipeline(tree, BUILD)
    done = subprocess.run(command, cwd=FOLDER, env=BUILD, capture_output=True, text=True, check=False)
    assert (done.returncode, "no port to gate" in done.stderr) == (2, True)


def test_a_fork_cannot_take_its_block_out(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The documented step runs the base's copy, whatever the fork's says; the fork's own copy refuses its build."""
    base, bin_ = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("bin")
    place = base / template_copies.FOLDER
    place.mkdir(parents=True)
    for name in ("pipeline.py", "plan.py", "runners.toml"):
        (place / name).write_bytes((FOLDER / name).read_bytes())
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C"]
    for words in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-q", "-m", "base")):
        subprocess.run([*git, str(base), *words], check=True)
    for words in (("init", "-q"), ("remote", "add", "origin", str(base))):
        subprocess.run([*git, str(tree), *words], check=True)
    own = tree / template_copies.FOLDER
    own.mkdir(parents=True)
    for name in ("pipeline.py", "plan.py", "runners.toml"):
        (own / name).write_bytes((FOLDER / name).read_bytes())
    env = {**BUILD, "BUILDKITE_PULL_REQUEST": "12", "BUILDKITE_PULL_REQUEST_REPO": "them"}
    command = [sys.executable, "-I", "-S", "-B", str(own / "pipeline.py")]
    done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, "the fork's own" in done.stderr) == (2, True)
    (own / "pipeline.py").write_text("print('{\"steps\": []}')\n")
    (bin_ / "buildkite-agent").write_text('#!/bin/sh\nfor last; do :; done\ncp "$last" uploaded.json\n')
    (bin_ / "buildkite-agent").chmod(0o755)
    (bin_ / "python3").symlink_to(sys.executable)
    text = (ROOT / "docs/ci.md").read_text().split("command: |\n", 1)[1].split("```", 1)[0].replace("$$", "$")
    env |= {"PATH": f"{bin_}:{os.environ['PATH']}", "BUILDKITE_PIPELINE_DEFAULT_BRANCH": "main"}
    subprocess.run(["bash", "-c", text], cwd=tree, env=env, check=True)
    steps = {step["key"]: step for step in json.loads((tree / "uploaded.json").read_text())["steps"]}
    assert "c" * 40 in steps["trusted"]["block"]
    assert steps["one-keys"]["depends_on"] == ["trusted"]


STUB = 'echo "$FVPORT_SLUG|${NETWORK:-}|${FVPORT_WEIGHTS:-}|$*" >> "$SAID"\n[ "${RED:-}" != "$FVPORT_SLUG-$1" ]\n'
AGENT = """\
#!/usr/bin/env bash
[[ $1 == artifact ]] || { cat > /dev/null; exit 0; }
mkdir -p "$4/gate-out/one-keys/evidence/one"
echo new > "$4/gate-out/one-keys/evidence/one/keys.json"
"""


def stepped(tmp_path: Path, *words: str, **env: str) -> tuple[int, list[str]]:
    """step.sh with a stand-in for the image and for Buildkite's agent: (exit code, what was run inside)."""
    folder = tmp_path / "docker" / "alignment-gate"
    folder.mkdir(parents=True)
    (folder / "step.sh").write_bytes((ROOT / "ci" / "buildkite" / "step.sh").read_bytes())
    (folder / "in-image.sh").write_text(STUB)
    (tmp_path / "buildkite-agent").write_text(AGENT)
    (tmp_path / "buildkite-agent").chmod(0o755)
    (tmp_path / ".fvport" / "evidence" / "one").mkdir(parents=True)
    (tmp_path / ".fvport" / "evidence" / "one" / "parity.json").write_text("old")
    own = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SAID": str(tmp_path / "said")}
    own |= {"FVPORT_RUN": "r", "FVPORT_COMMIT": "c", "FVPORT_WEIGHTS": "/w", **env}
    done = subprocess.run(["bash", str(folder / "step.sh"), *words], cwd=tmp_path, env=own, check=False)
    said = tmp_path / "said"
    return done.returncode, said.read_text().splitlines() if said.is_file() else []


def test_a_check_is_prepared_and_runs_without_network(tmp_path: Path) -> None:
    """prep and workspace first, then the check with no network."""
    code, said = stepped(tmp_path, "check", "keys", FVPORT_SLUG="one", PREPARE="prep workspace")
    assert (code, said) == (0, ["one||/w|prep workspace", "one|none|/w|keys"])


def test_a_red_check_is_a_red_step(tmp_path: Path) -> None:
    """And a check that needs no weights gets none."""
    code, said = stepped(tmp_path, "check", "keys", FVPORT_SLUG="one", PREPARE="workspace", RED="one-keys")
    assert (code, said) == (1, ["one|||workspace", "one|none||keys"])


@pytest.mark.parametrize("red", ["", "one-gate", "two-gate"])
def test_the_verdict_is_of_every_port_from_this_builds_evidence(tmp_path: Path, red: str) -> None:
    """What lay there is gone, what the build's checks left is there, and any red port is red."""
    code, said = stepped(tmp_path, "verdict", "one", "two", RED=red)
    assert code == (1 if red else 0)
    only = "--only-run r --only-commit c"
    out = tmp_path / "gate-out" / "verdict"
    assert said == [
        "one||/w|prep workspace",
        "two||/w|prep workspace",
        f"one|none|/w|gate -- --markdown {out}/one/verdict.md {only}",
        f"two|none|/w|gate -- --markdown {out}/two/verdict.md {only}",
    ]
    assert [file.name for file in (tmp_path / ".fvport" / "evidence" / "one").iterdir()] == ["keys.json"]


def test_a_verdict_of_no_port_is_red(tmp_path: Path) -> None:
    """Nothing named is nothing judged."""
    assert stepped(tmp_path, "verdict")[0] == 2


def contract(root: Path) -> Any:
    """FastVideo's own contract test of its CI's files, put where it takes `root` for FastVideo's repository."""
    name = "fastvideo/tests/contract/test_ci_test_collection.py"
    installed = next(file for file in metadata.files("fastvideo") or () if file.as_posix() == name)
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(Path(str(installed.locate())).read_bytes())
    spec = importlib.util.spec_from_file_location("contract_of_fastvideo", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_fastvideos_contract_test_stays_green(tmp_path: Path) -> None:
    """On a tree with every file that a port brings it is green; the same workflow under a name of theirs is red."""
    for path, data in template_copies.files().items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    contract(tmp_path).test_local_tests_stays_out_of_ci()
    text = (FOLDER / "plan.py").read_text()
    assert "tests/local_tests" in text
    (tmp_path / ".github" / "workflows" / "ci-gate.yml").write_text(text)
    with pytest.raises(AssertionError, match="local-only"):
        contract(tmp_path).test_local_tests_stays_out_of_ci()
