# SPDX-License-Identifier: Apache-2.0
"""Tokenization, the first stage: ids and masks of hard prompts on both sides, and what of the tokenizer explains them.

Pure functions on the data of `tokenizer.facts` and of the two pipelines' ids. Where ids and masks are equal on every
prompt, a setting that differs has no effect and is a note; where the official ids could not be seen, it is a finding.
For images and sound the preprocessor's output takes the place of ids.
"""

from __future__ import annotations

import math
from typing import Any

from fvport.contract import Point
from fvport.contract.red import FAR

STAGE = "tokenization"
Json = dict[str, Any]
SETTINGS = {
    "class": "tokenizer class",
    "padding_side": "padding side",
    "truncation_side": "truncation side",
    "model_max_length": "maximum length",
    "chat_template": "chat template",
    "vocabulary": "vocabulary size",
}
VALUES = 1e-5  # relative difference of a preprocessor's values


def compare(official: Json, native: Json) -> tuple[list[Point], list[str]]:
    """(what differs, notes). Both: `{"facts", "cases", "error"?}`; the native one also `kwargs` and `first_side`.

    `mask_moves` of the native one (`root.mask_moves`) says what its encoder makes of a mask, `own_stage` that the
    port's pipeline does not use the stage whose ids these are: both matter where the official encoder is given no mask.
    """
    if native.get("error"):
        return [Point(STAGE, "tokenizer", f"FastVideo cannot tokenize: {native['error']}")], []
    settings = _settings(official.get("facts", {}), native.get("facts", {}), native)
    theirs, ours = official.get("cases", {}), native.get("cases", {})
    points: list[Point] = []
    notes = _never(theirs)
    for case, rows in theirs.items():
        if case in ours:
            points += _case(case, rows, ours[case], official, native)
            notes += _unmasked(rows, ours[case], native)[1] + _other_form(rows, ours[case])
        else:
            points.append(Point(STAGE, "ids", f"the native side tokenized no {case} prompt"))
    if points:
        return sorted(points, key=_rank), [*dict.fromkeys(notes), *(point.sentence for point in settings)]
    if not theirs:
        return settings, ["the official ids could not be seen: the tokenizers were compared by their settings alone"]
    words = [f"{point.sentence}; ids and masks of every prompt are equal all the same" for point in settings]
    return [], [*dict.fromkeys(notes), *words]


def _never(theirs: Json) -> list[str]:
    """The prompts whose official ids were never seen."""
    from fvport.models.native_facts import PROMPTS

    lacking = [case for case in PROMPTS if case not in theirs]
    return [f"the official side gave no ids for the {', '.join(lacking)} prompts"] if theirs and lacking else []


ORDER = ("padding side", "pad token", "special tokens", "truncation", "maximum length", "template", "mask", "ids")


def _rank(point: Point) -> int:
    """The most telling first: a setting that explains goes before the bare first id."""
    return ORDER.index(point.name) if point.name in ORDER else len(ORDER)


def _settings(theirs: Json, ours: Json, native: Json) -> list[Point]:
    found = []
    for key, words in SETTINGS.items():
        if key in theirs and theirs[key] != ours.get(key):
            more = _side_hint(ours, native) if key == "padding_side" else ""
            sentence = f"{words} is {_shown(ours.get(key))}, officially {_shown(theirs[key])}{more}"
            found.append(Point(STAGE, words, sentence))
    for name, token in theirs.get("special", {}).items():
        own = ours.get("special", {}).get(name)
        if token != own:
            more = _pad_hint(ours, own) if name == "pad_token" and token is None else ""
            sentence = f"{name.replace('_', ' ')} is {_token(own)}, officially {_token(token)}{more}"
            found.append(Point(STAGE, "pad token" if name == "pad_token" else "special tokens", sentence))
    return found


def _side_hint(ours: Json, native: Json) -> str:
    if native.get("first_side") and native["first_side"] == ours.get("padding_side"):
        return (
            ": FastVideo's tokenizer loader gives every tokenizer the padding_side of the first text encoder's config "
            f"({native['first_side']})"
        )
    return ""


def _pad_hint(ours: Json, own: Any) -> str:
    eos = ours.get("special", {}).get("eos_token")
    return ": FastVideo's tokenizer loader puts the end token where there is none" if own and own == eos else ""


def _token(token: Any) -> str:
    return f"{token[0]!r} ({token[1]})" if token else "none"


def _shown(value: Any) -> str:
    return str(value) if value not in ("", None) else "none"


# --- ids --------------------------------------------------------------------------------------------------------------


