# SPDX-License-Identifier: Apache-2.0
"""Compiled templates kept between bakes, in the user's own temporary folder: half of a bake is compiling them."""

from __future__ import annotations

import contextlib

from jinja2 import BytecodeCache, FileSystemBytecodeCache
from jinja2.bccache import Bucket


class _Quiet(FileSystemBytecodeCache):
    """A cache that cannot be written is no cache, not an error."""

    def dump_bytecode(self, bucket: Bucket) -> None:
        with contextlib.suppress(OSError):
            super().dump_bytecode(bucket)


def cache() -> BytecodeCache | None:
    """The cache (keyed by each template's text), or None where this machine has no safe place for it."""
    try:
        return _Quiet(pattern="__fvport_%s.cache")
    except (OSError, RuntimeError):
        return None
