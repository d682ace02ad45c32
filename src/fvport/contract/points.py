# SPDX-License-Identifier: Apache-2.0
"""The points of an encoder's contract that are compared although every output agrees: container and fields, the dtype
of each output, and how the answer moves with padding, rows, the mask's form and `output_hidden_states`.
"""

from __future__ import annotations

import math
from typing import Any

from fvport.contract import Point, packing
from fvport.contract.red import behaviour_differs

Json = dict[str, Any]
SAYS = {  # behaviour -> (stage, what differs)
    "padding": ("masks", "what stands under the mask moves the answer for real tokens on one side only"),
    "mask rows": ("masks", "the second row's own mask is read on one side only"),
    "mask.bool": ("masks", "a mask written as bool gives another answer on one side only"),
    "mask.int64": ("masks", "a mask written as integers gives another answer on one side only"),
    "mask.float": ("masks", "a mask written as floats gives another answer on one side only"),
    "row 1 alone": ("positional ids", "the second row alone answers otherwise than beside the first on one side only"),
    "states off": ("output packing", "output_hidden_states=False gives another answer on one side only"),
}


def compare(native: Json, official: Json, *, own: bool) -> tuple[list[Point], list[str]]:
    """(what differs, points that were compared). Both sides as `oracle_contract.Contract.finish` gives it.

    `own`: the native class is the port's, so that it must answer with FastVideo's container.
    """
    points: list[Point] = []
    done: list[str] = []
    for case, theirs in official.get("cases", {}).items():
        mine = native.get("cases", {}).get(case)
        if mine is None:
            continue
        wanted = ("BaseEncoderOutput",) if own else (mine["container"],)  # FastVideo's own classes are as they are
        points += packing.containers(mine, theirs, wanted, counts=own)
        done = ["container", "fields", "dtypes"]
    for name, (stage, words) in SAYS.items():
        a, b = native.get("behaviour", {}).get(name), official.get("behaviour", {}).get(name)
        if how := behaviour_differs(a, b) or refused(name, a, b, own=own):
            points.append(Point(stage, name, f"{words}: {how}", {"case": official.get("case", "")}))
        if sound(a) and sound(b):
            done.append(name)
    return _first_of_each(points), done


def sound(value: Any) -> bool:
    """Whether a behaviour is a figure; a refusal, another shape or what is not finite is none."""
    return isinstance(value, float) and math.isfinite(value)


def refused(name: str, mine: Any, theirs: Any, *, own: bool) -> str:
    """How the native side alone gives no figure; ''. FastVideo's own class may refuse a form of the mask."""
    if mine is None or sound(mine) or not sound(theirs):
        return ""
    if not own and name.startswith("mask.") and str(mine).startswith("refused"):
        return ""
    return f"natively {mine}, officially it moves by {theirs:.1e}"


def unsaid(native: Json, official: Json, *, own: bool) -> list[str]:
    """Behaviours that were not compared, and why, in sentences."""
    mine, theirs = native.get("behaviour", {}), official.get("behaviour", {})
    sides = (("natively", mine), ("officially", theirs))
    told = [
        f"the same call once more answers otherwise {who} ({side['again']}): no behaviour was tried"
        for who, side in sides
        if "again" in side and not sound(side["again"])
    ]
    if told or not (mine and theirs):
        return told
    found = []
    for name in SAYS:
        a, b = mine.get(name), theirs.get(name)
        if (a is None) != (b is None) and not name.startswith("mask."):
            found.append(f"{name} was tried {'officially' if a is None else 'natively'} alone: not compared")
        elif a is not None and b is not None and not (sound(a) and sound(b)) and not refused(name, a, b, own=own):
            found.append(f"{name}: {a} natively, {b} officially: not compared")
    return found


def _first_of_each(points: list[Point]) -> list[Point]:
    seen: dict[str, Point] = {}
    for point in points:
        seen.setdefault(f"{point.stage} {point.sentence}", point)
    return list(seen.values())


def coverage(given: dict[str, dict[str, Any]], padding_side: str = "") -> list[str]:
    """What no case of the oracle has been given: one row, several rows, padding on each side that the tokenizer uses.

    `given` holds the masks of each case, as tensors; cases without a mask say nothing of padding.
    """
    masks = [m for tensors in given.values() for n, m in tensors.items() if "mask" in n and m.dim() == 2]
    if not masks:
        return []
    rows = {len(mask) for mask in masks}
    found = ["batch 1"] * (1 not in rows) + ["a batch of several rows"] * (max(rows) < 2)
    real = [mask if mask.dtype.is_floating_point and bool((mask < 0).any()) else mask.bool() for mask in masks]
    plain = [mask for mask in real if not mask.is_floating_point()]
    right = any(bool((mask[:, :1] & ~mask[:, -1:]).any()) for mask in plain)
    left = any(bool((~mask[:, :1] & mask[:, -1:]).any()) for mask in plain)
    found += ["padding on the right"] * (padding_side != "left" and not right)
    return found + ["padding on the left, where the tokenizer pads"] * (padding_side == "left" and not left)
