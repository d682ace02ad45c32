# SPDX-License-Identifier: Apache-2.0
"""One component, both sides: the oracle's cached results against the native class, and a self test of the comparison.

Needs a booted FastVideo. `compare_component` is what a test's `parity.compare(...)` calls.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fvport import fastvideo_api
from fvport.contract.walk import Walk
from fvport.errors import FvportError
from fvport.models import forked, native
from fvport.parity import compare, contracts, faults, job, oracle, shipped, tracing, tree, untouched
from fvport.spec import Component, Port

Call = Callable[[Any, Any], Any]
ORDER = "Look at, in this order: mapping, attention backend, scheduler/sigma/timestep, activation logging"
BLIND_LIMIT = 20.0  # seconds of the native side up to which blind inputs are looked for (one more run each)
AGAIN = "again"  # the first case once more: state left behind by a call is a fault of its own


@dataclass
class Compared:
    """What one `parity.compare` found. `passed` is True only where something was compared and all of it agreed."""

    component: str
    native_class: str
    class_file: str
    results: list[tuple[str, compare.Result]] = field(default_factory=list)  # (case, result)
    fault: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problem: str = ""  # what kept it from comparing at all
    where: str = ""  # localisation of a red one
    seconds: dict[str, float] = field(default_factory=dict)
    trace: dict[str, Any] = field(default_factory=dict)  # where a red one parts from the official side
    strength: dict[str, Any] = field(default_factory=dict)  # of a green one, where it was asked for
    shipped: dict[str, Any] = field(default_factory=dict)  # its blocks in bf16
    contract: dict[str, Any] = field(default_factory=dict)  # an encoder's: containers, behaviour, tokens
    walk: dict[str, Any] = field(default_factory=dict)  # the first stage at which a red encoder differs

    @property
    def passed(self) -> bool:
        compared = [result for _, result in self.results]
        return bool(compared) and not self.problem and all(r.ok for r in compared) and bool(self.fault.get("seen"))

    @property
    def worst_case(self) -> str:
        """The case that is furthest off, which messages, the record and the trace all speak of; '' where none is."""
        bad = [(case, row) for case, row in self.results if not row.ok and case != AGAIN]
        return max(bad, key=lambda pair: pair[1].metrics.get("budget_use", 0.0))[0] if bad else ""

    def to_json(self) -> dict[str, Any]:
        rows = [{"case": case, **asdict(result)} for case, result in self.results]
        plain = {k: getattr(self, k) for k in ("component", "native_class", "class_file", "fault", "notes", "problem")}
        plain |= {
            k: getattr(self, k)
            for k in ("where", "seconds", "trace", "strength", "shipped", "passed", "contract", "walk")
        }
        return {**plain, "results": rows}

    def message(self) -> str:
        """One screen at most, ending in the sentence that says where to look."""
        bad = [(case, r) for case, r in self.results if not r.ok]
        lines = [f"{self.component}: {self.problem}"] if self.problem else []
        lines += [f"  {case}: {r.output} {r.problem}" for case, r in sorted(bad, key=lambda p: -p[1].use)[:8]]
        lines += [f"  ... and {len(bad) - 8} more outputs"] if len(bad) > 8 else []
        if bad:
            case, first = next(((c, r) for c, r in bad if c == self.worst_case), bad[0])
            total = len(self.results)
            lines.insert(0, f"{self.component} ({self.native_class}) differs in {len(bad)} of {total} outputs")
            lines += [f"  {self.where}"] if self.where else []
            lines += [f"  trace: {self.trace['sentence']}"] if self.trace.get("sentence") else []
            lines += [f"  {Walk(**self.walk).text()}"] if self.walk else []
            lines.append(f"{self.component}, case {case}: {first.output} {first.problem}. {ORDER}.")
        elif not self.problem and not self.fault.get("seen"):
            lines.append(f"{self.component}: {self.fault.get('problem') or 'no stock fault was tried'}")
        return "\n".join(lines)


def compare_component(port: Port, name: str, call: Call, *, device: str = "auto") -> Compared:
    """Run and compare every case of a component. Raises FvportError for what keeps it from comparing."""
    component = port.component(name)
    clock = time.monotonic()
    official = oracle.results(port, name, device=device)
    seconds = {"oracle": round(time.monotonic() - clock, 2)}
    clock = time.monotonic()
    module = native.load(port, name)
    seconds["native_load"] = round(time.monotonic() - clock, 2)
    cls = type(module)
    done = Compared(name, f"{cls.__module__}:{cls.__qualname__}", str(_relative(port, Path(inspect.getfile(cls)))))
    done.seconds = seconds
    done.notes += _notes(component, module, official)
    clock = time.monotonic()
    device = fastvideo_api.resolve_device(device)
    asked = job.current()
    kept = job.Kept(Path(asked.record) / name if asked.record else None)
    before = untouched.state(module)
    outputs: dict[str, compare.Outputs] = {}
    raised: dict[str, FvportError] = {}
    watch = contracts.Native(component, module)
    for case in official.cases:
        try:
            with watch.case(case):
                outputs[case] = _native_side(module, call, official.inputs(case, device), case, name)
        except FvportError as error:  # the other cases say how much of the component it is about
            raised[case] = error
        else:
            kept.put("right", "", case, outputs[case])
    if raised:
        raise _of_all(raised, official, outputs, component)
    again = _native_side(module, call, official.inputs(official.cases[0], device), official.cases[0], name)
    kept.put("again", "", official.cases[0], again)
    for case, given in official.late(device).items() if asked.late else ():
        kept.put("late", "", case, _native_side(module, call, given, f"{case} of another seed", name))
    for case in official.cases:
        rows = compare.compare_outputs(official.outputs(case), outputs[case], component.tolerance)
        done.results += [(case, row) for row in rows]
    rows = compare.compare_outputs(official.outputs(official.cases[0]), again, component.tolerance)
    done.results += [(AGAIN, row) for row in rows if not row.ok]
    seconds["native"] = round(time.monotonic() - clock, 2)
    clock = time.monotonic()
    done.contract = watch.finish(port, official)
    seconds["contract"] = round(time.monotonic() - clock, 2)
    theirs = untouched.foreign(module) if component.mode == "port" else []  # FastVideo's own may be wrappers
    if theirs:
        done.problem = f"{', '.join(theirs[:4])}: a class of another library ran inside the native side"
    elif touched := untouched.changed(before, untouched.state(module)):
        done.problem = f"the calls changed the native object: {', '.join(touched[:4])} (a test must take it as it is)"
    if not done.problem and all(row.ok for _, row in done.results):
        clock = time.monotonic()
        rerun = functools.partial(_rerun, module, call, official, device, name)
        done.fault = faults.self_test(component, module, official, outputs, rerun, kept.put)
        blind: list[str] = []
        if seconds["native"] < BLIND_LIMIT:
            blind = faults.blind_inputs(official, outputs, rerun)
            done.notes += [f"{name}: blind input {key}: no output changes with it" for key in blind]
        seconds["self_test"] = round(time.monotonic() - clock, 2)
        if name in asked.strength and done.fault.get("seen"):
            native_side = tracing.NativeSide(port, component, module, rerun, device)
            found = tracing.strength_of(native_side, official, outputs, traced=asked.traced, only=asked.faults)
            found.blind_inputs = blind
            done.strength = found.to_json()
        if asked.shipped and component.kind in shipped.KINDS and done.fault.get("seen"):
            clock = time.monotonic()
            done.shipped = _in_bf16(port, component, module, call, official, device)
            seconds["bf16"] = round(time.monotonic() - clock, 2)
    else:
        done.where = locate(done.results)
    if asked.what == "trace" or not all(row.ok for _, row in done.results):
        clock = time.monotonic()
        rerun = functools.partial(_rerun, module, call, official, device, name)
        native_side = tracing.NativeSide(port, component, module, rerun, device)
        done.trace = tracing.answer(native_side, asked.case or done.worst_case or official.cases[0], asked.out)
        seconds["trace"] = round(time.monotonic() - clock, 2)
        if not all(row.ok for _, row in done.results):
            done.walk = contracts.walked(component, module, official, outputs, rerun, done.trace)
    return done


def _in_bf16(
    port: Port, component: Component, plain: Any, call: Call, official: oracle.Oracle, device: str
) -> dict[str, Any]:
    """The native side once more as it is shipped, its blocks against the official ones in the same precision."""
    case = official.cases[0]
    again = functools.partial(_rerun, plain, call, official, device, component.name)
    healthy = tracing.NativeSide(port, component, plain, again, device)
    try:
        module = native.load(port, component.name, "bf16")
    except FvportError as error:
        return shipped.Shipped(case, str(error)).to_json()
    rerun = functools.partial(_rerun, module, call, official, device, component.name)
    return tracing.shipped_of(tracing.NativeSide(port, component, module, rerun, device), healthy, case)


def _rerun(
    module: Any, call: Call, official: oracle.Oracle, device: str, name: str, case: str, change: Any = None
) -> compare.Outputs:
    return _native_side(module, call, official.inputs(case, device, change), case, name)


def locate(results: list[tuple[str, compare.Result]]) -> str:
    """Where outputs come in a series (layers, steps): the first that differs, so that those before it agree."""
    for case, row in results:
        name, index = compare.series(row.output)
        if row.ok or index is None:
            continue
        inherited = "those before it agree" if index else "it is the first of all: look at what comes before the layers"
        return f"first differing {name}: index {index} in case {case}; {inherited}"
    return ""


def _native_side(module: Any, call: Call, given: Any, case: str, name: str) -> compare.Outputs:
    """The native outputs of one case; its inputs, a fresh copy, are checked unmodified afterwards."""
    before: dict[str, Any] = {}
    tree.pack(given, case, before)
    try:
        with native.forward_context():
            value = call(module, given)
    except FvportError:
        raise
    except Exception as error:
        raise FvportError(f"{name}, case {case}: the native side raised {forked.describe(error)}") from error
    after: dict[str, Any] = {}
    tree.pack(given, case, after)
    changed = [key for key, tensor in before.items() if key not in after or not _same(tensor, after[key])]
    if changed:
        raise FvportError(f"{name}: the native side changed its inputs in place ({', '.join(changed)})")
    try:
        tensors, containers = tree.outputs(value)
    except TypeError as error:
        raise FvportError(f"{name}, case {case}: what call() returned cannot be compared: {error}") from None
    return compare.Outputs(tensors, containers)


def _of_all(
    raised: dict[str, FvportError], official: oracle.Oracle, outputs: dict[str, compare.Outputs], component: Component
) -> FvportError:
    """The first error of a case, and how the component's other cases came out."""
    first, *more = raised
    ok: list[str] = []
    wrong: list[str] = []
    for case, found in outputs.items():
        rows = compare.compare_outputs(official.outputs(case), found, component.tolerance)
        (ok if all(row.ok for row in rows) else wrong).append(case)
    groups = {"raised too": more, "differ": wrong, "agree": ok}
    said = [f"{len(cases)} {words} ({', '.join(cases[:6])})" for words, cases in groups.items() if cases]
    return raised[first].further(f". Of its other cases {', '.join(said)}" if said else "")


def _same(a: Any, b: Any) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and bool(a.eq(b).all())


def _notes(component: Component, module: Any, official: oracle.Oracle) -> list[str]:
    notes = []
    if official.meta.get("no_float64"):
        notes.append(
            f"{component.name}: floor from one-ulp noise, float64 cannot serve ({official.meta['no_float64']})"
        )
    dtypes = {str(p.dtype) for p in getattr(module, "parameters", list)() if p.is_floating_point()}
    if dtypes - {"torch.float32"}:
        notes.append(
            f"{component.name}: the native side holds {', '.join(sorted(dtypes))} although float32 was asked for"
        )
    return notes


def _relative(port: Port, path: Path) -> Path:
    path = path.resolve()
    return path.relative_to(port.root.resolve()) if path.is_relative_to(port.root.resolve()) else path
