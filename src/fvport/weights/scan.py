# SPDX-License-Identifier: Apache-2.0
"""Looking for NaN in the tensors that are moved as bytes: copied in the kernel, they are never seen here otherwise.

They are read in pieces that fit a core's cache; two maxima over the bits, as signed and as unsigned numbers, tell
whether a NaN of either sign is there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fvport.weights.conversion import Made
from fvport.weights.manifest import BITS
from fvport.weights.stream import Copier, Range, ranges

PIECE = 1 << 19
INFINITY = {"BF16": 0x7F80, "F16": 0x7C00, "F32": 0x7F800000, "F64": 0x7FF0000000000000}


def with_nan(root: Path, tensors: Iterable[Made], stopped: threading.Event | None = None) -> list[str]:
    """Names of the tensors, of those that move, that hold a NaN. Ends early where `stopped` is set.

    Raises ImportError without numpy, OSError or BlockedError where a file cannot be read.
    """
    import numpy as np

    look = _Look(root, np.empty(PIECE, np.uint8), stopped or threading.Event())
    moved = [made for made in tensors if made.moves_bytes and made.tensor.dtype in INFINITY]
    try:
        return [made.name for made in moved if any(look.holds(piece, made.tensor.dtype) for piece in ranges(made))]
    finally:
        look.copier.close()


class _Look:
    def __init__(self, root: Path, buffer: Any, stopped: threading.Event) -> None:
        self.copier, self.buffer, self.stopped = Copier(root), buffer, stopped

    def holds(self, piece: Range, dtype: str) -> bool:
        width, limit = BITS[dtype], INFINITY[dtype]
        signed, unsigned = self.buffer.view(f"i{width // 8}"), self.buffer.view(f"u{width // 8}")
        source, at = self.copier.source(piece.file), piece.start
        while at < piece.stop and not self.stopped.is_set():
            count = os.preadv(source, [memoryview(self.buffer)[: min(PIECE, piece.stop - at)]], at)
            if not count:
                return False
            if count % (width // 8):  # a short read in the middle of an element: again from its beginning
                count = max(count - count % (width // 8), 0) or _one(source, self.buffer, at, width // 8)
            n = count // (width // 8)
            if signed[:n].max() > limit or unsigned[:n].max() > limit + (1 << (width - 1)):
                return True
            at += count
        return False


def _one(source: int, buffer: Any, at: int, width: int) -> int:
    """Read exactly one element."""
    held = b""
    while len(held) < width:
        more = os.pread(source, width - len(held), at + len(held))
        if not more:
            raise OSError("the file ended inside a value")
        held += more
    memoryview(buffer)[:width] = held
    return width
