# SPDX-License-Identifier: Apache-2.0
"""Masks: which tokens count, what a mask's numbers mean, and whose mask is read."""

from __future__ import annotations

from typing import Any

from fvport.contract import Point, root
from fvport.contract.red import Red

STAGE = "masks"


def look(red: Red) -> Point | None:
    """The mask is another one, is read otherwise, or is not each row's own."""
    for case in [red.case, *(c for c in red.cases if c != red.case and red.bad(c))]:
        call = red.call(case)
        if call is None:
            continue
        found = _given(red, case, call.given) or _meant(red, case, call.given)
        if found is not None:
            return found
    return _behaviour(red)


def _given(red: Red, case: str, given: dict[str, Any]) -> Point | None:
    """What the test's call hands over is not what the official model was handed."""
    for name, theirs in red.theirs.get(case, {}).items():
        mine = given.get(name)
        if "mask" not in name or (mine is not None and _same(mine, theirs)):
            continue
        if name not in root.names_of(red.model) and name not in given:
            continue
        if not red.repaired({name: theirs}, case):
            continue
        how = "is not handed over" if mine is None else _how(mine, theirs)
        words = f"{name} {how} (case {case}); with the official {name} every output agrees: look at call() of the test"
        return Point(STAGE, "mask given", words)
    return None


def _how(mine: Any, theirs: Any) -> str:
    a, b = root.valid(mine), root.valid(theirs)
    if a is not None and b is not None and a.shape == b.shape:
        if bool((a == ~b).all()):
            return "is inverted: padding counts, and tokens do not"
        if bool((a == b).all()):
            return f"is {_dtype(mine)}, officially {_dtype(theirs)}"
        return f"lets other tokens through ({int((a != b).sum())} of {a.numel()})"
    return f"is {_dtype(mine)} {tuple(mine.shape)}, officially {_dtype(theirs)} {tuple(theirs.shape)}"


def _meant(red: Red, case: str, given: dict[str, Any]) -> Point | None:
    """The same mask written otherwise makes every output agree: the model reads it in another sense."""
    import torch

    name, mask = root.mask_of(given)
    real = root.valid(mask)
    if real is None:  # no mask, or one that is not over tokens
        return None
    inverted = ~real if mask.dtype == torch.bool else (~real).to(mask.dtype)
    tries = {"inverted: where the mask says token, the model reads padding": inverted}
    for form, value in root.forms(mask).items():
        tries[f"read as if it were {form}, and it is {_dtype(mask)}"] = value
    everything = torch.ones_like(mask)
    if not bool(real.all()):
        tries["applied, and the official model does not apply one"] = everything
    for words, value in tries.items():
        if not _same(value, mask) and red.repaired({name: value}, case):
            kind = "inverted" if "inverted" in words else "mask dtype" if "read as" in words else "mask applied"
            return Point(STAGE, kind, f"{name} is {words} (case {case}): written that way, every output agrees")
    return None


def _behaviour(red: Red) -> Point | None:
    """What stands under the mask moves real tokens on one side only; or the first row's mask is everybody's."""
    if how := red.differs("padding"):
        words = f"what stands under the mask moves the answer for real tokens on one side only: {how}"
        return Point(STAGE, "mask ignored", words, {"case": red.behaviour_case})
    if how := red.differs("mask rows"):
        words = f"the mask of the second row is read on one side only: {how}"
        return Point(STAGE, "mask of row 0", words, {"case": red.behaviour_case})
    for form in ("bool", "int64", "float", "additive"):
        if how := red.differs(f"mask.{form}"):
            words = f"the same mask written as {form} gives another answer on one side only: {how}"
            return Point(STAGE, "mask dtype", words, {"case": red.behaviour_case})
    label = red.says("mask")
    if label:
        words = (
            f"{red.trace.get('at') or 'a submodule'} is handed another {label}, and all before it answers officially"
        )
        return Point(STAGE, "mask inside", words)
    cause: dict[str, Any] = next(iter(red.trace.get("causes", [])), {})
    if cause.get("family") == "mask":
        return Point(STAGE, "mask inside", f"{red.trace.get('native')}: {cause['words']}")
    return None


def _same(a: Any, b: Any) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and bool((a.cpu() == b.cpu()).all())


def _dtype(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")
