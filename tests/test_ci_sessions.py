# SPDX-License-Identifier: Apache-2.0
"""noxfile.py and ci/lint.py: a table of contents, and thin sessions."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ci import lint

ROOT = Path(__file__).resolve().parent.parent
NOX = [sys.executable, "-m", "nox", "-f", str(ROOT / "noxfile.py")]


@pytest.fixture(scope="module")
def sessions() -> dict[str, str]:
    """Every session's name and description, as nox lists them."""
    done = subprocess.run([*NOX, "--list"], capture_output=True, text=True, check=True)
    listed = re.findall(r"^[*-] (\w+)(?: -> (.*))?$", done.stdout, re.MULTILINE)
    return dict(listed)


def test_every_session_says_what_it_does(sessions: dict[str, str]) -> None:
    """`nox -l` has one sentence a session."""
    assert [name for name, words in sessions.items() if not words] == []


def test_promised_sessions_exist(sessions: dict[str, str]) -> None:
    """The sessions of this repository, and one for every check of the gate."""
    from fvport.spec import CHECKS

    assert {"tests", "lint", "bake_matrix", "image", "bench", "lock"} <= set(sessions)
    assert {*CHECKS, "prep", "workspace", "gate", "report"} <= set(sessions)


def test_sessions_are_thin() -> None:
    """No function of the noxfile is longer than twenty lines: the work is done elsewhere."""
    tree = ast.parse((ROOT / "noxfile.py").read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert [f.name for f in functions if (f.end_lineno or 0) - f.lineno > 20] == []


def test_gate_session_without_a_port_says_make_demo(tmp_path: Path) -> None:
    """A gate session on a folder that is no port ends red and says what to do."""
    command = [
        sys.executable,
        "-m",
        "nox",
        "-f",
        str(ROOT / "noxfile.py"),
        "-s",
        "parity",
        "--",
        "--port",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "make demo" in done.stderr + done.stdout


def test_gate_session_calls_the_ports_own(tmp_path: Path) -> None:
    """`nox -s parity -- --port DIR vae` runs the session of DIR's noxfile with the arguments that are left."""
    (tmp_path / "noxfile.py").write_text(
        "import nox\n@nox.session(venv_backend='none')\ndef parity(session):\n    print('HERE', session.posargs)\n"
    )
    command = [*NOX, "-s", "parity"]
    done = subprocess.run([*command, "--", "--port", str(tmp_path), "vae"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "HERE ['vae']" in done.stdout


def test_lint_names_every_linter_it_should(tmp_path: Path) -> None:
    """Python, spelling, types, shell, Dockerfiles and workflows are all read, ours and the rendered ones."""
    table = lint.commands(tmp_path, tmp_path / "env")
    assert set(table) == {"ruff", "format", "codespell", "mypy", "shellcheck", "hadolint", "actionlint", "zizmor"}
    for name in ("hadolint", "actionlint", "zizmor", "shellcheck"):
        assert any(str(tmp_path) in word for word in table[name][2:]), f"{name} does not read the rendered files"
        assert any(not os.path.isabs(word) for word in table[name][1:]), f"{name} does not read ours"


def test_lint_refuses_a_linter_it_does_not_have(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A typing error in a linter's name is exit 2, not a green lint of nothing."""
    monkeypatch.setattr(lint, "install", lambda env: None)
    monkeypatch.setattr(lint, "render", lambda: tmp_path)
    assert lint.main(["ruf"]) == 2


@pytest.mark.parametrize(("answers", "code"), [([True, True], 0), ([False, True], 1)], ids=["clean", "red"])
def test_lint_runs_all_and_is_red_for_any(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answers: list[bool], code: int
) -> None:
    """One red linter does not keep the next from running."""
    left = list(answers)
    monkeypatch.setattr(lint, "install", lambda env: None)
    monkeypatch.setattr(lint, "render", lambda: tmp_path)
    monkeypatch.setattr(lint, "run", lambda *arguments: left.pop(0))
    assert lint.main(["ruff", "format"]) == code
    assert left == []
