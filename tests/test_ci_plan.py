# SPDX-License-Identifier: Apache-2.0
"""ci/plan.py: the workflow's matrix from the ports of a tree, a really baked one among them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bake_helpers import bake, release

from ci import plan
from fvport.spec import CHECKS

ROOT = Path(__file__).resolve().parent.parent
Said = pytest.CaptureFixture[str]


def port(root: Path, text: str, slug: str = "some_model") -> Path:
    folder = root / "tests" / "local_tests" / slug
    folder.mkdir(parents=True)
    (folder / "port.toml").write_text(text)
    return root


def outputs(text: str) -> dict[str, str]:
    """What lands in $GITHUB_OUTPUT, by name."""
    return dict(line.split("=", 1) for line in text.splitlines())


def jobs(text: str) -> list[dict[str, Any]]:
    return json.loads(outputs(text)["matrix"])["include"]


def carried(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The plan.py that a port carries, run as the workflow runs it: a bare Python, no package of ours."""
    command = [sys.executable, "-I", "-S", "docker/alignment-gate/plan.py", *words]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def test_a_baked_port_can_be_planned(tmp_path: Path) -> None:
    """A port as `fvport new` leaves it, and one whose port.toml says nothing of checks, get a job for each check."""
    root = bake(tmp_path / "out", official_weights=str(release(tmp_path / "wan")))
    done = carried(root)
    assert done.returncode == 0, done.stderr
    assert [job["check"] for job in jobs(done.stdout)] == list(CHECKS)
    assert outputs(done.stdout)["slugs"] == "tiny_wan"
    file = root / "tests" / "local_tests" / "tiny_wan" / "port.toml"
    file.write_text(file.read_text().partition("[gate]")[0])
    done = carried(root)
    assert [(job["slug"], job["check"]) for job in jobs(done.stdout)] == [("tiny_wan", check) for check in CHECKS]


def test_two_baked_ports_on_one_tree(tmp_path: Path) -> None:
    """Two bakes carry the same files for the gate, and each of their checks is a job of its own port."""
    weights = str(release(tmp_path / "wan"))
    one = bake(tmp_path / "one", official_weights=weights)
    two = bake(tmp_path / "two", official_weights=weights, model_name="Other Wan", gate_device="cuda")
    for folder in ("docker", ".github"):
        for file in (path for path in (two / folder).rglob("*") if path.is_file()):
            assert file.read_bytes() == (one / file.relative_to(two)).read_bytes()
    shutil.copytree(two / "tests", one / "tests", dirs_exist_ok=True)
    done = carried(one, "--gpu-label", "h100")
    found = {(job["slug"], job["check"]): (job["runner"], job["device"]) for job in jobs(done.stdout)}
    assert set(found) == {(slug, check) for slug in ("tiny_wan", "other_wan") for check in CHECKS}
    assert found["tiny_wan", "parity"] == ("ubuntu-24.04", "cpu")
    assert found["other_wan", "parity"] == ("h100", "cuda")
    assert outputs(done.stdout)["slugs"].split() == ["other_wan", "tiny_wan"]


def test_defaults_are_fvports() -> None:
    """The list for a port.toml that says nothing is the one that fvport takes."""
    assert plan.CHECKS == CHECKS


def test_a_job_a_check(tmp_path: Path, capsys: Said) -> None:
    """The matrix lists the checks of port.toml, each with runner, device and minutes; GPU checks go to the label."""
    root = port(tmp_path, '[gate]\nchecks = ["keys", "parity"]\nrequire_device = "cuda"\n')
    assert plan.main(["--root", str(root), "--gpu-label", "h100", "--cpu-label", "big"]) == 0
    text = capsys.readouterr().out
    assert [(job["check"], job["runner"], job["device"]) for job in jobs(text)] == [
        ("keys", "big", "cpu"),
        ("parity", "h100", "cuda"),
    ]
    assert all(job["minutes"] > 0 for job in jobs(text))
    assert outputs(text)["cpu"] == "big"


