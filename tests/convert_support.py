# SPDX-License-Identifier: Apache-2.0
"""A small raw release and its declaration, for the tests of conversions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from weights_support import save, save_json

from fvport.weights import conversion, declaration, fill, tree
from fvport.weights.conversion import Conversion

TEXT = """
PIPELINE = ["diffusers", "WanPipeline"]
COMPONENTS = {
    "transformer": {
        "class": ["diffusers", "WanTransformer3DModel"],
        "prefix": "dit.",
        "config": {"num_layers": 2},
        "rename": [[r"^layers\\.", "blocks."]],
        "rules": [
            [r"(.*)\\.qkv\\.weight", [r"\\1.to_q.weight", r"\\1.to_k.weight", r"\\1.to_v.weight"], ["split", 0, 3]],
            [[r"(.*)\\.gate", r"(.*)\\.up"], r"\\1.gate_up", ["fuse", 0]],
            [r"(.*)\\.down", r"\\1.down", ["transpose", [1, 0]], ["cast", "F16"]],
        ],
    },
    "vae": {"class": ["diffusers", "AutoencoderKLWan"], "prefix": "vae.", "config": "config.json"},
    "tokenizer": {"class": ["transformers", "T5TokenizerFast"], "folder": "tok"},
    "scheduler": {"class": ["diffusers", "FlowScheduler"], "config": {"shift": 3.0}},
}
SKIP = {r"^ema\\.": "average of training"}
"""


def some(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def tensors(layers: int = 2) -> dict[str, np.ndarray]:
    found = {"ema.dit.x": some(3), "vae.a": some(4, 4), "vae.b": some(3, seed=7)}
    for n in range(layers):
        found[f"dit.layers.{n}.qkv.weight"] = some(12, 4, seed=n)
        found[f"dit.layers.{n}.gate"] = some(5, 4, seed=n + 10)
        found[f"dit.layers.{n}.up"] = some(5, 4, seed=n + 20)
        found[f"dit.layers.{n}.down"] = some(4, 5, seed=n + 30)
    return found


def release(root: Path, held: dict[str, np.ndarray] | None = None) -> Path:
    """`model.safetensors` with three components and an average, a config of its own, a tokenizer's folder."""
    save(root / "model.safetensors", tensors() if held is None else held, {"format": "pt", "author": "someone"})
    save_json(root / "config.json", {"z_dim": 16})
    save_json(root / "tok/tokenizer_config.json", {"tokenizer_class": "T5TokenizerFast"})
    (root / "tok/spiece.model").write_bytes(b"pieces")
    return root


def plan(root: Path, text: str = TEXT) -> Conversion:
    return conversion.plan(root, declaration.parse(text, "x_to_diffusers.py"))


def write(made: Conversion, target: Path, **options: Any) -> fill.Written:
    return tree.write(made, target, fill.Options(**options), lambda done, total: None)
