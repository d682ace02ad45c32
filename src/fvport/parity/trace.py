# SPDX-License-Identifier: Apache-2.0
"""Where two models part: the first pair of modules whose own computation differs, and what kind of fault it is.

`examine` works on any two torch models: the official one as its record on disk (`activations.record`), the native one
in this process. It leaves no hook, patch or changed value behind.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from fvport.parity import causes, lockstep, pairs, record
from fvport.parity.lockstep import Boundary, Finding

ROTARY = ("rope", "rotary", "freq", "cos", "sin", "position")
DOUBT = 4.0  # a drift this many times the official model's own is where a window of exact tensors begins


@dataclass
class Trace:
    """What `fvport trace` says of one component and case. `sentence` is the answer."""

    component: str
    case: str
    sentence: str = ""
    native: str | None = None  # "" is the model itself, "(call)" the test that calls it, None: nothing differs
    official: list[str] = field(default_factory=list)
    native_line: str = ""
    official_line: str = ""
    at: str = ""  # the submodule whose input shows it, where the error lies between submodules
    label: str = ""  # the argument that is another one, where an input shows it
    size: float = 0.0
    budget: float = 0.0
    inputs_equal: bool | None = None
    resized: str = ""  # the first module that is given something of another size, and what
    causes: list[dict[str, Any]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)  # one a paired boundary, in order
    others: list[str] = field(default_factory=list)  # further modules that differ by themselves
    unpaired_native: list[str] = field(default_factory=list)
    unpaired_official: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)  # modules that the two sides call another number of times
    notes: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    native_modules: dict[str, Any] = field(default_factory=dict, repr=False)  # statistics of the free run

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "native_modules"}

    def text(self) -> str:
        lines = [f"{self.component}, case {self.case}: {self.sentence}"]
        lines += [f"  also off by themselves: {', '.join(self.others[:6])}"] if self.others else []
        lines += [f"  {words}" for words in self.calls[:4]]
        if self.unpaired_native or self.unpaired_official:
            mine, theirs = len(self.unpaired_native), len(self.unpaired_official)
            lines.append(f"  without a partner: {mine} native, {theirs} official modules (listed by --json)")
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join([*lines, *(f"  {file}" for file in self.files)])


@dataclass
class Sides:
    """What is needed of both sides. `run(context)` runs the native side on `case` inside a context."""

    component: str
    case: str
    root: Any
    official: dict[str, Any]  # record.about of the official modules
    found: dict[str, Any]  # the official record of the case: modules, order, drift, local
    store: Any
    placed: dict[str, list[str]]  # native parameter -> official ones
    run: Callable[[Any], None]
    params: Any = None  # store of official parameters
    around: Callable[[], Any] = contextlib.nullcontext

    def __post_init__(self) -> None:
        self.native = record.about(self.root)
        self.pairs = pairs.pair(self.official, self.native, self.placed, self.found["modules"])


def examine(sides: Sides, *, ignore: lockstep.Ignore = frozenset(), why: bool = True, drifts: bool = True) -> Trace:
    """The trace of one case. `ignore`: findings that a healthy run has too (`lockstep.sizes`)."""
    trace = Trace(sides.component, sides.case)
    trace.unpaired_native, trace.unpaired_official = sides.pairs.unpaired_native, sides.pairs.unpaired_official
    free: dict[str, Any] = {}
    if drifts:
        free, trace.native_modules = lockstep.free(sides.root, sides.pairs, sides.found, sides.store, sides.run)
    boundaries, _ = lockstep.forced(sides.root, sides.pairs, sides.found, sides.store, sides.run)
    found = lockstep.findings(boundaries, ignore)
    trace.rows = [_row(b, free) for b in boundaries]
    trace.calls = _calls(sides, boundaries)
    if not found:
        trace.resized = _resized(boundaries)
        trace.sentence = _nothing(sides, free, boundaries, trace)
        return trace
    first = located(sides, found[0], boundaries)
    _place(trace, sides, first)
    trace.others = [_name(f.native) for f in found[1:] if f.native != first.native]
    trace.others = list(dict.fromkeys(trace.others))
    if why:
        trace.causes = [asdict(cause) for cause in _why(sides, first)]
    trace.resized = _resized(boundaries, first.boundary.ended)
    trace.sentence = _sentence(trace, first, _last_inside(first, boundaries))
    if trace.resized:
        trace.sentence += f". What cannot be compared and comes before it: {trace.resized}"
    return trace


def window(sides: Sides) -> set[str]:
    """Official modules around the first suspicious boundary: what a second pass keeps exactly when not all fits."""
    free, _ = lockstep.free(sides.root, sides.pairs, sides.found, sides.store, sides.run)
    limit = lockstep.ULP["torch.float32"]
    native_of = {pair.official[0]: name for name, pair in sides.pairs.pairs.items()}
    order = [name for name, call in sides.found["order"] if call == 0 and name in native_of]

    def suspicious(name: str) -> bool:
        drift, floor = free.get(native_of[name], (0.0, 0.0))
        return bool(drift > DOUBT * max(floor or 0.0, limit))

    first = next((i for i, name in enumerate(order) if suspicious(name)), len(order) - 1)
    chosen = set(order[max(first - 2, 0) : first + 1])
    for name in list(chosen):
        pair = sides.pairs.pairs[native_of[name]]
        around = lockstep.parent(pair.native, set(sides.pairs.pairs))
        chosen |= set(pair.official) | set(sides.pairs.partners(around))
    chosen.discard("")
    return chosen


def located(sides: Sides, first: Finding, boundaries: list[Boundary]) -> Finding:
    def again(name: str) -> list[Boundary]:
        """Nothing but the finding where this module cannot compute with what the official one was given."""
        try:
            wide = frozenset({name})
            return lockstep.forced(sides.root, sides.pairs, sides.found, sides.store, sides.run, wide=wide)[0]
        except Exception:  # noqa: BLE001 - written in another way
            return boundaries

    return lockstep.climb(first, boundaries, again)


def _row(b: Boundary, free: dict[str, Any]) -> dict[str, Any]:
    drift, floor = free.get(b.native, (None, None))
    inputs = max(b.inputs.values(), default=None)
    row = {"native": b.native, "official": list(b.official), "call": b.call, "inputs": inputs, "local": b.local}
    return {**row, "budget": b.budget, "wrong": b.wrong, "drift": drift, "drift_floor": floor, "shapes": b.shapes}


def _place(trace: Trace, sides: Sides, first: Finding) -> None:
    name = "" if first.native == "(call)" else first.native
    pair = sides.pairs.pairs[name]
    trace.native, trace.official, trace.at = first.native, list(pair.official), first.at
    trace.label = first.given or (first.label if first.at else "")
    trace.native_line, trace.official_line = _line(sides.native, name), _line(sides.official, pair.official[0])
    trace.size = first.size
    trace.budget = first.boundary.input_budget if first.at else first.boundary.budget
    trace.inputs_equal = None if first.at else not first.boundary.far_inputs


def _line(modules: dict[str, Any], name: str) -> str:
    """File and line of the module's `forward`; of its holder's where the class is torch's own: nobody edits torch."""
    own, holder = modules[name], name
    while holder and (not modules[holder]["file"] or modules[holder]["file"].startswith("torch/")):
        holder = holder.rpartition(".")[0]
    about = modules[holder]
    if not about["file"] or about["file"].startswith("torch/"):
        return str(own["class"])
    place = f"{about['file']}:{about['line']}"
    return place if holder == name else f"{own['class']} held by {about['class']}, {place}"


