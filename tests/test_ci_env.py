# SPDX-License-Identifier: Apache-2.0
"""Makefile, .ci/run and ci/env.py: what a newcomer's machine is asked for."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ci import env

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("target", ["env", "demo", "test", "lint", "gate-docker", "clean", "help"])
def test_makefile_has_the_target(target: str) -> None:
    """Each promised target exists and says in the help what it is for."""
    done = subprocess.run(["make", "-s", "-C", str(ROOT)], capture_output=True, text=True, check=True)
    assert f"make {target} " in done.stdout


def test_ci_run_calls_make_test_from_the_root() -> None:
    """.ci/run is executable, goes to the project's root and runs `make test`."""
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().rstrip().endswith("exec make test")


@pytest.mark.parametrize("version", [(3, 9), (3, 10), (3, 13)])
def test_python_out_of_range_is_refused_in_one_sentence(version: tuple[int, int]) -> None:
    """A Python that the locks do not cover is named, with what is needed and what to say."""
    sentence = env.unfit(version)
    assert f"{version[0]}.{version[1]}" in sentence
    assert "3.11 or 3.12" in sentence
    assert "PYTHON=" in sentence


@pytest.mark.parametrize("version", [(3, 11), (3, 12)])
def test_python_in_range_is_taken(version: tuple[int, int]) -> None:
    """3.11 and 3.12 are what the locks are compiled for."""
    assert env.unfit(version) == ""


def test_current_environment_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the stamp of the same locks nothing is run; with another stamp every step is."""
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").touch()
    ran: list[list[str]] = []
    monkeypatch.setattr(env, "run", lambda command: ran.append(command) or 0)
    arguments = ["--venv", str(venv)]
    (venv / ".built-from").write_text(env.digest(env.arguments(arguments)))
    assert env.main(arguments) == 0
    assert ran == []
    (venv / ".built-from").write_text("other locks")
    assert env.main(arguments) == 0
    assert len(ran) == 4


def test_failing_step_ends_it_and_leaves_no_stamp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The code of the step that failed is make env's, and the next run builds again."""
    monkeypatch.setattr(env, "run", lambda command: 7)
    assert env.main(["--venv", str(tmp_path)]) == 7
    assert "this step failed" in capsys.readouterr().err
    assert not (tmp_path / ".built-from").exists()


def test_pip_settings_reach_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    """A company's index and certificates, known to pip only, are handed to uv; what uv was told itself wins."""
    monkeypatch.setattr(env, "pip_option", lambda name, given: "")
    given = {"PIP_INDEX_URL": "file:///mirror", "PIP_CERT": "/certs.pem"}
    assert env.index_settings(dict(given))["UV_DEFAULT_INDEX"] == "file:///mirror"
    assert env.index_settings(dict(given))["SSL_CERT_FILE"] == "/certs.pem"
    assert env.index_settings({**given, "UV_DEFAULT_INDEX": "file:///own"})["UV_DEFAULT_INDEX"] == "file:///own"


def test_steps_install_only_what_is_locked() -> None:
    """Every install is by hash, or is fvport itself without dependencies and without a build environment."""
    for _, command in env.steps(env.arguments([]))[1:]:
        assert "--require-hashes" in command or {"--no-deps", "--no-build-isolation"} <= set(command)
