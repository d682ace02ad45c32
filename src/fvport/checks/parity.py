# SPDX-License-Identifier: Apache-2.0
"""parity: each component's native class against the official one, same inputs, outputs compared, nothing skipped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from fvport import evidence, variants
from fvport.checks import Options
from fvport.contract import facts
from fvport.evidence import Evidence, Item
from fvport.models import device_room
from fvport.parity import built, contracts, lockstep, oracle, runs, strengths
from fvport.parity.compare import series
from fvport.parity.job import Job
from fvport.parity.probe import MEASURES
from fvport.spec import Component, Port

TODO = "Look at, in this order: mapping, attention backend, scheduler/sigma/timestep, activation logging"
WALKED = "The walk names the first stage that differs: tokenization, masks, states, positions, dtype, packing, layers"
WALK = {  # stage that the walk names -> what to do
    "tokenization": "Correct tokenizer_kwargs of the arch config, the tokenizer's files, or padding_side of the config",
    "masks": "Correct how the native class or the test's call reads attention_mask",
    "hidden-state selection": "Correct which state the native class or the test's call returns",
    "positional ids": "Correct the native class's positions: each row has its own",
    "dtype/autocast": "Take the cast or autocast out of the native class",
    "output packing": "Correct the fields that the native class fills, or the test's call",
    "layers": "Correct the module that the trace names; where its weights are wrong: fvport handoff COMPONENT",
}
KEEPS = (
    "Only inputs of another seed are red: look in the native class for what it keeps from one call to the next "
    "(a cache, an attribute that forward sets), and for answers that it looks up"
)
RAISED = "Correct the native class, or the test's call, where the line says"
USED = [
    *("kind", "mode", "archetype", "official", "native", "config", "weights", "scope", "tolerance", "tokenizer"),
    *("part", "external", "external_field", "path"),
]


def required(port: Port) -> list[Component]:
    return [component for component in port.components.values() if component.needs_parity]


def expected(port: Port) -> list[str]:
    """Every component that needs parity must have an item that passed, every encoder its contract too."""
    contract = [f"{component.name}: contract" for component in required(port) if component.bucket == "encoders"]
    return [component.name for component in required(port)] + contract


def inputs(port: Port) -> list[str]:
    """Everything that a parity result depends on; not the mapping's signature, which no number follows from."""
    folder = port.folder.relative_to(port.root)
    tree = port.load_tree.relative_to(port.root)
    names = [
        "port:official",
        "port:fastvideo",
        "tree:fastvideo",
        f"file:{folder}/oracle.py",
        f"file:{tree}/model_index.json",
    ]
    names += [f"package:{name}" for name in ("fvport", "torch", "diffusers", "transformers")]
    names += oracle.code_inputs(port)
    for component in required(port):
        names += [f"port:components.{component.name}.{field}" for field in USED]
        names += [f"weights:{component.name}", f"file:{port.test_file(component)}"]
        config = "scheduler_config.json" if component.kind == "scheduler" else "config.json"
        names.append(f"file:{tree}/{component.weights or component.name}/{config}")
        if (given := facts.processor_of(port, component)) is not None:  # its pixels or features are compared too
            names += [f"weights:{given.name}", f"port:components.{given.name}"]
            names.append(f"file:{tree}/{given.weights or given.name}/preprocessor_config.json")
    return names


