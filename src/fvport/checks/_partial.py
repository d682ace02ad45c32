# SPDX-License-Identifier: Apache-2.0
"""A run of some components only: what the check already knew about the others stays in its record.

Nothing is taken over unless it speaks of this very tree: same inputs with the same digests, same device, same scale,
same run of CI. What no run has shown stays missing, and the gate asks for it.

A partial run after an edit would leave nothing of the whole record before it. That one is put by under another name,
so that a person who takes the edit back runs the one component again and not all of them.
"""

from __future__ import annotations

from fvport import evidence as ev
from fvport.errors import UsageError
from fvport.spec import Port

PUT_BY = ".before"  # `<check>.before`, no `.json`: nothing that reads records takes it for one
BY_COMPONENT = ("mapping", "keys", "config", "conversion", "parity")  # these checks look at Options.components


def merged(port: Port, record: ev.Evidence, components: tuple[str, ...], expected: list[str]) -> ev.Evidence:
    """`record`, of `components` only, with the other components' items of the record on disk where that one holds."""
    if not components or record.check not in BY_COMPONENT:
        return record
    old = _usable(port, record)
    if old is None:
        return record
    ran = set(components) | {item.component for item in record.items if item.component}
    names = {item.name for item in record.items}
    kept = [item for item in old.items if _stays(item, ran, names, expected)]
    others = list(dict.fromkeys(item.component for item in kept if item.component))
    if not kept:
        return record
    record.items = kept + record.items
    record.notes = [note for note in record.notes if not note.startswith("only ")]
    record.notes += [note for note in old.notes if note not in record.notes and note.startswith(_heads(others))]
    said = f"{', '.join(others) or 'the rest'}: from the run of {old.started or 'before'} on the same inputs"
    record.notes.append(said + (f" (commit {old.commit[:12]})" if old.commit else ""))
    record.artifacts = list(dict.fromkeys([*old.artifacts, *record.artifacts]))
    return record


def _usable(port: Port, record: ev.Evidence) -> ev.Evidence | None:
    """The record on disk, else the one put by: the first that was made from the same inputs in the same way."""
    return next((old for old in (_read(port, record, ""), _read(port, record, PUT_BY)) if _alike(old, record)), None)


def _alike(old: ev.Evidence | None, record: ev.Evidence) -> bool:
    if old is None or (old.check, old.port) != (record.check, record.port) or not record.inputs:
        return False
    mine, other = ((r.inputs, r.device, r.scale, r.origin) for r in (record, old))
    return mine == other


def _read(port: Port, record: ev.Evidence, suffix: str) -> ev.Evidence | None:
    try:
        return ev.read(port, record.check, suffix)
    except UsageError:
        return None


def put_by(port: Port, record: ev.Evidence) -> None:
    """Keep the record on disk beside `record`, which is about to take its place and speaks of fewer components."""
    old = _read(port, record, "")
    if old is None or old.inputs == record.inputs or {item.component for item in old.items} <= _components(record):
        return
    ev.write(port, old, PUT_BY)


def _components(record: ev.Evidence) -> set[str]:
    return {item.component for item in record.items}


def _stays(item: ev.Item, ran: set[str], names: set[str], expected: list[str]) -> bool:
    if item.component:
        return item.component not in ran
    return item.name not in names and (item.name in expected or item.name.startswith(_heads(expected)))


def _heads(names: list[str]) -> tuple[str, ...]:
    return tuple(f"{name}:" for name in names)
