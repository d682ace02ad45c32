# SPDX-License-Identifier: Apache-2.0
"""The official call: its documented defaults (presets), and the cheaper call that the gate makes with both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fvport.scaffold import facts

if TYPE_CHECKING:
    from fvport.scaffold.context import PortContext

TINY = 50_000_000  # parameters: below this the gate's call is as small as the model
PROMPT = "a red fox runs through fresh snow in the morning light"
# height and width differ on purpose: a port that swaps them would look right on a square
SMALL = {"height": 64, "width": 96, "num_frames": 9, "num_inference_steps": 2}
CHEAP = {"num_frames": 17, "num_inference_steps": 4}
GATE_KEYS = ("height", "width", "num_frames", "num_inference_steps", "guidance_scale")
FALLBACK = {"height": 480, "width": 832, "num_frames": 81, "num_inference_steps": 50, "guidance_scale": 5.0}
FPS = (("Wan", 16), ("LTX", 25), ("HunyuanVideo", 24), ("CogVideoX", 8), ("Mochi", 30))


def choose(p: PortContext) -> None:
    """Fill `defaults`, `call`, `fps`, `prompts`. What the signature does not say is said to be a guess."""
    known = facts.pipeline(p.official_pipeline)
    source = f"{p.official_pipeline}.__call__ (diffusers {facts.pipelines()['version']})"
    p.defaults = {k: (v, source) for k, v in known.get("call", {}).items() if v is not None}
    accepted = list(known.get("call", {})) or list(FALLBACK)
    p.prompts = [PROMPT]
    p.call = {key: _value(p, key) for key in GATE_KEYS if key in accepted and _fits(p, key)}
    if not known:
        what = p.official_pipeline or "the official pipeline"
        p.unknown.append(f"The defaults of {what} are not known here; the gate's call is a general one.")
    _fps(p)


def _fits(p: PortContext, key: str) -> bool:
    return not (p.is_audio and key in ("height", "width", "num_frames")) and not (p.is_image and key == "num_frames")


def _value(p: PortContext, key: str) -> Any:
    default = p.defaults.get(key, (FALLBACK[key], ""))[0]
    parameters = sum(c.parameters for c in p.components)
    if 0 < parameters < TINY and key in SMALL:
        return SMALL[key]
    return min(default, CHEAP[key]) if key in CHEAP else default


def _fps(p: PortContext) -> None:
    if "frame_rate" in p.defaults:
        p.fps = int(p.defaults["frame_rate"][0])
        return
    words = f"{p.official_pipeline} {p.hub_id}"
    p.fps = next((fps for word, fps in FPS if word in words), 16)
    if not (p.is_image or p.is_audio):
        p.inferred.append(f"{p.fps} frames a second: the official call has no such argument, it is set on export")
