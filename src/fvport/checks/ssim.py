# SPDX-License-Identifier: Apache-2.0
"""ssim: the written file against the device's reference, frame by frame, the worst frame decides.

`reference = "official"`: the official pipeline made it, from the same call, on this machine. Two comparisons: its
frames and the native ones before any codec, and both as files written by the same encoder (a codec loses, so a file is
never compared with frames). `reference = "approved"`: an earlier output that a person approved, from the store.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from fvport import fastvideo_api
from fvport.checks import Options
from fvport.errors import BlockedError, UsageError
from fvport.evidence import Evidence, Item
from fvport.media import frames as media
from fvport.media import ssim, store
from fvport.parity import generation
from fvport.spec import Port


def expected(port: Port) -> list[str]:
    """Each call of the gate: its file and, against the official pipeline, its frames before the codec."""
    names = [call.name for call in _calls(port)]
    if port.quality.reference == "official":
        names += [f"{name}: before the codec" for name in names]
    return names


def inputs(port: Port) -> list[str]:
    names = [*generation.inputs(port), "port:quality"]
    return [*names, *store.inputs(port)] if port.quality.reference == "approved" else names


def run(port: Port, options: Options) -> Evidence:
    fastvideo_api.check_workspace(port.root)
    if port.quality.metric != "ssim":
        raise BlockedError(f'metric "{port.quality.metric}" is not measured by this check', where="port.toml [quality]")
    if options.extra.get("bootstrap") and port.quality.reference == "official":
        what = 'the reference is the official pipeline (reference = "official"): there is no draft to make'
        raise UsageError(what, where="port.toml [quality]", todo="Run without --bootstrap")
    device = fastvideo_api.resolve_device(options.device)
    record = Evidence("ssim", port.slug, scale=options.scale)
    record.device = fastvideo_api.device_of(port.root, device)
    record.environment = fastvideo_api.environment(port.root)
    record.notes.append(f"definition: {ssim.DEFINITION}")
    official = generation.official(port, device) if port.quality.reference == "official" else None
    native = generation.native(port, device)
    record.environment |= generation.environment(native)
    for call in _calls(port):
        if official is not None:
            record.items += against_official(port, call, official / call.name, native / call.name)
        else:
            record.items += against_approved(port, call, native / call.name, record, options)
    return record


def against_official(port: Port, call: generation.Call, official: Path, native: Path) -> list[Item]:
    reference, own = _frames(official), _frames(native)
    items = [judge(port, f"{call.name}: before the codec", reference, own)]
    rate = generation.fps(port)
    with tempfile.TemporaryDirectory(prefix="fvport-ssim-") as scratch:
        file = Path(scratch) / "official.mp4"
        if len(reference) > 1:
            media.write_mp4(file, reference, rate)
        expected_frames = media.decode(file) if len(reference) > 1 else iter(reference)
        items.append(judge_file(port, call.name, expected_frames, reference, native, rate))
    return items


def against_approved(port: Port, call: generation.Call, native: Path, record: Evidence, options: Options) -> list[Item]:
    told = {**call.arguments, "prompt": call.prompt, "negative_prompt": call.negative_prompt, "seed": call.seed}
    device = record.device["name"]
    own = _frames(native)
    if options.extra.get("bootstrap"):
        origin = {"producer": "port", "call": told, "versions": record.environment.get("versions", {})}
        file = store.draft(port, device, call.name, own, origin)
        reason = f"a draft was written ({file.relative_to(port.root)}); it counts when a person has approved it"
        return [Item(call.name, "blocked", reason)]
    try:
        reference, provenance = store.load(port, device, call.name, told)
    except BlockedError as error:
        return [Item(call.name, "blocked", str(error), todo=error.todo)]
    item = judge(port, call.name, reference, own)
    item.metrics |= {"producer": provenance.producer, "approved_by": provenance.approved_by}
    return [item]


def judge_file(port: Port, name: str, reference: Any, size_of: Any, native: Path, rate: int) -> Item:
    """The file that `VideoGenerator` wrote: what it holds, then how near it is."""
    file = generation.media_file(native)
    if file is None:
        return Item(name, "fail", "VideoGenerator wrote no file")
    try:
        own = list(media.decode(file))
        found = media.facts(own, media.rate(file))
    except media.MediaError as error:
        return Item(name, "fail", f"the written file {error.what}")
    height, width = size_of.shape[1:3]
    video = len(size_of) > 1
    wrong = media.against(found, frames=len(size_of), width=width, height=height, fps=rate if video else None)
    if wrong or found.problems:
        return Item(name, "fail", "; ".join([*wrong, *found.problems]), {"frames": found.frames})
    return judge(port, name, reference, own)


def judge(port: Port, name: str, reference: Any, own: Any) -> Item:
    limit = {"mode": "threshold", "worst": port.quality.threshold}
    problems = media.facts(iter(own)).problems
    try:
        found = ssim.compare(iter(reference), iter(own))
    except media.MediaError as error:
        return Item(name, "fail", "; ".join([error.what, *problems]), {}, limit)
    metrics = {"worst": found.worst, "worst_frame": found.worst_frame, "mean": found.mean, "frames": len(found.values)}
    reasons = problems
    if not found.worst >= port.quality.threshold:
        reasons = [
            f"frame {found.worst_frame} has SSIM {found.worst:.4f}, {port.quality.threshold} is asked",
            *problems,
        ]
    if reasons:
        return Item(
            name, "fail", "; ".join(reasons), metrics, limit, todo="Look at the first red stage: fvport check pipeline"
        )
    return Item(name, "pass", "", metrics, limit)


def _calls(port: Port) -> list[generation.Call]:
    return [call for call in generation.calls(port) if not call.varies]


def _frames(folder: Path) -> Any:
    """uint8 (time, height, width, 3) of a record's first video, before any codec."""
    capture = generation.read(folder)
    if capture is None or "frames" not in capture.tensors:
        raise BlockedError(
            "the record of this call holds no frames", where=folder.name, todo="Run: fvport check pipeline"
        )
    return media.to_uint8(capture.tensors["frames"][0])
