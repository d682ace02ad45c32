# SPDX-License-Identifier: Apache-2.0
"""Looking for NaN in the tensors that are moved as bytes, beside the copying and not in its way.

A thread reads what the kernel copies, while it is in memory anyway, in pieces that fit a core's cache; two maxima over
the bits, as signed and as unsigned numbers, tell whether a NaN of either sign is there. Where numpy is not installed
nothing is looked for, and the result says so.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from fvport.errors import FvportError
from fvport.weights.conversion import Made
from fvport.weights.manifest import BITS
from fvport.weights.stream import Copier, Range, ranges

PIECE = 1 << 18
INFINITY = {"BF16": 0x7F80, "F16": 0x7C00, "F32": 0x7F800000, "F64": 0x7FF0000000000000}


class Scan(threading.Thread):
    """`Scan(root, made).start()`, then `finish()`: {name: True} of the tensors that hold a NaN."""

    def __init__(self, root: Path, made: list[tuple[str, Made]]) -> None:
        super().__init__(daemon=True)
        self.copier = Copier(root)
        self.made = [(name, item) for name, item in made if item.tensor.dtype in INFINITY]
        self.found: list[str] = []
        self.looked = 0  # tensors
        self.problem = ""
        self.stopped = False

    def run(self) -> None:
        try:
            buffer = _buffer()
            for name, item in self.made:
                if self.stopped:
                    return
                if any(self._holds(buffer, piece, item.tensor.dtype) for piece in ranges(item)):
                    self.found.append(name)
                self.looked += 1
        except ImportError:
            self.problem = "numpy is not installed: nothing was looked for a NaN"
        except (OSError, FvportError) as error:
            self.problem = f"looking for NaN ended early ({error})"
        finally:
            self.copier.close()

    def finish(self, *, stop: bool = False) -> list[str]:
        """Names of the tensors that hold a NaN, once all were looked at (or at once, with `stop`)."""
        self.stopped = stop
        self.join()
        return self.found

    def _holds(self, buffer: Any, piece: Range, dtype: str) -> bool:
        width, limit = BITS[dtype], INFINITY[dtype]
        signed, unsigned = buffer.view(f"i{width // 8}"), buffer.view(f"u{width // 8}")
        source, at = self.copier.source(piece.file), piece.start
        while at < piece.stop and not self.stopped:
            count = os.preadv(source, [memoryview(buffer)[: min(PIECE, piece.stop - at)]], at)
            if not count:
                return False
            if count % (width // 8):  # a short read in the middle of an element: again from its beginning
                count = max(count - count % (width // 8), 0) or _one(source, buffer, at, width // 8)
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


def _buffer() -> Any:
    import numpy as np

    return np.empty(PIECE, np.uint8)
