# SPDX-License-Identifier: Apache-2.0
"""FastVideo imported once for several commands: a process that booted it and forks a child for each call.

    with warm.session():                  whoever runs several checks; without it each child boots by itself
        child = warm.start(port, "fvport.models.native_answers", argv, env=env, stdout=log, stderr=log)
        code = child.wait(timeout)

A child runs `python -m MODULE ARGV...` with the environment, folder and files that the caller gives, as a fresh process
would, but in a fork of a process that has only imported: nothing was built or computed in it. The booted process is
known by the digests of the FastVideo tree, of fvport and of the environment, so a changed file never meets an old
import. On a CPU only: a process that looked for CUDA devices must not fork. `server` (beside this) is the other end.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from fvport import evidence as ev
from fvport.models import cpu_platform
from fvport.spec import Port

VARIABLE = "FVPORT_WARM"  # the session's folder
BOOT_LIMIT = 600.0  # seconds
LONGEST = 50  # bytes of a temporary folder's name: a socket's address holds 107
DIGESTS = ("tree:fastvideo", "package:fvport", "package:torch", "package:transformers", "package:diffusers")
# What a caller says to one child, or a shell to itself: no import reads it.
OF_ONE_CALL = {"PWD", "OLDPWD", "SHLVL", "_", "COLUMNS", "LINES", "PYTEST_CURRENT_TEST", "NOX_CURRENT_SESSION"}
OF_ONE_CALL |= {"FVPORT_PARITY_JOB", "FVPORT_WATCH_PIPELINE", "FVPORT_VARIANT"}


class Child(Protocol):
    """What `start` gives: a process of its own or a fork, by the same three words."""

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, negative for a signal. Raises subprocess.TimeoutExpired."""

    def end(self) -> None:
        """Ask it and what it started to end (SIGTERM), then make them (SIGKILL)."""


@contextlib.contextmanager
def session() -> Iterator[None]:
    """Children of this process, and of those it starts, share booted processes until the block ends."""
    if os.environ.get(VARIABLE):
        yield
        return
    long = len(os.fsencode(tempfile.gettempdir())) > LONGEST
    folder = tempfile.mkdtemp(prefix="fvport-warm-", dir="/tmp" if long else None)
    with open(Path(folder) / "owner", "a", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # a booted process ends when this lock can be had
        os.environ[VARIABLE] = folder
        try:
            yield
        finally:
            del os.environ[VARIABLE]
            shutil.rmtree(folder, ignore_errors=True)


def run(
    port: Port,
    module: str,
    argv: Sequence[str],
    *,
    env: dict[str, str],
    log: Path,
    timeout: float,
    cwd: Path | None = None,
) -> int:
    """`start`, and wait: the exit code. Whatever ends the waiting ends the child; TimeoutExpired is raised as it is."""
    with log.open("wb") as stream:
        child = start(port, module, argv, env=env, stdout=stream, stderr=stream, cwd=cwd)
        try:
            return child.wait(timeout)
        except BaseException:
            child.end()
            raise


def start(
    port: Port,
    module: str,
    argv: Sequence[str],
    *,
    env: dict[str, str],
    stdout: IO[bytes] | int,
    stderr: IO[bytes] | int,
    cwd: Path | None = None,
) -> Child:
    """`python -m module argv...` as a child: forked where a session and a CPU allow it, else a process of its own."""
    folder = env.get(VARIABLE, "")
    if folder and env.get(cpu_platform.VARIABLE) == "cpu" and Path(folder).is_dir():
        link = _connect(port, env, Path(folder))
        if link is not None:
            return _Forked(link, module, argv, env, cwd or Path.cwd(), [_number(stdout), _number(stderr)])
    command = [sys.executable, "-m", module, *argv]
    to: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": stdout, "stderr": stderr, "start_new_session": True}
    return _Spawned(subprocess.Popen(command, env=env, cwd=cwd, **to))


def _number(stream: IO[bytes] | int) -> int:
    return stream if isinstance(stream, int) else stream.fileno()


class _Spawned:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def wait(self, timeout: float | None = None) -> int:
        return self.process.wait(timeout)

    def end(self) -> None:
        for number, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, None)):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(patience)
                return


