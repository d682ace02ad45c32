# SPDX-License-Identifier: Apache-2.0
"""Measured strengths of a port's components: kept by the digest of what they depend on, shown as items and as JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from fvport import evidence as ev
from fvport import fastvideo_api
from fvport.evidence import Item
from fvport.models import kept
from fvport.spec import Component, Port

MARK = "strength"


def key(port: Port, component: Component, inputs: list[str], device: str) -> str:
    """Digest of everything that a strength depends on: the component's own inputs of parity, and the device."""
    others = [name for name in port.components if name != component.name]
    skip = tuple(f"{scheme}:{name}" for name in others for scheme in ("weights", "port:components"))
    mine = [name for name in inputs if not name.startswith(skip)]
    whole = {"inputs": ev.digests(port, mine), "device": fastvideo_api.resolve_device(device), "name": component.name}
    return ev.blake3(ev.canonical(whole)).partition(":")[2][:32]


def place(port: Port, component: Component, digest: str) -> Path:
    return port.state / "cache" / "strength" / f"{component.name}.{MARK}.{digest}.json"


def read(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "faults" in found else None


def write(file: Path, found: dict[str, Any]) -> None:
    """A traced one is never replaced by one that is not."""
    old = read(file)
    if old is not None and old.get("traced") and not found.get("traced"):
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(found), encoding="utf-8")
    os.replace(part, file)
    kept.prune_files(file, f"{file.name.split('.')[0]}.{MARK}")


def item(component: Component, found: dict[str, Any] | None, threshold: float) -> Item:
    """One item of parity: how many planted faults the comparison sees. Not measured is blocked, never a pass."""
    name = f"{component.name}: {MARK}"
    if found is None:
        todo = f"Run: fvport strength {component.name}"
        return Item(name, "blocked", "its strength was not measured", component=component.name, todo=todo)
    missed = [f for f in found["faults"] if f["status"] == "blind"]
    metrics = {k: found[k] for k in ("strength", "caught", "total", "harmless", "no_place", "localised")}
    metrics |= {"blind": [f"{f['id']}: {f['words']}" for f in missed][:20], "blind_inputs": found["blind_inputs"]}
    limits = {"mode": MARK, "at_least": threshold}
    if not found["total"]:
        reason = "no fault of the catalogue has a place in it, so nothing shows that a wrong one would be seen"
        return Item(name, "blocked", reason, metrics, limits, component.name)
    if found["strength"] >= threshold:
        return Item(name, "pass", "", metrics, limits, component.name)
    first = missed[0]
    reason = (
        f"{found['caught']} of {found['total']} planted faults were seen, fewer than {threshold:.0%}; "
        f"not seen: {', '.join(f['id'] for f in missed[:4])}; {first['words']} would show with: {first['reveal']}"
    )
    todo = f"Add such a case to inputs_{component.name} of oracle.py, then: fvport check parity {component.name}"
    return Item(name, "fail", reason, metrics, limits, component.name, todo)


def note(item: Item) -> str:
    """What the gate shows of it: how many faults were seen, and which were not."""
    figures = item.metrics
    words = f"{item.name} {figures['strength']:.2f}: {figures['caught']} of {figures['total']} planted faults were seen"
    return words + (f"; not seen: {', '.join(figures['blind'][:4])}" if figures["blind"] else "")


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The form of `fvport strength --json`."""
    faults = [fault for one in found for fault in one["faults"]]
    counted = [fault for fault in faults if fault["status"] in ("caught", "blind")]
    caught = [fault for fault in counted if fault["status"] == "caught"]
    judged = [fault["localised"] for fault in caught if fault["localised"] is not None]
    shown = ("id", "component", "caught_by", "localised_to", "expected", "title", "words", "status", "like", "group")
    return {
        "caught": len(caught),
        "total": len(counted),
        "strength": round(len(caught) / len(counted), 4) if counted else 0.0,
        "localised": round(sum(judged) / len(judged), 4) if judged else None,
        "faults": [{k: fault[k] for k in shown} for fault in counted],
        "blind_spots": [
            {"id": f["id"], "component": f["component"], "fault": f["words"], "reveal": f["reveal"]}
            for f in counted
            if f["status"] == "blind"
        ],
        "blind_inputs": [f"{one['component']}: {name}" for one in found for name in one["blind_inputs"]],
        "components": {one["component"]: {k: v for k, v in one.items() if k != "faults"} for one in found},
    }


def text(data: dict[str, Any], threshold: float) -> str:
    lines = []
    for name, one in data["components"].items():
        where = "" if one["localised"] is None else f", the right module named in {one['localised']:.0%}"
        rest = f"{one['harmless']} without effect here, {one['no_place']} without a place"
        lines.append(f"{name:16} {one['caught']} of {one['total']} faults seen{where} ({rest}; {one['seconds']:.0f} s)")
    lines += [f"  blind spot: {s['component']}: {s['fault']}; {s['reveal']} would show it" for s in data["blind_spots"]]
    lines += [f"  blind input: {name}: no output changes with it" for name in data["blind_inputs"]]
    word = "ok" if data["strength"] >= threshold else f"below {threshold:g}"
    return "\n".join([*lines, f"strength {data['strength']:.3f} ({data['caught']} of {data['total']}): {word}"])
