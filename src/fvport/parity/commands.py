# SPDX-License-Identifier: Apache-2.0
"""`fvport trace` and `fvport strength`: a component's parity test run for its trace, or with every fault planted."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fvport.errors import FvportError, UsageError, did_you_mean
from fvport.parity import built, runs, strengths, trace_files
from fvport.parity.job import Job
from fvport.spec import Component, Port


@dataclass
class Traced:
    """`data` is what `--json` prints; `equal`: nothing differs, and the component agrees."""

    data: dict[str, Any]
    equal: bool
    lines: list[str] = field(default_factory=list)

    def text(self) -> str:
        return "\n".join(self.lines)


def trace(port: Port, name: str, *, case: str = "", device: str = "auto") -> Traced:
    """Run both sides of a component module by module; files go to `.fvport/trace/<component>/`."""
    component = _compared(port, name)
    out = port.state / "trace" / name
    answers = runs.host(port, [component], Job("trace", case=case, out=str(out), device=device))
    answer = answers[name]
    found = next((one for one in answer.get("compared", []) if one["component"] == name), None)
    if found is None or not found.get("trace"):
        problem = (found or {}).get("problem") or answer.get("message") or f"no test compared {name}"
        todo = "A trace needs both sides to run to their end: mend what the sentence names first"
        raise FvportError(f"{name} could not be traced: {problem}", todo=todo)
    data = {**found["trace"], "passed": bool(found["passed"])}
    data["files"] = [_relative(port, Path(file)) for file in data["files"]]
    agrees = all(row["ok"] for row in found["results"])
    if agrees and data["native"] is None:  # the trace alone cannot know: it does not see what the test compares
        data["sentence"] = data["sentence"].partition(": what differs comes after")[0]
    lines = [f"{name}, case {data['case']}: {data['sentence']}"]
    if todo := built.correct(component, data, port.root) if component.mode == "port" else "":
        lines.append(f"  {todo}")
    lines += [f"  also off by themselves: {', '.join(data['others'][:6])}"] if data["others"] else []
    lines += [f"  {words}" for words in data["calls"][:4]]
    mine, theirs = data["unpaired_native"], data["unpaired_official"]
    if mine or theirs:
        lines.append(f"  without a partner: {len(mine)} native, {len(theirs)} official modules (--json lists them)")
    lines += [f"  the comparison of its outputs: {'every output agrees' if agrees else 'red'}"]
    return Traced(data, agrees and data["native"] is None, [*lines, *(f"  {file}" for file in data["files"])])


def trace_from(port: Port, name: str, native: Path, official: Path | None = None) -> Traced:
    """Two activation traces, as FastVideo writes them, or one of it against the last trace's official side."""
    _compared(port, name)
    folder = port.state / "trace" / name
    theirs = official or folder / "official.jsonl"
    if official is None and not theirs.is_file():
        raise UsageError(
            "there is no official activation trace yet", where=str(theirs), todo=f"Run: fvport trace {name}"
        )
    partners: dict[str, str] = {}
    if (folder / "pairs.json").is_file():
        pairs = json.loads((folder / "pairs.json").read_text(encoding="utf-8"))
        partners = {pair["official"][0]: pair["native"] for pair in pairs if len(pair["official"]) == 1}
    data = trace_files.first_difference(trace_files.read_jsonl(theirs), trace_files.read_jsonl(native), partners)
    return Traced(data, data["first"] is None and data["compared"] > 0, [f"{name}: {data['sentence']}"])


@dataclass
class Measured:
    data: dict[str, Any]
    threshold: float

    @property
    def enough(self) -> bool:
        parts = self.data["components"].values()
        return bool(self.data["total"]) and all(one["strength"] >= self.threshold for one in parts if one["total"])

    def text(self) -> str:
        return strengths.text(self.data, self.threshold)


def strength(
    port: Port, names: list[str], *, device: str = "auto", fresh: bool = False, faults: tuple[str, ...] = ()
) -> Measured:
    """Measure the components' strength, with the trace asked to name each caught fault; kept for `check parity`."""
    from fvport.checks import parity
    from fvport.parity.catalogue import all_faults

    chosen = [_compared(port, name) for name in names] or parity.required(port)
    known = [fault.id for fault in all_faults()]
    for fault in faults:
        if fault not in known:
            raise UsageError(f'no fault "{fault}" in the catalogue.{did_you_mean(fault, known)}')
    inputs = parity.inputs(port)
    places = {c.name: strengths.place(port, c, strengths.key(port, c, inputs, device)) for c in chosen}
    old = {name: strengths.read(place) for name, place in places.items()}
    missing = [c for c in chosen if fresh or faults or not (old[c.name] or {}).get("traced")]
    if missing:
        job = Job(device=device, strength=tuple(c.name for c in missing), traced=True, faults=faults)
        answers = runs.host(port, missing, job)
        for component in missing:
            old[component.name] = _found(component, answers[component.name])
            if not faults:
                strengths.write(places[component.name], old[component.name] or {})
    return Measured(strengths.summary([found for found in old.values() if found]), port.gate.strength)


def _found(component: Component, answer: dict[str, Any]) -> dict[str, Any]:
    for found in answer.get("compared", []):
        if found["component"] == component.name and found["passed"] and found.get("strength"):
            return dict(found["strength"])
    red = next((found for found in answer.get("compared", []) if not found["passed"]), None)
    why = (red or {}).get("problem") or (
        "its comparison is red" if red else answer.get("message") or "nothing compared it"
    )
    raise FvportError(
        f"the strength of {component.name} cannot be measured: {why}",
        todo=f"First make it green: fvport check parity {component.name}",
    )


def _compared(port: Port, name: str) -> Component:
    component = port.component(name)
    if not component.needs_parity:
        raise UsageError(
            f"{name} is {component.mode}: it computes nothing that could be compared", where=str(port.file)
        )
    return component


def _relative(port: Port, path: Path) -> str:
    path, root = path.resolve(), port.root.resolve()
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
