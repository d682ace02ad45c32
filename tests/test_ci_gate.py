# SPDX-License-Identifier: Apache-2.0
"""ci/gate.sh: what one session's end means, with a stub in nox's place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "ci" / "gate.sh"
NOX = """#!{python}
import json, os, pathlib, sys, time
argv = sys.argv[1:]
session, report = argv[argv.index("-s") + 1], argv[argv.index("--report") + 1]
pathlib.Path(os.environ["SAID"]).open("a").write(" ".join(argv[argv.index("-s"):]) + "\\n")
code, result, verdict = os.environ["DO"].split(":")
if session in ("prep", "workspace"):
    code, result, verdict = "0", "success", ""
if verdict == "sleep":
    time.sleep(30)
json.dump({{"sessions": [{{"name": session, "result": result}}]}}, open(report, "w"))
if verdict:
    folder = pathlib.Path(argv[argv.index("-f") + 1]).parent / ".fvport" / "evidence" / "some_model"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / (session + ".json")).write_text(json.dumps({{"verdict": verdict}}))
sys.exit(int(code))
"""


@pytest.fixture
def port(tmp_path: Path) -> Path:
    """A folder with a noxfile and an environment whose nox does what DO says: exit code, result, verdict."""
    binary = tmp_path / "env" / "bin"
    binary.mkdir(parents=True)
    (binary / "nox").write_text(NOX.format(python=sys.executable))
    (binary / "nox").chmod(0o755)
    (tmp_path / "port").mkdir()
    (tmp_path / "port" / "noxfile.py").touch()
    return tmp_path / "port"


def environment(port: Path, do: str, **more: str) -> dict[str, str]:
    own = {
        "FVPORT_PORT": str(port),
        "FVPORT_ENV": str(port.parent / "env"),
        "DO": do,
        "SAID": str(port.parent / "said"),
    }
    return {**os.environ, **own, **more}


def gate(port: Path, do: str, *sessions: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(SCRIPT), *sessions]
    return subprocess.run(command, env=environment(port, do, **more), capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("do", "code"),
    [
        ("0:success:pass", 0),
        ("1:failed:fail", 1),
        ("1:failed:blocked", 3),
        ("0:skipped:pass", 3),
        ("0:success:", 3),
        ("0:success:blocked", 3),
        ("0:success:fail", 1),
        ("1:failed:pass", 1),
        ("1:failed:", 1),
        ("3:failed:", 2),
    ],
    ids=[
        "pass",
        "fail",
        "blocked",
        "skip is no pass",
        "no record is no pass",
        "green nox with blocked record",
        "green nox with red record",
        "red nox with green record",
        "crash",
        "no such session",
    ],
)
def test_exit_code(port: Path, do: str, code: int) -> None:
    """0 needs a green session and a fresh record that says pass; everything else is told apart."""
    assert gate(port, do, "keys").returncode == code


def test_old_record_does_not_count(port: Path) -> None:
    """A session that went green without writing its record is blocked, though an older record says pass."""
    assert gate(port, "0:success:pass", "keys").returncode == 0
    assert gate(port, "0:success:", "keys").returncode == 3


def test_another_ports_record_does_not_count(port: Path) -> None:
    """Where a tree holds several ports, only a record of the chosen one is the session's."""
    assert gate(port, "0:success:pass", "keys", FVPORT_SLUG="some_model").returncode == 0
    assert gate(port, "0:success:pass", "keys", FVPORT_SLUG="other").returncode == 3


LOCK = '{{"components": {{"vae": {{"files": [{{"name": "a", "blake3": "{0}"}}]}}}}, "versions": {{"torch": "{1}"}}}}'