def run(port: Port, options: Options) -> Evidence:
    """Run the components' test files, each in a forked child, and say of each output how near it came."""
    for name in options.components:
        port.component(name)
    chosen = [c for c in required(port) if not options.components or c.name in options.components]
    record = Evidence("parity", port.slug, scale=options.scale)
    if len(chosen) < len(required(port)):
        record.notes.append(f"only {', '.join(c.name for c in chosen)} ran")
    present = [c for c in chosen if (port.root / port.test_file(c)).is_file()]
    for component in chosen:
        if component not in present:
            reason = f"its parity test is not there ({port.test_file(component)})"
            record.items.append(_item(component, "test", "blocked", reason, todo="Bake the port again: fvport new"))
    for component in [c for c in present if c.bucket == "encoders"]:
        if reason := incomplete(port, component):
            present.remove(component)
            todo = f"fvport packet {component.name} prints all of it; fvport prep, or bake again, fills it"
            record.items.append(_item(component, "packet", "blocked", reason, todo=todo))
    for component in list(present):
        small, instead = device_room.too_small(port, component, options.device)
        if small:
            present.remove(component)
            record.items.append(_item(component, "GPU", "blocked", f"{component.name}: {small}", todo=instead))
    if not present:
        return record
    names = inputs(port)
    places = {c.name: strengths.place(port, c, strengths.key(port, c, names, options.device)) for c in present}
    wanted = tuple(name for name, place in places.items() if strengths.read(place) is None)
    limit = float(options.extra.get("time_limit", runs.LIMIT))
    job = Job(device=options.device, strength=wanted, shipped=True, late=True)
    with contracts.ahead(port, present):
        answers = runs.host(port, present, job, limit=limit, quiet=options.quiet)
    record.device = answers[""]["device"]
    record.environment = answers[""]["environment"]
    for component in present:
        items, notes = component_items(component, answers[component.name], port.root)
        items = [_room_for(port, component, item) for item in items]
        more, said = contract_items(port, component, answers[component.name], options.device)
        record.items += more
        record.items += items
        record.notes += [*notes, *said]
        measured = strength_items(port, component, items, answers[component.name], places[component.name])
        record.items += measured
        record.notes += [strengths.note(item) for item in measured if item.metrics]
        more, said = shipped_items(component, answers[component.name])
        record.items += more
        record.notes += said
    return record


def incomplete(port: Port, component: Component) -> str:
    """Why an encoder's packet is not enough to compare it; '' where every field that is needed is known."""
    from fvport.report import packet

    lacking = packet.missing(port, component, "parity-debug")
    return f"the packet of {component.name} is incomplete: {'; '.join(lacking)}" if lacking else ""


def strength_items(
    port: Port, component: Component, items: list[Item], answer: dict[str, Any], place: Path
) -> list[Item]:
    """How strong the comparison is, of a component that agrees: as just measured, or as kept."""
    if not items or any(item.verdict != "pass" for item in items):
        return []
    for found in answer.get("compared", []):
        if found["component"] == component.name and found.get("strength"):
            strengths.write(place, found["strength"])
    return [strengths.item(component, strengths.read(place), port.gate.strength)]


def instead(component: Component) -> str:
    """What is to do where FastVideo's own class is the wrong one: no file of the port can mend it."""
    if component.mode != "reuse":
        return ""
    cls = component.native.rpartition(":")[2]
    again = f"Bake again beside this port with components={component.name}=port (docs/port-your-own.md)"
    return f"{cls} is FastVideo's own, which no file of the port mends. {again}, or mend it in FastVideo"


def _cause(trace: dict[str, Any]) -> dict[str, Any]:
    """The confirmed cause of the trace's module, for the retry request of a conversion fault."""
    causes = trace.get("causes") or []
    return {"native": trace.get("native") or "", **{k: causes[0][k] for k in ("family", "words")}} if causes else {}


def contract_items(
    port: Port, component: Component, answer: dict[str, Any], device: str
) -> tuple[list[Item], list[str]]:
    """An encoder's contract, and the walk of a red one: one item that names the first stage that differs."""
    items, notes = [], []
    for found in answer.get("compared", []):
        if found["component"] != component.name:
            continue
        contract = f"{component.name}: contract"
        try:
            judged = contracts.judged(port, component, found, device)
        except Exception as error:  # noqa: BLE001 - an unheard-of form of data must not take the other components along
            said = " ".join(str(error).split())[:200]
            reason = f"{contract}: it could not be judged ({type(error).__name__}: {said})"
            items.append(Item(contract, "blocked", reason, component=component.name))
            continue
        if judged is None:
            continue
        notes += judged.notes
        metrics: dict[str, Any] = {"compared": judged.compared, "agreed": judged.walk.agreed}
        metrics |= {"stage": judged.walk.stage, "points": [point.to_json() for point in judged.points]}
        metrics |= {"cause": _cause(found.get("trace") or {})}
        if judged.walk.stage:
            reason, name = judged.walk.text(), f"{component.name}: walk"
            todo = WALK[judged.walk.stage]
            named = built.correct(component, found.get("trace") or {}, port.root)
            if judged.walk.stage == "layers" and named:
                todo = f"{named}. Where its weights are wrong: fvport handoff {component.name}"
            items.append(Item(name, "fail", reason, metrics, {}, component.name, todo))
            items.append(Item(contract, "fail", f"{contract} differs, as the walk says", component=component.name))
        elif judged.blocked:
            reason = f"{component.name}: {judged.blocked}"
            items.append(Item(contract, "blocked", reason, metrics, {}, component.name, judged.todo))
        else:
            items.append(Item(contract, "pass", "", metrics, {}, component.name))
    return items, notes


