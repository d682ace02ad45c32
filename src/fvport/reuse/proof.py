# SPDX-License-Identifier: Apache-2.0
"""The reuse proof: official and native definition and instantiation, aspect by aspect. Plain functions on data.

`equal` is shown, `differs` makes the class not reusable, `adapted` is for the pipeline and the parity call to bring
together (an output's container) or stands on guessed rules, `unknown` was looked for and not found, with the search.
Whatever it says, parity still decides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
ASPECTS = (
    "structure",
    "parameter shapes",
    "normalisation",
    "activation",
    "positions",
    "constants",
    "constructor arguments",
    "tokenizer",
    "output container",
)
PAIRED = ("structure", "parameter shapes", "normalisation", "positions", "constants")  # what reads Facts.pairs
POSITION_WORDS = ("rope", "rotary", "theta", "position", "relative", "bucket", "max_distance", "axes", "rot_pct")
NUMERIC_TOLERANCE = 2e-5  # of what norms and activations answer: outputs are of size one


@dataclass(frozen=True)
class Finding:
    """One aspect of the proof: `verdict` is equal | differs | adapted | unknown."""

    aspect: str
    verdict: str
    what: str
    details: tuple[str, ...] = ()

    def to_json(self) -> Json:
        return {**vars(self), "details": list(self.details)}


@dataclass(frozen=True)
class Facts:
    """What is known of both sides. `pairs`: official tensor -> (native tensor, index, count), as the rules put them.

    `fields` and `tokens` are sentences about what differs there; None where nobody could be asked (`why` says why).
    """

    official: Json
    native: Json
    pairs: Mapping[str, tuple[str, int | None, int | None]]
    excluded: frozenset[str] = frozenset()
    native_free: frozenset[str] = frozenset()
    fields: list[str] | None = None
    tokens: list[str] | None = None
    why: Mapping[str, str] = field(default_factory=dict)
    guessed: bool = False  # `pairs` are what `mapping suggest` proposes, and no load was seen to place them so


def prove(facts: Facts) -> list[Finding]:
    """A finding for each of ASPECTS, in their order."""
    pairs = module_pairs(facts)
    makers: tuple[Callable[[], Finding], ...] = (
        lambda: structure(facts),
        lambda: shapes(facts),
        lambda: norms(facts, pairs),
        lambda: activations(facts),
        lambda: positions(facts, pairs),
        lambda: constants(facts, pairs),
        lambda: arguments(facts),
        lambda: tokens(facts),
        lambda: container(facts),
    )
    found = [make() for make in makers]
    return [_on_guessed_rules(item) for item in found] if facts.guessed else found


def _on_guessed_rules(item: Finding) -> Finding:
    """What was shown of guessed pairs is shown on that guess only; what differs is said as it is."""
    if item.aspect not in PAIRED or item.verdict != "equal":
        return item
    return dataclasses.replace(item, verdict="adapted", what=f"{item.what}, by suggested rules")


def reusable(findings: Iterable[Finding]) -> bool:
    """No aspect differs. What is unknown does not prove the contrary: parity is required in any case."""
    return all(finding.verdict != "differs" for finding in findings)


# --- names and shapes ------------------------------------------------------------------------------------------------


def structure(facts: Facts) -> Finding:
    """Every official name has a place, and every native name a source."""
    native = facts.native["tensors"]
    lost = [
        n for n in facts.official["tensors"] if n not in facts.excluded and facts.pairs.get(n, ("",))[0] not in native
    ]
    reached = {target for target, _, _ in facts.pairs.values()}
    empty = [name for name in native if name not in reached and name not in facts.native_free]
    if not lost and not empty:
        return Finding("structure", "equal", f"{len(facts.official['tensors'])} official names, {len(native)} native")
    details = [f"official {name} has no native place" for name in lost]
    details += [f"native {name} has no official source" for name in empty]
    what = f"{len(lost)} official names have no place, {len(empty)} native names no source"
    return Finding("structure", "differs", what, tuple(details))


def shapes(facts: Facts) -> Finding:
    """What goes into each native tensor has its shape; parts of a merge together have its rows."""
    official, native = facts.official["tensors"], facts.native["tensors"]
    parts: dict[str, list[list[int]]] = {}
    merged: set[str] = set()
    for name, (target, index, _) in facts.pairs.items():
        if name in official and target in native:
            parts.setdefault(target, []).append(list(official[name]))
            merged |= {target} if index is not None else set()
    wrong = []
    for target, found in parts.items():
        shape = [sum(s[0] for s in found), *found[0][1:]] if target in merged and found[0] else found[0]
        padded = (
            len(shape) == len(native[target]) and shape[1:] == native[target][1:] and _padded(target, shape, native)
        )
        if shape != list(native[target]) and not padded:
            wrong.append(f"{target}: official {shape}, native {list(native[target])}")
    if not parts:
        return Finding("parameter shapes", "differs", "no official tensor has a native place")
    if wrong:
        return Finding("parameter shapes", "differs", f"{len(wrong)} of {len(parts)} tensors differ", tuple(wrong))
    return Finding("parameter shapes", "equal", f"{len(parts)} native tensors have the official shapes")


def _padded(target: str, shape: list[int], native: Mapping[str, list[int]]) -> bool:
    """FastVideo's vocabulary embedding has rows for up to the next multiple of 64."""
    return "embed" in target and shape[0] <= native[target][0] < shape[0] + 64 and native[target][0] % 64 == 0


