# SPDX-License-Identifier: Apache-2.0
"""Tasks that two threads take in turn: each is done once, the first error ends the rest, and nothing stays at work."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from functools import partial

import pytest

from fvport.weights import crew


def test_each_task_is_done_once_and_two_are_at_work(monkeypatch):
    monkeypatch.setattr(crew.os, "cpu_count", lambda: 8)
    together, done = threading.Barrier(2, timeout=20), []
    crew.Crew().run([partial(together.wait)] * 2 + [partial(done.append, n) for n in range(50)])
    assert sorted(done) == list(range(50))


def test_one_core_takes_them_in_order(monkeypatch):
    monkeypatch.setattr(crew.os, "cpu_count", lambda: 1)
    done = []
    crew.Crew().run(partial(done.append, n) for n in range(20))
    assert done == list(range(20))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError("too large")])
def test_the_first_error_is_raised_as_it_is_and_ends_the_rest(error):
    work, done = crew.Crew(), []

    def fail():
        raise error

    with pytest.raises(type(error)) as raised:
        work.run([fail, *(partial(lambda: time.sleep(0.01) or done.append(1)) for _ in range(100))])
    assert raised.value is error
    assert len(done) < 3
    assert work.stopped.is_set()


INTERRUPTED = """
import signal
from fvport.weights.crew import Crew
crew, ended = Crew(), []
def long():
    while not crew.stopped.wait(0.01):
        pass
    ended.append(1)
signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.setitimer(signal.ITIMER_REAL, 0.2)
try:
    crew.run([long, long])
except KeyboardInterrupt:
    print("interrupted", len(ended))
"""


def test_ctrl_c_leaves_nothing_at_work():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "interrupted 2\n", done.stderr
