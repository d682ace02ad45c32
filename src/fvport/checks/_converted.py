# SPDX-License-Identifier: Apache-2.0
"""The first link of a converted release, official -> converted, as items of the checks that look at weights.

The second link, converted -> native, is what these checks look at for any release: `sides` takes the converted tree for
the official one. A release in Diffusers layout has no first link.
"""

from __future__ import annotations

from typing import Any

from fvport.errors import BlockedError
from fvport.evidence import Evidence, Item
from fvport.spec import Component, Port
from fvport.weights import converter, first_link, sides, tree, verify
from fvport.weights.conversion import Conversion
from fvport.weights.values import Fault

TODO = "Convert again: fvport convert; where it stays, correct the declaration"
SHOWN = 4


def expected(port: Port, word: str) -> list[str]:
    """Names of the items that must be there."""
    if not port.official.needs_conversion:
        return []
    return [f"{component.name}: {word}" for component in sides.components(port)]


def declared_items(port: Port, record: Evidence, chosen: list[Component]) -> None:
    """`mapping`: every key of the release is owned or skipped with a reason; what is skipped is listed."""
    if not port.official.needs_conversion:
        return
    plan = converter.plan_of(port)
    for component in chosen:
        made = plan.tensors.get(sides.folder_of(component), [])
        name = f"{component.name}: declaration"
        if _is_copied(plan, component):
            record.items.append(Item(name, "pass", "copied as it is", component=component.name))
            continue
        if not made:
            what = "the declaration makes no tensor of it"
            record.items.append(Item(name, "blocked", what, component=component.name, todo=TODO))
            continue
        moved = sum(item.moves_bytes for item in made)
        metrics = {"tensors": len(made), "moved": moved, "computed": len(made) - moved}
        record.items.append(Item(name, "pass", "", metrics, component=component.name))
    reasons = first_link.left_out(plan)
    if len(chosen) == len(sides.components(port)):
        record.items += _others(port, plan)
    record.notes += [f"left out: {len(keys)} keys, such as {keys[0]}: {reason}" for reason, keys in reasons.items()]
    record.notes += plan.notes


def _others(port: Port, plan: Conversion) -> list[Item]:
    """A swap in the declaration of what no native class loads: `sides` says it of the rest."""
    made = []
    for name, _, link in first_link.others(port, plan):
        accept = port.components[name].mapping.accept if name in port.components else {}
        errors = [finding for finding in link.findings(accept) if finding.severity == "error"]
        todo = f"See the table: fvport mapping review; correct the declaration, or accept it in [components.{name}]"
        made += [Item(f"{name}: {f.code}", "fail", f.message, {"names": list(f.names)}, todo=todo) for f in errors]
    return made


def header_items(port: Port, record: Evidence, chosen: list[Component]) -> None:
    """`keys`: names, shapes and dtypes of the converted tree are those that the release and the declaration give."""
    if not port.official.needs_conversion:
        return
    plan = converter.plan_of(port)
    for component in chosen:
        folder = sides.folder_of(component)
        faults = verify.headers(plan, port.official_tree, folder)[1] if folder in plan.tensors else []
        metrics = {"tensors": len(plan.tensors.get(folder, []))}
        record.items += _items(component.name, "converted keys", faults, metrics)


def value_items(port: Port, record: Evidence, chosen: list[Component]) -> None:
    """`conversion`: every converted tensor made again from the official bytes and compared bit for bit."""
    if not port.official.needs_conversion:
        return
    plan = converter.plan_of(port)
    if not tree.read_marker(port.official_tree):
        raise BlockedError("the release has not been converted", todo=converter.RUN)
    texts = verify.texts(plan, port.official_tree)
    for component in chosen:
        folder = sides.folder_of(component)
        name = f"{component.name}: from the release"
        if _is_copied(plan, component):
            mine = [fault for fault in texts if fault.name.startswith(f"{folder}/")]
            record.items += _items(component.name, "from the release", mine, {"copied": True})
            continue
        if folder not in plan.tensors:
            record.items.append(
                Item(name, "blocked", "the declaration makes no tensor of it", component=component.name)
            )
            continue
        found = verify.component(plan, port.official_tree, folder)
        metrics = {"tensors": found.compared, "bytes": found.bytes, "nan": sum(found.nan.values())}
        record.items += _items(component.name, "from the release", found.faults, metrics)
        record.notes += [f"{component.name}: {tensor} holds {count} NaN" for tensor, count in found.nan.items()]
    record.items += _items("", "converted configs and copies", texts, {})


def _is_copied(plan: Conversion, component: Component) -> bool:
    part = plan.declaration.parts.get(sides.folder_of(component))
    return part is not None and part.copied


def _items(component: str, word: str, faults: list[Fault], metrics: dict[str, Any]) -> list[Item]:
    name = f"{component}: {word}" if component else word
    if not faults:
        return [Item(name, "pass", "", metrics, component=component)]
    made = []
    for problem in dict.fromkeys(fault.problem for fault in faults):
        mine = [fault for fault in faults if fault.problem == problem]
        more = f"; and {len(mine) - SHOWN} more" if len(mine) > SHOWN else ""
        reason = "; ".join(fault.message for fault in mine[:SHOWN]) + more
        found = {"names": [fault.name for fault in mine][:50], "count": len(mine)}
        made.append(Item(f"{name}: {problem}", "fail", reason, found, component=component, todo=TODO))
    return made