def test_a_cpu_port_needs_no_gpu(tmp_path: Path, capsys: Said) -> None:
    """A port whose gate opens on a CPU sends nothing to a GPU runner."""
    root = port(tmp_path, '[gate]\nchecks = ["parity"]\nrequire_device = "cpu"\n')
    assert plan.main(["--root", str(root)]) == 0
    assert [job["device"] for job in jobs(capsys.readouterr().out)] == ["cpu"]


def test_boundary_fetches_no_weights(tmp_path: Path, capsys: Said) -> None:
    """Weights are fetched for the checks that speak of them, which is all but boundary."""
    assert plan.main(["--root", str(port(tmp_path, ""))]) == 0
    found = {job["check"]: job["prepare"] for job in jobs(capsys.readouterr().out)}
    assert [check for check, prepare in found.items() if prepare == "workspace"] == ["boundary"]
    assert set(found.values()) == {"prep workspace", "workspace"}


LOCAL = '[official]\nweights = "official_weights/some_model"\n'


@pytest.mark.parametrize(
    ("text", "weights", "warned"),
    [
        (LOCAL, "", True),
        (LOCAL, "/mnt/weights", False),
        ('[official]\nweights = "org/model"\n', "", False),
    ],
    ids=["local", "mounted", "hub"],
)
def test_weights_that_no_runner_has_are_said(
    tmp_path: Path, text: str, weights: str, warned: bool, capsys: Said
) -> None:
    """A release that is only on somebody's machine is a warning with what to do, before the jobs are red of it."""
    own = ["--root", str(port(tmp_path, text)), "--weights", weights, "--cpu-label", "ours"]
    assert plan.main(own) == 0
    said = capsys.readouterr().err
    assert ("::warning" in said) == warned
    assert ("FVPORT_WEIGHTS" in said and "hub id" in said) == warned


def test_weights_on_our_runners_and_checks_on_githubs_are_said(tmp_path: Path, capsys: Said) -> None:
    """A folder of our own machines is on none of GitHub's, where checks without a GPU run unless told otherwise."""
    assert plan.main(["--root", str(port(tmp_path, LOCAL)), "--weights", "/mnt/weights"]) == 0
    said = capsys.readouterr().err
    assert "::warning" in said
    assert "FVPORT_CPU_LABEL" in said


@pytest.mark.parametrize(
    ("device", "label", "warned"), [("cpu", "h100", True), ("cpu", "", False), ("cuda", "h100", False)]
)
def test_gpu_runners_that_get_no_job_are_said(
    tmp_path: Path, device: str, label: str, warned: bool, capsys: Said
) -> None:
    """Somebody who names GPU runners means to gate on them: a port that asks for the CPU says so before it is green."""
    text = f'[official]\nweights = "org/model"\n[gate]\nrequire_device = "{device}"\n'
    assert plan.main(["--root", str(port(tmp_path, text)), "--gpu-label", label]) == 0
    said = capsys.readouterr().err
    assert ("no job of some_model goes to h100" in said and 'require_device is "cpu"' in said) == warned, said


BAD = {
    "bad": ("[gate", "port.toml"),
    "empty": ("[gate]\nchecks = []\n", "checks"),
    "no list": ('[gate]\nchecks = "keys"\n', "checks"),
    "unknown": ('[gate]\nchecks = ["keys", "kees"]\n', "'kees'"),
}


