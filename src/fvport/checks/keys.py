# SPDX-License-Identifier: Apache-2.0
"""`keys`: official names, shapes and dtypes, through the rules, equal the native state dict. Headers only, no
tensor is read.

Floats may differ in width where the native one is at least as wide (the load casts up, exactly); everything else
must be
the same. What no native class loads is excluded in port.toml, with a reason.
"""

from __future__ import annotations

from fvport import evidence as ev
from fvport.checks import Options
from fvport.checks import _converted as converted
from fvport.checks import _each as each
from fvport.checks import _external as hybrid
from fvport.errors import UsageError, did_you_mean
from fvport.spec import Port
from fvport.weights import convert, sides
from fvport.weights.manifest import BITS
from fvport.weights.mapping import Placed, produced
from fvport.weights.operations import Tensor
from fvport.weights.show import listing
from fvport.weights.values import joined

FLOATS = ("F16", "BF16", "F32", "F64")
TODO = "Correct the rules, the native class, or exclude the key in port.toml with a reason"


def run(port: Port, options: Options) -> ev.Evidence:
    """One item a component whose names, shapes and dtypes all agree, else one a kind of difference."""
    record = ev.Evidence("keys", port.slug)
    chosen = sides.components(port, options.components)
    convert.build_load_tree(port)
    converted.header_items(port, record, chosen)
    sides.prefetch(port, chosen, "rules", "meta")
    each.component(record, chosen, "keys", lambda component: compare(sides.Side(port, component)))
    wrappers = hybrid.chosen(port, options.components)
    each.component(record, wrappers, "external", lambda component: hybrid.items(port, component))
    for component in chosen:
        excluded = component.mapping.exclude.items()
        record.notes += [f"{component.name}: {pattern} is left out: {reason}" for pattern, reason in excluded]
    return record


def inputs(port: Port) -> list[str]:
    return sides.inputs(port)


def expected(port: Port) -> list[str]:
    names = [f"{component.name}: keys" for component in sides.components(port)]
    names += [f"{component.name}: external" for component in hybrid.chosen(port)]
    return names + converted.expected(port, "converted keys")


def compare(side: sides.Side) -> list[ev.Item]:
    """The items of one component."""
    name, case = side.component.name, side.case
    targets, native = case.targets, side.native
    free = set(case.native_free)
    missing = [key for key in native if key not in targets and key not in free]
    unexpected = [key for key in targets if key not in native]
    items = []
    if missing:
        items.append(_item(name, "missing", f"{len(missing)} native names have no source", missing, unexpected))
    if unexpected:
        what = f"{len(unexpected)} keys go to names that the native model does not have"
        items.append(_item(name, "unexpected", what, unexpected, missing))
    shared = {key: items for key, items in targets.items() if key in native}
    for problem, check in (("shape", _shape), ("dtype", _dtype)):
        wrong = {key: said for key, placed in shared.items() if (said := check(side, key, placed))}
        if wrong:
            shown = "; ".join(list(wrong.values())[:4])
            more = f"; and {len(wrong) - 4} more" if len(wrong) > 4 else ""
            metrics = {"names": list(wrong)[:50], "count": len(wrong)}
            reason = f"{len(wrong)} of another {problem}: {shown}{more}"
            items.append(ev.Item(f"{name}: {problem}", "fail", reason, metrics, component=name, todo=TODO))
    if not shared and not items:
        what = "not a single key was compared: everything is excluded, or neither side has any"
        return [ev.Item(f"{name}: keys", "blocked", what, component=name)]
    if items:
        return items
    metrics = {"official": len(side.shapes), "native": len(native), "excluded": len(side.shapes) - len(case.names)}
    return [ev.Item(f"{name}: keys", "pass", "", metrics, component=name)]


def _item(name: str, problem: str, what: str, names: list[str], others: list[str]) -> ev.Item:
    near = did_you_mean(names[0], others)
    metrics = {"names": names[:50], "count": len(names)}
    reason = f"{what}: {listing(names)}.{near}"
    return ev.Item(f"{name}: {problem}", "fail", reason, metrics, component=name, todo=TODO)


def _shape(side: sides.Side, key: str, placed: list[Placed]) -> str:
    theirs = [side.shapes[item.source] for item in placed]
    ours = side.native[key][0]
    worked = any(item.operations for item in placed)
    merged = len(placed) > 1 and all(item.index is not None for item in placed)
    try:
        got = _made(side, placed).shape if worked else joined(theirs) if merged else theirs[-1]
    except UsageError as error:
        return f"{key} is {list(ours)}: {error}"
    if got == ours:
        return ""
    sources = " + ".join(f"{item.source} {list(shape)}" for item, shape in zip(placed, theirs, strict=True))
    return f"{key} is {list(ours)}, from {sources}"


def _made(side: sides.Side, placed: list[Placed]) -> Tensor:
    """What the operations make of the sources. UsageError where they do not fit."""
    infos = [side.weights.tensors[item.source] for item in placed]
    return produced(placed, [Tensor(info.dtype, info.shape) for info in infos])


def _dtype(side: sides.Side, key: str, placed: list[Placed]) -> str:
    ours = side.native[key][1]
    tensors = side.weights.tensors
    for item in placed:
        theirs = tensors[item.source].dtype
        theirs = next((step.dtype for step in reversed(item.operations) if step.name == "cast"), theirs)
        widened = theirs in FLOATS and ours in FLOATS and BITS[ours] > BITS[theirs]
        if theirs != ours and not widened:
            return f"{key} is {ours}, {item.source} is {theirs}"
    return ""
