# SPDX-License-Identifier: Apache-2.0
"""Faults of order and choice: axes, frames, batches, hidden layers, a VAE's scale; a scheduler's tables and steps."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from fvport.parity.catalogue.core import Fault, Planted, Target, attributes, hooked, on_outputs, rounded
from fvport.parity.catalogue.given import inputs
from fvport.parity.catalogue.numerics import ENCODERS

VISUAL = ("dit", "vae", "upsampler")


def _axes(kind: str) -> Callable[[Any], Any]:
    """A change of a tensor (batch, channels, [frames,] height, width)."""
    import torch

    def change(t: Any) -> Any:
        if not torch.is_tensor(t) or t.dim() < 4:
            return t
        if kind == "frames reversed":
            return t.flip(2) if t.dim() == 5 else t
        if kind == "width mirrored":
            return t.flip(-1)
        if kind == "height mirrored":
            return t.flip(-2)
        if kind == "channels moved":
            return t.roll(1, 1)
        if kind == "height and width exchanged":
            return t.transpose(-1, -2).reshape(t.shape)
        if kind == "channels before patches":
            return t.transpose(1, 2).reshape(t.shape) if t.dim() == 5 else t
        if kind == "first frame for all":
            return t[:, :, :1].expand_as(t).clone() if t.dim() == 5 else t
        if kind == "rows of the batch moved":
            return t.roll(1, 0)
        if kind == "last frame lost":
            return torch.cat([t[:, :, :-1], t[:, :, -1:] * 0], 2) if t.dim() == 5 and t.shape[2] > 1 else t
        return t

    return change


def given(kind: str, target: Target) -> Planted | None:
    change = _axes(kind)
    return inputs(f"input with {kind}", lambda name, t: change(t), target)


def answered(kind: str, target: Target) -> Planted | None:
    """The model's answer in another order."""
    change = _axes(kind)
    return outputs(f"output with {kind}", change, target)