def _name(native: str) -> str:
    return native or "(the model itself)"


def _why(sides: Sides, first: Finding) -> list[causes.Cause]:
    """Tests on the faulty module: a second pass that keeps what it is given."""
    told = []
    if first.given:
        family = "rope" if any(word in first.given.lower() for word in ROTARY) else "input"
        words = f"with the official {first.given} given to {first.at}, all of it is equal"
        told = [causes.Cause(family, words, first.size, 0.0)]
    if first.native == "(call)":
        return told
    name = first.native
    _, kept = lockstep.forced(sides.root, sides.pairs, sides.found, sides.store, sides.run, keep={name})
    if name not in kept:
        return told
    args, kwargs, outputs = kept[name]
    prefix = f"{name}." if name else ""
    inner = {n for n in sides.pairs.pairs if n.startswith(prefix) and n != name and not _bare(sides, n)}
    official = sides.official[sides.pairs.pairs[name].official[0]]
    case = causes.Case(sides.root, name, (args, kwargs), outputs, inner, official, _tensors(sides), sides.around)
    case.budget = max(first.boundary.budget if not first.at else 0.0, 1e-6)
    return [*causes.find(case), *told]


def _bare(sides: Sides, name: str) -> bool:
    return not sides.native[name]["params"] and not sides.native[name]["children"]


