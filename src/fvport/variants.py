# SPDX-License-Identifier: Apache-2.0
"""One port, several releases: what of a variant is checked by itself, and what the base's records say already.

A variant (base, distilled, refiner) is the port seen on another release (`spec.Port.of`). Every check that reads
weights, calls or registration runs for it once more and leaves a record of its own; a component whose locked files are
the base's, byte for byte, is not compared twice: its items say so, and count only beside the base's own green row.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fvport import evidence as ev
from fvport import spec
from fvport.evidence import Evidence, Item
from fvport.spec import Port
from fvport.weights import lockfile
from fvport.words import CHECKS

if TYPE_CHECKING:
    from fvport.checks import Options
    from fvport.verdict import Row

SHARED = "shared:components"  # an input of a variant's record (`evidence.digest`)
OF_THE_PORT = ("docs", "boundary")  # about the port's files, which are the same for all its variants
BY_COMPONENT = ("mapping", "keys", "conversion", "parity")  # what looks at one component at a time


def checks(port: Port) -> list[str]:
    """The checks of the gate that this view has a record of its own of."""
    names = [*port.gate.checks, *(name for name in CHECKS if name not in port.gate.checks)]
    return [name for name in names if name not in OF_THE_PORT] if port.variant else names


def shared(port: Port) -> list[str]:
    """Components of a variant whose locked files are the base's: same names, same bytes. None of the base's own."""
    if not port.variant:
        return []
    own, base = (ev.lock(view).get("components", {}) for view in (port, spec.base(port)))
    return [name for name in port.components if _same(own.get(name), base.get(name))]


def inputs(port: Port, module: Any, name: str) -> list[str]:
    """What a record of this check depends on; of a variant also which components are the base's, for they were left
    to its row: when the base's release changes, the variant's own is compared at last."""
    names: list[str] = module.inputs(port)
    return [*names, SHARED] if port.variant and name in BY_COMPONENT else names


def _same(own: Any, base: Any) -> bool:
    held = lockfile.hashes_in(own)
    return bool(held) and all(held.values()) and held == lockfile.hashes_in(base)


def run(port: Port, module: Any, name: str, options: Options) -> Evidence:
    """`module.run`, of a variant without the components that it shares with the base."""
    held = shared(port) if name in BY_COMPONENT else []
    if not held:
        record: Evidence = module.run(port, options)
        return record
    wanted = tuple(options.components) or tuple(port.components)
    own = tuple(component for component in wanted if component not in held)
    if own:
        record = module.run(port, replace(options, components=own))
        record.notes = [note for note in record.notes if not note.startswith("only ")]
    else:
        record = Evidence(name, port.slug)
    if record.device.get("kind", "none") == "none" and (of_base := ev.read(spec.base(port), name)):
        record.device = of_base.device
    record.items += [
        Item(text, "pass", "the base's files, byte for byte: its own row says more", component=component)
        for text in module.expected(port)
        if (component := text.partition(":")[0]) in held and component in wanted
    ]
    return record


def hold_back(port: Port, row: Row, base: list[Row]) -> None:
    """A variant's row that leaves components to the base's row counts only where that one is green for them."""
    if row.verdict != "pass" or row.check not in BY_COMPONENT or row.record is None:
        return
    held = set(shared(port))
    left = dict.fromkeys(item.component for item in row.record.items if item.component in held)
    other = next((one for one in base if one.check == row.check and not one.variant), None)
    if red := [name for name in left if other is None or not other.passed(name)]:
        row.verdict, row.status = "blocked", "blocked"
        row.reasons.append(f"{', '.join(red)}: the files are the base's, whose own row is not green for it")


def ready(port: Port) -> None:
    """What a variant's state takes over from the port's: the environment of the official side, if it has its own."""
    own = port.root / ".fvport" / "oracle-env"
    if port.variant and own.is_dir() and not (port.state / own.name).exists():
        port.state.mkdir(parents=True, exist_ok=True)
        (port.state / own.name).symlink_to(os.path.relpath(own, port.state))


def alike(port: Port) -> list[str]:
    """Sentences about variants that are the base's release whole: nothing but their calls and presets differ."""
    return [
        f"variant {view.variant}: every component is the base's, byte for byte; only its call and preset are its own"
        for view in port.views
        if len(shared(view)) == len(view.components)
    ]
