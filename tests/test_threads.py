# SPDX-License-Identifier: Apache-2.0
"""A small model's checks take one thread, a large one's what the machine gives, and what the user asks for counts."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fvport import threads


@pytest.mark.parametrize(
    ("size", "asked", "seen"),
    [(1000, None, "1"), (threads.SMALL + 1, None, None), (1000, "7", "7"), (None, None, "1")],
)
def test_threads_follow_the_size_of_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int | None, asked: str | None, seen: str | None
) -> None:
    """One for a tiny release or none at all; untouched for a large one or where the shell says a number."""
    monkeypatch.delenv(threads.VARIABLE, raising=False)
    if asked:
        monkeypatch.setenv(threads.VARIABLE, asked)
    if size is not None:
        file = tmp_path / "release" / "transformer" / "model.safetensors"
        file.parent.mkdir(parents=True)
        with file.open("wb") as stream:
            stream.truncate(size)
    port: Any = SimpleNamespace(official_weights=tmp_path / "release")
    with threads.sized(port):
        assert os.environ.get(threads.VARIABLE) == seen
    assert os.environ.get(threads.VARIABLE) == asked
