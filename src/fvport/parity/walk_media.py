# SPDX-License-Identifier: Apache-2.0
"""The stages between a call's picture or video and the first step, where denoising begins from it.

    input pixels    what the VAE is given to encode: decoding, number of frames, size, filter, range
    encode          the posterior's mean: the VAE's own
    input latents   what is noised: mode or sample, mean, std and scale
    noised start    the first step's sample: at which timestep it was noised, and how

A record says so by itself (`models/capture_media.py`); calls that begin with noise have none of these stages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fvport.parity import compare
from fvport.parity.walk_floors import Floors
from fvport.parity.walk_near import TABLE_ULP, Finding, near, use

if TYPE_CHECKING:
    from fvport.parity.walk import Capture

Tensors = dict[str, Any]
STAGES = ("input pixels", "encode", "input latents", "noised start")
NOISE, LEVEL, LATENTS = "start/noise", "start/timestep", "start/latents"
WORDS = {"pixels": "what the VAE is given to encode", "encoded": "what the VAE makes of it"}


def begins_with_media(official: Tensors) -> bool:
    """Whether this record's denoising begins from a noised picture or video."""
    return NOISE in official


def encoded(part: str) -> Any:
    """The judge of everything that the official VAE encodes: its `pixels`, or the posterior's mean, `encoded`."""

    def judge(official: Capture, native: Capture, floors: Floors, pairs: Any) -> Finding | None:
        a, b = official.tensors, native.tensors
        names = sorted(name for name in a if name.startswith("media/") and name.endswith(f"/{part}"))
        if not begins_with_media(a) or not names:
            return None
        if not any(name in b for name in names):
            return Finding("", False, "the native VAE encodes nothing before the first step, the official one does")
        found = [near(name, a[name], b[name], floors, label=WORDS[part]) for name in names if name in b]
        return next((finding for finding in found if not finding.ok), max(found, key=use))

    return judge


def input_latents(official: Capture, native: Capture, floors: Floors, pairs: Any) -> Finding | None:
    a, b = official.tensors.get(LATENTS), native.tensors.get(LATENTS)
    return None if a is None or b is None else near(LATENTS, a, b, floors, label="the input's latents")


def noised_start(official: Capture, native: Capture, floors: Floors, pairs: Any) -> Finding | None:
    a, b = official.tensors, native.tensors
    if not begins_with_media(a):
        return None
    if LEVEL in a and LEVEL in b and (said := _levels(a[LEVEL], b[LEVEL])):
        return Finding("", False, f"the noise is that of timestep {said}")
    name = "initial_noise"
    return near(name, a[name], b[name], floors, label="what the first step begins from")


def steps_differ(official: Tensors, native: Tensors) -> str:
    """A sentence where the steps that are left of the schedule are others, '' where they agree or nothing is cut."""
    for name in sorted(name for name in official if name.startswith("step_timestep/")):
        if begins_with_media(official) and name in native and (said := _levels(official[name], native[name])):
            return f"step {int(name.rpartition('/')[2])} is taken at timestep {said}"
    return ""


def _levels(official: Any, native: Any) -> str:
    a, b = float(official.double().flatten()[0]), float(native.double().flatten()[0])
    near_enough = abs(a - b) <= TABLE_ULP * compare.EPS * max(abs(a), 1.0)
    return "" if near_enough else f"{a:.6g} officially, {b:.6g} natively"


# --- planted faults: each is a changed copy of the native record ------------------------------------------------------


def moved(a: Any, b: Any, other: Any) -> Tensors | None:
    """The picture or video moved by a pixel; None where none is encoded."""
    name = "media/0/pixels"
    return {name: b.tensors[name].roll(1, dims=-1)} if begins_with_media(b.tensors) and name in b.tensors else None


def other_latents(a: Any, b: Any, other: Any) -> Tensors | None:
    """Latents that nobody normalised."""
    return {LATENTS: b.tensors[LATENTS] * 1.25 + 0.1} if LATENTS in b.tensors else None


def other_level(a: Any, b: Any, other: Any) -> Tensors | None:
    """Noise of another timestep."""
    return {LEVEL: b.tensors[LEVEL] * 0.9} if LEVEL in b.tensors else None


FAULTS = {
    "input moved by a pixel": ("input pixels", moved),
    "input latents not normalised": ("input latents", other_latents),
    "noise of another timestep": ("noised start", other_level),
}
