# SPDX-License-Identifier: Apache-2.0
"""Signs of life for work of more than seconds: a line on standard error now and then, nothing on standard output."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

from fvport import manners

FIRST, EVERY = 5.0, 15.0  # seconds


@contextlib.contextmanager
def beat(name: str, *, quiet: bool = False) -> Iterator[None]:
    """While the block runs, say after 5 s and then every 15 s that `name` is still at it, and for how long."""
    done, started = threading.Event(), time.monotonic()

    def say() -> None:
        wait = FIRST
        while not done.wait(wait):
            print(f"{name}: running for {time.monotonic() - started:.0f} s ...", file=sys.stderr, flush=True)
            wait = EVERY

    thread = threading.Thread(target=say, daemon=True)
    if not (quiet or manners.quiet()):
        thread.start()
    try:
        yield
    finally:
        done.set()
