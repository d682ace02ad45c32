# SPDX-License-Identifier: Apache-2.0
"""Instantiate a native class as the production loader would, without weights. Needs a booted FastVideo."""

from __future__ import annotations

import importlib
import json
from typing import Any

from fvport.errors import BlockedError
from fvport.models import native
from fvport.spec import Component, Port

LIMIT = 2 << 30  # bytes of parameters that are made with random values


def answer(port: Port, component: Component) -> dict[str, Any]:
    """`{"class", "tensors", "built_on", "concerns", "random"?}`: names and shapes on the meta device, then random."""
    import torch

    cls, args, kwargs, concerns = _constructor(port, component)
    module: Any = None
    built_on = ""
    for device in ("meta", "cpu"):
        try:
            with torch.device(device):
                module, built_on = cls(*args, **kwargs), device
            break
        except (RuntimeError, NotImplementedError, ValueError) as error:
            if device == "cpu":
                raise
            concerns.append(f"the native class cannot be built on the meta device ({type(error).__name__})")
    tensors = {
        name: {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
        for name, tensor in native.own_tensors(module).items()
    }
    found: dict[str, Any] = {"class": component.native, "tensors": tensors, "built_on": built_on, "concerns": concerns}
    size = sum(p.numel() * 4 for p in module.parameters())
    if size > LIMIT:
        concerns.append(f"not made with random weights: {size / 2**30:.1f} GiB in float32 is over the limit")
    else:
        found["random"] = _filled(cls, args, kwargs)
    return found


def _constructor(port: Port, component: Component) -> tuple[Any, tuple[Any, ...], dict[str, Any], list[str]]:
    """By the production loader on the load tree; without one, the config class with the release's config.json."""
    try:
        return (*native.constructor(port, component), [])
    except BlockedError:
        folder = port.official_tree / (component.weights or component.name)
        if not component.config or not (folder / "config.json").is_file():
            raise
        module, _, name = component.config.partition(":")
        config = getattr(importlib.import_module(module), name)()
        given = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config.update_model_arch({key: value for key, value in given.items() if not key.startswith("_")})
        words = "there is no load tree yet: the native class was built from its config class, not by the loader"
        return native.native_class(port, component), (config,), {}, [words]


def _filled(cls: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    import torch

    made = cls(*args, **kwargs).float().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.is_floating_point():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return {"parameters": sum(p.numel() for p in made.parameters()), "modules": sum(1 for _ in made.modules())}