def _tensors(sides: Sides) -> dict[str, list[Any]]:
    if sides.params is None:
        return {}
    return {
        native: [sides.params.get(source) for source in found]
        for native, found in sides.placed.items()
        if all(source in sides.params for source in found)
    }


def _last_inside(first: Finding, boundaries: list[Boundary]) -> str:
    """The submodule that answers last in a module whose submodules are all official in and out; '' without such."""
    whole = first.boundary
    inside = [b for b in boundaries if whole.began < b.began and b.ended < whole.ended]
    if first.at or not inside or any(b.wrong or b.near_inputs or b.far_inputs for b in inside):
        return ""
    return max(inside, key=lambda b: b.ended).native.removeprefix(f"{first.native}.")


def _resized(boundaries: list[Boundary], until: float = math.inf) -> str:
    """Of what was called before a finding's end, the first that was given an input of another size; '' for none."""
    before = [b for b in boundaries if b.resized and b.began < until]
    if not before:
        return ""
    one = min(before, key=lambda b: b.began)
    label, own, official = one.resized[0]
    return f"{_name(one.native)} is given {label} of {own}, officially of {official}"


def _sentence(trace: Trace, first: Finding, last: str = "") -> str:
    native = trace.native or ""
    where = f"{_name(native)} ({trace.native_line})"
    against = f"{' + '.join(_name(o) for o in trace.official)} ({trace.official_line})"
    if native == "(call)":
        return (
            f"the test's call gives the model another {first.label} ({trace.size:.2e} off): look at call() of the test"
        )
    if first.at:
        what = f"hands {first.at} another {first.label}, {trace.size:.2e} off (budget {trace.budget:.1e}), although "
        seen = "every submodule before it that could be compared" if trace.resized else "every submodule before it"
        what += f"{seen} answered officially: the fault lies between its submodules"
    else:
        far = ", ".join(first.boundary.far_inputs)
        given = (
            f"official inputs but for {far}, which is another one or written in another way" if far else "equal inputs"
        )
        what = f"is off by {trace.size:.2e} (budget {trace.budget:.1e}) when given {given}"
        if last:
            what += f", although all its submodules were given and answered the same, {last} as the last: the fault is "
            what += "in what its own lines make of them"
    head = f"first to differ by itself is {where} against {against}: it {what}"
    if trace.causes:
        best = trace.causes[0]
        return f"{head}. Likely {best['family']}: {best['words']} (error {best['before']:.1e} -> {best['after']:.1e})"
    return f"{head}. No simple cause was confirmed: none of the tests that were run makes it equal"


def _nothing(sides: Sides, free: dict[str, Any], boundaries: list[Boundary], trace: Trace) -> str:
    judged = sum(b.local is not None for b in boundaries)
    if not judged:
        return f"no pair of modules could be compared: {trace.resized or 'the two sides are built too differently'}"
    drift, floor = free.get("", (0.0, 0.0))
    if drift > DOUBT * max(floor or 0.0, lockstep.ULP["torch.float32"]):
        lost = ", ".join(trace.unpaired_native[:4]) or "none"
        words = f"none of the {judged} paired modules differs by itself, and yet the model's output is {drift:.1e} off"
        words += f": {trace.resized};" if trace.resized else ":"
        return f"{words} look at what is not paired ({lost}) and at modules that are called another number of times"
    words = f"none of the {judged} paired modules differs by itself, and the model's output agrees"
    return f"{words}: what differs comes after it, in call() of the test or call_{sides.component}() of oracle.py"


def _calls(sides: Sides, boundaries: list[Boundary]) -> list[str]:
    mine: dict[str, int] = {}
    for b in boundaries:
        mine[b.native] = max(mine.get(b.native, 0), b.call + 1)
    found = []
    for name, pair in sides.pairs.pairs.items():
        theirs = sides.found["modules"].get(pair.official[0], {}).get("calls", 0)
        if mine.get(name, 0) != theirs and _parent_runs(name, mine):
            found.append(f"{_name(name)} is called {mine.get(name, 0)} times, {_name(pair.official[0])} {theirs} times")
    return found


def _parent_runs(name: str, mine: dict[str, int]) -> bool:
    return not name or bool(mine.get(lockstep.parent(name, set(mine)), 0))
