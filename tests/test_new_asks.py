# SPDX-License-Identifier: Apache-2.0
"""`fvport new` without arguments: asks on a terminal, shows before it writes, and never asks without one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from fvport.errors import UsageError
from fvport.scaffold import ask


@pytest.fixture
def baked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the bake for the preview was given; the bake itself is tested elsewhere."""
    from fvport.scaffold import new
    from fvport.weights import remote

    seen: list[list[str]] = []

    def bake(given: list[str], output_dir: str, no_input: bool) -> SimpleNamespace:
        seen.append(given)
        return SimpleNamespace(
            root=Path(output_dir) / "my_model",
            files=[f"f{n}" for n in range(20)],
            summary={"components": {"vae": "reuse"}},
        )

    def inspect(weights: str) -> SimpleNamespace:
        if weights == "wrong":
            raise UsageError("no such folder", where=weights)
        return SimpleNamespace(layout="diffusers", pipeline_class="WanPipeline", components={"vae": 1})

    monkeypatch.setattr(new, "bake", bake)
    monkeypatch.setattr(remote, "inspect", inspect)
    return seen


def typing(*lines: str) -> Callable[[str], str]:
    left = list(lines)
    return lambda question: left.pop(0)


def test_it_asks_again_takes_defaults_and_shows_first(baked: list[list[str]], tmp_path: Path) -> None:
    """A wrong folder or word is asked again; an empty line takes the default from the checkpoint; files are shown."""
    said: list[str] = []
    given = ask.answers(tmp_path, typing("", "wrong", "official/my-model", "", "gpu", "cpu", "yes"), said.append)
    assert given == ["model_name=My Model", "official_weights=official/my-model", "gate_device=cpu"]
    assert baked == [given]
    text = "\n".join(said)
    assert "no such folder" in text
    assert "gpu is none of cuda, cpu" in text
    assert "20 files" in text
    assert "... and 8 more" in text
    assert list(tmp_path.iterdir()) == []


def test_no_means_no(baked: list[list[str]], tmp_path: Path) -> None:
    """Whoever says no is told that nothing was written."""
    with pytest.raises(UsageError, match="nothing was written"):
        ask.answers(tmp_path, typing("x", "", "", "no"), lambda line: None)


@pytest.mark.parametrize(("weights", "name"), [("a/wan2.1-t2v_1.3b/", "Wan2.1 T2v 1.3b"), ("ORG/Model", "Model")])
def test_a_name_from_the_checkpoint(weights: str, name: str) -> None:
    """The last part of the path, as people would write it."""
    assert ask.name_of(weights) == name


@pytest.mark.parametrize(
    ("answers", "no_input", "as_json", "terminal", "asks"),
    [
        ([], False, False, True, True),
        ([], False, False, False, False),
        ([], True, False, True, False),
        ([], False, True, True, False),
        (["model_name=X"], False, False, True, False),
    ],
)
def test_when_it_asks(
    monkeypatch: pytest.MonkeyPatch, answers: list[str], no_input: bool, as_json: bool, terminal: bool, asks: bool
) -> None:
    """Only on a terminal, without answers, without --no-input and --json."""
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: terminal))
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: terminal))
    assert ask.wanted(answers, no_input, as_json) is asks


def test_without_a_terminal_nobody_is_asked(tmp_path: Path) -> None:
    """Answers and no terminal, without --no-input: the port is made, and standard input is not read."""
    command = [sys.executable, "-m", "fvport.cli", "new", "model_name=My Model", "--json"]
    done = subprocess.run(
        command, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["root"].endswith("my_model")
