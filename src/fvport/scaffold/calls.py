# SPDX-License-Identifier: Apache-2.0
"""The official call: its documented defaults (presets), and the cheaper call that the gate makes with both sides."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fvport.scaffold import facts

if TYPE_CHECKING:
    from fvport.scaffold.context import PortContext

TINY = 50_000_000  # parameters: below this the gate's call is as small as the model
PROMPT = "a red fox runs through fresh snow in the morning light"
# height and width differ on purpose: a port that swaps them would look right on a square
SMALL = {"height": 64, "width": 96, "num_frames": 9, "num_inference_steps": 2}
ENDLESS = 100_000  # a tokenizer without a longest text says a number beyond all bounds
LONGEST = 10.0  # seconds of the gate's sound
CHEAP = {"num_frames": 17, "num_inference_steps": 4}
GATE_KEYS = ("height", "width", "num_frames", "num_inference_steps", "guidance_scale", "strength")
FALLBACK = {"height": 480, "width": 832, "num_frames": 81, "num_inference_steps": 50, "guidance_scale": 5.0}
FPS = (("Wan", 16), ("LTX", 25), ("HunyuanVideo", 24), ("CogVideoX", 8), ("Mochi", 30))


def choose(p: PortContext) -> None:
    """Fill `defaults`, `call`, `fps`, `prompts`. What the signature does not say is said to be a guess."""
    known = facts.pipeline(p.official_pipeline)
    source = f"{p.official_pipeline}.__call__ (diffusers {facts.pipelines()['version']})"
    p.defaults = {k: (v, source) for k, v in known.get("call", {}).items() if v is not None}
    if p.workload not in ("v2v", "i2i"):
        p.defaults.pop("strength", None)  # of what: a call may take a picture that is noised, or one that is not
    p.defaults |= _native_size(p) | _seconds(p) | _frames(p)
    accepted = [*(known.get("call") or FALLBACK), *(["num_frames"] if p.takes_video else [])]
    p.prompts = [PROMPT]
    p.call = {key: _value(p, key) for key in GATE_KEYS if key in accepted and _fits(p, key)}
    if p.is_stable_audio:
        p.call |= {"audio_start_in_s": 0.0, "audio_end_in_s": _end(p.defaults["audio_end_in_s"][0])}
    what = p.official_pipeline or "the official pipeline"
    if not known:
        p.unknown.append(f"The defaults of {what} are not known here; the gate's call is a general one.")
    if assumed := [f"{key} {value}" for key, value in p.call.items() if _is_assumed(p, key)]:
        p.unknown.append(
            f"{', '.join(assumed)} in the gate's call and the example are assumed ({what} says no default): "
            "set what the model was trained for in [official.pipeline] call."
        )
    _fps(p)


def _native_size(p: PortContext) -> dict[str, tuple[Any, str]]:
    """Height and width that Stable Diffusion 3's call means by None: the transformer's sample size in pixels."""
    dit, vae = (c.config if c else {} for c in (p.dit, p.vae))
    if not p.is_sd3 or not dit.get("sample_size") or not vae.get("block_out_channels"):
        return {}
    pixels = dit["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1)
    source = "transformer/config.json sample_size, times the VAE's factor (the call's default is None)"
    return {"height": (pixels, source), "width": (pixels, source)}


def _frames(p: PortContext) -> dict[str, tuple[Any, str]]:
    """How many frames of its video a call uses at most, where the official one uses all: FastVideo wants a number."""
    if p.workload != "v2v" or "num_frames" in p.defaults:
        return {}
    return {"num_frames": (FALLBACK["num_frames"], "FastVideo wants a number; officially every frame that is given")}


def _seconds(p: PortContext) -> dict[str, tuple[Any, str]]:
    """Start and end that Stable Audio's call means by saying nothing: the whole window of the transformer."""
    dit, vae = (c.config if c else {} for c in (p.dit, p.vae))
    if not p.is_stable_audio:
        return {}
    window = dit.get("sample_size", 1024) * math.prod(vae.get("downsampling_ratios", [2048]))
    source = "transformer/config.json sample_size, by the VAE's factor and rate"
    found = {"audio_start_in_s": (0.0, f"{p.official_pipeline}.__call__ (diffusers {facts.pipelines()['version']})")}
    found["audio_end_in_s"] = (round(window / vae.get("sampling_rate", 44100), 6), source)
    for tokenizer in p.of_kind("tokenizer")[:1]:
        length = tokenizer.config.get("model_max_length")
        if isinstance(length, int) and length < ENDLESS:
            found["max_sequence_length"] = (length, f"{tokenizer.folder}/tokenizer_config.json model_max_length")
    return found


def _end(longest: float) -> float:
    """Where the gate's sound ends: within the window, so that what is cut off behind it is seen too."""
    return min(LONGEST, math.floor(longest * 98) / 100)


def _is_assumed(p: PortContext, key: str) -> bool:
    """Neither the official default nor a size or length that the gate makes small on purpose."""
    return key not in p.defaults and key not in CHEAP and not (_is_tiny(p) and key in SMALL)


def _is_tiny(p: PortContext) -> bool:
    return 0 < sum(c.parameters for c in p.components) < TINY


def _fits(p: PortContext, key: str) -> bool:
    if key == "strength":
        return p.defaults.get(key, (None, ""))[0] is not None
    return not (p.is_audio and key in ("height", "width", "num_frames")) and not (p.is_image and key == "num_frames")


def _value(p: PortContext, key: str) -> Any:
    default = p.defaults[key][0] if key in p.defaults else FALLBACK[key]
    cut = key == "num_inference_steps" and "strength" in p.defaults  # two steps cut by it are one, which is too few
    if _is_tiny(p) and key in SMALL and not cut:
        return SMALL[key]
    return min(default, CHEAP[key]) if key in CHEAP else default


def _fps(p: PortContext) -> None:
    if "frame_rate" in p.defaults:
        p.fps = int(p.defaults["frame_rate"][0])
        return
    if p.is_image or p.is_audio:
        return
    words = f"{p.official_pipeline} {p.hub_id}"
    found = next((fps for word, fps in FPS if word in words), None)
    p.fps = found or p.fps
    if found:
        p.inferred.append(f"{p.fps} frames a second: the official call has no such argument, it is set on export")
    else:
        p.unknown.append(f"{p.fps} frames a second are assumed: nothing says what the official model is shown at.")
