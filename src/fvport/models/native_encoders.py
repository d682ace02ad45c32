# SPDX-License-Identifier: Apache-2.0
"""Encoders that FastVideo's table of component loaders has no row for: audio encoders, and conditioners with a config.

FastVideo 0.2.1 hands a component of a name it does not know to transformers' AutoModel, and its loader of conditioners
builds the class without a config and loads without being strict. A port's encoder of these kinds is loaded by the
second half of FastVideo's own encoder loader: the class that the load tree names, its config brought up to date with
the checkpoint's JSON, `load_weights`, and the loader's check that nothing stayed empty.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from fvport.spec import Component

KINDS = ("audio_encoder", "conditioner")


def concerns(component: Component) -> bool:
    """Whether a component is loaded here: one that is ported, of a kind without a loader of its own."""
    return component.mode == "port" and component.kind in KINDS


def load(component: Component, folder: Path, arguments: Any) -> Any:
    """The component from its folder of the load tree, fp32. Raises what FastVideo's loader raises."""
    from fastvideo.distributed.parallel_state import get_local_torch_device
    from fastvideo.models.loader.component_loader import TextEncoderLoader

    module, _, name = component.config.partition(":")
    config = getattr(importlib.import_module(module), name)()
    given = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config.update_model_arch({key: value for key, value in given.items() if not key.startswith("_")})
    return TextEncoderLoader().load_model(str(folder), config, get_local_torch_device(), arguments, "fp32")
