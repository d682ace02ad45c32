# SPDX-License-Identifier: Apache-2.0
"""Calls that were made beforehand, each in a folder of its own, by jobs on other machines: a whole then takes them.

A share is named by everything that its one call depends on, as a whole is by all its calls. What is not there is made
with the whole: a lost share costs time and nothing else.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fvport.models import kept

Made = Callable[[list[dict[str, Any]], Path], object]  # makes these calls below a folder, one subfolder a call


def fill(place: Callable[[list[dict[str, Any]]], Path], wanted: list[dict[str, Any]], made: Made) -> None:
    """Make those of `wanted` that are not there. `place` gives the folder of one call, by its digest."""
    missing = [call for call in wanted if not place([call]).is_dir()]
    if not missing:
        return
    first = place(missing[:1])
    part = first.with_name(f".share.part.{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        made(missing, part)
        for call in missing:
            if (part / call["name"]).is_dir():
                _settle(part, place([call]), call["name"])
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _settle(part: Path, place: Path, name: str) -> None:
    whole = part / f"{name}.share"
    whole.mkdir()
    os.replace(part / name, whole / name)
    with kept.alone(place):
        kept.settle(whole, place)


def taken(place: Callable[[list[dict[str, Any]]], Path], wanted: list[dict[str, Any]], part: Path) -> list[Any]:
    """Copy what is there into `part`; the calls that are left to make."""
    left = []
    for call in wanted:
        share = place([call])
        with kept.alone(share):
            there = kept.hold(share)
        if there:
            shutil.copytree(share / call["name"], part / call["name"])
        else:
            left.append(call)
    return left
