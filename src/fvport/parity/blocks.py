# SPDX-License-Identifier: Apache-2.0
"""`fvport check parity COMPONENT --blocks 0,1,-1`: a full-size component compared on some of its blocks alone.

The port is set up once more beside its state, with the component's release cut to these blocks (`blocks_cut`) and the
rest of it linked. There the ordinary check runs: both sides through their own loaders, cases, faults and strength. Its
record stays there. It says nothing of the other blocks, and the port's gate does not read it.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from fvport import checks
from fvport import evidence as ev
from fvport.errors import BlockedError, UsageError
from fvport.evidence import Evidence
from fvport.parity import beside, blocks_cut
from fvport.spec import Component, Port
from fvport.tiny import overrides
from fvport.tiny import release as releases
from fvport.weights import lockfile


def parse(text: str) -> list[int]:
    """`0,1,-1` as numbers. UsageError for anything else."""
    try:
        found = [int(word) for word in text.split(",")]
    except ValueError:
        found = []
    if not found:
        raise UsageError(f'"{text}" names no blocks', todo="Give numbers, such as --blocks 0,1,-1")
    return found


def run(port: Port, check: str, blocks: str, options: checks.Options) -> Evidence:
    """Compare these blocks of the one component of `options`. UsageError and BlockedError for what cannot be cut."""
    asked = parse(blocks)
    if check != "parity" or len(options.components) != 1:
        raise UsageError("--blocks goes with one component", todo="fvport check parity transformer --blocks 0,1,-1")
    component = port.component(options.components[0])
    name = component.name
    if not component.needs_parity or not component.has_weights:
        raise UsageError(f"{name} is a {component.mode} {component.kind}: it has no blocks to compare")
    if port.official.needs_conversion or component.part or component.external:
        raise BlockedError(f"the weights of {name} lie in files of a form of their own, and blocks are cut by folder")
    twin, cut = make(port, component, asked)
    record = checks.run_check(twin, check, options)
    for prefix, chosen in cut.chosen.items():
        shown = ", ".join(map(str, chosen))
        note = f"only blocks {shown} of the {cut.depths[prefix]} of {prefix} were compared; the gate asks for all"
        record.notes.insert(0, note)
    kept = os.path.relpath(ev.folder(twin) / "parity.json", port.root)
    record.notes.insert(len(cut.chosen), f"the whole record: {kept}")
    return replace(record, check="blocks", artifacts=[kept])


def make(port: Port, component: Component, asked: list[int]) -> tuple[Port, blocks_cut.Cut]:
    """(the port beside, what was cut)."""

    def release(twin: Port) -> blocks_cut.Cut:
        cut = _release(port, twin, component, asked)
        _locked(port, twin, component)
        return cut

    return beside.make(port, port.state / "blocks" / component.name, release)


def _release(port: Port, twin: Port, component: Component, asked: list[int]) -> blocks_cut.Cut:
    """The release beside: links to every file, but the component's folder, which is cut."""
    folder = component.weights or component.name
    source, target = port.official_weights.resolve(), twin.official_weights
    if not (source / folder).is_dir():
        raise BlockedError(f"no official weights for {component.name}", where=folder, todo="Run: nox -s prep")
    target.mkdir(parents=True)
    for file in sorted(p for p in source.rglob("*") if p.is_file()):
        name = file.relative_to(source)
        if name.parts[0] != folder:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).symlink_to(file)
    with overrides.official_path(port):
        part = releases.read(source / folder, port).parts[(source / folder).name]
        return blocks_cut.cut(part, asked, target / folder)


def _locked(port: Port, twin: Port, component: Component) -> None:
    """The lock of the port beside: the cut component's own entry, every other as it is, and no byte read twice."""
    lock = ev.lock(port)
    hashes = lockfile.Hashes(twin)
    base = twin.official_weights
    for name, entry in lock.get("components", {}).items():
        for file in entry.get("files", []) if name != component.name else ():
            place = Path(base, file["name"])
            if place.is_symlink() and place.is_file():
                hashes.put(place, file["blake3"])
    lock["components"] = {**lock.get("components", {}), component.name: lockfile.entry(twin, component, hashes)}
    hashes.save()
    lockfile.write(twin.lock_file, lock)
