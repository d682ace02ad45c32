# SPDX-License-Identifier: Apache-2.0
"""Forked from a booted process or started by itself: a child answers the same, and nobody is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from fvport import evidence as ev
from fvport.models import cpu_platform, warm
from fvport.spec import Port

SERVER = """
import socket, sys
from pathlib import Path
from fvport.models import warm_server
import signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
warm_server.PATIENCE = 1.0
address = Path(sys.argv[1])
listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
listener.bind(str(address))
listener.listen()
warm_server.serve(listener, address)
"""

SAYS = """
import json, os, sys
said = {"name": __name__, "argv": sys.argv[1:], "cwd": os.getcwd(), "env": os.environ.get("WORD"), "pid": os.getpid()}
print(json.dumps(said))
print("to the other stream", file=sys.stderr)
"""


@pytest.fixture
def port(tmp_path: Path) -> Port:
    """As much of a port as `warm` reads; there is no FastVideo in it."""
    (tmp_path / "port.toml").touch()
    return cast(Port, SimpleNamespace(root=tmp_path, file=tmp_path / "port.toml"))


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """A folder of modules to run."""
    (tmp_path / "says.py").write_text(SAYS)
    (tmp_path / "ends_7.py").write_text("import sys; sys.exit(7)")
    (tmp_path / "says_no.py").write_text("import sys; sys.exit('no')")
    (tmp_path / "raises.py").write_text("raise ValueError('why')")
    (tmp_path / "is_killed.py").write_text("import os; os.kill(os.getpid(), 9)")
    (tmp_path / "sleeps.py").write_text("import time; time.sleep(600)")
    (tmp_path / "is_deaf.py").write_text(
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    return tmp_path


@pytest.fixture
def session(modules: Path) -> Iterator[Path]:
    """A session with one server that booted nothing, found under every key."""
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"w{os.getpid()}"
    folder.mkdir()
    (folder / "owner").touch()
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(modules), *sys.path])}
    with subprocess.Popen([sys.executable, "-c", SERVER, str(folder / "k.sock")], env=env) as process:
        import fcntl

        with (folder / "owner").open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            until = time.monotonic() + 30
            while not (link := warm._try(folder / "k.sock")) and time.monotonic() < until:
                time.sleep(0.02)
            assert link
            link.close()
            yield folder
        process.wait(10)  # the owner's lock is gone: it ends by itself
    for file in folder.glob("*"):
        file.unlink()
    folder.rmdir()


@pytest.fixture
def start(session: Path, modules: Path, port: Port, monkeypatch: pytest.MonkeyPatch) -> Callable[..., warm.Child]:
    """`warm.start` of a module of `modules`, by the session's server or, with warm=False, alone."""
    monkeypatch.setattr(warm, "key", lambda *_: "k")

    def begin(module: str, *argv: str, warmed: bool = True) -> warm.Child:
        env = {**os.environ, "WORD": "hello", "PYTHONPATH": str(modules), cpu_platform.VARIABLE: "cpu"}
        if warmed:
            env[warm.VARIABLE] = str(session)
        with (modules / "out").open("wb") as out, (modules / "err").open("wb") as err:
            return warm.start(port, module, argv, env=env, stdout=out, stderr=err, cwd=modules)

    return begin


@pytest.mark.parametrize("warmed", [True, False])
def test_a_child_is_what_python_m_would_be(warmed: bool, start: Callable[..., warm.Child], modules: Path) -> None:
    """Name, arguments, folder, environment and both streams are the caller's, forked or not."""
    child = start("says", "a", "b c", warmed=warmed)
    assert isinstance(child, warm._Forked) is warmed
    assert child.wait(30) == 0
    said = json.loads((modules / "out").read_text())
    assert said.pop("pid") != os.getpid()
    assert said == {"name": "__main__", "argv": ["a", "b c"], "cwd": str(modules), "env": "hello"}
    assert "to the other stream" in (modules / "err").read_text()


@pytest.mark.parametrize("warmed", [True, False])
@pytest.mark.parametrize(("module", "code", "words"), [
    ("ends_7", 7, ""), ("says_no", 1, "no"), ("raises", 1, "ValueError: why"), ("is_killed", -9, ""),
])  # fmt: skip
def test_every_end_has_its_code(
    module: str, code: int, words: str, warmed: bool, start: Callable[..., warm.Child], modules: Path
) -> None:
    """An exit code, a message, an exception, a signal: the same number from both kinds of child."""
    assert start(module, warmed=warmed).wait(30) == code
    assert words in (modules / "err").read_text()


@pytest.mark.parametrize("warmed", [True, False])
def test_a_child_that_hangs_is_told_and_ended(warmed: bool, start: Callable[..., warm.Child]) -> None:
    """The time limit is subprocess's own exception; `end` leaves nothing running."""
    child = start("sleeps", warmed=warmed)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.3)
    child.end()
    assert child.wait(5) == -signal.SIGTERM


