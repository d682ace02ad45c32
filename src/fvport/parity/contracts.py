# SPDX-License-Identifier: Apache-2.0
"""An encoder's contract in a parity run: what the native side shows of it, the walk of a red one, and the judgement.

`Native` and `walked` work in the test's process, beside the loaded model; `judged` in the check's, where the official
tokenizers are asked and nothing that a test does can reach.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fvport.contract import STAGES, Point, facts, points, root, tokens
from fvport.contract.red import Red
from fvport.contract.walk import Walk, walk
from fvport.errors import FvportError
from fvport.models import native
from fvport.parity import compare, oracle
from fvport.spec import Component, Port

WALK_LIMIT = 300.0  # seconds of trying things on a red component
Json = dict[str, Any]


class Native:
    """Watches the native model while the cases run. Does nothing for what is no encoder."""

    def __init__(self, component: Component, model: Any) -> None:
        self.wanted = component.bucket == "encoders" and hasattr(model, "register_forward_hook")
        self.component, self.model = component, model
        self.calls: dict[str, root.Call] = {}

    @contextlib.contextmanager
    def case(self, name: str) -> Iterator[None]:
        calls: list[root.Call] = []
        with root.watched(self.model, calls) if self.wanted else contextlib.nullcontext():
            yield
        if calls:
            self.calls[name] = calls[-1]

    def finish(self, port: Port, official: oracle.Oracle) -> Json:
        """Containers and fields by case, behaviour in the official side's case, tokenizer or preprocessor."""
        if not self.wanted:
            return {}
        from fvport.models import native_contract

        case = official.meta.get("contract", {}).get("case", "")
        behaviour: Json = {}
        call, problem = self.calls.get(case), "" if self.calls else "the test does not call the component itself"
        try:
            with native.forward_context():
                behaviour = root.behave(self.model, call.given, call.answer) if call else {}
        except Exception as error:  # noqa: BLE001 - the outputs stand by themselves
            problem = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        cases = {name: root.about(call.answer) for name, call in self.calls.items()}
        found: Json = {"cases": cases, "behaviour": behaviour, "case": case, "problem": problem}
        self.calls = {}
        return found | native_contract.of(port, self.component)


def walked(
    component: Component,
    model: Any,
    official: oracle.Oracle,
    outputs: dict[str, compare.Outputs],
    rerun: Callable[[str], compare.Outputs],
    trace: Json,
) -> Json:
    """The walk of a red encoder from masks to layers, as JSON; {} for what is no encoder."""
    if component.bucket != "encoders" or not hasattr(model, "register_forward_hook"):
        return {}
    theirs = {case: official.outputs(case) for case in official.cases}
    floors = {case: _floors(found) for case, found in theirs.items()}
    contract = official.meta.get("contract", {})
    red = Red(
        "",
        model,
        lambda case: rerun(case).tensors,
        {case: found.tensors for case, found in theirs.items()},
        {case: found.tensors for case, found in outputs.items()},
        {case: official.given(case) for case in official.cases},
        contract.get("cases", {}),
        floors,
        contract.get("behaviour", {}),
        contract.get("case", ""),
        trace,
        native.forward_context,
        time.monotonic() + WALK_LIMIT,
    )
    red.case = next((case for case in red.cases if red.bad(case)), official.cases[0])
    try:
        done = walk(red, None, "told by the check")
    except Exception as error:  # noqa: BLE001 - a red comparison must not become a crash
        done = Walk("layers", "layers", f"the walk could not be made: {type(error).__name__}: {error}")
    return done.to_json()


def _floors(found: compare.Outputs) -> dict[str, float]:
    """Relative L2 of each official output to the same in float64 (or under noise)."""
    from fvport.parity.probe import measures

    other = found.noisy or found.exact
    pairs = {n: (t, other[n]) for n, t in found.tensors.items() if n in other and t.is_floating_point()}
    return {n: measures(a, b)["rel_l2"] for n, (a, b) in pairs.items() if a.shape == b.shape and a.numel()}


