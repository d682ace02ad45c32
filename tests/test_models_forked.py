# SPDX-License-Identifier: Apache-2.0
"""A forked child's end is always an answer: value, exception, crash, kill or hang."""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fvport.errors import BlockedError
from fvport.models import forked


def fail() -> None:
    raise ValueError("no such block")


def blocked() -> None:
    raise BlockedError("no weights", todo="Run: nox -s prep")


def crash() -> None:
    faulthandler.disable()  # pytest's would print this crash as if it were a test's
    os.kill(os.getpid(), signal.SIGSEGV)


CASES: dict[str, tuple[Callable[[], Any], str, str]] = {
    "a value": (lambda: {"a": [1]}, "done", ""),
    "an exception": (fail, "raised", "ValueError: no such block (at "),
    "something missing": (blocked, "blocked", "no weights"),
    "sys.exit": (lambda: (_ for _ in ()).throw(SystemExit(3)), "raised", "SystemExit"),
    "a crash": (
        crash,
        "killed",
        "job was killed by SIGSEGV (a crash in native code)",
    ),
    "out of memory": (
        lambda: os.kill(os.getpid(), signal.SIGKILL),
        "killed",
        "job was killed by SIGKILL (out of memory?)",
    ),
    "an exit without an answer": (
        lambda: (print("last words", flush=True), os._exit(7)),
        "killed",
        "code 7 and no answer",
    ),
    "a hang": (lambda: time.sleep(60), "timeout", "still running after 1 s"),
}


@pytest.mark.parametrize("name", CASES)
def test_every_end_is_an_answer(tmp_path: Path, name: str) -> None:
    """The parent goes on, and has one sentence that says how the child ended."""
    function, status, words = CASES[name]
    outcome = forked.run(function, name="job", log=tmp_path / "job.log", timeout=1 if status == "timeout" else 60)
    assert outcome.status == status
    assert words in outcome.message
    assert outcome.seconds < 30


def test_last_words_are_shown(tmp_path: Path) -> None:
    """What the child printed before it died is in the message."""
    outcome = forked.run(CASES["an exit without an answer"][0], name="job", log=tmp_path / "job.log", timeout=5)
    assert "last words" in outcome.message
