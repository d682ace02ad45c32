# SPDX-License-Identifier: Apache-2.0
"""The declared conversion of one component (official -> converted) as the same case that the native rules are.

So a reviewer reads it in the same table, and the lint looks for the same swaps in it. The second link, converted ->
native, is `sides.Side.case`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from fvport.spec import Port
from fvport.weights import lint
from fvport.weights.case import Case, Finding
from fvport.weights.conversion import Conversion
from fvport.weights.declaration import Part
from fvport.weights.mapping import Mapped


@dataclass
class Link:
    """One component's part of a planned conversion. Names in `case` are the release's, without the prefix."""

    plan: Conversion
    part: Part

    @cached_property
    def keys(self) -> dict[str, str]:
        """{name without the prefix: the key in the release's files}"""
        return {item.source: source.key for item, source in self.plan.placed[self.part.name]}

    @cached_property
    def case(self) -> Case:
        placed = self.plan.placed[self.part.name]
        shapes = {item.source: source.info.shape for item, source in placed}
        made = {item.name: item.tensor.shape for item in self.plan.tensors[self.part.name]}
        return Case(self.part.names, shapes, made, given=Mapped(tuple(item for item, _ in placed)))

    def findings(self, accept: dict[str, str]) -> list[Finding]:
        prefixes = " or ".join(f'"{prefix}"' for prefix in self.part.prefixes if prefix)
        where = f"conversion, after {prefixes}" if prefixes else "conversion"
        return lint.declared(self.case, where, accept)


def left_out(plan: Conversion) -> dict[str, list[str]]:
    """{reason: keys of the release that are in no converted tensor}"""
    found: dict[str, list[str]] = {}
    for key, reason in plan.skipped.items():
        found.setdefault(reason, []).append(key)
    return found


def of(port: Port, folder: str) -> Link | None:
    """The link of the component that lies in `folder` of the converted tree; None where nothing is converted.

    Raises what `conversion.plan` does for a declaration that does not fit the release.
    """
    if not port.official.needs_conversion:
        return None
    from fvport.weights import converter

    plan = converter.plan_of(port)
    part = plan.declaration.parts.get(folder)
    return Link(plan, part) if part and folder in plan.placed else None


def others(port: Port, plan: Conversion) -> list[tuple[str, str, Link]]:
    """(name, mode, link) of what is converted and loaded by no native class: an external encoder, for one. Nobody
    signs for these, and a swap in them is a swap all the same."""
    from fvport.weights import sides

    known = {sides.folder_of(component) for component in sides.components(port)}
    named = {sides.folder_of(component): component for component in port.components.values()}
    found = []
    for folder in plan.placed:
        if folder not in known:
            component = named.get(folder)
            name, mode = (component.name, component.mode) if component else (folder, "not declared")
            found.append((name, mode, Link(plan, plan.declaration.parts[folder])))
    return found
