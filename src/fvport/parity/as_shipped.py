# SPDX-License-Identifier: Apache-2.0
"""One generation in the precision that ships: what a port rounds of its own.

Everything else is compared in float32, where a port that rounds its timesteps, noise or latents is equal. Here
each side is held against itself in float32. The official pipeline says what the precision costs; the native one may
lose `FACTOR` times as much, and nothing where the official one loses nothing. No image of one side is held against one
of the other: in half precision their roundings differ, and rightly so. Noise that a side draws in half precision is
that of float32, rounded, on both sides: torch would draw other numbers, and a loss would say nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fvport.errors import BlockedError
from fvport.parity import generating, generation
from fvport.parity.walk import Capture, Tensors
from fvport.parity.walk_near import Finding
from fvport.spec import Port

FACTOR = 3.0
EXACT = 2.0**-20  # of float32 values that nobody rounds: numpy and torch make a table in different ways
NOISY = {"output", "hidden_states", "sample", "x"}  # of an evaluation: made of the latents, or the answer


@dataclass(frozen=True)
class Pair:
    """One side's records of one call: in float32, and as shipped."""

    plain: Capture
    shipped: Capture


def call(port: Port) -> generation.Call:
    """The call of a few steps: the timesteps of one or two are often exact in any precision."""
    calls = generation.calls(port)
    return next((one for one in calls if one.name in ("short", "more_steps")), calls[0])


def official(port: Port, device: str, dtype: str) -> Path:
    """The folder of the official call in `dtype`; raises BlockedError where it does not run."""
    one = call(port)
    side = generating.official(port, device, "shipped-official")
    folder = generating.kept_folder(port, side, [one.official(device, dtype=dtype, may_fail=True)])
    why = folder / one.name / "why.txt"
    if why.is_file():
        what = f"the official pipeline does not run in {dtype} here ({why.read_text(encoding='utf-8').strip()[:200]})"
        raise BlockedError(what, todo="Run the check where it does (--device cuda), or ship float32")
    return folder


def native(port: Port, device: str) -> Path:
    """The folder of the native call with the precisions of the port's own pipeline config."""
    one = call(port)
    side = generating.native(port, device, precision="")
    return generating.kept_folder(port, side, [one.native(generation.fps(port))])


def pair(plain: Path, shipped: Path, name: str) -> Pair:
    """Both records of a side; raises BlockedError where one is not there."""
    found = [generation.read(folder / name) for folder in (plain, shipped)]
    if found[0] is None or found[1] is None:
        raise BlockedError(f"there is no record of call {name} in {plain.name} and {shipped.name}")
    return Pair(found[0], found[1])


def ignored(side: Pair) -> bool:
    """Whether a run in another precision was the float32 run again."""
    same = side.plain.tensors
    return all(name in same and bool((value == same[name]).all()) for name, value in _of(side, "eval/000/").items())


def compare(official: Pair, native: Pair, dtype: str) -> list[Finding]:
    """One finding a stage that both sides have: timesteps, initial noise, conditioning, latents, media.

    Raises BlockedError where the official pipeline's own run in that dtype is not finite: nothing follows from it.
    """
    coarse = eps(dtype) / 2
    found = [
        _stage("timesteps", official, native, _is_timestep, EXACT),
        _stage("initial noise", official, native, lambda name: name == "initial_noise", EXACT),
        _stage("conditioning", official, native, _is_conditioning, coarse),
        _kept_latents(official, native, coarse),
        _stage("media", official, native, lambda name: name in ("frames", "audio"), coarse),
    ]
    return [finding for finding in found if finding is not None]


def rounded(native: Pair, dtype: str) -> Pair | None:
    """The native side as if it rounded the timesteps that the denoiser is given; None where that changes none."""
    import torch

    kind = getattr(torch, dtype)
    changed = {
        name: value.to(kind).to(value.dtype)
        for name, value in native.shipped.tensors.items()
        if name.startswith("eval/") and _is_timestep(name) and value.is_floating_point()
    }
    if not any(bool((value != native.shipped.tensors[name]).any()) for name, value in changed.items()):
        return None
    return Pair(native.plain, Capture({**native.shipped.tensors, **changed}, native.shipped.info))


