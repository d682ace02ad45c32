# SPDX-License-Identifier: Apache-2.0
"""Two records of one generation, compared in the order in which drift arises. The first stage that differs is named.

    model evaluations, timesteps, sigmas, input pixels, encode, input latents, initial noise, noised start,
    conditioning, denoiser, guidance, step noise, latents, decode input, decode, frames, audio

Tables and noise are compared exactly (tables within 8 float32 ulp of their largest entry: numpy and torch round a
linspace differently). Everything else may err by `factor` times a measured floor in each of four measures
(`parity.compare`): the larger of what the official pipeline differs from itself in float64, and what it answers to
rounding noise of one ulp on every component's output. A stage after the first that differs says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fvport.parity import compare, walk_draws, walk_media, walk_tokens
from fvport.parity.walk_floors import Floors
from fvport.parity.walk_near import TABLE_ULP, Finding, aligned, as_json, near, use

STAGES = (
    "model evaluations",
    "timesteps",
    "sigmas",
    *walk_media.STAGES[:3],
    "initial noise",
    walk_media.STAGES[3],
    "conditioning",
    "denoiser",
    "guidance",
    "step noise",
    "latents",
    "decode input",
    "decode",
    "frames",
    "audio",
)
BESIDE_NOISE = "latent_condition"  # our name for the channels of hidden_states that are no noise
Tensors = dict[str, Any]


@dataclass(frozen=True)
class Capture:
    """One side's record: tensors by name and what steps.json says."""

    tensors: Tensors
    info: dict[str, Any] = field(default_factory=dict)

    def steps(self) -> int:
        return sum(1 for name in self.tensors if name.startswith("latents/"))

    def rows(self, step: int) -> list[int]:
        """Numbers of the denoiser's evaluations in this step."""
        prefix = f"eval/{step:03d}/"
        found = {int(name.split("/")[2]) for name in self.tensors if name.startswith(prefix)}
        return sorted(found)


def walk(official: Capture, native: Capture, floors: Floors) -> list[Finding]:
    """One finding a stage, in order; stages that neither side has are left out."""
    first = ""
    findings = []
    pairs = _pair_rows(official, native)
    for stage, judge in _JUDGES.items():
        finding = judge(official, native, floors, pairs)
        if finding is None:
            continue
        finding.stage = stage
        if not finding.ok and first:
            finding.reason += f" (after {first}, which differs first)"
        first = first or ("" if finding.ok else stage)
        findings.append(finding)
    return findings


def with_latent_condition(tensors: Tensors) -> Tensors:
    """A record in which the channels that the denoiser is given beside the noise have a name of their own.

    Image-to-video models join mask and encoded picture to the noisy latents; in one tensor the noise would hide them.
    """
    noise, made = tensors.get("initial_noise"), dict(tensors)
    for name, value in tensors.items():
        if noise is None or not (name.startswith("eval/000/") and name.endswith("/hidden_states")):
            continue
        if value.ndim == noise.ndim and value.shape[1] > noise.shape[1]:
            made[name.replace("/hidden_states", f"/{BESIDE_NOISE}")] = value[:, noise.shape[1] :].contiguous()
    return made


def first_wrong(findings: list[Finding]) -> Finding | None:
    return next((finding for finding in findings if not finding.ok), None)


def own_steps(official: Capture, forced: Capture, floors: Floors) -> list[int]:
    """Steps that differ although they began from the official latents: what is wrong is in them, not before them."""
    wrong = []
    for step in range(min(official.steps(), forced.steps())):
        name = f"latents/{step:03d}"
        if not near(name, official.tensors[name], forced.tensors[name], floors).ok:
            wrong.append(step)
    return wrong


# --- stages ----------------------------------------------------------------------------------------------------------