def shipped_items(component: Component, answer: dict[str, Any]) -> tuple[list[Item], list[str]]:
    """The blocks in bf16: one item where they ran, a note where they could not, or answer in another dtype."""
    found = next((f["shipped"] for f in answer.get("compared", []) if f.get("shipped")), None)
    if found is None:
        return [], []
    name = f"{component.name}: blocks in bf16"
    if found["problem"]:
        return [], [f"{name} were not compared: {found['problem']}"]
    metrics = {"modules": found["modules"], "budget_use": found["use"], "worst": found["worst"], "case": found["case"]}
    notes = [f"{name}: {words}" for words in found["dtypes"][:6]]
    notes += [f"{name}: {cut or 'the model itself'} is cut elsewhere natively, so not judged" for cut in found["cut"]]
    verdict = "fail" if found["wrong"] else "pass"
    limits = {"mode": "bf16", "factor": lockstep.FACTOR + 1}
    reason = f"{found['sentence']} (of {found['modules']} modules under official values)" if found["wrong"] else ""
    todo = (instead(component) or TODO) if found["wrong"] else ""
    return [Item(name, verdict, reason, metrics, limits, component.name, todo)], notes


def outdated(port: Port) -> list[str]:
    """Why a green record is none: a verdict that does not follow from its own figures, or a strength too low."""
    record = evidence.read(port, "parity")
    if record is None:
        return []
    wrong = [words for item in record.items if item.verdict == "pass" and (words := contradiction(port, item))]
    measured = {item.component for item in record.items if item.name.endswith(f": {strengths.MARK}")}
    measured |= set(variants.shared(port))  # at the base, whose own row says it
    lacking = [component.name for component in required(port) if component.name not in measured]
    wrong += [f"{name}: its strength was not measured" for name in lacking]
    return wrong


def contradiction(port: Port, item: Item) -> str:
    """Why a passed item's figures say something else, or ''. The budgets follow from its floors, not from its word."""
    component = port.components.get(item.component)
    mode = item.tolerance.get("mode")
    if mode == strengths.MARK:
        value, low = float(item.metrics.get("strength", 0.0)), port.gate.strength
        return f"{item.name} is {value:.3f}, below {low:g}" if value < low else ""
    if mode == "exact":
        return f"{item.name}: {item.metrics['different']} values differ" if item.metrics.get("different") else ""
    if mode == "fixed":
        return f"{item.name}: its use of the tolerance is over 1" if item.metrics.get("budget_use", 9.0) > 1 else ""
    if mode != "calibrated" or component is None:
        return ""
    for measure in MEASURES:
        found, floor = (item.metrics.get(f"{head}{measure}") for head in ("", "floor_"))
        if not isinstance(found, (int, float)) or not isinstance(floor, (int, float)):
            return f"{item.name}: the record does not say its {measure}"
        if found > component.tolerance.factor * floor * (1 + 1e-9):
            return f"{item.name}: {measure} is {found:.2e}, more than {component.tolerance.factor:g} times its floor"
    return ""


def component_items(component: Component, answer: dict[str, Any], root: Path = Path()) -> tuple[list[Item], list[str]]:
    """Items of one component: one an output (its worst case), one for the self test, one for each mishap."""
    name = component.name
    items: list[Item] = []
    notes: list[str] = []
    if answer["status"] != "done":
        items.append(_item(component, "run", "fail", answer["message"], todo=instead(component) or RAISED))
    compared = [found for found in answer.get("compared", []) if found["component"] == name]
    for found in compared:
        notes += found.get("notes", [])
        items += _compared_items(component, found, root)
    for test in answer.get("tests", []):
        items += _test_items(component, test, compared)
    code = answer.get("code") or 0
    if answer["status"] == "done" and code and all(item.verdict == "pass" for item in items):
        reason = f"pytest ended with code {code} although no test of it is red"
        items.append(_item(component, "run", "fail", reason, todo=f"Run: fvport check parity {name}"))
    if not items or (not compared and all(item.verdict == "pass" for item in items)):
        reason = f"no test compared {name} (parity.compare({name!r}, ...) was never called)"
        items.append(_item(component, "test", "blocked", reason))
    return items, notes