def eps(dtype: str) -> float:
    """The distance from 1 to the next number of a dtype."""
    import torch

    return float(torch.finfo(getattr(torch, dtype)).eps)


# --- stages ----------------------------------------------------------------------------------------------------------


def _stage(stage: str, official: Pair, native: Pair, chosen: Callable[[str], bool], least: float) -> Finding | None:
    """Losses by argument, the worst row of each; an argument that the official side has no name for is left out."""
    allowed, own = _losses(official, chosen), _losses(native, chosen)
    if lost := [key for key, size in allowed.items() if math.isinf(size)]:
        raise BlockedError(f"the official pipeline's {lost[0]} is not finite as shipped, or of another shape")
    both = sorted(set(allowed) & set(own))
    if not both:
        return None
    worst = max(both, key=lambda key: own[key] / max(FACTOR * allowed[key], least))
    limit = max(FACTOR * allowed[worst], least)
    metrics = {"of": worst, "lost": own[worst], "lost_officially": allowed[worst], "compared": len(both)}
    if own[worst] <= limit:
        return Finding(stage, True, "", metrics, {"rel_l2": limit})
    if math.isinf(own[worst]):
        reason = f"{worst} is not finite, or of another shape than in float32"
    else:
        reason = f"{worst} is {own[worst]:.2e} off its float32 values, the official one {allowed[worst]:.2e}"
    return Finding(stage, False, f"{reason}{_dtypes(official, native, chosen)}", metrics, {"rel_l2": limit})


def _kept_latents(official: Pair, native: Pair, least: float) -> Finding | None:
    """Between steps they may be kept in no less than officially; what they lose adds up."""
    names = [name for name in native.shipped.tensors if name.startswith("latents/")]
    for name in names:
        a, b = official.shipped.tensors.get(name), native.shipped.tensors[name]
        if a is not None and _bits(b) < _bits(a):
            reason = f"after step {int(name[8:])} they are {_word(b)}, officially {_word(a)}"
            return Finding("latents", False, reason, {"of": name})
    return _stage("latents", official, native, lambda name: name.startswith("latents/"), least)


def _is_timestep(name: str) -> bool:
    return name in ("timesteps", "sigmas") or name.startswith("step_timestep/") or name.endswith("/timestep")


def _is_conditioning(name: str) -> bool:
    return name.startswith("eval/000/") and name.rpartition("/")[2] not in {*NOISY, "timestep"}


def _losses(side: Pair, chosen: Callable[[str], bool]) -> dict[str, float]:
    """{argument: what the shipped record lost of it}, rows and steps of one evaluation's argument together."""
    found: dict[str, float] = {}
    for name, plain in side.plain.tensors.items():
        if not chosen(name) or not plain.is_floating_point():
            continue
        key = name if name.startswith("latents/") else name.partition("/")[0]
        key = name.rpartition("/")[2] if name.startswith("eval/") else key
        found[key] = max(found.get(key, 0.0), _lost(plain, side.shipped.tensors.get(name)))
    return found


def _lost(plain: Any, shipped: Any) -> float:
    """Relative l2 distance; infinite where there is none."""
    if shipped is None or shipped.shape != plain.shape or not bool(shipped.isfinite().all()):
        return math.inf
    a, b = plain.double(), shipped.double()
    size = float(a.norm())
    return float((a - b).norm()) / (size or 1.0)


def _of(side: Pair, start: str) -> Tensors:
    return {name: value for name, value in side.shipped.tensors.items() if name.startswith(start)}


def _dtypes(official: Pair, native: Pair, chosen: Callable[[str], bool]) -> str:
    """In which dtype each side has it, where that says more."""
    found = [
        next((_word(v) for name, v in side.shipped.tensors.items() if chosen(name) and v.is_floating_point()), "")
        for side in (native, official)
    ]
    return f" (it is {found[0]} natively, {found[1]} officially)" if all(found) and found[0] != found[1] else ""


def _bits(tensor: Any) -> float:
    import torch

    return -math.log2(torch.finfo(tensor.dtype).eps) if tensor.is_floating_point() else math.inf


def _word(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")