def _evaluations(official: Capture, native: Capture, floors: Floors, pairs: Any) -> Finding | None:
    a, b = (
        [len(official.rows(s)) for s in range(official.steps())],
        [len(native.rows(s)) for s in range(native.steps())],
    )
    if len(a) != len(b):
        return Finding("", False, f"the official pipeline takes {len(a)} steps, the native one {len(b)}")
    if a != b:
        step = next(i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
        return Finding("", False, f"step {step} evaluates the denoiser {a[step]} times officially, {b[step]} natively")
    return Finding("", bool(a), "" if a else "no denoising step was seen", {"steps": len(a), "evaluations": sum(a)})


def _table(name: str) -> Any:
    def judge(official: Capture, native: Capture, floors: Floors, pairs: Any) -> Finding | None:
        a, b = official.tensors.get(name), native.tensors.get(name)
        if a is None and b is None:
            return None
        if a is None or b is None:
            side = "native" if b is None else "official"
            return Finding("", False, f"the {side} scheduler has no {name}")
        if a.numel() != b.numel():
            return Finding("", False, f"{name} has {a.numel()} entries officially, {b.numel()} natively")
        a, b = a.double().flatten(), b.double().flatten()
        limit = TABLE_ULP * compare.EPS * max(float(a.abs().max()), 1e-30)
        d = (a - b).abs()
        worst = float(d.max()) if d.numel() else 0.0
        metrics = {"max_abs": as_json(worst), "entries": int(a.numel())}
        if worst <= limit:
            taken = walk_media.steps_differ(official.tensors, native.tensors)
            return Finding("", not taken or name != "timesteps", taken, metrics, {"max_abs": limit})
        index = int((~(d <= limit)).nonzero()[0])
        reason = f"{name}[{index}] is {float(a[index]):.6g} officially, {float(b[index]):.6g} natively"
        return Finding("", False, reason, metrics, {"max_abs": limit})

    return judge


def _noise(official: Capture, native: Capture, floors: Floors, pairs: Any) -> Finding | None:
    apart = walk_media.begins_with_media(official.tensors)
    if apart and walk_media.NOISE not in native.tensors:
        return Finding("", True, "", {"compared_in": "noised start"})  # noised by a formula of its own
    name = walk_media.NOISE if apart else "initial_noise"
    a, b = official.tensors.get(name), native.tensors.get(name)
    if a is None or b is None:
        return Finding("", False, "one side showed no initial noise")
    b, problem = aligned(a, b)
    if problem:
        return Finding("", False, f"initial noise {problem}")
    if a.dtype != b.dtype:
        return Finding("", False, f"initial noise is {a.dtype} officially, {b.dtype} natively")
    if not float(a.double().std()) > 0:
        return Finding("", False, "the official initial noise is constant: it proves nothing")
    wrong = int((a != b).sum())
    if wrong:
        correlation = float((a.double().flatten() * b.double().flatten()).mean() / a.double().pow(2).mean())
        reason = f"{wrong} of {a.numel()} values differ (correlation {correlation:.3f}): other seed, generator or dtype"
        return Finding("", False, reason, {"different": wrong})
    return Finding("", True, "", {"different": 0, "elements": int(a.numel())}, {"mode": "exact"})


def _conditioning(official: Capture, native: Capture, floors: Floors, pairs: Any) -> Finding | None:
    ids = walk_tokens.difference(official.tensors, native.tensors)
    if ids:
        return Finding("", False, ids)
    worst: Finding | None = None
    compared = 0
    for i, j in pairs.get(0, []):
        a, b = _arguments(official, 0, i), _arguments(native, 0, j)
        if left_out := _image_left_out(a, b):
            return Finding(
                "", False, f"the native denoiser is given no {left_out}, the official one is", {"of": left_out}
            )
        for key in sorted(set(a) & set(b) - {"output", "timestep", "hidden_states", "sample", "x"}):
            if not a[key].is_floating_point() or not b[key].is_floating_point():
                continue  # another convention of the call; what it does shows in the denoiser's outputs
            if a[key].numel() != b[key].numel():
                shapes = f"{tuple(a[key].shape)} officially, {tuple(b[key].shape)} natively"
                reason = f"{key} is {shapes}: another length or width of the conditioning"
                return Finding("", False, reason, {"of": key})
            compared += 1
            found = near(f"eval/000/{i}/{key}", a[key], b[key], floors, label=key)
            worst = found if worst is None or not found.ok or use(found) > use(worst) else worst
            if not found.ok:
                found.metrics["of"] = key
                return found
    if worst is not None:
        worst.metrics["compared"] = compared
    return worst


def _image_left_out(official: Tensors, native: Tensors) -> str:
    """What of a picture the official denoiser is told and the native one is not; '' where nothing is missing."""
    if BESIDE_NOISE in official and BESIDE_NOISE not in native:
        return BESIDE_NOISE
    told = [key for key in official if "image" in key and official[key].is_floating_point()]
    return told[0] if told and not any("image" in key for key in native) else ""


def _denoiser(official: Capture, native: Capture, floors: Floors, pairs: Any) -> Finding | None:
    """The first step's evaluations: same noise, same conditioning, so what differs is the denoiser's own."""
    worst: Finding | None = None
    for i, j in pairs.get(0, []):
        a, b = _arguments(official, 0, i), _arguments(native, 0, j)
        found = near(f"eval/000/{i}/output", a["output"], b["output"], floors, label=f"evaluation {i} of step 0")
        if not found.ok:
            t, s = a.get("timestep"), b.get("timestep")
            if (
                t is not None
                and s is not None
                and t.numel() == s.numel()
                and not bool((t.double() == s.double()).all())
            ):
                found.reason += f"; it was given timestep {float(t.flatten()[0]):.6g} officially, "
                found.reason += f"{float(s.flatten()[0]):.6g} natively"
            return found
        worst = found if worst is None or use(found) > use(worst) else worst
    return worst


def _guidance(official: Capture, native: Capture, floors: Floors, pairs: Any) -> Finding | None:
    name = "model_output/000"
    if name not in official.tensors or name not in native.tensors:
        return None
    return near(name, official.tensors[name], native.tensors[name], floors, label="the guided prediction of step 0")


def _step_noise(official: Capture, native: Capture, floors: Floors, pairs: Any) -> Finding | None:
    """What the scheduler draws in its steps, exactly, up to the first step whose latents differ.

    Where no latents differ, how the native side draws its noise is its own affair.
    """
    if not walk_draws.count(official.tensors) and not walk_draws.count(native.tensors):
        return None
    found = _latents(official, native, floors, pairs)
    if found is None or found.ok:
        return Finding("", True, "", {"draws": walk_draws.count(official.tensors)})
    reason = walk_draws.difference(official.tensors, native.tensors, int(found.metrics.get("step", 0)))
    return Finding("", not reason, reason, {"draws": walk_draws.count(official.tensors)})


def _latents(official: Capture, native: Capture, floors: Floors, pairs: Any) -> Finding | None:
    worst: Finding | None = None
    for step in range(min(official.steps(), native.steps())):
        name = f"latents/{step:03d}"
        found = near(name, official.tensors[name], native.tensors[name], floors, label=f"latents after step {step}")
        found.metrics["step"] = step
        if not found.ok:
            return found
        worst = found if worst is None or use(found) > use(worst) else worst
    return worst or Finding("", False, "no step was compared")


def _tensor(name: str, label: str) -> Any:
    def judge(official: Capture, native: Capture, floors: Floors, pairs: Any) -> Finding | None:
        a, b = official.tensors.get(name), native.tensors.get(name)
        if a is None:
            return None
        if b is None:
            return Finding("", False, f"the native side showed no {label}") if name == "frames" else None
        return near(name, a, b, floors, label=label)

    return judge


def _audio(official: Capture, native: Capture, floors: Floors, pairs: Any) -> Finding | None:
    """Rate and length first: as numbers alone, a sound at another rate or cut elsewhere looks like any other fault."""
    a, b = official.tensors.get("audio"), native.tensors.get("audio")
    if a is None:
        return None
    if b is None:
        return Finding("", False, "the native side made no sound")
    rates = [side.info.get("audio_sample_rate") for side in (official, native)]
    if rates[0] != rates[1]:
        return Finding("", False, f"the sample rate is {rates[0]} Hz officially, {rates[1]} Hz natively")
    if a.shape[-1] != b.shape[-1]:
        return Finding("", False, f"the sound has {a.shape[-1]} samples officially, {b.shape[-1]} natively")
    return near("audio", a, b, floors, label="the sound before any file")


_JUDGES = {
    "model evaluations": _evaluations,
    "timesteps": _table("timesteps"),
    "sigmas": _table("sigmas"),
    "input pixels": walk_media.encoded("pixels"),
    "encode": walk_media.encoded("encoded"),
    "input latents": walk_media.input_latents,
    "initial noise": _noise,
    "noised start": walk_media.noised_start,
    "conditioning": _conditioning,
    "denoiser": _denoiser,
    "guidance": _guidance,
    "step noise": _step_noise,
    "latents": _latents,
    "decode input": _tensor("decode_input", "what the VAE is given (scale, mean and std)"),
    "decode": _tensor("decoded", "what the VAE decodes"),
    "frames": _tensor("frames", "frames before any codec"),
    "audio": _audio,
}


# --- rows that belong together --------------------------------------------------------------------------------------


def _pair_rows(official: Capture, native: Capture) -> dict[int, list[tuple[int, int]]]:
    """Which native evaluation is which official one, for step 0: by what they were told, then by what they answered."""
    a, b = official.rows(0), native.rows(0)
    if len(a) != len(b):
        return {}
    left = list(b)
    pairs = []
    for i in a:
        best = min(left, key=lambda j: _distance(official, i, native, j))
        left.remove(best)
        pairs.append((i, best))
    return {0: pairs}


def _distance(official: Capture, i: int, native: Capture, j: int) -> float:
    a, b = _arguments(official, 0, i), _arguments(native, 0, j)
    for key in ("encoder_hidden_states", "output"):
        if key in a and key in b and a[key].numel() == b[key].numel():
            return float((a[key].double().flatten() - b[key].double().flatten()).norm())
    return float(i != j)


def _arguments(capture: Capture, step: int, row: int) -> Tensors:
    prefix = f"eval/{step:03d}/{row}/"
    return {name[len(prefix) :]: value for name, value in capture.tensors.items() if name.startswith(prefix)}