def outputs(words: str, change: Callable[[Any], Any], target: Target) -> Planted | None:
    """What the model (a VAE: its decoder and encoder) answers is changed on its way out."""

    def around(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return on_outputs(original(*args, **kwargs), change)

    if target.kind == "vae":
        names = [n for n in target.named if n in ("decoder", "encoder")]
        return hooked(target, words, names, around)
    return hooked(target, words, [""], around)


def text(kind: str, target: Target) -> Planted | None:
    """Conditioning that is cut, moved, or of another row."""
    import torch

    def change(name: str, t: Any) -> Any:
        if not t.is_floating_point() or t.dim() != 3:
            return t
        if kind == "last token lost":
            return torch.cat([t[:, :-1], t[:, -1:] * 0], 1)
        if kind == "first row for all":
            return t[:1].expand_as(t).clone()
        if kind == "tokens reversed":
            return t.flip(1)
        return t * 0 if kind == "ignored" else t

    return inputs(f"conditioning with {kind}", change, target, names=("encoder_hidden", "context", "text", "embeds"))


def ids(kind: str, target: Target) -> Planted | None:
    """Token ids moved or cut."""

    def change(name: str, t: Any) -> Any:
        if t.is_floating_point() or t.dim() != 2:
            return t
        if kind == "moved by one":
            return t.roll(1, -1)
        if kind == "reversed":
            return t.flip(-1)
        other = t.clone()
        other[:, 0] = t[:, -1]
        return other

    return inputs(f"ids {kind}", change, target, names=("input_ids", "ids"))


def selected(kind: str, target: Target) -> Planted | None:
    """Another hidden state, or none of the final norm."""
    if kind == "final norm skipped":
        tops = [n for n, _ in target.norms if not any(part.isdigit() for part in n.split("."))]
        return hooked(target, f"{tops[-1]} skipped", tops[-1:], lambda o, x, *a, **k: x) if tops else None

    def around(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        value = original(*args, **kwargs)
        states = getattr(value, "hidden_states", None)
        if states is None or len(states) < 2:
            return value
        if kind == "penultimate for last":
            value.last_hidden_state = states[-2]
        elif kind == "states moved by one":
            value.hidden_states = (*states[1:], states[-1])
        elif kind == "embedding left out":
            value.hidden_states = (states[1], *states[1:])
        return value

    return hooked(target, kind, [""], around)


def vae(kind: str, target: Target) -> Planted | None:
    """Scale, offset, clamp and posterior of a VAE."""
    change: dict[str, Callable[[Any], Any]] = {
        "scaled": lambda t: t * 1.01,
        "moved": lambda t: t + 0.01,
        "in bf16": rounded,
        "in float16": lambda t: rounded(t, "float16"),
        "mean and variance exchanged": lambda t: _halves(t),
    }
    return outputs(f"VAE {kind}", change[kind], target)


def _halves(t: Any) -> Any:
    import torch

    return torch.cat(list(reversed(t.chunk(2, 1))), 1) if t.dim() > 2 and t.shape[1] % 2 == 0 else t


def latents(kind: str, target: Target) -> Planted | None:
    """What a VAE is given: range, mean and scale."""
    change: dict[str, Callable[[Any], Any]] = {
        "in [0, 1]": lambda t: (t + 1) / 2,
        "normalised twice": lambda t: t * 2 - 1,
        "in bf16": rounded,
        "without its scale": lambda t: t * 1.05,
    }
    return inputs(f"VAE given {kind}", lambda n, t: change[kind](t) if t.is_floating_point() else t, target)


# --- schedulers -------------------------------------------------------------------------------------------------------


def _tables(scheduler: Any) -> Iterator[str]:
    for name, table in vars(scheduler).items():
        if name.strip("_") in ("sigmas", "timesteps") and hasattr(table, "dtype"):
            yield name


def schedule(kind: str, target: Target) -> Planted | None:
    """The tables after set_timesteps: shifted twice, not at all, another end, another order, another precision."""
    import torch

    scheduler = target.module
    original = getattr(scheduler, "set_timesteps", None)
    if target.named or not callable(original):
        return None

    def change(name: str, t: Any) -> Any:
        top = 1000.0 if "time" in name else 1.0
        if kind == "shifted twice":
            s = t / top
            return top * 3 * s / (1 + 2 * s)
        if kind == "unshifted":
            s = t / top
            return top * s / (3 - 2 * s)
        if kind == "reversed":
            return t.flip(0)
        if kind == "with another end":
            return torch.cat([t[:-1], t[-1:] + 0.01 * top])
        if kind == "in bf16":
            return rounded(t)
        if kind == "rounded":
            return t.round() if "time" in name else t
        if kind == "moved by one":
            return torch.cat([t[1:], t[-1:]])
        return t / 1000 if kind == "timesteps over 1000" and "time" in name else t

    def other(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        for name in list(_tables(scheduler)):
            table = getattr(scheduler, name)
            if torch.is_tensor(table):
                table = table.double() if not table.is_floating_point() else table
                setattr(scheduler, name, change(name, table).to(getattr(scheduler, name).dtype))
        return result

    return Planted(f"schedule {kind}", attributes([(scheduler, "set_timesteps", functools.wraps(original)(other))]))


def step(kind: str, target: Target) -> Planted | None:
    """One step of the sampler: sign, size, order, what it keeps."""
    import torch

    scheduler = target.module
    original = getattr(scheduler, "step", None)
    if target.named or not callable(original):
        return None

    def on(value: Any, change: Callable[[Any], Any]) -> Any:
        if isinstance(value, tuple):
            return (change(value[0]), *value[1:])
        if hasattr(value, "prev_sample"):
            value.prev_sample = change(value.prev_sample)
            return value
        return change(value)

    kept: list[Any] = []

    def other(output: Any, timestep: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
        if kind == "of the opposite sign":
            return original(-output, timestep, sample, *args, **kwargs)
        if kind == "from the output before":
            kept.append(output)
            return original(
                kept[-2] if len(kept) > 1 and kept[-2].shape == output.shape else output,
                timestep,
                sample,
                *args,
                **kwargs,
            )
        value = original(output, timestep, sample, *args, **kwargs)
        if kind == "in bf16":
            return on(value, rounded)
        if kind == "one percent short":
            return on(value, lambda t: sample + 0.99 * (t - sample))
        if kind == "skipped":
            return on(value, lambda t: sample.clone())
        if kind == "with its index kept" and isinstance(getattr(scheduler, "_step_index", None), int):
            scheduler._step_index = max(scheduler._step_index - 1, 0)
        return value

    del torch
    return Planted(f"step {kind}", attributes([(scheduler, "step", functools.wraps(original)(other))]))


def _many(group: str, prefix: str, like: str, function: Any, options: list[str], **more: Any) -> list[Fault]:
    return [
        Fault(
            f"{prefix}.{option.replace(' ', '_')}",
            group,
            f"{prefix}: {option}",
            like,
            functools.partial(function, option),
            **more,
        )
        for option in options
    ]


FRAMES = "more than two frames, height and width unequal, a batch of two different rows"
SCHEDULER = ("scheduler",)
FAULTS: list[Fault] = [
    *_many("layout", "input", "L01", given, ["frames reversed", "width mirrored"], kinds=VISUAL, reveal=FRAMES),
    *_many(
        "layout", "input", "L01", given, ["height and width exchanged", "channels moved"], kinds=VISUAL, reveal=FRAMES
    ),
    *_many("layout", "input", "V03", given, ["first frame for all", "last frame lost"], kinds=VISUAL, reveal=FRAMES),
    *_many("layout", "input", "S10", given, ["rows of the batch moved"], kinds=VISUAL, reveal=FRAMES),
    *_many("layout", "output", "L01", answered, ["frames reversed", "height mirrored"], kinds=VISUAL, reveal=FRAMES),
    *_many("layout", "output", "L01", answered, ["height and width exchanged"], kinds=VISUAL, reveal=FRAMES),
    *_many(
        "layout", "output", "L01", answered, ["channels before patches", "channels moved"], kinds=VISUAL, reveal=FRAMES
    ),
    *_many("selection", "text", "S06", text, ["last token lost", "ignored"], kinds=("dit",), reveal="text that counts"),
    *_many("selection", "text", "S10", text, ["first row for all", "tokens reversed"], kinds=("dit",), reveal=FRAMES),
    *_many("selection", "ids", "S09", ids, ["moved by one", "reversed", "first lost"], kinds=ENCODERS),
    *_many("selection", "state", "S08", selected, ["final norm skipped"]),
    *_many("selection", "state", "S08", selected, ["penultimate for last", "states moved by one"], kinds=ENCODERS),
    *_many("selection", "state", "S08", selected, ["embedding left out"], kinds=ENCODERS),
    *_many("vae", "vae", "V01", vae, ["scaled", "moved", "mean and variance exchanged"], kinds=("vae",)),
    *_many("vae", "vae", "V07", vae, ["in bf16", "in float16"], kinds=("vae",)),
    *_many("vae", "latents", "V05", latents, ["in [0, 1]", "normalised twice"], kinds=("vae",)),
    *_many("vae", "latents", "V01", latents, ["without its scale", "in bf16"], kinds=("vae",)),
    *_many("scheduler", "schedule", "S01", schedule, ["shifted twice", "unshifted"], kinds=SCHEDULER),
    *_many("scheduler", "schedule", "S03", schedule, ["reversed", "with another end", "moved by one"], kinds=SCHEDULER),
    *_many("scheduler", "schedule", "S14", schedule, ["in bf16", "rounded", "timesteps over 1000"], kinds=SCHEDULER),
    *_many("scheduler", "step", "S04", step, ["of the opposite sign", "from the output before"], kinds=SCHEDULER),
    *_many("scheduler", "step", "S04", step, ["one percent short", "skipped", "in bf16"], kinds=SCHEDULER),
    *_many("scheduler", "step", "N18", step, ["with its index kept"], kinds=SCHEDULER),
]
