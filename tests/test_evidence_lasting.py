# SPDX-License-Identifier: Apache-2.0
"""Records outlive what machines do: kill -9, two writers, a full disk, a read-only folder, a clock that jumps."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from pathlib import Path

import gate_support as g
import pytest

from fvport import checks, gate
from fvport import evidence as ev
from fvport.errors import BlockedError
from fvport.spec import Port


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Port:
    """A port whose records are all green."""
    made = g.make(tmp_path)
    g.stub_checks(monkeypatch)
    for check in made.gate.checks:
        g.green(made, check)
    return made


def record(port: Port) -> ev.Evidence:
    found = ev.read(port, "keys")
    assert found is not None
    return found


@pytest.mark.parametrize("after", [0.0, 0.002, 0.01, 0.03])
def test_kill_9_leaves_a_whole_record(port: Port, after: float) -> None:
    """A writer that is killed at any moment leaves the old record or a new one, and the gate as it was."""
    new = record(port)
    child = os.fork()
    if child == 0:
        while True:
            ev.write(port, new)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert record(port).verdict == "pass"
    assert gate.decide(port).verdict == "pass"
    ev.write(port, new)  # the next run goes on
    assert gate.decide(port).verdict == "pass"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_takes_nothing(port: Port, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Full or read-only: one sentence with what to do, the old record stays whole, no part is left."""
    before = (ev.folder(port) / "keys.json").read_bytes()

    def refuse(self: Path, *args: object, **keys: object) -> int:
        self.touch()  # as a disk that is full after the name was made
        raise OSError(code, os.strerror(code), str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", refuse)
        with pytest.raises(BlockedError, match="the old one is kept"):
            with checks.writing(port, "keys"):
                ev.write(port, record(port))
    assert (ev.folder(port) / "keys.json").read_bytes() == before
    assert sorted(file.suffix for file in ev.folder(port).iterdir()) == [".json"] * len(port.gate.checks)
    assert gate.decide(port).verdict == "pass"


def test_two_writers_take_turns(port: Port) -> None:
    """Who comes second waits; both writes are whole."""
    said: list[str] = []

    def second() -> None:
        with checks.writing(port, "keys"):
            said.append("second")
            ev.write(port, record(port))

    with checks.writing(port, "keys"):
        other = threading.Thread(target=second)
        other.start()
        time.sleep(0.2)
        said.append("first")
        ev.write(port, record(port))
    other.join(30)
    assert said == ["first", "second"]
    assert gate.decide(port).verdict == "pass"


@pytest.mark.parametrize("when", ["1971-01-01T00:00:00+00:00", "2999-01-01T00:00:00+00:00"])
def test_a_clock_that_jumps_decides_nothing(port: Port, when: str) -> None:
    """Digests say whether a record is current: neither its time nor the files' does."""
    new = record(port)
    new.started = when
    path = ev.write(port, new)
    os.utime(path, (0, 0))
    assert gate.decide(port).verdict == "pass"
    changed = next(name for name in record(port).inputs if name.startswith("file:"))
    file = port.root / changed.removeprefix("file:")
    file.write_text(file.read_text() + "\n# edited\n")
    os.utime(file, (0, 0))
    row = gate.decide(port).row("keys")
    assert row is not None
    assert row.state == "stale"
