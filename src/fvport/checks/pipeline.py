# SPDX-License-Identifier: Apache-2.0
"""pipeline: the official pipeline and `VideoGenerator`, same call; stage by stage, and the first that differs is named.

A pass counts only where planted faults (noise of another seed, guidance c+g(c-u), a shifted schedule, frames out of
order) go red in the same comparison of the same records, and where one changed argument changes both sides alike.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fvport import callnames, fastvideo_api
from fvport.checks import Options, _call, _shipped
from fvport.checks._planted import FAULTS
from fvport.errors import BlockedError
from fvport.evidence import Evidence, Item
from fvport.parity import clips, declared, generation, pictures, walk, walk_media
from fvport.parity.walk_floors import Floors, measure_floors
from fvport.parity.walk_near import Finding, use
from fvport.spec import Port
from fvport.workspace import names

COMPONENT = {  # stage -> kind of the component whose own fault it may be
    "timesteps": "scheduler",
    "sigmas": "scheduler",
    "encode": "vae",
    "conditioning": "text_encoder",
    "step noise": "scheduler",
    "denoiser": "dit",
    "decode": "vae",
}
OWN = "fvport check parity says whether it is its own fault; where that is green, look at what the pipeline gives it"
TODO = {
    "arguments": "Compare the preset and the pipeline config with the official call",
    "model evaluations": "Look at the denoising stage: steps, guidance, experts",
    "timesteps": "Look at flow_shift and the scheduler's config in the load tree; then: fvport check config",
    "sigmas": "Look at flow_shift and the scheduler's config in the load tree; then: fvport check config",
    "input pixels": "Look at the picture or video: how it is decoded, its number of frames, size, filter and range",
    "encode": OWN,
    "input latents": "Look at sample or mode of the posterior, at the generator, and at mean, std and scale",
    "noised start": "Look at strength, the first timestep that is left, and the scheduler's function that noises",
    "initial noise": "Look at the generator, its device, and the shape and dtype of the latents",
    "conditioning": "Look at cleaning, tokenizer, mask and post-processing of the text (postprocess_text_funcs of the "
    f"pipeline config), and at size, range, encoding and mask of an image; {OWN}",
    "denoiser": OWN,
    "guidance": "Look at the guidance formula and scale in the denoising stage",
    "step noise": "Look at how the scheduler draws its noise: seed of the generator, path, levels, shape and dtype",
    "latents": "Look at the scheduler's step and at what happens to the latents between steps",
    "decode input": "Look at scaling factor, mean and std before the VAE",
    "decode": OWN,
    "frames": "Look at the range, the order of dimensions and cropping after the VAE",
    "audio": "Look at the sample rate, at start and end in seconds, and at the order of dimensions after the VAE",
}
NARROW = 10.0  # times a borrowed budget: more is no matter of floors
CORE = (
    "arguments",
    "pipeline class",
    "model evaluations",
    "timesteps",
    "initial noise",
    "denoiser",
    "latents",
    "frames",
)


CALL = (
    "prompt",
    "negative_prompt",
    "height",
    "width",
    "num_frames",
    "num_inference_steps",
    "guidance_scale",
    "strength",
)


def expected(port: Port) -> list[str]:
    """The stages that every pipeline has, and the planted faults that every comparison must see."""
    told = port.official.pipeline
    core = [*CORE, *(walk_media.STAGES if generation.STRENGTH in told.call else ())]
    core = core if _is_visual(port) else [name if name != "frames" else "audio" for name in core]
    names = core + [f"{name} ({call})" for call in [*callnames.of(port)][1:] for name in core]
    names += ["planted: noise of another seed", "planted: schedule"]
    if _call.guides(port.official.pipeline.call):
        names.append("planted: guidance c+g(c-u)")
    if pictures.takes_picture(port):
        names.append("changed: image")
    if clips.takes_clip(port):
        names.append("changed: video")
    if generation.STRENGTH in told.call:
        names += [f"changed: {generation.STRENGTH}", *(f"planted: {name}" for name in walk_media.FAULTS)]
    if not _is_visual(port):
        names.append("planted: sound of another moment")
    if generation.SECONDS.keys() <= told.call.keys():
        names += ["planted: seconds left out", *(f"changed: {words}" for words in generation.SECONDS.values())]
    return names + [f"changed: {name}" for name in declared.fields(port)] + _shipped.names()


def inputs(port: Port) -> list[str]:
    return generation.inputs(port) + _call.inputs(port)


def run(port: Port, options: Options) -> Evidence:
    fastvideo_api.check_workspace(port.root)
    device = fastvideo_api.resolve_device(options.device)
    record = Evidence("pipeline", port.slug, scale=options.scale)
    record.device = fastvideo_api.device_of(port.root, device)
    record.environment = fastvideo_api.environment(port.root)
    official, native = generation.official(port, device), generation.native(port, device)
    record.environment |= generation.environment(native)
    calls = generation.calls(port)
    for index, call in enumerate(call for call in calls if not call.varies):
        items = compare_call(port, official, native, call, floors_of(official, call.name))
        record.items += items if index == 0 else [_named(item, call) for item in items]
    record.items += _call.weaker(port)
    record.items += planted(port, official, native, calls)
    record.items += varied(port, device, official, native, calls) + _call.unvaried(port)
    record.items += _shipped.items(port, device, official, native)
    record.notes += _notes(official, native, calls[0])
    return record


def floors_of(official: Path, name: str, apart: Path | None = None) -> Floors:
    """The floors of a call from its runs; `apart`: the folder of its noisy and float64 ones, where it is another."""
    runs = apart or official
    base, noisy = generation.read(official / name), generation.read(runs / f"{name}.noise")
    if base is None or noisy is None:
        raise BlockedError(f"the official pipeline has no noisy run of {name}", todo="Run the check again")
    exact = generation.read(runs / f"{name}.float64")
    return measure_floors(base.tensors, noisy.tensors, exact.tensors if exact else None)


def compare_call(port: Port, official: Path, native: Path, call: generation.Call, floors: Floors) -> list[Item]:
    """One item a stage, arguments and classes first."""
    a, b = _pair(official, native, call.name)
    items = [_arguments(a, b), _classes(port, a, b)]
    findings = walk.walk(a, b, floors)
    forced = generation.read(native / f"{call.name}.forced")
    for finding in findings:
        if finding.stage == "latents" and not finding.ok and forced is not None:
            own = walk.own_steps(a, forced, floors)
            finding.metrics["own_steps"] = own
            finding.reason += (
                f"; begun from the official latents, steps {own} differ" if own else "; inherited, not own"
            )
        items.append(_item(port, finding))
    return items + unseen(port, a)


def unseen(port: Port, official: walk.Capture) -> list[Item]:
    """The stages of a noised input, where the official pipeline noises it in a way that its recorder does not see."""
    if generation.STRENGTH not in port.official.pipeline.call or walk_media.begins_with_media(official.tensors):
        return []
    reason = "the official pipeline noises its input without the scheduler, which oracle.py does not record"
    todo = f"Keep {walk_media.LATENTS}, {walk_media.NOISE} and {walk_media.LEVEL} in oracle.py's _Recorder"
    return [Item(stage, "blocked", reason, todo=todo) for stage in walk_media.STAGES]


def _pair(official: Path, native: Path, name: str) -> tuple[walk.Capture, walk.Capture]:
    a, b = generation.read(official / name), generation.read(native / name)
    if a is None or b is None:
        side = "official" if a is None else "native"
        raise BlockedError(f"the {side} side has no record of call {name}", todo="Run the check again")
    return a, b


def _item(port: Port, finding: Finding) -> Item:
    component = _component(port, _kind(finding))
    verdict = "pass" if finding.ok else "fail"
    todo = "" if finding.ok else TODO.get(finding.stage, "")
    return Item(finding.stage, verdict, finding.reason, finding.metrics, finding.tolerance, component, todo)


def _kind(finding: Finding) -> str:
    """The kind of component whose own fault a stage's finding may be: of the conditioning, by what it is made from."""
    of = str(finding.metrics.get("of", ""))
    if finding.stage == "conditioning" and of == walk.BESIDE_NOISE:
        return "vae"
    if finding.stage == "conditioning" and of == "global_hidden_states":
        return "conditioner"
    return "image_encoder" if finding.stage == "conditioning" and "image" in of else COMPONENT.get(finding.stage, "")


