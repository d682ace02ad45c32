# SPDX-License-Identifier: Apache-2.0
"""Both sides module by module: which pair's own computation differs, and which only inherited a difference.

A first native run is free: its sketches against the official ones show where the drift begins. In a second each paired
module is given the official inputs and answers with the official outputs (`record.Forced`), so each is judged alone,
against the official module's own rounding error at that place. What a module hands on to a submodule is judged too:
a submodule that is given something else, although all before it answered officially, is its parent's error.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fvport.parity import probe, record
from fvport.parity.pairs import Pairs

FACTOR = 3.0
ULP = {"torch.float32": 2.0**-23, "torch.bfloat16": 2.0**-8, "torch.float16": 2.0**-11}
GROWN = 2.0  # a healthy run's finding is another one when it is so many times as large
Ignore = frozenset[str] | Mapping[str, float]
Run = Callable[[Any], None]  # runs the native side of one case inside a context


@dataclass
class Boundary:
    """One call of a paired module under official values. `local`: its own error in rel_l2; None: not comparable."""

    native: str
    official: tuple[str, ...]
    call: int = 0
    began: int = 0
    ended: int = 0
    inputs: dict[str, float] = field(default_factory=dict)  # label -> rel_l2
    input_budget: float = 0.0
    local: float | None = None
    worst: float = 0.0
    budget: float = 0.0
    wrong: bool = False
    ratio: float = 1.0
    dtype: str = ""  # of the native answer
    shapes: list[Any] = field(default_factory=list)
    resized: list[Any] = field(default_factory=list)  # inputs of another size: [label, own shape, official shape]

    @property
    def near_inputs(self) -> list[str]:
        """Labels of inputs that are the same thing as the official ones, and differ."""
        return [label for label, size in self.inputs.items() if self.input_budget < size <= record.NEAR]

    @property
    def far_inputs(self) -> list[str]:
        """Labels of inputs so far off that they may be another notation; they are left as they are in a first pass."""
        return [label for label, size in self.inputs.items() if size > record.NEAR]

    def to_json(self) -> dict[str, Any]:
        return {k: (list(v) if isinstance(v, tuple) else v) for k, v in vars(self).items()}


@dataclass
class Finding:
    """A module whose own computation differs: in its output, or in what it hands to its submodule `at`."""

    native: str
    boundary: Boundary
    at: str = ""
    label: str = ""
    time: int = 0
    given: str = ""  # the input which, when it is the official one, takes the difference away (a second pass showed it)

    @property
    def mark(self) -> str:
        return f"{self.native}>{self.at}"

    @property
    def size(self) -> float:
        return self.boundary.inputs[self.label] if self.at else float(self.boundary.local or 0.0)


def free(
    root: Any, pairs: Pairs, official: dict[str, Any], store: Any, run: Run
) -> tuple[dict[str, Any], dict[str, Any]]:
    """({native name: (drift, the official model's own drift)}, statistics by module) of a free run, last call."""
    with tempfile.TemporaryDirectory(prefix="fvport-trace-") as folder:
        recorder = record.Recorder(root, probe.Store(Path(folder) / "native.bin"), names=set(pairs.pairs))
        run(recorder)
    mine, theirs = _first_outputs(recorder.marks.items()), _first_outputs((key, key) for key in store.index)
    found: dict[str, Any] = {}
    for native, pair in pairs.pairs.items():
        key = theirs.get(pair.official[0])
        if native in mine and key and len(pair.official) == 1:
            floor = official.get("drift", {}).get(key.partition("/")[2], 0.0)
            found[native] = (probe.apart(mine[native], store.get(key)), floor)
    return found, recorder.modules


def _first_outputs(sketches: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """{module: what stands at its first output of the last call}."""
    found: dict[str, Any] = {}
    for key, value in sketches:
        head, last, _ = key.partition("/last/out/")
        if last and head.startswith("sketch/"):
            found.setdefault(head.removeprefix("sketch/"), value)
    return found


def forced(
    root: Any,
    pairs: Pairs,
    official: dict[str, Any],
    store: Any,
    run: Run,
    *,
    keep: set[str] | None = None,
    wide: frozenset[str] = frozenset(),
) -> tuple[list[Boundary], dict[str, Any]]:
    """Every paired boundary in order of ending; and the kept arguments {name: (args, kwargs, official outputs)}."""
    hooks = record.Forced(root, store, pairs.partners, set(pairs.pairs), keep, wide)
    run(hooks)
    found = [_boundary(name, call, result, pairs, official) for (name, call), result in hooks.results.items()]
    return sorted(found, key=lambda b: b.ended), hooks.kept


def _boundary(name: str, call: int, result: dict[str, Any], pairs: Pairs, official: dict[str, Any]) -> Boundary:
    boundary = Boundary(name, pairs.partners(name), call, result["began"], result.get("ended", 0))
    heads = [f"{other} {call}" for other in boundary.official]
    dtype = dtype_of(official, boundary.official[0])
    boundary.dtype = result.get("dtype", "")
    limits = budget([f for head in heads if (f := official.get("local", {}).get(head))], dtype)
    boundary.resized = result.get("resized", [])
    boundary.inputs = {label: found["rel_l2"] for label, found in result["inputs"]}
    floor_in = max(official.get("local_in", {}).get(head, 0.0) for head in heads)
    boundary.input_budget = (FACTOR + 1) * max(floor_in, 2 * ULP.get(dtype, ULP["torch.float32"]))
    if result["output"] is None:
        return boundary
    output = result["output"]
    boundary.local, boundary.worst, boundary.budget = output["rel_l2"], output["worst"], limits["rel_l2"]
    boundary.wrong = any(output[m] > limits[m] for m in limits)
    boundary.ratio, boundary.shapes = result.get("ratio", 1.0), result.get("shapes", [])
    return boundary


def budget(floors: list[dict[str, float]], dtype: str) -> dict[str, float]:
    """`FACTOR` times the official module's measured rounding error, and the native side's own; at least a few ulp."""
    ulp = ULP.get(dtype, ULP["torch.float32"])
    floor = max([ulp, *(f["rel_l2"] for f in floors)])
    worst = max([8 * ulp, 4 * floor, *(f["worst"] for f in floors)])
    return {"rel_l2": (FACTOR + 1) * floor, "worst": (FACTOR + 1) * worst}


def dtype_of(official: dict[str, Any], name: str) -> str:
    """The dtype of an official module's answer; float32 where none was recorded."""
    rows = official["modules"].get(name, {}).get("last", {}).get("out", [])
    return str(rows[0][1]["dtype"]) if rows else "torch.float32"


def findings(boundaries: list[Boundary], ignore: Ignore = frozenset()) -> list[Finding]:
    """What differs by itself, in the order in which it happened; one finding a module.

    `ignore`: `marks` are left out whatever they say now, `sizes` only where they are no larger than they were.
    """
    names = {b.native for b in boundaries}
    found = []
    for b in boundaries:
        if off := b.near_inputs:
            label = max(off, key=lambda name: b.inputs[name])
            found.append(Finding(parent(b.native, names), b, b.native or "(root)", label, b.began))
        elif b.wrong:
            found.append(Finding(b.native, b, time=b.ended))
    first: dict[str, Finding] = {}
    for finding in sorted(found, key=lambda f: f.time):
        if not _ignored(finding, ignore):
            first.setdefault(finding.mark, finding)
    return list(first.values())


def climb(first: Finding, boundaries: list[Boundary], again: Callable[[str], list[Boundary]]) -> Finding:
    """The same finding at the place where a far input came from, if the official input takes it away.

    `again(name)` is a pass in which the far inputs of this module are replaced too; the outermost is tried first, as a
    far input that is only written in another way takes nothing away. Without far inputs there is no pass.
    """
    last = {b.native: b for b in reversed(boundaries)}
    name, far = first.native, []
    while name != "(call)":
        if name in last and last[name].far_inputs:
            far.append(last[name])
        name = parent(name, set(last))
    for source in reversed(far):
        if any(f.mark == first.mark for f in findings(again(source.native))):
            continue
        label = max(source.far_inputs, key=lambda x: source.inputs[x])
        home = parent(source.native, set(last))
        return Finding(home, source, source.native or "(root)", label, source.began, given=label)
    return first


def _ignored(finding: Finding, ignore: Ignore) -> bool:
    if finding.mark not in ignore:
        return False
    return not isinstance(ignore, Mapping) or finding.size <= GROWN * ignore[finding.mark]


def sizes(found: list[Finding]) -> dict[str, float]:
    """Findings of a healthy run and how large they were: a larger one at the same place is no longer healthy."""
    return {f.mark: f.size for f in found}


def marks(found: list[Finding]) -> frozenset[str]:
    """Findings of a healthy run, to be left out of a later one."""
    return frozenset(f.mark for f in found)


def parent(name: str, names: set[str]) -> str:
    """The nearest paired module around `name`; '(call)' above the root, which the test itself calls."""
    if not name:
        return "(call)"
    while name:
        name = name.rpartition(".")[0]
        if name in names:
            return name
    return ""
