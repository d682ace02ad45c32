# SPDX-License-Identifier: Apache-2.0
"""Calls made ahead by other jobs are taken by the whole, and only those that depend on the very same things."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fvport.parity import generating, shares

CALLS = [{"name": "p0s0"}, {"name": "p0s0.noise"}, {"name": "p0s7"}]


def side(store: Path, made: list[str], key: str = "a", fails: str = "") -> generating.Side:
    """Writes each call's name into a folder of its own, and leaves none for `fails`, as a float64 that cannot run."""

    def make(wanted: list[dict[str, Any]], part: Path) -> None:
        for call in wanted:
            made.append(call["name"])
            if call["name"] != fails:
                (part / call["name"]).mkdir()
                (part / call["name"] / "steps.json").write_text(json.dumps(call["name"]))

    return generating.Side("native", store, {"key": key}, make)


def whole(one: generating.Side, tmp_path: Path) -> list[str]:
    part = tmp_path / "part"
    part.mkdir()
    one.make(shares.taken(one.share, CALLS, part), part)
    names = sorted(folder.name for folder in part.iterdir())
    assert [json.loads((part / name / "steps.json").read_text()) for name in names] == names
    return names


def test_a_whole_takes_what_was_made_ahead(tmp_path: Path) -> None:
    """Two of three calls were made by other jobs: one is left to make, and the folder holds all."""
    made: list[str] = []
    one = side(tmp_path / "store", made)
    shares.fill(one.share, CALLS[:2], one.make)
    assert whole(one, tmp_path) == ["p0s0", "p0s0.noise", "p0s7"]
    assert made == ["p0s0", "p0s0.noise", "p0s7"]
    shares.fill(one.share, CALLS[:2], one.make)  # a job that is queued again makes nothing twice
    assert len(made) == 3


def test_nothing_is_taken_that_depends_on_something_else(tmp_path: Path) -> None:
    """Another key (a native file, the weights, the device): every call is made anew."""
    made: list[str] = []
    old = side(tmp_path / "store", made)
    shares.fill(old.share, CALLS, old.make)
    whole(side(tmp_path / "store", made, key="b"), tmp_path)
    assert made == [call["name"] for call in CALLS] * 2


def test_a_call_that_left_nothing_is_no_share(tmp_path: Path) -> None:
    """What could not run ahead is tried again with the whole, which says so."""
    made: list[str] = []
    one = side(tmp_path / "store", made, fails="p0s0.noise")
    shares.fill(one.share, CALLS, one.make)
    assert whole(one, tmp_path) == ["p0s0", "p0s7"]
    assert made.count("p0s0.noise") == 2


def test_a_job_that_breaks_leaves_no_half(tmp_path: Path) -> None:
    """Killed or broken in the middle: no share has a name, and nothing is left beside."""

    def make(wanted: list[dict[str, Any]], part: Path) -> None:
        (part / "p0s0").mkdir()
        raise RuntimeError("out of memory")

    one = generating.Side("native", tmp_path / "store", {}, make)
    with pytest.raises(RuntimeError):
        shares.fill(one.share, CALLS, make)
    assert not list((tmp_path / "store").iterdir())