# --- in the check's process -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def ahead(port: Port, components: list[Component]) -> Iterator[None]:
    """Ask the official tokenizers while something else runs; what goes wrong is told when they are asked for."""

    def ask() -> None:
        with contextlib.suppress(FvportError, OSError):
            facts.official(port)

    wanted = any(facts.has_tokens(c) or facts.processor_of(port, c) is not None for c in components)
    thread = threading.Thread(target=ask, daemon=True)
    if wanted:
        thread.start()
    try:
        yield
    finally:
        if wanted:
            thread.join()


@dataclass
class Judged:
    """`walk`: its stage is '' where nothing differs. `blocked`: why the contract could not be compared."""

    walk: Walk
    points: list[Point] = field(default_factory=list)
    compared: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    blocked: str = ""


def judged(port: Port, component: Component, found: Json, device: str) -> Judged | None:
    """The contract of one comparison (`session.Compared` as JSON); None for what is no encoder or was not compared."""
    mine = found.get("contract") or {}
    if component.bucket != "encoders" or not mine:
        return None
    done = Judged(Walk())
    first = _first_stage(port, component, mine, done)
    theirs: Json = {}
    with contextlib.suppress(FvportError):
        kept = oracle.results(port, component.name, device=device)
        theirs = kept.meta.get("contract", {})
        side = (mine.get("tokens") or {}).get("facts", {}).get("padding_side", "")
        lacking = points.coverage({case: kept.given(case) for case in kept.cases}, side)
        done.notes += [f"{component.name}: no case of oracle.py has {', '.join(lacking)}"] if lacking else []
    done.notes += [f"{component.name}: {side.get('problem')}" for side in (mine, theirs) if side.get("problem")]
    more, compared = points.compare(mine, theirs, own=component.mode == "port")
    done.points = [*first, *more]
    done.compared += compared
    agree = all(row["ok"] for row in found.get("results", []))
    if first:
        done.walk = Walk(first[0].stage, first[0].name, first[0].sentence)
    elif not agree and found.get("walk"):
        done.walk = Walk(**found["walk"])
        done.walk.unknown.pop(STAGES[0], None)
        if STAGES[0] in done.compared:
            done.walk.agreed.insert(0, STAGES[0])
    elif more:
        point = min(more, key=lambda p: STAGES.index(p.stage))
        done.walk = Walk(point.stage, point.name, point.sentence)
    return done


def _first_stage(port: Port, component: Component, mine: Json, done: Judged) -> list[Point]:
    """What tokens or pixels say; what cannot be asked is told in `done`."""
    name = component.name
    if "tokens" not in mine and "processor" not in mine:
        if component.kind == "text_encoder":
            done.notes.append(f"{name}: port.toml declares no tokenizer for it: its tokens were not compared")
        return []
    try:
        official = facts.official(port)
    except FvportError as error:
        done.blocked = str(error)
        return []
    kind, group, compare_ = (
        ("tokens", "tokens", tokens.compare) if "tokens" in mine else ("processor", "processors", tokens.preprocessed)
    )
    theirs = official[group].get(name) or {"error": "the official side was not asked for it"}
    if theirs.get("error"):
        done.blocked = refusal(theirs["error"])
        return []
    found, notes = compare_(theirs, mine[kind])
    done.notes += [f"{name}: {note}" for note in notes]
    done.notes += [f"{name}: {theirs['cases_error']}"] if theirs.get("cases_error") else []
    done.compared.append(STAGES[0])
    return found


def refusal(words: str) -> str:
    """What a library's complaint means for the user."""
    if "trust_remote_code" in words:
        return (
            "the release asks to run its own code (trust_remote_code), which is never done by itself: "
            "fvport handoff COMPONENT prints the question for a person"
        )
    return f"the official tokenizer or preprocessor cannot be loaded: {words}"
