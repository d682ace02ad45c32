# SPDX-License-Identifier: Apache-2.0
"""The oracle's own environment, where the official code's pins conflict with the gate's: `.fvport/oracle-env`, by uv.

Made from the lock that `[official] requirements` names, once for each content of that lock.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from fvport import evidence as ev
from fvport.errors import BlockedError, UsageError
from fvport.models import kept
from fvport.progress import beat
from fvport.redact import redact
from fvport.spec import Port

STAMP = ".made-from"
TIME_LIMIT = 3600.0


def ensure(port: Port) -> str:
    """Make it, or find it made from this lock; gives what there is to say, '' where port.toml asks for none.

    Raises UsageError where the lock is not there, BlockedError with the commands to run where uv cannot make it.
    """
    if not port.official.requirements:
        return ""
    lock = port.root / port.official.requirements
    if not lock.is_file():
        where = f"{port.file}: official.requirements"
        raise UsageError(f"{port.official.requirements} is not there", where=where, todo="Name a lock, or take it out")
    place = port.state / "oracle-env"
    digest = ev.blake3(lock.read_bytes())
    with kept.alone(place):
        stamp = place / STAMP
        if stamp.is_file() and stamp.read_text(encoding="utf-8").strip() == digest:
            return f"oracle's own environment: {_shown(port, place)} (already made from {port.official.requirements})"
        if place.exists() and not stamp.exists() and not (place / "pyvenv.cfg").is_file():
            raise BlockedError(
                "is there and is no environment", where=str(place), todo="Move it away, run: fvport prep"
            )
        _make(port, place, lock)
        stamp.write_text(digest + "\n", encoding="utf-8")
    return f"oracle's own environment: {_shown(port, place)} (made now from {port.official.requirements})"


def _shown(port: Port, path: Path) -> str:
    return path.relative_to(port.root).as_posix()


def _make(port: Port, place: Path, lock: Path) -> None:
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.prefix, "bin")))
    shown, own = _shown(port, place), _shown(port, place / "bin" / "python")
    commands = f"uv venv {shown} && uv pip install --python {own} -r {port.official.requirements}"
    if uv is None:
        raise BlockedError(
            "the oracle's own environment needs uv, which is not installed", todo=f"Elsewhere: {commands}"
        )
    begun = place.exists() and not (place / STAMP).exists()  # a person's own, or an interrupted run's: completed
    (place / STAMP).unlink(missing_ok=True)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    python = str(place / "bin" / "python")
    with beat(f"making {shown}"):
        if not begun:
            _uv(port, [uv, "venv", "--quiet", "--clear", "--python", version, str(place)], commands)
        _uv(port, [uv, "pip", "install", "--quiet", "--python", python, "-r", str(lock)], commands)


def _uv(port: Port, command: list[str], commands: str) -> None:
    env = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")}
    try:
        done = subprocess.run(
            command,
            check=False,
            cwd=port.root,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIME_LIMIT,
        )
    except subprocess.TimeoutExpired:
        raise BlockedError(f"uv took more than {TIME_LIMIT:.0f} s", todo=f"At the port's root: {commands}") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        words = " ".join(" ".join(redact(line).split()) for line in lines)[-400:]
        raise BlockedError(
            f"uv could not make the oracle's own environment: {words}", todo=f"At the port's root: {commands}"
        )
