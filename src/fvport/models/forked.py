# SPDX-License-Identifier: Apache-2.0
"""Run a function in a forked child: what was imported stays imported, and a crash, hang or kill is that child's alone.

Fork before distributed state or a CUDA context exists. The child's answer is JSON on disk; its output goes to a log.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fvport.errors import FvportError
from fvport.models import cpu_platform


@dataclass(frozen=True)
class Outcome:
    """How a child ended. `status`: done | raised | blocked | killed | timeout; `message` is one readable sentence."""

    status: str
    value: Any = None
    message: str = ""
    todo: str = ""
    seconds: float = 0.0
    peak_mb: float = 0.0
    log: str = ""


def run(function: Callable[[], Any], *, name: str, log: Path, timeout: float) -> Outcome:
    """Call `function` in a forked child and wait. Its value must be JSON; it never raises in the parent."""
    log.parent.mkdir(parents=True, exist_ok=True)
    answer = log.with_suffix(".json")
    answer.unlink(missing_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    started = time.monotonic()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _child(function, log, answer, parent)
    try:
        status, peak, timed_out = _wait(pid, started + timeout)
    except BaseException:  # Ctrl-C: leave no child behind
        _kill(pid)
        raise
    seconds = round(time.monotonic() - started, 2)
    common: dict[str, Any] = {"seconds": seconds, "peak_mb": round(peak, 1), "log": str(log)}
    if timed_out:
        return Outcome("timeout", message=f"{name} was still running after {timeout:.0f} s and was ended", **common)
    if os.WIFSIGNALED(status):
        return Outcome("killed", message=f"{name} {signal_words(os.WTERMSIG(status))}{tail(log)}", **common)
    try:
        data = json.loads(answer.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        code = os.waitstatus_to_exitcode(status)
        return Outcome("killed", message=f"{name} ended with code {code} and no answer{tail(log)}", **common)
    finally:
        answer.unlink(missing_ok=True)
    return Outcome(data["status"], data.get("value"), data.get("message", ""), data.get("todo", ""), **common)


def interrupt_on_sigterm() -> None:
    """SIGTERM ends this process as Ctrl-C does: with its `finally` blocks, and with its children."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def signal_words(number: int) -> str:
    """'was killed by SIGKILL (out of memory?)' for a signal number."""
    hints: dict[int, str] = {signal.SIGKILL: " (out of memory?)", signal.SIGSEGV: " (a crash in native code)"}
    hint = hints.get(number, "")
    try:
        return f"was killed by {signal.Signals(number).name}{hint}"
    except ValueError:
        return f"was killed by signal {number}"


def tail(log: Path, lines: int = 6) -> str:
    """The last lines of a log as ': a | b | c', or ''."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
    last = [line.strip() for line in text.splitlines() if line.strip()][-lines:]
    return ". Last lines: " + " | ".join(last) if last else ""


def describe(error: BaseException) -> str:
    """One sentence for an exception: type, message, and the innermost place that is not a library's."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "site-packages" not in f.filename and "importlib" not in f.filename]
    where = own[-1] if own else (frames[-1] if frames else None)
    text = " ".join(str(error).split())
    at = f" (at {'/'.join(Path(where.filename).parts[-3:])}:{where.lineno})" if where else ""
    return f"{type(error).__name__}: {text[:600]}{at}"


def _child(function: Callable[[], Any], log: Path, answer: Path, parent: int) -> None:
    code = 1
    try:
        os.setsid()
        cpu_platform.end_with_parent(signal.SIGKILL)  # a session of its own: no terminal and no group ends it
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        if os.getppid() != parent:  # it went between the fork and the line above
            os._exit(code)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        try:
            data = {"status": "done", "value": function()}
        except FvportError as error:
            status = "blocked" if error.exit_code == 3 else "raised"
            data = {"status": status, "message": str(error), "todo": error.todo}
        except BaseException as error:  # noqa: BLE001 - whatever ends the child is its answer
            traceback.print_exc()
            data = {"status": "raised", "message": describe(error)}
        part = answer.with_suffix(".part")
        part.write_text(json.dumps(data), encoding="utf-8")
        os.replace(part, answer)
        code = 0
    finally:
        sys.stdout.flush()
        os._exit(code)


def _wait(pid: int, until: float) -> tuple[int, float, bool]:
    pause = 0.005
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            return status, usage.ru_maxrss / 1024, False
        if time.monotonic() > until:
            _kill(pid)
            return 0, 0.0, True
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


def _kill(pid: int) -> None:
    """End the child and what it started (it leads a process group of its own)."""
    for ender in (os.killpg, os.kill):
        try:
            ender(pid, signal.SIGKILL)
        except OSError:
            continue
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
