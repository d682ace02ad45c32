# SPDX-License-Identifier: Apache-2.0
"""Tasks that a few threads take in turn: copying in the kernel and looking at numbers both let other threads run."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator

THREADS = 2  # two copied 4 GiB in 0.64 of the time of one, on two cores; more were not measured


class Crew:
    """`Crew().run(tasks)`: all of them, in their order, by at most `THREADS` threads.

    The first error ends the rest and is raised; a task that takes long looks at `stopped` now and then.
    """

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self._taking = threading.Lock()
        self._error: BaseException | None = None

    def run(self, tasks: Iterable[Callable[[], None]]) -> None:
        waiting = iter(list(tasks))
        ended = []  # events, because a join() that Ctrl-C interrupts can take its thread for ended
        try:
            for _ in range(_threads()):
                event = threading.Event()
                threading.Thread(target=self._work, args=(waiting, event), daemon=True).start()
                ended.append(event)
            for event in ended:
                event.wait()
        except BaseException:  # Ctrl-C: nothing is left at work behind it
            self.stopped.set()
            for event in ended:
                event.wait()
            raise
        if self._error is not None:
            raise self._error

    def _work(self, waiting: Iterator[Callable[[], None]], ended: threading.Event) -> None:
        try:
            while not self.stopped.is_set():
                with self._taking:
                    task = next(waiting, None)
                if task is None:
                    return
                task()
        except BaseException as error:  # noqa: BLE001 - raised again by run(), in its own thread
            with self._taking:
                self._error = self._error or error
            self.stopped.set()
        finally:
            ended.set()


def _threads() -> int:
    return min(THREADS, os.cpu_count() or 1)