def _component(port: Port, kind: str) -> str:
    return next((name for name, component in port.components.items() if component.kind == kind), "")


def _named(item: Item, call: generation.Call) -> Item:
    item.name = f"{item.name} ({call.name})"
    return item


def _arguments(official: walk.Capture, native: walk.Capture) -> Item:
    """What each side was really told: a default that the native side has of its own shows here."""
    defaults, given = official.info.get("defaults", {}), official.info["arguments"]
    a = {**{name: defaults[name] for name in CALL if name in defaults}, **given, "seed": official.info["seed"]}
    b = {**native.info["arguments"], "seed": native.info["seed"]}
    a["negative_prompt"] = a.get("negative_prompt") or ""
    wrong = []
    for name in sorted(a):
        if name not in b:
            wrong.append(f"{name} is {a[name]!r} officially, and natively nothing of that name was told")
        elif a[name] is None and b[name] is not None:
            wrong.append(f"{name} is left to the official pipeline and {b[name]!r} natively: declare it in the call")
        elif not _same(name, a[name], b[name]):
            wrong.append(f"{name} is {a[name]!r} officially, {b[name]!r} natively")
    for kind in ("image", "video"):
        given = official.info.get(kind, "")
        own = Path(str(native.info["arguments"].get(f"{kind}_path") or "")).name
        if given != own:
            wrong.append(f"the {kind} is {given or 'none'} officially, {own or 'none'} natively")
    metrics = {"compared": sorted(set(a) & set(b)), "not_official": [name for name in CALL if name not in a]}
    if wrong:
        return Item("arguments", "fail", "; ".join(wrong), metrics, todo=TODO["arguments"])
    return Item("arguments", "pass", "", metrics)


