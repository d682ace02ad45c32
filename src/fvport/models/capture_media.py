# SPDX-License-Identifier: Apache-2.0
"""What a pipeline makes of the picture or video that a call begins with, watched where every pipeline must pass.

    media/<n>/pixels, media/<n>/encoded     what a VAE is given to encode before the first step, the posterior's mean
    start/{latents,timestep,noise}          what the scheduler is told to noise before the first step

A pipeline that noises by a formula of its own leaves no `start`; what it begins with is `initial_noise` as ever.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fvport.models.native_capture import Recorder

CLEAN = ("sample", "original_samples", "clean_latent")  # what libraries call the same argument
LEVEL = ("timestep", "timesteps")


def watch(recorder: Recorder, schedulers: list[Any], modules: dict[str, Any]) -> None:
    """Wrap `encode` of every VAE and the schedulers' two ways to noise, for the time of one call."""
    for name, module in modules.items():
        if "vae" in name and callable(getattr(module, "encode", None)):
            recorder._wrap(module, "encode", functools.partial(_encode, recorder))
    for scheduler in schedulers:
        for name in ("scale_noise", "add_noise"):
            if callable(getattr(scheduler, name, None)):
                recorder._wrap(scheduler, name, functools.partial(_noised, recorder))


def _encode(recorder: Recorder, original: Any, pixels: Any, *args: Any, **kwargs: Any) -> Any:
    output = original(pixels, *args, **kwargs)
    mean = getattr(getattr(output, "latent_dist", output), "mean", None)
    if recorder.step == 0 and hasattr(mean, "shape"):
        count = sum(name.endswith("/pixels") for name in recorder.tensors)
        recorder._keep(f"media/{count}/pixels", pixels)
        recorder._keep(f"media/{count}/encoded", mean)
    return output


def _noised(recorder: Recorder, original: Any, *args: Any, **kwargs: Any) -> Any:
    import torch

    if recorder.step == 0 and "start/noise" not in recorder.tensors:
        told = inspect.signature(original).bind(*args, **kwargs).arguments
        found = {"latents": CLEAN, "timestep": LEVEL, "noise": ("noise",)}
        for name, words in found.items():
            value = next((told[word] for word in words if word in told), None)
            if value is not None:
                recorder._keep(f"start/{name}", torch.as_tensor(value))
    return original(*args, **kwargs)
