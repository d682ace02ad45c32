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
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fvport.errors import BlockedError
from fvport.parity import generating, generation
from fvport.parity.walk import Capture
from fvport.parity.walk_near import Finding, as_json
from fvport.spec import Port

FACTOR = 3.0
MOST = 0.3  # an official loss that is larger is another picture: nothing follows from it
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
        shutil.rmtree(folder, ignore_errors=True)  # it may have been too little memory, this once
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
    import torch

    seen = {name: value for name, value in side.shipped.tensors.items() if name.startswith("eval/000/")}
    plain = side.plain.tensors
    return all(name in plain and torch.equal(value.double(), plain[name].double()) for name, value in seen.items())


def compare(official: Pair, native: Pair, dtype: str) -> list[Finding]:
    """One finding a stage that both sides have: timesteps, initial noise, conditioning, latents, media.

    Raises BlockedError where the official pipeline's own loss is so large that nothing follows from it.
    """
    found = {stage: _stage(stage, official, native, dtype) for stage in CHOSEN}
    found["latents"] = _narrowed(official, native) or found["latents"]
    return [finding for finding in found.values() if finding is not None]


def worse(side: Pair, dtype: str, stage: str, by: float) -> Pair | None:
    """The side as if it lost more at a stage: timesteps and noise rounded, all else too large by the share `by`.

    None where that changes nothing: what is rounded already, or exact in `dtype`.
    """
    import torch

    kind, seen = getattr(torch, dtype), side.shipped.tensors

    def spoilt(value: Any) -> Any:
        return value.to(kind).to(value.dtype) if stage in ("timesteps", "initial noise") else value * (1 + by)

    chosen = [name for name in seen if CHOSEN[stage](name) and (stage == "timesteps" or seen[name].is_floating_point())]
    changed = {name: spoilt(seen[name]) for name in chosen}
    if not any(bool((value != seen[name]).any()) for name, value in changed.items()):
        return None
    return Pair(side.plain, Capture({**seen, **changed}, side.shipped.info))


def eps(dtype: str) -> float:
    """The distance from 1 to the next number of a dtype."""
    import torch

    return float(torch.finfo(getattr(torch, dtype)).eps)


# --- stages ----------------------------------------------------------------------------------------------------------


def _is_timestep(name: str) -> bool:
    return name in ("timesteps", "sigmas") or name.startswith("step_timestep/") or name.endswith("/timestep")


def _is_conditioning(name: str) -> bool:
    return name.startswith("eval/000/") and name.rpartition("/")[2] not in {*NOISY, "timestep"}


CHOSEN: dict[str, Callable[[str], bool]] = {  # stage -> the names of its tensors
    "timesteps": _is_timestep,
    "initial noise": lambda name: name == "initial_noise",
    "conditioning": _is_conditioning,
    "latents": lambda name: name.startswith("latents/"),
    "media": lambda name: name in ("frames", "audio"),
}


def _stage(stage: str, official: Pair, native: Pair, dtype: str) -> Finding | None:
    """Losses by argument, the worst row of each; an argument that the official side has no name for is left out."""
    allowed, own = _losses(official, stage), _losses(native, stage)
    both = sorted(set(allowed) & set(own))
    if not both:
        return None
    _refuse_nothing(stage, {key: allowed[key] for key in both}, dtype)
    least = EXACT if stage in ("timesteps", "initial noise") else eps(dtype) / 2
    worst = max(both, key=lambda key: own[key] / max(FACTOR * allowed[key], least))
    limit = max(FACTOR * allowed[worst], least)
    metrics = {"of": worst, "lost": as_json(own[worst]), "lost_officially": allowed[worst], "compared": len(both)}
    if own[worst] <= limit:
        return Finding(stage, True, "", metrics, {"rel_l2": limit})
    if math.isinf(own[worst]):
        reason = f"{worst} is not finite, or of another shape than in float32"
    else:
        reason = f"{worst} is {own[worst]:.2e} off its float32 values, the official one {allowed[worst]:.2e}"
    return Finding(stage, False, f"{reason}{_dtypes(official, native, stage)}", metrics, {"rel_l2": limit})


def _refuse_nothing(stage: str, allowed: dict[str, float], dtype: str) -> None:
    """BlockedError where the official loss is no rounding: three times of it would let anything pass."""
    most = 2 * eps(dtype) if stage == "initial noise" else MOST
    for key, size in allowed.items():
        if size <= most:
            continue
        if math.isinf(size):
            raise BlockedError(f"the official pipeline's {key} is not finite in {dtype}, or of another shape")
        what = f"the official pipeline's {key} is {size:.2g} off its float32 values in {dtype}: nothing follows from it"
        todo = "Take _noise_of_float32 of oracle.py over from a new bake" if stage == "initial noise" else ""
        raise BlockedError(what, todo=todo)


def _narrowed(official: Pair, native: Pair) -> Finding | None:
    """Between steps they may be kept in no less than officially: what they lose adds up. None where they are."""
    for name in filter(CHOSEN["latents"], native.shipped.tensors):
        a, b = official.shipped.tensors.get(name), native.shipped.tensors[name]
        if a is not None and _bits(b) < _bits(a):
            reason = f"after step {int(name[8:])} they are {_word(b)}, officially {_word(a)}"
            return Finding("latents", False, reason, {"of": name})
    return None


def _losses(side: Pair, stage: str) -> dict[str, float]:
    """{argument: what the shipped record lost of it}, rows and steps of one evaluation's argument together.

    Whole numbers count among timesteps alone: some schedulers have such, and bfloat16 has no 999. Elsewhere they are
    ids and masks.
    """
    found: dict[str, float] = {}
    for name, plain in side.plain.tensors.items():
        if not CHOSEN[stage](name) or not (stage == "timesteps" or plain.is_floating_point()):
            continue
        key = name if stage == "latents" else name.partition("/")[0]
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


def _dtypes(official: Pair, native: Pair, stage: str) -> str:
    """In which dtype each side has it, where that says more."""
    found = [
        next((_word(v) for name, v in side.shipped.tensors.items() if CHOSEN[stage](name)), "")
        for side in (native, official)
    ]
    return f" (it is {found[0]} natively, {found[1]} officially)" if all(found) and found[0] != found[1] else ""


def _bits(tensor: Any) -> float:
    import torch

    return -math.log2(torch.finfo(tensor.dtype).eps) if tensor.is_floating_point() else math.inf


def _word(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")
