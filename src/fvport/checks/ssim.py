# SPDX-License-Identifier: Apache-2.0
"""ssim: the generated media against the device's reference by the declared measure; the worst frame decides.

`reference = "official"`: the official pipeline made it, from the same call, on this machine. Two comparisons, one for
each link: its frames (or sound) and the native ones before any codec; and the file that `VideoGenerator` wrote with
what the same encoder makes of the native frames. A codec loses, so a file is never compared with frames, and it
amplifies differences in noise (1e-7 before it came out as 1e-3), so two lossy files do not decide. How far the written
file is from one of the official frames is a figure beside. `reference = "approved"`: one that a person approved, from
the store.

Sound alone is measured by `metric` (mel_l1, mr_stft), the sound of a video by `audio_metric`: sound that nothing
measures is red.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from fvport import fastvideo_api
from fvport.checks import Options, _media
from fvport.errors import BlockedError, UsageError
from fvport.evidence import Evidence, Item
from fvport.media import frames as media
from fvport.media import measures, port_references, probe, spectra
from fvport.parity import generation
from fvport.spec import Port

BEFORE = "before the codec"


def expected(port: Port) -> list[str]:
    """Each call of the gate: its file and, against the official pipeline, what it was before the codec."""
    names = [call.name for call in _calls(port)]
    if port.quality.audio_metric:
        names += [f"{name}: sound" for name in names]
    if port.quality.reference == "official":
        names += [f"{name}: {BEFORE}" for name in names]
    return names


def inputs(port: Port) -> list[str]:
    names = [*generation.inputs(port), "port:quality"]
    return [*names, *port_references.inputs(port)] if port.quality.reference == "approved" else names


def run(port: Port, options: Options) -> Evidence:
    fastvideo_api.check_workspace(port.root)
    if options.extra.get("bootstrap") and port.quality.reference == "official":
        what = 'the reference is the official pipeline (reference = "official"): there is no draft to make'
        raise UsageError(what, where="port.toml [quality]", todo="Run without --bootstrap")
    device = fastvideo_api.resolve_device(options.device)
    record = Evidence("ssim", port.slug, scale=options.scale)
    record.device = fastvideo_api.device_of(port.root, device)
    record.environment = fastvideo_api.environment(port.root)
    record.notes.append(f"definition: {definition(port.quality.metric)}")
    official = generation.official(port, device) if port.quality.reference == "official" else None
    native = generation.native(port, device)
    record.environment |= generation.environment(native)
    for call in _calls(port):
        if official is not None:
            record.items += against_official(port, call, official / call.name, native / call.name)
        else:
            record.items += against_approved(port, call, native / call.name, record, options)
    return record


def definition(metric: str) -> str:
    return (measures.MEASURES | spectra.MEASURES)[metric].definition


def against_official(port: Port, call: generation.Call, official: Path, native: Path) -> list[Item]:
    """Items for the pictures and the sound of one call. What only one side made is red."""
    sides = _media.Made.of(official), _media.Made.of(native)
    items = []
    if any(side.frames is not None for side in sides):
        items += _pictures(port, call, sides[0].frames, sides[1].frames, native)
    if sides[0].sound or sides[1].sound:
        name = f"{call.name}: sound" if items else call.name
        items += _sounds(port, name, sides, native, alone=not items)
    elif port.quality.audio_metric:
        items += [Item(f"{call.name}: sound", "fail", "neither side made sound, and audio_metric is declared")]
    return items or [Item(call.name, "blocked", "the records hold neither frames nor sound")]


def _pictures(port: Port, call: generation.Call, reference: Any, own: Any, native: Path) -> list[Item]:
    if reference is None or own is None:
        lacks = "official" if reference is None else "native"
        return [Item(call.name, "fail", f"the {lacks} side made no frames, the other did")]
    items = [judge(port, f"{call.name}: {BEFORE}", reference, own)]
    rate = generation.fps(port)
    with tempfile.TemporaryDirectory(prefix="fvport-ssim-") as scratch:
        if len(reference) == 1:
            return [*items, judge_file(port, call.name, reference, reference, native, rate)]
        file, official = Path(scratch) / "native.mp4", Path(scratch) / "official.mp4"
        media.write_mp4(file, own, rate)
        items.append(judge_file(port, call.name, media.Clip(file), reference, native, rate))
        media.write_mp4(official, reference, rate)
        items[-1].metrics |= _beside(port, official, native)
    return items


def _beside(port: Port, official: Path, native: Path) -> dict[str, Any]:
    """The measure of the written file against a file of the official frames, with the codec's unsteadiness in it."""
    file, metric = generation.media_file(native), port.quality.metric
    if file is None or metric not in measures.MEASURES:
        return {}
    try:
        series = measures.measure(media.Clip(official), media.Clip(file), [metric])[metric]
    except media.MediaError:
        return {}
    return {"against_official_file": round(series.worst, 6)}


