# SPDX-License-Identifier: Apache-2.0
"""`conversion`: the load tree goes through FastVideo's production loader, and every native tensor holds what it claims.

The loaders skip, zero-fill and report names that they never copied, without a word. So after the load each tensor is
compared, bit for bit, with the official sources that the rules say it is made from.
"""

from __future__ import annotations

from pathlib import Path

from fvport import evidence as ev
from fvport.checks import Options
from fvport.checks import _converted as converted
from fvport.checks import _each as each
from fvport.errors import BlockedError, FvportError
from fvport.spec import Port
from fvport.weights import convert, sides
from fvport.weights.values import Coverage, compare

TODO = {
    "missing": "Exclude the key in port.toml with a reason, or let the native class have it",
    "uncovered": "Give it a source, or exclude it in port.toml as native:<regex> with a reason",
    "zero_filled": "See whether the loader allows this name as a new parameter, and what should fill it",
}
LOADER = "Look at how the component's load_weights, or FastVideo's loader, fills it"


def run(port: Port, options: Options) -> ev.Evidence:
    """One item a component that loads and holds its values, else one a kind of fault."""
    record = ev.Evidence("conversion", port.slug)
    chosen = sides.components(port, options.components)
    converted.value_items(port, record, chosen)  # first: a changed tree is told by its tensors, not by its file
    try:
        tree = convert.build_load_tree(port)
    except FvportError as error:
        if not record.items:
            raise
        verdict = "blocked" if isinstance(error, BlockedError) else "fail"
        record.items.append(ev.Item("load tree", verdict, str(error), todo=error.todo))
        return record
    record.artifacts.append(str(tree.relative_to(port.root)))
    sides.prefetch(port, chosen, "rules")
    each.component(record, chosen, "load", lambda component: _component(sides.Side(port, component)))
    return record


def inputs(port: Port) -> list[str]:
    return sides.inputs(port)


def expected(port: Port) -> list[str]:
    names = [f"{component.name}: values" for component in sides.components(port)]
    return names + converted.expected(port, "from the release")


def _component(side: sides.Side) -> list[ev.Item]:
    official, native = side.store(), side.state()
    try:
        shapes = {name: native.info(name)[1] for name in native.names()}
        case = side.case_for(shapes)
        found = compare(official, case.mapped, native, case.native_free)
    finally:
        official.close()
        native.close()
        for file, _ in list(native.files.values())[:1]:
            Path(file).unlink(missing_ok=True)  # as large as the model, and made again by the next run
    return items(side.component.name, found)


def items(name: str, found: Coverage) -> list[ev.Item]:
    """Evidence items of one component's coverage."""
    made = []
    for problem in dict.fromkeys(fault.problem for fault in found.faults):
        faults = [fault for fault in found.faults if fault.problem == problem]
        more = f"; and {len(faults) - 4} more" if len(faults) > 4 else ""
        reason = "; ".join(fault.message for fault in faults[:4]) + more
        metrics = {"names": [fault.name for fault in faults][:50], "count": len(faults)}
        todo = TODO.get(problem, LOADER)
        made.append(ev.Item(f"{name}: {problem}", "fail", reason, metrics, component=name, todo=todo))
    metrics = {"tensors": found.compared, "bytes": found.bytes}
    if not found.compared:
        return [*made, ev.Item(f"{name}: values", "blocked", "not a single tensor was compared", component=name)]
    return made or [ev.Item(f"{name}: values", "pass", "", metrics, component=name)]
