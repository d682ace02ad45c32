# SPDX-License-Identifier: Apache-2.0
"""What is answered without the command tree: only its exact forms, in the verb's own words, importing nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import gate_support as g
import pytest

from fvport import evidence as ev
from fvport import quick

HEAVY = ("torch", "diffusers", "transformers", "fastvideo", "numpy", "libcst", "typer", "pydantic", "rich", "jinja2")


@pytest.mark.parametrize("words", [["status", "--port"], ["status", "--help"], ["status", "x"], ["gate"], []])
def test_everything_else_goes_the_usual_way(words: list[str]) -> None:
    """A mistake, another verb and --help are the command tree's to answer."""
    assert not quick.answered(words)


@pytest.mark.parametrize("words", [["--port", "."], ["--port=.", "--json"], ["--json"], []])
def test_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, words: list[str]
) -> None:
    """Every form of `status` is answered: the verdict and the one thing to do next."""
    monkeypatch.chdir(g.make(tmp_path).root)
    assert quick.answered(["status", *words])
    said = capsys.readouterr().out
    if "--json" in words:
        assert json.loads(said) == {"verdict": "blocked", "next": "fvport check boundary"}
    else:
        assert said.splitlines()[-1] == "Next: fvport check boundary"


def test_status_imports_nothing_heavy(tmp_path: Path) -> None:
    """Where there is a record of every check, too, `status` imports nothing that takes long to import."""
    port = g.make(tmp_path)
    code = (
        "import sys\nfrom fvport import cli\n"
        f"sys.argv = ['fvport', 'status', '--port', {str(port.root)!r}]\n"
        "try:\n    cli.main()\nexcept SystemExit as end:\n    assert end.code == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    (port.state / "evidence" / port.slug).mkdir(parents=True, exist_ok=True)
    for check in port.gate.checks:
        ev.write(port, ev.Evidence(check, port.slug))  # every check is asked what its record depends on
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Next: " in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