def _same(name: str, official: Any, native: Any) -> bool:
    """Equal values; no prompt and an empty prompt are one, 0 and nothing are not, True and 1 are not."""
    if name in ("prompt", "negative_prompt"):
        return (official or "") == (native or "")
    return official == native and isinstance(official, bool) == isinstance(native, bool)


def _classes(port: Port, official: walk.Capture, native: walk.Capture) -> Item:
    """The classes that ran are the port's: another pipeline or component with the same numbers proves nothing."""
    name, todo = "pipeline class", "Look at the registration and the load tree: fvport check smoke"
    home = port.root / "fastvideo" / "pipelines" / "basic" / port.slug
    file = Path(native.info["pipeline_file"])
    if not file.resolve().is_relative_to(home.resolve()):
        return Item(name, "fail", f"{native.info['pipeline']} of {file.parent.name} ran, not the port's", todo=todo)
    own = names.pipeline_class(port.key)
    if (port.variant or port.variants) and native.info["pipeline"] != own:
        of = f"variant {port.variant}" if port.variant else "the base"
        return Item(name, "fail", f"{native.info['pipeline']} ran, and {of} has {own}", todo=todo)
    told = port.official.pipeline.cls.rpartition(":")[2] if port.variant else ""
    if told and (ran := official.info.get("pipeline", told)) != told:
        reason = f"oracle.py ran {ran}, and the official pipeline of variant {port.variant} is {told}"
        return Item(name, "fail", reason, todo="Have oracle.py run the pipeline that the release names")
    classes = native.info["classes"]
    for component in port.components.values():
        if not component.native_class:
            continue
        ran = classes.get(component.name)
        if ran is None:
            reason = f"{component.name} is no module of the pipeline that ran (it has {', '.join(sorted(classes))})"
            return Item(name, "fail", reason, component=component.name, todo=todo)
        if ran != component.native_class:
            reason = f"{ran} ran as {component.name}, port.toml names {component.native_class}"
            return Item(name, "fail", reason, component=component.name, todo=todo)
    schedulers = {c.native_class: c.name for c in port.components.values() if c.kind == "scheduler" and c.native_class}
    for ran in native.info["scheduler"]:
        if schedulers and ran not in schedulers:
            reason = f"a stage steps with {ran}, port.toml names {', '.join(schedulers)}"
            return Item(name, "fail", reason, component=next(iter(schedulers.values())), todo=todo)
    return Item(name, "pass", "", {"pipeline": native.info["pipeline"], "classes": classes})


# --- planted faults --------------------------------------------------------------------------------------------------


