# SPDX-License-Identifier: Apache-2.0
"""The calls of a port, made on both sides, and kept by everything they depend on.

`official(port, device)` and `native(port, device)` give a folder with one subfolder a call: steps.safetensors,
steps.json and, natively, the media file. Used by the checks `pipeline` and `ssim`: one load of FastVideo serves both.
"""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fvport import callnames, fastvideo_api
from fvport.errors import BlockedError, UsageError
from fvport.parity import clips, declared, generating, odd_text, oracle, pictures, shares, walk
from fvport.spec import Port

SHORT = 4  # more steps than this are not taken by the variations
NOISE = 2.0**-23
FIELD = "field-"  # how a variation of a declared field is named: no other call begins so
SECONDS, STRENGTH = declared.SECONDS, declared.STRENGTH


@dataclass(frozen=True)
class Call:
    """One generation: what both sides are told. `varies` names what differs from the call it is a variation of."""

    name: str
    arguments: dict[str, Any]
    prompt: str
    negative_prompt: str
    seed: int
    varies: str = ""
    own_floor: bool = False  # other steps or shapes than the base call: its floor is measured, not taken over
    image: str = ""  # the file that both sides begin with
    video: str = ""

    def official(self, device: str, suffix: str = "", **how: Any) -> dict[str, Any]:
        return {
            "name": self.name + suffix,
            "arguments": {**self.arguments, "prompt": self.prompt},
            "optional": {"negative_prompt": self.negative_prompt} if self.negative_prompt else {},
            "seed": self.seed,
            "device": device,
            **({"image": self.image} if self.image else {}),
            **({"video": self.video} if self.video else {}),
            **how,
        }

    def native(self, fps: int, suffix: str = "", force: str = "") -> dict[str, Any]:
        arguments = {**self.arguments, "prompt": self.prompt, "seed": self.seed, "fps": fps}
        if self.negative_prompt:  # an empty one is left to the port's preset: FastVideo's own default is another prompt
            arguments["negative_prompt"] = self.negative_prompt
        if self.image:
            arguments["image_path"] = self.image
        if self.video:
            arguments["video_path"] = self.video
        return {"name": self.name + suffix, "arguments": arguments, "force": force}


def calls(port: Port) -> list[Call]:
    """The gate's calls (each prompt with each seed), then the variations of the first."""
    pipeline = port.official.pipeline
    if not pipeline.prompts:
        raise BlockedError("no prompt to generate from", where="port.toml [official.pipeline] prompts")
    if not pipeline.seeds:
        raise BlockedError("no seed to generate from", where="port.toml [official.pipeline] seeds")
    given = dict(pipeline.call)
    if declared.too_few(given):
        what = f"strength {given[STRENGTH]} of {given['num_inference_steps']} steps is less than one step"
        raise UsageError(what, where="port.toml [official.pipeline] call", todo="Give more of either")
    image, video = str(pictures.of_call(port, given) or ""), str(clips.of_call(port, given, fps(port)) or "")
    found = [
        Call(name, given, prompt, pipeline.negative_prompt, seed, image=image, video=video)
        for name, (prompt, seed) in callnames.of(port).items()
    ]
    return found + variations(port, found[0])


def variations(port: Port, base: Call) -> list[Call]:
    """The first call with one thing changed: whatever a side ignores or has hard-coded shows in one of them."""
    given = dict(base.arguments)
    steps = int(given.get("num_inference_steps", 0) or 0)
    found = []
    short = declared.short_steps(SHORT, given.get(STRENGTH))
    if steps > short:
        given["num_inference_steps"] = short
        found += [replace(base, name="short", arguments=given, varies="steps"), _long(replace(base, arguments=given))]
    else:
        found += probes(port, base)
    guidance = given.get("guidance_scale")
    if guidance is not None and guidance > 1:
        changed = {**given, "guidance_scale": round(1 + (guidance - 1) * 0.6, 4)}
        found.append(replace(base, name="guidance", arguments=changed, varies="guidance scale"))
        negative = replace(base, name="negative", arguments=given, varies="negative prompt")
        found.append(replace(negative, negative_prompt=odd_text.NEGATIVE))
    found.append(replace(base, name="seed", arguments=given, seed=base.seed + 1, varies="seed"))
    found.append(replace(base, name="prompt", arguments=given, prompt=odd_text.odd(base.prompt), varies="prompt"))
    found += _other_seconds(replace(base, arguments=given))
    if base.image:
        image = str(pictures.changed(port, base.arguments) or "")
        found.append(replace(base, name="image", arguments=given, image=image, varies="image"))
    if base.video:
        video = str(clips.changed(port, base.arguments, fps(port)) or "")
        found.append(replace(base, name="video", arguments=given, video=video, varies="video"))
    found += _other_fields(port, replace(base, arguments=given))
    if isinstance(given.get(STRENGTH), int | float):
        found.append(_other_strength(replace(base, arguments=given)))
        # What rounds, and which way, hangs on what is noised: each has a floor of its own.
        found = [replace(call, own_floor=True) for call in found]
    return found


