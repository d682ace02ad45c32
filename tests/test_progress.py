# SPDX-License-Identifier: Apache-2.0
"""How far long work is: rate and time left, one line on a terminal, few plain lines elsewhere, nothing with --quiet."""

from __future__ import annotations

import io
import os
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from prep_support import REPO, files_of, serve
from weights_support import PORT, make_port, release

from fvport import progress
from fvport.weights import lockfile, prep


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(progress, "_said", -1e9)
    monkeypatch.setattr(progress, "_shown", 0)
    monkeypatch.delenv("FVPORT_QUIET", raising=False)
    return Clock()


def work(moved: progress.Moved, clock: Clock, seconds: int, each: int, step: float = 1.0) -> None:
    for _ in range(int(seconds / step)):
        clock.now += step
        moved.add(each)


def test_plain_lines(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal: the first line after 5 s, then at most one in 15 s, each with rate and time left."""
    work(progress.Moved("convert", 10**9, clock=clock), clock, 60, 10**7)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 4  # after 5, 20, 35 and 50 s of work
    assert lines[1] == "convert: 21 % of 1.0 GB, 10.0 MB/s, 1 min 19 s left"
    assert not re.search(r"[\r\033]", err)


def test_short_work_says_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """Under 5 s nobody waits for a word."""
    work(progress.Moved("convert", 100, clock=clock), clock, 4, 25)
    assert capsys.readouterr() == ("", "")


def test_quiet_says_nothing(clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """--quiet, of this process or of the one that started it."""
    monkeypatch.setenv("FVPORT_QUIET", "1")
    work(progress.Moved("convert", 100, clock=clock), clock, 60, 1)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_terminal_has_one_line(clock: Clock, monkeypatch: pytest.MonkeyPatch, no_color: str) -> None:
    """It is written over, is gone at the end, is never wider than the terminal, and has no escape, NO_COLOR or not."""
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stderr", stream := Terminal())
    with progress.Moved("hash " + "x" * 200, 10**9, clock=clock) as moved:
        work(moved, clock, 10, 10**6, 0.1)
    said = stream.getvalue()
    assert "\n" not in said
    assert "\033" not in said
    lines = said.split("\r")
    assert 25 < len(lines) < 55  # one in 0.2 s, from the first second on
    assert max(map(len, lines)) < 80
    assert said.endswith("\r")
    assert lines[-2].strip() == ""  # what stood there is written over with spaces


def test_a_dumb_terminal_gets_plain_lines(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """TERM=dumb cannot go back to a line's beginning."""
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys, "stderr", stream := Terminal())
    work(progress.Moved("convert", 100, clock=clock), clock, 60, 1)
    assert "\r" not in stream.getvalue()
    assert len(stream.getvalue().splitlines()) == 4


def test_what_was_there_has_no_part_in_the_rate(clock: Clock) -> None:
    """A download that is continued: the percentage counts what is there, the rate only what comes."""
    moved = progress.Moved("fetch", 1000, done=900, clock=clock)
    clock.now += 50  # between the listing and the first byte
    moved.add(0)
    work(moved, clock, 10, 1)
    assert moved.line(clock.now) == "fetch: 91 % of 1.0 KB, 1 B/s, 1 min 30 s left"


def test_the_rate_follows_what_slows_down(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """A disk whose cache is full: the time left is that of now, not the mean since the beginning."""
    moved = progress.Moved("convert", 10**6, clock=clock)
    work(moved, clock, 30, 10_000)
    work(moved, clock, 45, 100)
    assert "100 B/s" in moved.line(clock.now)
    assert capsys.readouterr().err


def test_counted_work(clock: Clock) -> None:
    """Components instead of bytes, and a whole that nobody knows."""
    moved = progress.Moved("tiny", unit="components", clock=clock)
    moved.at(0, 5)
    clock.now += 30
    moved.at(2, 5)
    assert moved.line(clock.now) == "tiny: 2 of 5 components, 45 s left"
    known = progress.Moved("hash", clock=clock)
    known.add(0)
    clock.now += 2
    known.add(3000)
    assert known.line(clock.now) == "hash: 3.0 KB, 1.5 KB/s"


@pytest.mark.parametrize(("seconds", "said"), [(0.2, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")])
def test_spans(seconds: float, said: str) -> None:
    """Two units at most."""
    assert progress.span(seconds) == said


def test_from_many_threads(clock: Clock) -> None:
    """Workers count into one line."""
    moved = progress.Moved("fetch", 4000, clock=clock)
    threads = [threading.Thread(target=lambda: [moved.add(1) for _ in range(1000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert moved.done == 4000


def test_a_beat_is_silent_while_work_says_how_far_it_is(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two signs of life at once are one too many."""
    monkeypatch.setattr(progress, "FIRST", 0.05)
    for said, lines in ((-1e9, 1), (time.monotonic(), 0)):
        monkeypatch.setattr(progress, "_said", said)
        with progress.beat("parity"):
            time.sleep(0.3)
        assert capsys.readouterr().err.count("parity: running for") == lines


def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int]]:
    """{name: (done, total)} of everything that counts from here on."""
    found: dict[str, tuple[int, int]] = {}
    add = progress.Moved.add

    def record(self: progress.Moved, count: int) -> None:
        add(self, count)
        found[self.name] = (self.done, self.total)

    monkeypatch.setattr(progress.Moved, "add", record)
    return found


def test_hashing_counts_all_files_of_a_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`prep` knows from the first byte how much it has to read; a second run reads nothing."""
    found = seen(monkeypatch)
    port = make_port(tmp_path / "port")
    prep.run(port)
    done, total = found.pop("hash")
    ruled = sum(f.stat().st_size for f in lockfile.top_files(port.official_weights))  # small, read besides
    assert done - ruled == total > 1000
    prep.verify(port)
    assert "hash" not in found


def test_a_fetch_counts_the_whole_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte of every file is counted once, and the client's own bars are as they were."""
    from huggingface_hub import constants, utils

    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    before = utils.are_progress_bars_disabled()
    port = make_port(tmp_path / "port", PORT.replace('weights = "official_weights/demo"', f'weights = "{REPO}"'))
    os.rename(port.root / "official_weights", tmp_path / "away")
    found: dict[str, Any] = seen(monkeypatch)
    files = files_of(release(tmp_path / "hub"))
    with serve(files) as hub:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        prep.run(port)
    assert found["fetch"] == (sum(map(len, files.values())),) * 2
    assert utils.are_progress_bars_disabled() == before