@pytest.mark.parametrize(
    ("before", "after", "locked", "code", "said"),
    [
        (LOCK.format("1", "cpu"), LOCK.format("1", "cuda"), "yes", 0, ""),
        (LOCK.format("1", "cpu"), LOCK.format("2", "cpu"), "yes", 1, "not those of port.lock.json"),
        ("{}", LOCK.format("1", "cpu"), "yes", 3, "locks no weights"),
        ("", LOCK.format("1", "cpu"), "yes", 3, "locks no weights"),
        (LOCK.format("1", "cpu"), LOCK.format("2", "cpu"), "", 0, ""),
    ],
    ids=["same", "others", "empty lock", "no lock", "a person may lock others"],
)
def test_prep_in_ci_holds_to_the_lock(port: Path, before: str, after: str, locked: str, code: int, said: str) -> None:
    """With FVPORT_LOCKED, weights that differ from the committed lock are red though prep itself was green."""
    lock = port / "tests" / "local_tests" / "some_model" / "port.lock.json"
    lock.parent.mkdir(parents=True)
    if before:
        lock.write_text(before)
    nox = port.parent / "env" / "bin" / "nox"
    nox.write_text(nox.read_text().replace("sys.exit(", f"open({str(lock)!r}, 'w').write({after!r}); sys.exit("))
    done = gate(port, "0:success:", "prep", FVPORT_LOCKED=locked)
    assert done.returncode == code, done.stderr
    assert said in done.stderr


def test_a_variants_lock_is_held_to_as_well(port: Path) -> None:
    """Other weights of a variant, or a lock of it that nobody committed, are red as the base's are."""
    folder = port / "tests" / "local_tests" / "some_model"
    lock = folder / "variants" / "fast" / "port.lock.json"
    lock.parent.mkdir(parents=True)
    (folder / "port.lock.json").write_text('{"components": {"a": 1}}')
    nox = port.parent / "env" / "bin" / "nox"
    made = '{"components": {"a": 2}}'
    nox.write_text(nox.read_text().replace("sys.exit(", f"open({str(lock)!r}, 'w').write({made!r}); sys.exit("))
    assert gate(port, "0:success:", "prep", FVPORT_LOCKED="yes").returncode == 1  # it was not there before
    assert gate(port, "0:success:", "prep", FVPORT_LOCKED="yes").returncode == 0
    lock.write_text('{"components": {"a": 3}}')
    done = gate(port, "0:success:", "prep", FVPORT_LOCKED="yes")
    assert done.returncode == 1
    assert "not those of port.lock.json" in done.stderr


def test_all_sessions_run_and_the_worst_counts(port: Path) -> None:
    """One red session does not keep the next from running; red ones are named at the end."""
    done = gate(port, "1:failed:fail", "prep", "keys", "parity")
    assert done.returncode == 1
    assert "not green: keys parity" in done.stderr
    assert len((port.parent / "said").read_text().splitlines()) == 3


def test_arguments_go_on_to_the_session(port: Path) -> None:
    """What stands after -- is the session's."""
    gate(port, "0:success:pass", "parity", "--", "transformer", "a b")
    assert (port.parent / "said").read_text() == "-s parity -- transformer a b\n"


def test_evidence_goes_out_also_when_red(port: Path, tmp_path: Path) -> None:
    """FVPORT_OUT receives the records and nox's report, whatever the verdict."""
    out = tmp_path / "out"
    assert gate(port, "1:failed:fail", "keys", FVPORT_OUT=str(out)).returncode == 1
    assert (out / "evidence" / "some_model" / "keys.json").is_file()
    assert (out / "nox-keys.json").is_file()


@pytest.mark.parametrize(
    ("sessions", "more", "said"),
    [
        ([], {}, "at least one session"),
        (["--fast"], {}, "unknown option --fast"),
        (["keys"], {"FVPORT_PORT": "/nowhere"}, "is no folder"),
        (["keys"], {"FVPORT_PORT": "/"}, "holds no noxfile.py"),
    ],
    ids=["no session", "option", "no folder", "no port"],
)
def test_wrong_use_is_said_in_a_sentence(port: Path, sessions: list[str], more: dict[str, str], said: str) -> None:
    """Exit 2, and one sentence that says what is wrong."""
    done = gate(port, "0:success:pass", *sessions, **more)
    assert done.returncode == 2
    assert said in done.stderr


def test_interrupt_ends_the_session_and_leaves_nothing_running(port: Path) -> None:
    """TERM to the script ends the running session, skips the rest, and is seen in the exit code."""
    env = environment(port, "0:success:sleep")
    process = subprocess.Popen(["bash", str(SCRIPT), "keys", "parity"], env=env, stderr=subprocess.PIPE, text=True)
    said = port.parent / "said"
    deadline = time.monotonic() + 10
    while not said.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) > 128
    assert "interrupted in keys" in (process.stderr.read() if process.stderr else "")
    assert said.read_text().splitlines() == ["-s keys --"]