class _Forked:
    """The caller's end of one connection: a request goes out, an exit code comes back."""

    def __init__(
        self, link: socket.socket, module: str, argv: Sequence[str], env: dict[str, str], cwd: Path, files: list[int]
    ) -> None:
        self.link, self.module = link, module
        self.code: int | None = None
        request = {"module": module, "argv": list(argv), "env": env, "cwd": str(cwd)}
        data = json.dumps(request).encode()
        socket.send_fds(link, [len(data).to_bytes(8, "big")], files)
        link.sendall(data)

    def wait(self, timeout: float | None = None) -> int:
        if self.code is None:
            self.link.settimeout(timeout)
            try:
                answer = self.link.recv(16)
            except TimeoutError:
                raise subprocess.TimeoutExpired(self.module, timeout or 0) from None
            self.code = int(answer) if answer else -signal.SIGKILL  # the booted process itself was killed
            self.link.close()
        return self.code

    def end(self) -> None:
        if self.code is None:
            self.link.shutdown(socket.SHUT_WR)  # the other end ends the child when the caller is gone
            self.wait()


# --- the booted process, found or started ---------------------------------------------------------


def key(port: Port, env: dict[str, str]) -> str:
    """What a booted process depends on: FastVideo's tree, the packages, the environment."""
    seen = {name: value for name, value in env.items() if name not in OF_ONE_CALL}
    whole = {**ev.digests(port, DIGESTS), "root": str(port.root), "env": seen}
    return ev.blake3(ev.canonical(whole)).partition(":")[2][:24]


def _connect(port: Port, env: dict[str, str], folder: Path) -> socket.socket | None:
    """A connection to the booted process of this port; None where it does not start (a fresh child then says why)."""
    name = key(port, env)
    address = folder / f"{name}.sock"
    with open(folder / f"{name}.lock", "a", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # two checks that begin together share one boot
        link = _try(address)
        if link is not None:
            return link
        if (folder / f"{name}.failed").exists():
            return None
        _retire(folder, str(port.root), name)
        with open(folder / f"{name}.log", "wb") as log:
            command = [sys.executable, "-m", "fvport.models.warm_server", str(address), str(port.file), "cpu"]
            to: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "start_new_session": True}
            own = {name: value for name, value in env.items() if name != cpu_platform.END_VARIABLE}
            process = subprocess.Popen(command, env=own, cwd=port.root, **to)
        try:
            link = _booted(process, address)
        except BaseException:
            process.kill()
            raise
        if link is not None:
            (folder / f"{name}.root").write_text(str(port.root), encoding="utf-8")
            return link
        (folder / f"{name}.failed").touch()  # one boot for nothing is enough
    return None


def _booted(process: subprocess.Popen[bytes], address: Path) -> socket.socket | None:
    """Wait until it answers; None, and nothing left running, where it does not come up."""
    until = time.monotonic() + BOOT_LIMIT
    while process.poll() is None and time.monotonic() < until:
        link = _try(address)
        if link is not None:
            process.returncode = 0  # it outlives this process on purpose
            return link
        time.sleep(0.05)
    if process.poll() is None:
        process.kill()
    return None


def _try(address: Path) -> socket.socket | None:
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        link.connect(str(address))
    except OSError:
        link.close()
        return None
    return link


def _retire(folder: Path, root: str, but: str) -> None:
    """End booted processes of the same port whose files have changed since. Children at work are not touched."""
    for note in folder.glob("*.root"):
        if note.read_text(encoding="utf-8") == root and note.stem != but:
            note.unlink(missing_ok=True)
            note.with_suffix(".sock").unlink(missing_ok=True)  # the booted process sees that and goes
