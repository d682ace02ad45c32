# SPDX-License-Identifier: Apache-2.0
"""Faults that `pipeline` plants in a copy of the native record: each must be seen, and at its own stage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fvport.parity import walk, walk_media

Plant = Callable[[walk.Capture, walk.Capture, walk.Capture], "walk.Tensors | None"]


def _other_noise(a: walk.Capture, b: walk.Capture, other: walk.Capture) -> Any:
    name = walk_media.NOISE if walk_media.begins_with_media(a.tensors) else "initial_noise"
    return {name: other.tensors[name]}


def _other_schedule(a: walk.Capture, b: walk.Capture, other: walk.Capture) -> Any:
    """A flow shift of 1.1 more: t' = 1.1 t / (1 + 0.1 t), t in [0, 1]."""
    t = b.tensors["timesteps"].double()
    top = 1000.0 if float(t.max()) > 1 else 1.0
    shifted = (1.1 * t / top) / (1 + 0.1 * t / top) * top
    if bool((shifted == t).all()):  # one step at the very end of the schedule
        shifted = t * 0.99
    return {"timesteps": shifted.to(b.tensors["timesteps"].dtype)}


def _other_guidance(a: walk.Capture, b: walk.Capture, other: walk.Capture) -> Any:
    """c + g(c - u) in place of u + g(c - u); None without guidance."""
    rows, g = b.rows(0), b.info["arguments"].get("guidance_scale")
    if len(rows) != 2 or not g or g <= 1:
        return None
    outputs = [b.tensors[f"eval/000/{row}/output"].double() for row in rows]
    seen = b.tensors["model_output/000"]
    c, u = min((outputs, outputs[::-1]), key=lambda p: float((p[1] + g * (p[0] - p[1]) - seen).norm()))
    return {"model_output/000": (c + g * (c - u)).to(seen.dtype)}


def _no_image(a: walk.Capture, b: walk.Capture, other: walk.Capture) -> Any:
    """What the denoiser is told of the picture, as if there were none; None where it is told nothing of one."""
    named = [
        name for name in b.tensors if name.startswith("eval/000/") and ("image" in name or walk.BESIDE_NOISE in name)
    ]
    return {name: b.tensors[name] * 0 for name in named} or None


def _other_draws(a: walk.Capture, b: walk.Capture, other: walk.Capture) -> Any:
    """What the first step draws turned round, and added to its latents; None for a scheduler that draws nothing."""
    name, latents = "drawn/000/00", b.tensors.get("latents/000")
    if name not in b.tensors or latents is None or b.tensors[name].numel() != latents.numel():
        return None
    drawn = b.tensors[name].flip(-1)
    return {name: drawn, "latents/000": latents + (drawn - b.tensors[name]).reshape(latents.shape)}


def _swapped_steps(a: walk.Capture, b: walk.Capture, other: walk.Capture) -> Any:
    if b.steps() < 2:
        return None
    return {"latents/000": b.tensors["latents/001"], "latents/001": b.tensors["latents/000"]}


def _swapped_frames(a: walk.Capture, b: walk.Capture, other: walk.Capture) -> Any:
    frames = b.tensors.get("frames")
    return None if frames is None or frames.shape[1] < 2 else {"frames": frames.roll(1, dims=1)}


def _no_seconds(a: walk.Capture, b: walk.Capture, other: walk.Capture) -> Any:
    """What the denoiser is told of start and end in one token, as if nothing were; None where it is told nothing."""
    named = [name for name in b.tensors if name.startswith("eval/000/") and name.endswith("/global_hidden_states")]
    return {name: b.tensors[name] * 0 for name in named} or None


def _other_moment(a: walk.Capture, b: walk.Capture, other: walk.Capture) -> Any:
    sound = b.tensors.get("audio")
    return None if sound is None or sound.shape[-1] < 2 else {"audio": sound.roll(1, dims=-1)}


FAULTS: dict[str, tuple[str, Plant]] = {
    "noise of another seed": ("initial noise", _other_noise),
    "schedule": ("timesteps", _other_schedule),
    "guidance c+g(c-u)": ("guidance", _other_guidance),
    **walk_media.FAULTS,
    "image left out": ("conditioning", _no_image),
    "step noise of another path": ("step noise", _other_draws),
    "steps out of order": ("latents", _swapped_steps),
    "frames out of order": ("frames", _swapped_frames),
    "seconds left out": ("conditioning", _no_seconds),
    "sound of another moment": ("audio", _other_moment),
}