def _case(case: str, theirs: Json, ours: Json, official: Json, native: Json) -> list[Point]:
    """What differs in one case of prompts, and the setting that explains it."""
    a, b = theirs["ids"], ours["ids"]
    if len(a) != len(b):
        return [Point(STAGE, "ids", f"{len(b)} rows of ids for the {case} prompts, officially {len(a)}")]
    for row, (x, y) in enumerate(zip(a, b, strict=True)):
        m, n = (_row_mask(side, row) for side in (theirs, ours))
        if x != y:
            alike = len(x) == len(y)  # where one side does not say which tokens are padding, the other may
            m = n if n and alike and (m is None or theirs.get("mask") is None) else m or [1] * len(x)
            n = n or (m if alike else [1] * len(y))
            name, words = _explained(x, y, m, n, official, native)
            return [Point(STAGE, name, f"{words} ({case} prompt, row {row})")]
        if theirs.get("mask") is not None and m is not None and n is not None and m != n:
            words = f"the ids agree, the attention mask does not: {sum(n)} tokens count, officially {sum(m)}"
            return [Point(STAGE, "mask", f"{words} ({case} prompt, row {row})")]
    words = _unmasked(theirs, ours, native)[0]
    return [Point(STAGE, "mask", f"{words} ({case} prompt)")] if words else []


def _unmasked(theirs: Json, ours: Json, native: Json) -> tuple[str, list[str]]:
    """(what is wrong, notes) where officially no mask is handed over, so that padding counts, and natively one is.

    A native class that does not read its mask is right; so is a stage of the port's own that does not hand it over.
    """
    masks = [_row_mask(ours, row) for row in range(len(ours["ids"]))]
    if theirs.get("mask") is not None or all(mask is not None and all(mask) for mask in masks):
        return "", []
    said = (
        "officially the encoder gets no attention mask, so that padding counts; FastVideo's text stage hands one over"
    )
    moves = native.get("mask_moves") or {}
    if not moves:
        return "", [f"{said}, and whether the native class reads it could not be told"]
    if native.get("own_stage"):
        return "", [f"{said}: the port's own stage must not"] if moves.get("real", 0.0) > FAR else []
    if moves.get("real", 0.0) > FAR:
        return f"{said}, and the native class reads it (real tokens move by {moves['real']:.1e})", []
    if moves.get("all", 0.0) > FAR:
        return "", [f"{said}, and the native class reads it: what it answers at padding differs, at real tokens not"]
    return "", []


def _other_form(theirs: Json, ours: Json) -> list[str]:
    """Masks that are not one value a token, such as one of its own for each query, cannot be compared."""
    sides = {"official": theirs, "native": ours}
    found = [who for who, one in sides.items() if any(_row_mask(one, row) is None for row in range(len(one["ids"])))]
    return [f"the {who} attention mask is of another form than one value a token: not compared" for who in found]


def _row_mask(side: Json, row: int) -> list[int] | None:
    """One value a token, also of a mask as attention takes it, (rows, 1, 1, tokens); None of any other form."""
    mask, count = side.get("mask"), len(side["ids"][row])
    if mask is None:
        return [1] * count
    value = mask[row] if row < len(mask) else None
    while isinstance(value, list) and value and isinstance(value[0], list) and all(v == value[0] for v in value):
        value = value[0]  # the same for every head and every query
    if not isinstance(value, list) or len(value) != count or any(isinstance(v, list) for v in value):
        return None
    low = all(isinstance(v, float) and v <= 0 for v in value)  # additive: 0 lets a token count
    return [int(not v) if low else int(bool(v)) for v in value]


def _explained(x: list[int], y: list[int], m: list[int], n: list[int], official: Json, native: Json) -> tuple[str, str]:
    """(name, words) of why two rows of ids differ. Tokens are what the mask lets count; the rest is padding."""
    theirs, ours = _real(x, m), _real(y, n)
    special = {t[1] for side in (official, native) for t in side.get("facts", {}).get("special", {}).values() if t}
    if theirs == ours:
        return _padding(x, y, m, n, native)
    if len(x) != len(y) and len(ours) == len(y) and len(theirs) == len(x):
        full = f"{len(y)} tokens are kept, officially {len(x)}"
        if abs(len(x) - len(y)) <= 2 and _without(theirs, ours, special) is None:
            return "truncation", f"{full}: maximum length or truncation ({_kwargs(native)})"
    for more, less, who in ((theirs, ours, "natively"), (ours, theirs, "officially")):
        left = _without(more, less, special)
        if left is not None:
            at, token = left
            where = "at the end" if at == len(more) - 1 else "at the start" if at == 0 else f"at place {at}"
            return "special tokens", f"the special token {token} {where} is not there {who}"
    if len(x) != len(y):
        return "maximum length", f"{len(y)} places, officially {len(x)}: maximum length or padding ({_kwargs(native)})"
    if len(theirs) != len(ours):
        short, long = sorted(([i for i in row if i not in special] for row in (theirs, ours)), key=len)
        if short and long[: len(short)] == short:
            return "truncation", f"{len(ours)} tokens are kept, officially {len(theirs)} ({_kwargs(native)})"
        if not short or _inside(short, long):
            words = f"{len(ours)} tokens, officially {len(theirs)}, and the shorter row is part of the longer one"
            return "template", f"{words}: a chat template, prefix or instruction"
    at = next((i for i, (p, q) in enumerate(zip(x, y, strict=False)) if p != q), 0)
    return "ids", f"id {at} is {y[at]}, officially {x[at]}"


