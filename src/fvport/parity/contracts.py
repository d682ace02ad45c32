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
from fvport.parity import compare, oracle, record
from fvport.spec import Component, Port

WALK_LIMIT = 300.0  # seconds of trying things on a red component
Json = dict[str, Any]


class Native:
    """Watches the native model while the cases run. Does nothing for what is no encoder."""

    def __init__(self, component: Component, model: Any) -> None:
        encoder = component.bucket == "encoders"
        self.component, self.model = component, record.root_of(model) if encoder else model
        self.wanted = encoder and self.model is not None
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
        more = native_contract.of(port, self.component)
        try:
            with native.forward_context():
                behaviour = root.behave(self.model, call.given, call.answer) if call else {}
                if "tokens" in more and (some := call or next(iter(self.calls.values()), None)):
                    left = more["tokens"].get("facts", {}).get("padding_side") == "left"
                    more["tokens"]["mask_moves"] = root.mask_moves(self.model, some.given, left)
        except Exception as error:  # noqa: BLE001 - the outputs stand by themselves
            problem = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        cases = {name: root.about(call.answer) for name, call in self.calls.items()}
        found: Json = {"cases": cases, "behaviour": behaviour, "case": case, "problem": problem}
        self.calls = {}
        return found | more


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
    """`walk`: its stage is '' where nothing differs. `blocked`: why the contract could not be compared, or not all."""

    walk: Walk
    points: list[Point] = field(default_factory=list)
    compared: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    blocked: str = ""
    todo: str = ""


def judged(port: Port, component: Component, found: Json, device: str) -> Judged | None:
    """The contract of one comparison (`session.Compared` as JSON); None for what is no encoder or was not compared."""
    mine = found.get("contract") or {}
    if component.bucket != "encoders" or (not mine and not found.get("results")):
        return None
    done = Judged(Walk())
    if not mine:
        done.blocked = "nothing of its contract was seen: what FastVideo's loader gives holds no torch module"
        return done
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
    done.notes += [f"{component.name}: {words}" for words in points.unsaid(mine, theirs, own=component.mode == "port")]
    if "container" not in compared and not done.blocked:
        why = "; ".join(side["problem"] for side in (mine, theirs) if side.get("problem"))
        done.blocked = f"nothing of its answer was compared: {why or 'no case was seen on both sides'}"
        done.todo = f"Call the model itself in the test and in call_{component.name} of oracle.py, not a part of it"
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
        _undeclared(port, component, done)
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
    _said(component, kind, theirs, mine[kind], done)
    return found


def _said(component: Component, kind: str, theirs: Json, mine: Json, done: Judged) -> None:
    """What made the native ids or pixels; where that is not what the pipeline uses, they are not `tokenization`."""
    name, by = component.name, mine.get("by")
    done.notes += [f"{name}: natively made by {by}"] if by else []
    if not any(theirs.get("cases", {}).values()):
        why = theirs.get("cases_error") or "the official side gave none"
        done.blocked = f"the official {'ids' if kind == 'tokens' else 'pixels or features'} could not be seen: {why}"
        todo = f"Write tokens_{name}(tokenizer, prompts) in oracle.py, as the official pipeline tokenizes"
        done.todo = todo if kind == "tokens" else ""
    elif mine.get("own_stage"):
        words = "the port's pipeline has a text stage of its own: compared are the ids that FastVideo's would make"
        done.notes.append(f"{name}: {words}; what its own hands over shows in the check pipeline")
        done.compared.append("tokenizer")
    elif mine.get("staged"):
        done.compared.append(STAGES[0])
    elif component.kind == "audio_encoder":  # FastVideo has nothing more that could be asked
        done.compared.append("preprocessor files")
    else:
        done.blocked = f"what FastVideo's text stage hands over could not be seen: the ids are of {by or 'nobody'}"


TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")


def _undeclared(port: Port, component: Component, done: Judged) -> None:
    """An encoder without a tokenizer or preprocessor: blocked where the release has one, else a note."""
    name = component.name
    if component.kind == "conditioner":
        return
    text = component.kind == "text_encoder"
    what, files = ("tokenizer", TOKENIZERS) if text else ("preprocessor", ("preprocessor_config.json",))
    declared = [n for n, c in port.components.items() if c.kind == "processor"]
    if not text and declared:
        end = name.rpartition("encoder")[2]
        done.blocked = f"none of the processors of port.toml ({', '.join(declared)}) is named as its own"
        done.todo = f"Call its processor image_processor{end}, feature_extractor{end} or processor{end} in port.toml"
        return
    there = [f.parent.name for one in files for f in sorted(port.official_tree.rglob(one))]
    if there:
        done.blocked = f"port.toml declares no {what} for it, and the release has one ({there[0]}): it was not compared"
        key = f"components.{name}.tokenizer" if text else "a component of kind processor"
        done.todo = f"Declare {key} in port.toml"
    else:
        done.notes.append(f"{name}: neither port.toml nor the release has a {what} for it: none was compared")


def refusal(words: str) -> str:
    """What a library's complaint means for the user."""
    if "trust_remote_code" in words:
        return (
            "the release asks to run its own code (trust_remote_code), which is never done by itself: "
            "fvport handoff COMPONENT prints the question for a person"
        )
    return f"the official tokenizer or preprocessor cannot be loaded: {words}"
