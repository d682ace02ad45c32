# SPDX-License-Identifier: Apache-2.0
"""docs/costs.md: the cost of a fleet follows from the runner table and measured figures, and says what binds."""

from __future__ import annotations

import re

import pytest
import yaml

from benchmarks import fleet


def test_the_page_is_what_the_script_makes() -> None:
    """python -m benchmarks.fleet --write brings it up to date."""
    made = [line for line in fleet.block(fleet.Fleet()).splitlines() if "measured:" not in line]  # those move
    assert set(made) <= set(fleet.PAGE.read_text().splitlines())


def test_the_figures_follow() -> None:
    """64 GPUs, 4 of 11 checks on them, 20,000 checks a day: 760 s each; twice the GPUs, twice the seconds."""
    text = fleet.block(fleet.Fleet())
    assert "| 20,000 |" in text
    assert "| 760 s |" in text
    assert "| 1521 s |" in fleet.block(fleet.Fleet(gpus=128))


@pytest.mark.parametrize(("seconds", "first"), [(300.0, "reading the weights"), (900.0, "the GPUs")])
def test_what_binds_depends_on_the_checks(seconds: float, first: str) -> None:
    """Short checks wait for weights, long ones for GPUs."""
    assert f"**{first}**" in fleet.block(fleet.Fleet(gpu_seconds=seconds))


def test_nonsense_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """No GPU is no fleet."""
    assert fleet.main(["--gpus", "0"]) == 2
    assert "above 0" in capsys.readouterr().err


def test_the_rented_machine_runs_sessions_that_a_port_has() -> None:
    """ci/skypilot.yaml: every session that it names is one of the port's noxfile, and the verdict is not its own."""
    data = yaml.safe_load((fleet.ROOT / "ci" / "skypilot.yaml").read_text())
    named = {word for words in re.findall(r"nox -s ([\w ]+)", data["run"]) for word in words.split()}
    noxfile = (fleet.ROOT / "{{cookiecutter.model_slug}}" / "noxfile.py").read_text()
    assert named == {"prep", "workspace", "gate"}
    assert all(f"def {name}(session" in noxfile for name in named)
    assert data["resources"]["accelerators"]