def _real(ids: list[int], mask: list[int]) -> list[int]:
    return [i for i, keep in zip(ids, mask, strict=True) if keep]


def _padding(x: list[int], y: list[int], m: list[int], n: list[int], native: Json) -> tuple[str, str]:
    """Equal tokens: the padding lies elsewhere, is longer, or is another token."""
    sides = [("left" if mask and not mask[0] else "right") for mask in (m, n)]
    if len(x) == len(y) and m != n and sides[0] != sides[1]:
        hint = _side_hint(native.get("facts", {}), native)
        return "padding side", f"padding is on the {sides[1]}, officially on the {sides[0]}{hint}"
    if len(x) != len(y):
        return "maximum length", f"padded to {len(y)} places, officially to {len(x)} ({_kwargs(native)})"
    own = next((i for i, keep in zip(y, n, strict=True) if not keep), None)
    other = next((i for i, keep in zip(x, m, strict=True) if not keep), None)
    facts = native.get("facts", {})
    pad = facts.get("special", {}).get("pad_token")
    return "pad token", f"padding is token {own}, officially {other}{_pad_hint(facts, pad)}"


def _without(more: list[int], less: list[int], special: set[int]) -> tuple[int, int] | None:
    """(place, token) of the one special token that `more` has beyond `less`."""
    if len(more) != len(less) + 1:
        return None
    at = next((i for i, (p, q) in enumerate(zip(more, less, strict=False)) if p != q), len(less))
    same = more[:at] + more[at + 1 :] == less
    return (at, more[at]) if same and more[at] in special else None


def _inside(part: list[int], whole: list[int]) -> bool:
    return bool(part) and any(whole[i : i + len(part)] == part for i in range(len(whole) - len(part) + 1))


def _kwargs(native: Json) -> str:
    shown = {k: v for k, v in native.get("kwargs", {}).items() if k in ("max_length", "truncation", "padding")}
    return ", ".join(f"{key}={value}" for key, value in shown.items()) or "no arguments"


# --- pixels and features ----------------------------------------------------------------------------------------------


def preprocessed(official: Json, native: Json) -> tuple[list[Point], list[str]]:
    """The preprocessor's outputs, `{"class", "cases"}` of each side, before any tower sees them."""
    for side, who in ((official, "officially"), (native, "natively")):
        if side.get("error"):
            return [Point(STAGE, "preprocessor", f"the preprocessor cannot run {who}: {side['error']}")], []
    for case, theirs in official["cases"].items():
        for name, a in theirs.items():
            b = native["cases"].get(case, {}).get(name)
            if problem := _values(a, b):
                return [Point(STAGE, "preprocessor", f"{name} of the {case} input {problem}")], []
    same = official.get("class") == native.get("class")
    note = f"preprocessor class is {native.get('class')}, officially {official.get('class')}; its outputs are equal"
    return [], [] if same else [note]


def _values(a: Json, b: Json | None) -> str:
    if b is None:
        return "is not made natively"
    for key in ("shape", "dtype"):
        if a[key] != b[key]:
            return f"has {key} {b[key]}, officially {a[key]}"
    pairs = [(p, q) for p, q in zip(a["values"], b["values"], strict=True) if not _alike(p, q)]
    bad = [sum(not math.isfinite(v) for v in side) for side in zip(*pairs, strict=True)] if pairs else [0, 0]
    if any(bad):
        return f"holds values that are not finite ({bad[1]} natively, {bad[0]} officially)"
    scale = max([abs(v) for v in a["values"] if math.isfinite(v)] or [0.0]) or 1.0
    worst = max((abs(p - q) for p, q in pairs), default=0.0)
    return "" if worst <= VALUES * scale else f"differs by {worst / scale:.1e} of its largest value"


def _alike(a: float, b: float) -> bool:
    """The same number; the same infinity, or no number on both sides."""
    return a == b or (math.isnan(a) and math.isnan(b))