# --- modules ---------------------------------------------------------------------------------------------------------


def module_pairs(facts: Facts) -> list[tuple[str, str]]:
    """(official path, native path) of modules that hold each other's tensors, and of their parents while both sides
    agree which belongs to which.
    """
    direct: dict[str, set[str]] = {}
    for name, (target, index, _) in facts.pairs.items():
        if index is None and target in facts.native["tensors"]:
            direct.setdefault(name.rpartition(".")[0], set()).add(target.rpartition(".")[0])
    pairs = {official: next(iter(targets)) for official, targets in direct.items() if len(targets) == 1}
    level = dict(pairs)
    for _ in range(6):
        above: dict[str, set[str]] = {}
        for official, native in level.items():
            if official and native:
                above.setdefault(official.rpartition(".")[0], set()).add(native.rpartition(".")[0])
        level = {o: next(iter(n)) for o, n in above.items() if len(n) == 1 and o not in pairs}
        taken = list(level.values())
        level = {o: n for o, n in level.items() if taken.count(n) == 1}
        pairs |= level
    known = facts.official["modules"], facts.native["modules"]
    return [(o, n) for o, n in pairs.items() if o in known[0] and n in known[1]]


def norms(facts: Facts, pairs: list[tuple[str, str]]) -> Finding:
    """Norms that hold each other's gain, by what they answer: mean, eps and an offset of the gain all show."""
    theirs, ours = facts.official["modules"], facts.native["modules"]
    compared, wrong, silent = 0, [], []
    for official, native in pairs:
        a, b = theirs[official], ours[native]
        if "norm" not in a and "norm" not in b:
            continue
        where = f"{official} ({a['class']}) and {native} ({b['class']})"
        if "norm" not in a or "norm" not in b:
            silent.append(f"{where}: one of them is not known as a norm")
        elif isinstance(a["norm"], str) or isinstance(b["norm"], str):
            said = next(x for x in (a["norm"], b["norm"]) if isinstance(x, str))
            eps = [_eps(m["scalars"]) for m in (a, b)]
            if None not in eps and eps[0] != eps[1]:
                wrong.append(f"{where}: eps {eps[0]:g}, native {eps[1]:g}")
            else:
                silent.append(f"{where}: not run ({said})")
        else:
            compared += 1
            if not close(a["norm"], b["norm"]):
                eps = [_eps(m["scalars"]) for m in (a, b)]
                more = f"; eps {eps[0]}, native {eps[1]}" if eps[0] != eps[1] else ""
                wrong.append(f"{where} answer otherwise{more}")
    if wrong:
        return Finding("normalisation", "differs", f"{len(wrong)} norms differ", tuple(wrong))
    if not compared:
        return Finding("normalisation", "unknown", "no pair of norms could be run on both sides", tuple(silent))
    if silent:
        return Finding("normalisation", "unknown", f"{compared} norms answer alike, others were not run", tuple(silent))
    return Finding("normalisation", "equal", f"{compared} norms of both sides answer alike")


def _eps(values: Mapping[str, Any]) -> float | None:
    return next((float(values[k]) for k in ("eps", "variance_epsilon", "epsilon") if k in values), None)


def close(a: list[float], b: list[float]) -> bool:
    return len(a) == len(b) and all(
        abs(x - y) <= NUMERIC_TOLERANCE * max(1.0, abs(x)) for x, y in zip(a, b, strict=True)
    )


def activations(facts: Facts) -> Finding:
    """The sets of curves on both sides. One that a `forward` calls as a function is not seen: then it is unknown."""
    found = [_curves(side["modules"]) for side in (facts.official, facts.native)]
    alone = [
        [name for name, curve in found[i].items() if not any(close(curve, other) for other in found[1 - i].values())]
        for i in (0, 1)
    ]
    details = [f"official only: {', '.join(alone[0])}"] * bool(alone[0])
    details += [f"native only: {', '.join(alone[1])}"] * bool(alone[1])
    if not found[0] or not found[1]:
        side = (
            "either side"
            if not found[0] and not found[1]
            else "the official side"
            if not found[0]
            else "the native side"
        )
        return Finding(
            "activation", "unknown", f"no activation of {side} is a module that could be run", tuple(details)
        )
    if all(alone):
        return Finding("activation", "differs", "each side has a curve that the other has not", tuple(details))
    if any(alone):
        return Finding(
            "activation", "unknown", "one side has a curve that the other may call as a function", tuple(details)
        )
    return Finding("activation", "equal", f"{len(found[0])} curves of the official side are the native ones")


def _curves(modules: Mapping[str, Json]) -> dict[str, list[float]]:
    """{class and first place: its 13 values}, each curve once."""
    found: dict[str, list[float]] = {}
    for path, entry in modules.items():
        curve = entry.get("activation")
        if isinstance(curve, list) and not any(close(curve, other) for other in found.values()):
            found[f"{entry['class']} at {path or 'the top'}"] = curve
    return found