def test_a_child_ends_with_its_caller(start: Callable[..., warm.Child], modules: Path) -> None:
    """A caller that is killed takes its child along, whatever the child does with SIGTERM."""
    (modules / "out").touch()
    pid = os.fork()
    if pid == 0:
        start("is_deaf")
        time.sleep(600)
    until = time.monotonic() + 30
    while "up" not in (modules / "out").read_text() and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert _gone("is_deaf", 20)


def _gone(module: str, seconds: float) -> bool:
    """No process holds the module's folder open as its working folder any more."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not any(_is_in(entry, module) for entry in Path("/proc").glob("[0-9]*")):
            return True
        time.sleep(0.1)
    return False


def _is_in(entry: Path, module: str) -> bool:
    with contextlib.suppress(OSError):
        return (Path(os.readlink(entry / "cwd")) / f"{module}.py").exists() and int(entry.name) != os.getpid()
    return False


def test_a_changed_tree_or_environment_is_another_process(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old import never meets a new file; what is said to one child only does not count."""
    digests = dict.fromkeys(warm.DIGESTS, "a")
    monkeypatch.setattr(ev, "digests", lambda *_: digests)
    first = warm.key(port, {"A": "1", "PWD": "x"})
    assert warm.key(port, {"A": "1", "PWD": "y"}) == first
    assert warm.key(port, {"A": "2"}) != first
    digests["tree:fastvideo"] = "b"
    assert warm.key(port, {"A": "1"}) != first


def test_a_booted_process_that_ended_is_started_again(
    tmp_path: Path, modules: Path, port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it leaves behind is in nobody's way."""
    monkeypatch.setattr(warm, "key", lambda *_: "k")
    boots = "from fvport import fastvideo_api; fastvideo_api.boot = lambda *_, **__: None\n"
    boots += "from fvport import spec; from types import SimpleNamespace as N\n"
    boots += "spec.parse = lambda file: N(root='.', fastvideo=N(attention_backend='x'))\n"
    (modules / "sitecustomize.py").write_text(boots)
    env = {**os.environ, cpu_platform.VARIABLE: "cpu", "PYTHONPATH": os.pathsep.join([str(modules), *sys.path])}
    with warm.session():
        env[warm.VARIABLE] = os.environ[warm.VARIABLE]
        for _ in range(2):
            child = warm.start(port, "ends_7", [], env=env, stdout=1, stderr=2)
            assert isinstance(child, warm._Forked)
            assert child.wait(30) == 7
            while pids := _who_serves(env[warm.VARIABLE]):
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)  # its socket stays
                time.sleep(0.02)


def test_an_interrupted_boot_leaves_nothing(modules: Path, port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while FastVideo is imported ends the process that imports it."""
    monkeypatch.setattr(warm, "key", lambda *_: "k")
    (modules / "sitecustomize.py").write_text("import time; time.sleep(60)\n")
    env = {**os.environ, cpu_platform.VARIABLE: "cpu", "PYTHONPATH": os.pathsep.join([str(modules), *sys.path])}

    def interrupted(_: Path) -> None:
        raise KeyboardInterrupt

    with warm.session():
        env[warm.VARIABLE] = os.environ[warm.VARIABLE]
        (Path(env[warm.VARIABLE]) / "k.sock").touch()
        tries = iter([lambda _: None, interrupted])
        monkeypatch.setattr(warm, "_try", lambda address: next(tries)(address))
        with pytest.raises(KeyboardInterrupt):
            warm.start(port, "ends_7", [], env=env, stdout=1, stderr=2)
        until = time.monotonic() + 10
        while _who_serves(env[warm.VARIABLE]) and time.monotonic() < until:
            time.sleep(0.05)
        assert _who_serves(env[warm.VARIABLE]) == []


def _who_serves(folder: str) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if folder.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def test_a_gpu_is_never_forked(start: Callable[..., warm.Child], session: Path, port: Port, modules: Path) -> None:
    """Where CUDA is used a child is a process of its own, also in a session."""
    env = {**os.environ, warm.VARIABLE: str(session), cpu_platform.VARIABLE: "cuda", "PYTHONPATH": str(modules)}
    child = warm.start(port, "ends_7", [], env=env, stdout=1, stderr=2)
    assert isinstance(child, warm._Spawned)
    assert child.wait(30) == 7


def test_a_boot_that_fails_is_told_by_a_child_of_its_own(
    tmp_path: Path, modules: Path, port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No server comes up (there is no FastVideo here): the child starts alone and says what is wrong."""
    monkeypatch.setattr(warm, "key", lambda *_: "k")
    with warm.session():
        env = {**os.environ, cpu_platform.VARIABLE: "cpu", "PYTHONPATH": os.pathsep.join([str(modules), *sys.path])}
        assert warm.run(port, "ends_7", [], env=env, log=tmp_path / "log", timeout=60) == 7
    assert warm.VARIABLE not in os.environ