def planted(port: Port, official: Path, native: Path, calls: list[generation.Call]) -> list[Item]:
    """Each fault put into a copy of the native record: the same comparison must turn red, and at that stage."""
    base = next((call for call in calls if call.name == "short"), calls[0])
    a, b = _pair(official, native, base.name)
    other = generation.read(official / "seed") or a
    floors = floors_of(official, base.name)
    items = []
    for name, (stage, plant) in FAULTS.items():
        faulty = plant(a, b, other)
        if faulty is None:
            continue
        first = walk.first_wrong(walk.walk(a, walk.Capture({**b.tensors, **faulty}, b.info), floors))
        seen = first.stage if first else "nothing"
        if seen == stage:
            items.append(Item(f"planted: {name}", "pass", "", {"seen_at": seen}))
        elif first and walk.STAGES.index(seen) < walk.STAGES.index(stage):
            items.append(
                Item(f"planted: {name}", "blocked", f"cannot be tried while {seen} differs", {"seen_at": seen})
            )
        else:
            reason = f"a planted fault in {stage} was seen at {seen}: this comparison's pass proves nothing"
            items.append(Item(f"planted: {name}", "fail", reason, {"seen_at": seen}))
    return items


# --- variations ------------------------------------------------------------------------------------------------------


def varied(port: Port, device: str, official: Path, native: Path, calls: list[generation.Call]) -> list[Item]:
    """One changed argument at a time: the native side must answer as the official one does.

    What is red by a little by the first call's floors is judged by its own: another prompt may be rounded more.
    """
    base = next((call for call in calls if call.name == "short"), calls[0])
    floors = floors_of(official, base.name)
    items = []
    for call in calls:
        if not call.varies:
            continue
        a, b = _pair(official, native, call.name)
        name = f"changed: {call.varies}"
        told = _arguments(a, b)
        limits = floors_of(official, call.name) if call.own_floor else floors.for_variation()
        wrong = walk.first_wrong(walk.walk(a, b, limits))
        if wrong and not call.own_floor and 0 < use(wrong) < NARROW:
            limits = floors_of(official, call.name, generation.floors(port, device, call))
            wrong = walk.first_wrong(walk.walk(a, b, limits))
        before = calls[0].name if call.varies == "steps" else base.name
        of_media = call.name.startswith(generation.FIELD)  # it may be about the decoder alone
        change = _change(generation.read(official / before), a, of_media)
        if told.verdict == "fail":
            items.append(Item(name, "fail", told.reason, {"official_change": change}, todo=told.todo))
        elif wrong:
            reason = f"{wrong.stage}: {wrong.reason}"
            items.append(
                Item(name, "fail", reason, {"official_change": change, **wrong.metrics}, todo=TODO[wrong.stage])
            )
        elif not change > 0:
            reason = f"the official pipeline answers alike whatever the {call.varies}: this proves nothing about it"
            todo = "Correct the call in port.toml [official.pipeline], or what oracle.py does with it"
            items.append(Item(name, "blocked", reason, {"official_change": change}, todo=todo))
        else:
            items.append(Item(name, "pass", "", {"official_change": change}))
    return items


def _change(base: walk.Capture | None, other: walk.Capture, of_media: bool = False) -> float:
    """How much the official latents moved, relative (1.0 where steps or shape are others): 0 proves nothing.

    `of_media`: where the latents did not, how much the frames or the sound did.
    """
    if base is None or not base.steps():
        return 0.0
    if base.steps() != other.steps():
        return 1.0
    for name in (f"latents/{base.steps() - 1:03d}", *(("frames", "audio") if of_media else ())):
        a, b = base.tensors.get(name), other.tensors.get(name)
        if a is None or b is None:
            continue
        moved = float((a.double() - b.double()).norm() / a.double().norm()) if a.shape == b.shape else 1.0
        if moved:
            return moved
    return 0.0


def _notes(official: Path, native: Path, call: generation.Call) -> list[str]:
    notes = []
    why = official / f"{call.name}.float64" / "why.txt"
    if why.is_file():
        notes.append(f"no float64 floor: the official pipeline does not run in it ({why.read_text().strip()[:200]})")
    info = json.loads((native / call.name / "steps.json").read_text(encoding="utf-8"))
    notes.append("computed in " + ", ".join(f"{key} {value}" for key, value in info["precision"].items()))
    notes.append("stages: " + ", ".join(info["stages"]))
    return notes


def _is_visual(port: Port) -> bool:
    return not all(workload.endswith("2a") for workload in port.port.workload_types)