def _other_strength(base: Call) -> Call:
    """Another share of the schedule: other steps, and noise of another level."""
    changed = {**base.arguments, STRENGTH: declared.other_strength(base.arguments)}
    return replace(base, name=STRENGTH, arguments=changed, varies=STRENGTH, own_floor=True)


def _other_fields(port: Port, base: Call) -> list[Call]:
    """Each field that the port declares itself with another value; none for a value that nothing can vary."""
    found = []
    for name in declared.fields(port):
        other = declared.other(base.arguments[name], port.fastvideo.fields[name])
        if other is not None:
            changed = {**base.arguments, name: other}
            found.append(replace(base, name=f"{FIELD}{name}", arguments=changed, varies=name, own_floor=True))
    return found


def probes(port: Port, base: Call) -> list[Call]:
    """What a short call leaves out: more steps, no guidance, another size, more frames, a prompt past text's end."""
    given = base.arguments
    height, width, frames = (given.get(name) for name in ("height", "width", "num_frames"))
    changes: list[tuple[str, str, dict[str, Any]]] = []
    if given.get("num_inference_steps"):
        more = 2 * declared.short_steps(SHORT, given.get(STRENGTH))
        changes.append(("more_steps", "more steps", {"num_inference_steps": more}))
    if (given.get("guidance_scale") or 0) > 1:
        changes.append(("unguided", "guidance to none", {"guidance_scale": 1.0}))
    if height and width:
        other = {"height": width, "width": height} if height != width else {"width": width * 2}
        changes.append(("size", "size", other))
    if frames and frames > 1:
        changes.append(("frames", "frames", {"num_frames": frames + 2 * _frames_a_latent(port)}))
    made = [
        replace(base, name=name, arguments={**given, **change}, varies=words, own_floor=True)
        for name, words, change in changes
    ]
    return [*made, _long(base)]


def _long(base: Call) -> Call:
    return replace(
        base, name="long", prompt=odd_text.long(base.prompt), varies="prompt to a very long one", own_floor=True
    )


def _other_seconds(base: Call) -> list[Call]:
    """A sound that begins later and one that ends earlier; none where the call says no start and end."""
    start, end = (base.arguments.get(name) for name in SECONDS)
    if not isinstance(start, int | float) or not isinstance(end, int | float) or not end > start:
        return []
    changed = {"audio_start_in_s": start + (end - start) / 4, "audio_end_in_s": end - (end - start) / 4}
    return [
        replace(
            base, name=name, varies=words, arguments={**base.arguments, name: round(changed[name], 6)}, own_floor=True
        )
        for name, words in SECONDS.items()
    ]


def _frames_a_latent(port: Port) -> int:
    """How many frames one latent frame stands for, from the VAE's official config; 4 where it does not say."""
    for component in port.components.values():
        file = port.official_tree / (component.weights or component.name) / "config.json"
        if component.kind == "vae" and file.is_file():
            config = json.loads(file.read_text(encoding="utf-8"))
            found = config.get("scale_factor_temporal") or config.get("temporal_compression_ratio")
            return found if isinstance(found, int) and found > 0 else 4
    return 4


def sound_of_call(port: Port) -> dict[str, int | None]:
    """{rate, channels, samples} of the declared call's sound, as the official VAE's config has them; None: not said."""
    config: dict[str, Any] = {}
    for component in port.components.values():
        file = port.official_tree / (component.weights or component.name) / "config.json"
        if component.kind == "vae" and file.is_file():
            config = json.loads(file.read_text(encoding="utf-8"))
    rate, (start, end) = config.get("sampling_rate"), (port.official.pipeline.call.get(name) for name in SECONDS)
    samples = None
    if isinstance(rate, int) and isinstance(start, int | float) and isinstance(end, int | float):
        samples = int(end * rate) - int(start * rate)  # each is cut off by itself, officially
    return {"rate": rate, "channels": config.get("audio_channels"), "samples": samples}