def positions(facts: Facts, pairs: list[tuple[str, str]]) -> Finding:
    """Attributes about positions on modules that hold each other's tensors, and the config's fields about them."""
    compared, wrong = _scalar_differences(facts, pairs, about_positions=True)
    named = [sentence for sentence in facts.fields or () if _about_positions(sentence.partition(" ")[0])]
    wrong += named
    if wrong:
        return Finding("positions", "differs", f"{len(wrong)} values about positions differ", tuple(wrong))
    if not compared and facts.fields is None:
        return Finding(
            "positions", "unknown", f"no attribute about positions on both sides; {facts.why.get('fields', '')}"
        )
    said = (
        f"{compared} attributes about positions are equal" if compared else "no attribute about positions on both sides"
    )
    if facts.fields is None:
        return Finding("positions", "equal", said)
    return Finding("positions", "equal", f"{said}, and every config field about positions arrives")


def constants(facts: Facts, pairs: list[tuple[str, str]]) -> Finding:
    """Attributes of the same name on modules that hold each other's tensors."""
    compared, wrong = _scalar_differences(facts, pairs, about_positions=False)
    if wrong:
        return Finding("constants", "differs", f"{len(wrong)} of {compared} shared attributes differ", tuple(wrong))
    if not compared:
        return Finding("constants", "unknown", f"no attribute of one name on any of {len(pairs)} paired modules")
    return Finding("constants", "equal", f"{compared} attributes of one name on {len(pairs)} paired modules are equal")


def _about_positions(name: str) -> bool:
    return any(word in name.lower() for word in POSITION_WORDS)


LAYERS_OWN = {  # what a layer's class keeps for its own bookkeeping, and other classes of that name mean otherwise
    *("in_features", "out_features", "input_size", "output_size", "tp_size", "tp_rank", "prefix", "params_dtype"),
    *("num_embeddings", "embedding_dim", "padding_mode", "output_padding", "transposed", "bias", "layer_idx", "name"),
    *("layer_id", "quant_config", "gather_output", "skip_bias_add", "total_num_heads", "num_heads_per_rank", "dtype"),
}


def _scalar_differences(facts: Facts, pairs: list[tuple[str, str]], about_positions: bool) -> tuple[int, list[str]]:
    compared, wrong = 0, []
    for official, native in pairs:
        a, b = (side["modules"][path]["scalars"] for side, path in ((facts.official, official), (facts.native, native)))
        for key in a.keys() & b.keys() - LAYERS_OWN:
            if _about_positions(key) is not about_positions:
                continue
            compared += 1
            if not _same(a[key], b[key]):
                wrong.append(
                    f"{key} of {official or 'the model'} is {a[key]}, native {b[key]} ({native or 'the model'})"
                )
    return compared, sorted(wrong)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool) or isinstance(a, str) or isinstance(b, str):
        return bool(a == b)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return abs(a - b) <= 1e-9 * max(1.0, abs(a))
    return (
        a == b
        or (isinstance(a, list) and set(map(str, a)) == {str(b)})
        or (isinstance(b, list) and set(map(str, b)) == {str(a)})
    )


# --- what it is built with, what it is fed, what it gives ------------------------------------------------------------


def arguments(facts: Facts) -> Finding:
    """Constructor arguments as production passes them, against the official config's values."""
    if facts.fields is None:
        return Finding("constructor arguments", "unknown", facts.why.get("fields", "nobody could be asked"))
    if facts.fields:
        what = f"{len(facts.fields)} official config values do not arrive as they are: it matches with other arguments"
        return Finding("constructor arguments", "differs", what, tuple(facts.fields))
    return Finding("constructor arguments", "equal", "every official config value arrives at the native class")


def tokens(facts: Facts) -> Finding:
    """Token ids and masks on the config check's prompts (empty, long, unicode, unequal batch)."""
    if facts.tokens is None:
        why = facts.why.get("tokens", "")
        return Finding(
            "tokenizer", "equal" if why == "no tokenizer" else "unknown", f"{why or 'nobody could be asked'}"
        )
    if facts.tokens:
        return Finding("tokenizer", "differs", "FastVideo hands other tokens to it", tuple(facts.tokens))
    return Finding("tokenizer", "equal", "token ids and masks are the official ones on every prompt")


def container(facts: Facts) -> Finding:
    """The fields that `forward` returns. The pipeline adapts another container; a field that is not there is named."""
    theirs, ours = facts.official["output"], facts.native["output"]
    said = f"official {theirs['annotation'] or 'not annotated'}, native {ours['annotation'] or 'not annotated'}"
    if not theirs["annotation"] and not ours["annotation"]:
        return Finding("output container", "unknown", "neither side says what forward returns")
    missing = [name for name in theirs["fields"] if name not in ours["fields"]]
    if theirs["fields"] and ours["fields"] and not missing:
        return Finding("output container", "equal", f"{said}: fields {', '.join(theirs['fields'])}")
    return Finding(
        "output container", "adapted", said, tuple(f"the native output has no field {name}" for name in missing)
    )
