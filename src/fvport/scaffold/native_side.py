# SPDX-License-Identifier: Apache-2.0
"""What the native side of a component would be where nobody asks for one: FastVideo's class, an archetype, a skeleton.

`fvport new` decides by it, and `fvport inspect` says it before anything is baked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fvport.scaffold import facts, library
from fvport.weights.layout import Inspection
from fvport.words import COPIED


@dataclass(frozen=True)
class NativeSide:
    """`mode` as in port.toml. `known`: FastVideo registers a class; `differs`: what that class does otherwise."""

    mode: str
    why: str
    archetype: library.Archetype | None
    known: bool
    differs: str

    def text(self) -> str:
        todo = " (a skeleton, which a person writes)" if self.mode == "port" and not self._written else ""
        return f"{self.mode}{todo}: {self.why}"

    @property
    def _written(self) -> bool:
        return self.archetype is not None and self.archetype.can_port


def of(official: str, cls: str, kind: str, config: Mapping[str, Any]) -> NativeSide:
    """`official` is `library:Class`; `config` the component's own, as the release ships it."""
    archetype, known = library.covering(official, kind), bool(facts.registered(cls))
    said = archetype.differs(official, config) if archetype else ""
    differs = f"FastVideo's {cls} differs: {said}" if said else ""
    if kind in COPIED:
        return NativeSide("passthrough", "files that the pipeline reads as they are", archetype, known, differs)
    if known and not (differs and archetype and archetype.can_port):
        why = f"FastVideo {facts.fastvideo()['version']} registers {cls}"
        return NativeSide("reuse", why, archetype, known, differs)
    covered = f"archetype {archetype.name} covers {cls}" if archetype else "no archetype covers it yet"
    return NativeSide("port", differs or covered, archetype, known, differs)


def of_release(found: Inspection) -> dict[str, NativeSide]:
    """{component: its native side}, of those whose class the release names."""
    named = {name: c for name, c in found.components.items() if c.cls}
    return {name: of(c.official, c.cls, c.kind, c.config) for name, c in named.items()}


def text(found: Inspection) -> str:
    """The lines that `fvport inspect` adds: what `fvport new` would make of each component."""
    sides = of_release(found)
    lines = [f"  {name}: {side.text()}" for name, side in sides.items() if side.mode != "passthrough"]
    return "\n".join(["fvport new would make of it:", *lines]) if lines else ""