def fps(port: Port) -> int:
    """Frames a second of the written file: what port.toml's presets or the port's presets.py declare, else 16."""
    for preset in port.presets.values():
        if "fps" in preset:
            return int(preset["fps"].value)
    file = port.root / "fastvideo" / "pipelines" / "basic" / port.slug / "presets.py"
    try:
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    except (OSError, SyntaxError):
        return 16
    for node in nodes:
        for key, value in zip(node.keys, node.values, strict=True) if isinstance(node, ast.Dict) else ():
            found = value.value if isinstance(value, ast.Constant) else None
            if isinstance(key, ast.Constant) and key.value == "fps" and isinstance(found, int | float | str):
                return int(found)
    return 16


def inputs(port: Port) -> list[str]:
    """Everything that a generation on either side depends on, as names of a record's inputs."""
    folder, tree = port.folder.relative_to(port.root), port.load_tree.relative_to(port.root)
    names = ["port:official", "port:fastvideo", "port:presets", "tree:fastvideo", f"file:{folder}/oracle.py"]
    names += [f"file:{tree}/model_index.json", *(f"package:{name}" for name in generating.PACKAGES)]
    names += oracle.code_inputs(port) + pictures.inputs(port) + clips.inputs(port)
    for name, component in port.components.items():
        if component.kind in ("tokenizer", "processor"):
            names.append(f"weights:{name}")
            continue
        names += [f"port:components.{name}.native", f"port:components.{name}.mode", f"weights:{name}"]
        config = "scheduler_config.json" if component.kind == "scheduler" else "config.json"
        names.append(f"file:{tree}/{component.weights or name}/{config}")
    return names


def official(port: Port, device: str) -> Path:
    """Every call by the official pipeline; the calls that give floors again in float64 and under rounding noise."""
    return generating.kept_folder(port, generating.official(port, device), _told(calls(port), device))


def native(port: Port, device: str) -> Path:
    """Every call by `VideoGenerator`, and the first once more with the official latents forced into each step."""
    forced = official(port, device)
    todo = calls(port)
    rate = fps(port)
    wanted = [call.native(rate) for call in todo]
    wanted.append(todo[0].native(rate, ".forced", str(forced / todo[0].name / "steps.safetensors")))
    return generating.kept_folder(port, generating.native(port, device), wanted)


def ahead(port: Port, name: str, device: str) -> None:
    """One call on both sides, made by itself (a cluster's job): `official` and `native` take it where they find it."""
    chosen = [call for call in calls(port) if call.name == name]
    for side, wanted in (
        (generating.official(port, device), _told(chosen, device)),
        (generating.native(port, device), [call.native(fps(port)) for call in chosen]),
    ):
        shares.fill(side.share, wanted, side.make)


def floors(port: Port, device: str, call: Call) -> Path:
    """A variation's own runs in float64 and under noise, made where the first call's floor does not suffice."""
    side = generating.official(port, device, "official-floors")
    return generating.kept_folder(port, side, _for_floors(call, device))


def _told(some: list[Call], device: str) -> list[dict[str, Any]]:
    wanted = [call.official(device) for call in some]
    for call in some:
        if not call.varies or call.own_floor or call.name == "short":
            wanted += _for_floors(call, device)
    return wanted


def _for_floors(call: Call, device: str) -> list[dict[str, Any]]:
    exact = call.official(device, ".float64", dtype="float64", may_fail=True)
    return [call.official(device, ".noise", perturb=NOISE), exact]


def environment(native: Path) -> dict[str, Any]:
    """What the processes that generated really had; refuses a FastVideo from outside the workspace."""
    files = sorted(native.glob("*/steps.json"))
    answers = [json.loads(file.read_text(encoding="utf-8")).get("environment", {}) for file in files]
    return fastvideo_api.agree(answers, "generation")


def read(folder: Path) -> walk.Capture | None:
    """One call's record; None where it is not there (float64 that could not run)."""
    from safetensors.torch import load_file

    if not (folder / "steps.json").is_file():
        return None
    info = json.loads((folder / "steps.json").read_text(encoding="utf-8"))
    return walk.Capture(walk.with_latent_condition(load_file(folder / "steps.safetensors")), info)


def media_file(folder: Path) -> Path | None:
    """The file that the native call wrote, where it lies now."""
    files = [file for file in sorted(folder.iterdir()) if file.suffix in (".mp4", ".png", ".wav", ".webp")]
    return files[0] if files else None
