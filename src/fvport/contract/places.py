# SPDX-License-Identifier: Apache-2.0
"""Positional ids: where each token is said to stand, and whether each row has its own."""

from __future__ import annotations

from typing import Any

from fvport.contract import Point, root
from fvport.contract.red import Red

STAGE = "positional ids"
WORDS = ("position", "rope", "rotary", "freq", "cos", "sin")


def look(red: Red) -> Point | None:
    """Other ids are handed over or would be right, one row's are everybody's, or a submodule is given others."""
    call = red.call(red.case)
    if call is not None:
        found = _given(red, call.given) or _counted(red, call.given)
        if found is not None:
            return found
    return _rows(red) or _inside(red)


def _given(red: Red, given: dict[str, Any]) -> Point | None:
    for name, theirs in red.theirs.get(red.case, {}).items():
        mine = given.get(name)
        if "position" not in name or (
            mine is not None and mine.shape == theirs.shape and bool((mine.cpu() == theirs).all())
        ):
            continue
        if (mine is not None or name in root.names_of(red.model)) and red.repaired({name: theirs}):
            how = "are not handed over" if mine is None else "are others than the official ones"
            words = f"{name} {how}; with the official {name} every output agrees: look at call() of the test"
            return Point(STAGE, "positions given", words)
    return None


def _counted(red: Red, given: dict[str, Any]) -> Point | None:
    """Which way of counting makes every output agree."""
    import torch

    if "position_ids" not in {*root.names_of(red.model), *given}:
        return None
    shape = next((v.shape[:2] for n, v in given.items() if torch.is_tensor(v) and v.dim() >= 2), None)
    if shape is None:
        return None
    plain = torch.arange(shape[1]).expand(shape).contiguous()
    tries: dict[str, Any] = {
        "counted from 0 in every row": plain,
        "counted from 1": plain + 1,
        "counted from 2": plain + 2,
    }
    real = root.valid(root.mask_of(given)[1])
    if real is not None and real.shape == shape:
        first = (real.long().cumsum(1) - 1).clamp(min=0).cpu()
        tries["counted from the first real token of each row"] = first
        tries["counted from 1 at the first real token"] = (first + 1).clamp(min=1)
    own: Any = given.get("position_ids")
    for words, ids in tries.items():
        same = torch.is_tensor(own) and own.shape == ids.shape and bool((own.cpu() == ids).all())
        if not same and red.repaired({"position_ids": ids}):
            return Point(STAGE, "positions counted", f"the native positions are others: {words}, every output agrees")
    return None


def _rows(red: Red) -> Point | None:
    """Rows are right alone and wrong beside another: what they share should have been their own."""
    if how := red.differs("row 1 alone"):
        words = f"the second row alone answers otherwise than beside the first, on one side only ({how}): "
        words += "positions of one row (the first) are used for all"
        return Point(STAGE, "positions of row 0", words, {"case": red.behaviour_case})
    for case in [red.case, *red.cases]:
        call = red.call(case) if red.bad(case) else None
        ids = call.given.get("position_ids") if call else None
        if ids is not None and getattr(ids, "dim", lambda: 0)() >= 2 and len(ids) > 1:
            alike = ids.clone()
            alike[1:] = ids[:1]
            if not bool((alike == ids).all()) and _unread(red, case, alike):
                words = f"position_ids of row 0 are used for all rows (case {case}): those of the others can be changed"
                return Point(STAGE, "positions of row 0", f"{words} without any output changing")
    return None


def _unread(red: Red, case: str, ids: Any) -> bool:
    """Whether the native outputs stay as they are with these ids in place of the given ones."""
    import torch

    calls: list[Any] = []
    try:
        with root.watched(red.model, calls, {"position_ids": ids}):
            outputs = red.run(case)
    except Exception:  # noqa: BLE001 - then nothing is known
        return False
    mine = red.native[case]
    return bool(calls) and all(n in outputs and torch.equal(outputs[n], t) for n, t in mine.items())


def _inside(red: Red) -> Point | None:
    """The trace names a module of positions, or one that is handed other ones."""
    if label := red.says(*WORDS):
        where = red.trace.get("at") or red.trace.get("native") or "a submodule"
        return Point(
            STAGE, "positions inside", f"{where} is handed another {label}, and all before it answers officially"
        )
    native = str(red.trace.get("native") or "").rpartition(".")[2].lower()
    if native and any(word in native for word in ("position", "rope", "rotary")):
        return Point(STAGE, "positions inside", f"{red.trace['native']} is the first module to differ by itself")
    if any(cause.get("family") == "rope" for cause in red.trace.get("causes", [])[:1]):
        return Point(STAGE, "positions inside", f"{red.trace['native']}: {red.trace['causes'][0]['words']}")
    return None
