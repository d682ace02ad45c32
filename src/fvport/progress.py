# SPDX-License-Identifier: Apache-2.0
"""Signs of life for work of more than seconds, on standard error; nothing on standard output, nothing with --quiet.

`beat` says that something is still at it; `Moved` says how far it is, how fast, and how long it takes. On a terminal
that is one line, written over and gone at the end; elsewhere plain lines, at most one in 15 s. No colours, no escapes.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from fvport import manners

if TYPE_CHECKING:
    from typing_extensions import Self

FIRST, EVERY = 5.0, 15.0  # seconds until the first plain line, and between two
AT_ONCE, REDRAW = 1.0, 0.2  # the same on a terminal
WINDOW = 20.0  # seconds that a rate is taken over: it follows a disk or a line that slows down

_said = -EVERY  # when a `Moved` last said something: while one does, `beat` is silent
_shown = 0  # characters of the line that stands on the terminal, without its end


@contextlib.contextmanager
def beat(name: str, *, quiet: bool = False) -> Iterator[None]:
    """While the block runs, say after 5 s and then every 15 s that `name` is still at it, and for how long."""
    done, started = threading.Event(), time.monotonic()

    def say() -> None:
        wait = FIRST
        while not done.wait(wait):
            if time.monotonic() - _said > EVERY:
                clear()
                print(f"{name}: running for {time.monotonic() - started:.0f} s ...", file=sys.stderr, flush=True)
            wait = EVERY

    thread = threading.Thread(target=say, daemon=True)
    if not (quiet or manners.quiet()):
        thread.start()
    try:
        yield
    finally:
        done.set()


def clear() -> None:
    """Take the line off the terminal: what comes next begins a line of its own."""
    global _shown
    if _shown:
        print("\r" + " " * _shown, end="\r", file=sys.stderr, flush=True)
        _shown = 0


class Moved:
    """Work that counts: `with Moved("convert", total) as moved: moved.add(bytes)`, from any thread.

    `unit` is what is counted (bytes where it is empty); `done` was there before and has no part in the rate. A total
    of 0 is one that nobody knows. Nothing is said of work that takes less than 5 s (1 s on a terminal).
    """

    def __init__(
        self,
        name: str,
        total: int = 0,
        *,
        done: int = 0,
        unit: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.total, self.done, self.unit, self.clock = name, total, done, unit, clock
        self.terminal, self.silent = _is_terminal(), manners.quiet()
        self.lock = threading.Lock()
        self.past: deque[tuple[float, int]] = deque()  # (when, how much): from the first `add` on, which may be late
        self.next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        clear()

    def add(self, count: int) -> None:
        """So much more is done. Says it where it is time to."""
        with self.lock:
            self.done += count
            now = self.clock()
            if not self.past:
                self.past.append((now, self.done))  # nobody knows how long the first piece took
                self.next = now + (AT_ONCE if self.terminal else FIRST)
            if not self.silent and now >= self.next:
                self._say(now)

    def at(self, done: int, total: int) -> None:
        """So much is done in all, of so much."""
        self.total = total
        self.add(done - self.done)

    def _say(self, now: float) -> None:
        global _said, _shown
        line = self.line(now)
        if self.terminal:
            line = line[: max(_width() - 1, 20)]
            print("\r" + line.ljust(_shown), end="", file=sys.stderr, flush=True)
            _shown = len(line)
        else:
            print(line, file=sys.stderr, flush=True)
        _said = time.monotonic()
        self.next = now + (REDRAW if self.terminal else EVERY)

    def line(self, now: float) -> str:
        """`convert: 42 % of 5.2 GB, 310.0 MB/s, 12 s left`; without the total: `hash: 5.2 GB, 310.0 MB/s`."""
        self.past.append((now, self.done))
        while len(self.past) > 2 and now - self.past[1][0] > WINDOW:
            self.past.popleft()
        then, before = self.past[0]
        rate = (self.done - before) / (now - then) if now > then else 0.0
        if not self.total:
            return f"{self.name}: {', '.join(word for word in (self._words(self.done), self._rate(rate)) if word)}"
        share = f"{self.done} of {self.total} {self.unit}"
        if not self.unit:
            share = f"{min(self.done * 100 // self.total, 100)} % of {self._words(self.total)}"
        left = f"{span((self.total - self.done) / rate)} left" if rate > 0 and self.done < self.total else ""
        return ", ".join(word for word in (f"{self.name}: {share}", self._rate(rate), left) if word)

    def _words(self, count: int) -> str:
        from fvport.weights import show

        return f"{count} {self.unit}" if self.unit else show.size(count)

    def _rate(self, rate: float) -> str:
        return "" if self.unit else f"{self._words(int(rate))}/s"


def span(seconds: float) -> str:
    """'45 s', '3 min 20 s', '2 h 5 min'."""
    whole = max(int(seconds + 0.5), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _width() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
