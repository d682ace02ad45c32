# SPDX-License-Identifier: Apache-2.0
"""How a command line ends when something goes wrong: one sentence, and never the exit code of a verdict."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import gate_support as g
import pytest

from fvport import cli, gate, trouble


def end(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run the command line in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["fvport", *words])
    monkeypatch.setattr(trouble, "_listen", lambda caught: None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize("words", [["gate", "--nope"], ["gatee"], ["inspect"]])
def test_wrong_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, words: list[str]) -> None:
    """A wrong command line is a sentence, exit code 2, and JSON where JSON was asked for."""
    assert end(monkeypatch, *words, "--json") == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["exit_code"] == 2
    assert err.startswith("fvport: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (PermissionError(13, "Permission denied", "out.md"), 2, "out.md: Permission denied"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), 2, "not UTF-8 text"),
        (KeyError("gone"), 4, "a fault of fvport itself: KeyError: 'gone'"),
        (RecursionError("too deep"), 4, "RecursionError"),
    ],
)
def test_unforeseen(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    error: Exception,
    code: int,
    said: str,
) -> None:
    """Whatever is raised, the exit code is no verdict's, standard output is JSON, and there is no traceback."""
    port = g.make(tmp_path)

    def fail(port: object) -> None:
        raise error

    monkeypatch.setattr(gate, "decide", fail)
    assert end(monkeypatch, "status", "--json", "--port", str(port.root)) == code
    out, err = capsys.readouterr()
    assert said in json.loads(out)["error"]
    assert "Traceback" not in err


def test_debug_shows_the_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """FVPORT_DEBUG=1 is for who mends fvport."""
    port = g.make(tmp_path)
    monkeypatch.setattr(gate, "decide", lambda port: 1 // 0)
    monkeypatch.setenv("FVPORT_DEBUG", "1")
    assert end(monkeypatch, "status", "--port", str(port.root)) == 4
    assert "Traceback" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """--markdown into a place that is no folder is wrong use, not a failed port."""
    port = g.make(tmp_path)
    (tmp_path / "file").write_text("x")
    assert end(monkeypatch, "gate", "--port", str(port.root), "--markdown", str(tmp_path / "file" / "a.md")) == 2
    assert "file" in capsys.readouterr().err


def test_plan_in_another_encoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """`status` reads a PLAN.md in any encoding; `plan --sync`, which would write it back, says what to do."""
    port = g.make(tmp_path)
    (port.folder / "PLAN.md").write_bytes("- [ ] größer\n".encode("latin-1"))
    assert end(monkeypatch, "status", "--json", "--port", str(port.root)) == 0
    assert end(monkeypatch, "plan", "--sync", "--port", str(port.root)) == 2
    assert "PLAN.md: is not UTF-8 text" in capsys.readouterr().err


def test_sigterm_ends_the_children() -> None:
    """SIGTERM ends a command as Ctrl-C does: what it started is ended too, and the exit code says so."""
    code = (
        "import subprocess, sys\nfrom fvport import trouble\n"
        "with trouble.told(as_json=False):\n"
        "    run = 'import os, time; print(os.getpid(), flush=True); time.sleep(60)'\n"
        "    subprocess.run([sys.executable, '-c', run])\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.send_signal(signal.SIGTERM)
        _, err = parent.communicate(timeout=30)
    assert parent.returncode == trouble.TERMINATED
    assert b"ended by SIGTERM" in err
    assert b"Traceback" not in err
    for _ in range(50):
        if not Path(f"/proc/{child}").exists():
            break
        time.sleep(0.1)
    assert not Path(f"/proc/{child}").exists()