def _room_for(port: Port, component: Component, item: Item) -> Item:
    """A run that ended for want of GPU memory says nothing of the port: blocked, with what would fit."""
    todo = "" if item.verdict == "pass" else device_room.out_of_memory(port, component, item.reason)
    return replace(item, verdict="blocked", todo=todo) if todo else item


def _compared_items(component: Component, found: dict[str, Any], root: Path) -> list[Item]:
    if found.get("problem"):
        verdict = "blocked" if found.get("blocked") else "fail"
        return [_item(component, "run", verdict, found["problem"], todo=found.get("todo", ""))]
    if found["native_class"] != component.native:
        reason = f"{found['native_class']} ran, port.toml says {component.native}"
        return [_item(component, "class", "fail", reason)]
    items: list[Item] = []
    traced = ""
    for output, rows in _by_output(found["results"]).items():
        worst = max(rows, key=lambda row: (not row["ok"], row["metrics"].get("budget_use", 0.0)))
        reason = "" if worst["ok"] else f"{name_of(component, worst)} {worst['problem']}"
        if not worst["ok"] and found.get("where"):
            reason += f". {found['where'][0].upper()}{found['where'][1:]}"
        if not worst["ok"] and (sentence := found.get("trace", {}).get("sentence")):
            told = f"Trace of {found['trace']['case']}: {sentence}"
            reason += f". The trace is told at {traced}" if traced else f". {told}"
            traced = traced or f"{worst['case']}/{output}"
        metrics = {**_finite(worst["metrics"]), "cases": len({row["case"] for row in rows}), "outputs": len(rows)}
        todo = ""
        if not worst["ok"]:
            order = WALKED if component.bucket == "encoders" else TODO
            order = KEEPS if _only_late(found["results"]) else order
            named = built.correct(component, found.get("trace") or {}, root)
            todo = instead(component) or (f"{named}. Else: {order}" if named else order)
        verdict = "pass" if worst["ok"] else "fail"
        named = f"{component.name}: {worst['case']}/{output}"
        items.append(
            Item(
                named,
                verdict,
                reason,
                metrics,
                worst["tolerance"],
                component.name,
                todo,
            )
        )
    if not items:
        items.append(_item(component, "outputs", "fail", "nothing was compared"))
    if all(item.verdict == "pass" for item in items):
        items.append(_fault_item(component, found["fault"]))
    return items


def _only_late(rows: list[dict[str, Any]]) -> bool:
    """Only the inputs that nobody could know before are red."""
    return {row["case"] for row in rows if not row["ok"]} == {"late"}


def _fault_item(component: Component, fault: dict[str, Any]) -> Item:
    tried = fault.get("faults", [])
    metrics = {
        "seen": sum(f["red"] for f in tried),
        "tried": len(tried),
        "faults": [f["fault"] for f in tried if f["red"]],
    }
    verdict = "pass" if fault.get("seen") else "fail"
    reason = "" if fault.get("seen") else fault.get("problem") or "no stock fault was tried"
    return Item(f"{component.name}: stock fault seen", verdict, reason, metrics, {}, component.name)


def _test_items(component: Component, test: dict[str, Any], compared: list[dict[str, Any]]) -> list[Item]:
    """A skip is blocked, never a pass; a failure that no comparison explains is an item of its own."""
    short = test["test"].rpartition("::")[2] or test["test"]
    if test["outcome"] == "skipped":
        reason = f"{short} was skipped or expected to fail; a skip is never a pass ({_last(test['text'])})"
        return [_item(component, short, "blocked", reason, todo="Take the skip out of the test")]
    explained = any(not found["passed"] for found in compared)
    if test["outcome"] == "failed" and not explained:
        return [_item(component, short, "fail", f"{short} failed: {_last(test['text'])}")]
    return []


def _by_output(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows by output, a series such as hidden_states/000 ... as one."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(series(row["output"])[0], []).append(row)
    return groups


def name_of(component: Component, row: dict[str, Any]) -> str:
    return f"{component.name}, case {row['case']}: {row['output']}"


def _item(component: Component, what: str, verdict: str, reason: str, todo: str = "") -> Item:
    return Item(f"{component.name}: {what}", verdict, reason, component=component.name, todo=todo)


def _finite(metrics: dict[str, Any]) -> dict[str, Any]:
    """Evidence is strict JSON: a figure that is not finite is text."""
    return {k: str(v) if isinstance(v, float) and v - v != 0 else v for k, v in metrics.items()}


def _last(text: str) -> str:
    lines = [line.strip().removeprefix("E   ").strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:400] if lines else "no message"
