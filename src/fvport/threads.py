# SPDX-License-Identifier: Apache-2.0
"""How many threads arithmetic may take: one where the whole model is small.

Threads that share an operation of microseconds wait for each other, spinning; and a gate runs several processes on the
same cores. What the user asks for (OMP_NUM_THREADS) counts.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from fvport.spec import Port

VARIABLE = "OMP_NUM_THREADS"  # read when torch is imported, here and in every child
SMALL = 64 << 20  # bytes of all official weights together


@contextlib.contextmanager
def sized(port: Port) -> Iterator[None]:
    """In the block, this process (where torch is not imported yet) and its children take as many as the port needs."""
    if os.environ.get(VARIABLE) or _bytes(port.official_weights) > SMALL:
        yield
        return
    os.environ[VARIABLE] = "1"
    try:
        yield
    finally:
        del os.environ[VARIABLE]


def _bytes(folder: Path) -> int:
    """Of the files below, 0 where there are none; stops counting when it is enough."""
    total = 0
    for file in folder.rglob("*") if folder.is_dir() else ():
        with contextlib.suppress(OSError):
            total += file.stat().st_size
        if total > SMALL:
            break
    return total