def _sounds(port: Port, name: str, sides: tuple[Any, Any], native: Path, alone: bool) -> list[Item]:
    metric, limit = _media.sound_measure(port, alone)
    if not metric:
        todo = "Declare audio_metric (mel_l1 or mr_stft) under [quality]" if not alone else "Declare mel_l1 or mr_stft"
        return [Item(name, "fail", "there is sound, and port.toml [quality] says no measure of it", todo=todo)]
    reference, own = sides[0].sound, sides[1].sound
    if not (reference and own):
        lacks = "official" if not reference else "native"
        return [Item(name, "fail", f"the {lacks} side made no sound, the other did")]
    before = _media.judge_sound(f"{name}: {BEFORE}", reference, own, metric, limit)
    return [before, _media.judge_sound_file(name, reference, generation.media_file(native), metric, limit, alone)]


def against_approved(port: Port, call: generation.Call, native: Path, record: Evidence, options: Options) -> list[Item]:
    """Items of one call against the store; with --bootstrap a draft is written and nothing is judged."""
    made, device = _media.Made.of(native), record.device["name"]
    if options.extra.get("bootstrap"):
        origin = {"producer": "port", "versions": record.environment.get("versions", {})}
        file = generation.media_file(native)
        draft = port_references.draft(port, device, call, made.tensors(), file, {**origin, "extra": made.extra()})
        reason = f"a draft was written ({draft.title}); it counts when a person has promoted it"
        return [Item(call.name, "blocked", reason, todo="Look at it, then: fvport references promote --by NAME")]
    try:
        entry = port_references.load(port, device, call)
        kept = _media.Made.of_entry(entry)
    except BlockedError as error:
        return [Item(call.name, "blocked", str(error), todo=error.todo)]
    items = []
    if kept.frames is not None and made.frames is not None:
        items.append(judge(port, call.name, kept.frames, made.frames))
    elif kept.frames is not None or made.frames is not None:
        one = "only the reference has frames" if made.frames is None else "the reference has no frames"
        items.append(Item(call.name, "fail", one))
    if kept.sound or made.sound:
        name = f"{call.name}: sound" if items else call.name
        both = _sounds(port, name, (kept, made), native, alone=not items)
        items.append(next((item for item in both if item.verdict != "pass"), both[0]))
        items[-1].name = name
    for item in items:
        told = entry.told
        item.metrics |= {"producer": told.producer, "approved_by": told.approved_by, "reference": told.digest}
    return items or [Item(call.name, "blocked", "the record holds neither frames nor sound")]


def judge_file(port: Port, name: str, reference: Any, size_of: Any, native: Path, rate: float) -> Item:
    """The file that `VideoGenerator` wrote: what it holds, then how near it is. `size_of`: the official frames."""
    file = generation.media_file(native)
    if file is None:
        return Item(name, "fail", "VideoGenerator wrote no file")
    frames, height, width = size_of.shape[:3]
    video = frames > 1
    try:
        head = probe.header(file)
        found = media.facts(media.Clip(file), head.fps)
    except media.MediaError as error:
        return Item(name, "fail", f"the written file {error.what}")
    wrong = media.against(found, frames=frames, width=width, height=height, fps=rate if video else None)
    if isinstance(reference, media.Clip):
        like = probe.header(reference.path).pixel_format
        if like != head.pixel_format:
            wrong.append(f"its pixel format is {head.pixel_format}, the same encoder makes {like}")
    if wrong or found.problems:
        return Item(name, "fail", "; ".join([*wrong, *found.problems]), {"frames": found.frames})
    return judge(port, name, reference, media.Clip(file))


def judge(port: Port, name: str, reference: Any, own: Any) -> Item:
    """Pictures by the declared measure, in one pass; PSNR and the temporal difference are figures beside it."""
    metric, limit = port.quality.metric, port.quality.threshold
    if metric not in measures.MEASURES:
        what = f'there are frames, and metric "{metric}" measures sound'
        return Item(name, "fail", what, todo='Say metric = "ssim" (and audio_metric for the sound) in port.toml')
    return _media.judge_frames(name, reference, own, metric, limit)


def _calls(port: Port) -> list[generation.Call]:
    return [call for call in generation.calls(port) if not call.varies]


def official_drafts(port: Port, device: str) -> list[str]:
    """Drafts of what the official pipeline makes here, for machines that cannot run it. Their titles."""
    resolved = fastvideo_api.resolve_device(device)
    name = fastvideo_api.device_of(port.root, resolved)["name"]
    origin = {"producer": "official", "versions": fastvideo_api.environment(port.root).get("versions", {})}
    folder = generation.official(port, resolved)
    titles = []
    for call in _calls(port):
        made = _media.Made.of(folder / call.name)
        told = {**origin, "extra": made.extra()}
        titles.append(port_references.draft(port, name, call, made.tensors(), None, told).title)
    return titles
