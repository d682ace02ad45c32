# SPDX-License-Identifier: Apache-2.0
"""Trace and strength of a port's component, in the process that has the native side loaded.

The official side's records come from the oracle's process (`activations.py`), kept by digest: the eighty faults of
a strength run need one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fvport.errors import FvportError
from fvport.models import native, native_answers
from fvport.models.forked import describe
from fvport.parity import activations, compare, lockstep, oracle, pairs, shipped, strength, trace
from fvport.parity.catalogue import for_kind
from fvport.spec import Component, Port


@dataclass
class NativeSide:
    """The loaded native component and how one case of it is run: `rerun(case, change=None) -> Outputs`."""

    port: Port
    component: Component
    module: Any
    rerun: Callable[..., compare.Outputs]
    device: str = "cpu"

    def placed(self, official: dict[str, Any]) -> dict[str, list[str]]:
        """Official parameters of each native one, by the mapping's rules."""
        rules = native.as_rules(native_answers.answer_rules(self.port, self.component))
        names = [f"{module}.{p}".lstrip(".") for module, about in official.items() for p in about["params"]]
        return pairs.sources(rules, names, [name for name, _ in self.module.named_parameters()])


def sides_of(
    side: NativeSide, cases: list[str], exact: Any = "all", placed: Any = None, dtype: str = "float32"
) -> dict[str, trace.Sides]:
    """Both sides of each case; empty for a component without modules (a scheduler)."""
    if not hasattr(side.module, "named_modules"):
        return {}
    name = side.component.name
    acts = activations.record(side.port, name, cases, device=side.device, exact=exact, dtype=dtype)
    if not acts.modules:
        return {}
    placed = side.placed(acts.modules) if placed is None else placed
    params = acts.params()
    made = {}
    for case in cases:
        found, store = acts.case(case)

        def run(context: Any, case: str = case) -> None:
            with context:
                side.rerun(case)

        made[case] = trace.Sides(
            name, case, side.module, acts.modules, found, store, placed, run, params, native.forward_context
        )
    return made


def answer(side: NativeSide, case: str, out: str = "") -> dict[str, Any]:
    """The trace as JSON; what keeps it from being made is its sentence, never an exception: the comparison stands."""
    try:
        return _answer(side, case, out).to_json()
    except Exception as error:  # noqa: BLE001 - a red comparison must not become a crash
        words = str(error) if isinstance(error, FvportError) else describe(error)
        return trace.Trace(side.component.name, case, f"the trace could not be made: {words}").to_json()


def _answer(side: NativeSide, case: str, out: str) -> trace.Trace:
    sides = sides_of(side, [case])
    if not sides:
        words = (
            f"{type(side.module).__name__} has no modules to pair: the first output that differs, above, is the answer"
        )
        return trace.Trace(side.component.name, case, words)
    both = sides[case]
    if not both.found["complete"]:
        names = trace.window(both)
        both = sides_of(side, [case], exact=sorted(names), placed=both.placed)[case]
    found = trace.examine(both)
    root = str(side.port.root.resolve()) + "/"
    found.native_line, found.sentence = found.native_line.replace(root, ""), found.sentence.replace(root, "")
    if out:
        from fvport.parity import trace_files

        found.files = trace_files.write(Path(out), found, both)
    return found


def shipped_of(side: NativeSide, plain: NativeSide, case: str) -> dict[str, Any]:
    """The blocks in bf16, as JSON; `side.module` is loaded in it, `plain.module` in float32, where it agrees.

    What keeps it from running is told, never silent.
    """
    try:
        both = sides_of(side, [case], dtype=shipped.DTYPE).get(case)
        if both is None:
            return shipped.Shipped(case, "it has no modules to pair").to_json()
        if not both.found["complete"]:
            return shipped.Shipped(case, "its activations do not fit the limit of a trace").to_json()
        found = shipped.examine(both)
        if found.wrong:
            healthy = sides_of(plain, [case]).get(case)
            cut = shipped.in_float32(healthy) if healthy and healthy.found["complete"] else frozenset()
            found = shipped.examine(both, cut) if cut else found
        return found.to_json()
    except Exception as error:  # noqa: BLE001 - the comparison in float32 stands by itself
        words = str(error) if isinstance(error, FvportError) else describe(error)
        return shipped.Shipped(case, words).to_json()


def strength_of(
    side: NativeSide,
    official: oracle.Oracle,
    right: dict[str, compare.Outputs],
    *,
    traced: bool = False,
    only: tuple[str, ...] = (),
) -> strength.Strength:
    """Every fault of the catalogue (or those of `only`), on the loaded component."""
    name = side.component.name
    chosen = [f for f in for_kind(side.component.kind) if not only or f.id in only]
    known = {case: official.outputs(case) for case in official.cases}

    def say(line: str) -> None:
        print(f"parity: {name}: strength: {line}", flush=True)

    localise = _localiser(side) if traced else None
    return strength.measure(
        side.component, side.module, known.__getitem__, right, side.rerun, only=chosen, localise=localise, say=say
    )


def _localiser(side: NativeSide) -> strength.Localiser | None:
    """Names the first module that differs by itself in a case; each case is recorded officially when it is first asked.

    What differs in a sound run too (two ways to write one thing) is learned then, and left out. The fault is in the
    model when it is asked, so the sound run is made of all cases beforehand.
    """
    cases = list(oracle.results(side.port, side.component.name, device=side.device).cases)
    sides = sides_of(side, cases)
    if not sides:
        return None
    sound = {case: _marks(both) for case, both in sides.items()}

    def localise(case: str) -> str | None:
        return trace.examine(sides[case], ignore=sound[case], why=False, drifts=False).native

    return strength.Localiser(localise, frozenset(next(iter(sides.values())).pairs.pairs))


def _marks(both: trace.Sides) -> dict[str, float]:
    boundaries, _ = lockstep.forced(both.root, both.pairs, both.found, both.store, both.run)
    return lockstep.sizes(lockstep.findings(boundaries))