@pytest.mark.parametrize(("text", "said"), BAD.values(), ids=BAD)
def test_never_an_empty_matrix(tmp_path: Path, text: str, said: str, capsys: Said) -> None:
    """A port that asks for no check, for one that is not there, or cannot be read, is an error, not a short gate."""
    port(tmp_path, "", slug="a_good_one")
    assert plan.main(["--root", str(port(tmp_path, text))]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert "some_model" in captured.err
    assert captured.out == ""


def test_a_folder_that_is_no_slug_is_an_error(tmp_path: Path, capsys: Said) -> None:
    """A name that would be several words in the verdict's loop is refused."""
    assert plan.main(["--root", str(port(tmp_path, "", slug="some model"))]) == 2
    assert "no slug" in capsys.readouterr().err


@pytest.mark.parametrize("label", ["self-hosted,h100", '["self-hosted","h100"]', "two words"])
def test_several_labels_are_refused(tmp_path: Path, capsys: Said, label: str) -> None:
    """GitHub would take them for the name of one runner, and the job would wait for it for a day."""
    assert plan.main(["--root", str(port(tmp_path, "")), "--gpu-label", label]) == 2
    assert "is not one label" in capsys.readouterr().err


def test_without_a_port_is_an_error(tmp_path: Path, capsys: Said) -> None:
    """A tree without port.toml says so."""
    assert plan.main(["--root", str(tmp_path)]) == 2
    assert "no port" in capsys.readouterr().err


def test_runner_table_names_checks_that_exist() -> None:
    """A check in ci/runners.toml that fvport does not know is a typing error."""
    table = plan.read(ROOT / "ci" / "runners.toml")
    assert set(table["checks"]) <= set(CHECKS)
    assert set(table["labels"]) == {"cpu", "gpu"}


def verdict(file: Path, slug: str, **rows: tuple[str, str, str]) -> Path:
    """What `fvport gate --json` says: check=(state, verdict, reason)."""
    said = [{"check": c, "state": s, "verdict": v, "reasons": [r] if r else []} for c, (s, v, r) in rows.items()]
    file.write_text(json.dumps({"port": slug, "rows": said}))
    return file


def test_only_what_is_affected_and_why(tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a verdict on earlier evidence, a green current check is left out; every other job says what changed."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    root = port(tmp_path, '[gate]\nchecks = ["keys", "parity", "ssim", "docs"]\nrequire_device = "cpu"\n')
    said = verdict(
        tmp_path / "gate.json",
        "some_model",
        keys=("current", "pass", ""),
        parity=("stale", "blocked", "stale: file:fastvideo/x.py | changed since it ran"),
        ssim=("current", "fail", "too far"),
    )
    assert plan.main(["--root", str(root), "--gate", str(said)]) == 0
    why = {job["check"]: job["why"] for job in jobs(capsys.readouterr().out)}
    assert list(why) == ["parity", "ssim", "docs"]
    assert "x.py   changed since it ran" in why["parity"]
    assert (why["ssim"], why["docs"]) == ("too far", plan.NO_EVIDENCE)
    assert "| some_model | parity |" in (tmp_path / "summary.md").read_text()


def test_nothing_affected_is_said(tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    """All green and current: no job, in words; another port's verdict leaves nothing out."""
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    root = port(tmp_path, '[gate]\nchecks = ["keys"]\nrequire_device = "cpu"\n')
    for slug, count in (("some_model", 0), ("another", 1)):
        said = verdict(tmp_path / "gate.json", slug, keys=("current", "pass", ""))
        assert plan.main(["--root", str(root), "--gate", str(said)]) == 0
        shown = capsys.readouterr()
        assert len(jobs(shown.out)) == count
        assert ("Nothing is affected" in shown.err) == (count == 0)


@pytest.mark.parametrize("text", ["{}", "no json", '{"port": "x", "rows": [{"check": "keys"}]}', "[1]"])
def test_what_is_no_verdict_is_an_error(tmp_path: Path, text: str, capsys: Said) -> None:
    """Never a shorter plan by accident."""
    (tmp_path / "gate.json").write_text(text)
    assert plan.main(["--root", str(port(tmp_path, "")), "--gate", str(tmp_path / "gate.json")]) == 2
    assert "is not what `fvport gate --json` prints" in capsys.readouterr().err
