# SPDX-License-Identifier: Apache-2.0
"""What a pattern of port.toml, or of a declared conversion, is about."""

from __future__ import annotations

import re
from collections.abc import Iterable


def concerns(pattern: str, name: str) -> bool:
    """A pattern is about whole names; written with `^`, about all that begin so, as FastVideo's are."""
    return bool(re.match(pattern, name) if pattern.startswith("^") else re.fullmatch(pattern, name))


def concerns_any(patterns: Iterable[str], name: str) -> bool:
    """One of the patterns concerns the name."""
    return any(concerns(pattern, name) for pattern in patterns)
