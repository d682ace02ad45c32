# SPDX-License-Identifier: Apache-2.0
"""Small releases and ports made by code, for the tests of weights/ and its checks. No torch, no FastVideo."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from fvport import spec
from fvport.models import native
from fvport.spec import Port
from fvport.weights.mapping import Rules

NAMES = {"float32": "F32", "float16": "F16", "int64": "I64", "uint8": "U8"}


def save(path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> Path:
    """Write a safetensors file from numpy arrays; a `uint16` array stands for bf16's bits."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    body = b""
    for name, array in tensors.items():
        data = array.tobytes()
        dtype = "BF16" if array.dtype == np.uint16 else NAMES[str(array.dtype)]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    return save_raw(path, json.dumps(header).encode(), body)


def save_raw(path: Path, header: bytes, body: bytes = b"", length: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + body)
    return path


def save_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def transformer(layers: int = 2) -> dict[str, np.ndarray]:
    """A tiny attention stack: q, k, v, an output, two norms of one shape."""
    rng = np.random.default_rng(0)

    def some(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    found = {"table": some(2, 4)}
    for n in range(layers):
        for part in ("to_q", "to_k", "to_v"):
            found[f"blocks.{n}.attn1.{part}.weight"] = some(4, 4)
        found[f"blocks.{n}.attn1.to_out.0.weight"] = some(4, 4)
        found[f"blocks.{n}.norm1.weight"] = some(4)
        found[f"blocks.{n}.norm2.weight"] = some(4)
    return found


NAMES_MAPPING: dict[str, Any] = {
    r"^blocks\.(\d+)\.attn1\.to_q\.(.*)$": (r"blocks.\1.attn1.to_qkv.\2", 0, 3),
    r"^blocks\.(\d+)\.attn1\.to_k\.(.*)$": (r"blocks.\1.attn1.to_qkv.\2", 1, 3),
    r"^blocks\.(\d+)\.attn1\.to_v\.(.*)$": (r"blocks.\1.attn1.to_qkv.\2", 2, 3),
    r"^blocks\.(\d+)\.attn1\.to_out\.0\.(.*)$": r"blocks.\1.attn1.to_out.\2",
}
PASSTHROUGH = ["table", r"blocks\.\d+\.norm[12]\.weight"]


def native_of(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The native state dict that a right load of `transformer` makes."""
    found = {}
    for name, array in tensors.items():
        if ".to_q." in name:
            parts = [tensors[name.replace("to_q", part)] for part in ("to_q", "to_k", "to_v")]
            found[name.replace("to_q", "to_qkv")] = np.concatenate(parts)
        elif ".to_k." not in name and ".to_v." not in name:
            found[name.replace("to_out.0", "to_out")] = array
    return found


def release(root: Path, tensors: dict[str, np.ndarray] | None = None) -> Path:
    """A release in Diffusers layout: transformer, scheduler, tokenizer, an absent second transformer."""
    tensors = transformer() if tensors is None else tensors
    index = {
        "_class_name": "WanPipeline",
        "_diffusers_version": "0.42.1",
        "boundary_ratio": None,
        "scheduler": ["diffusers", "FlowScheduler"],
        "tokenizer": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "transformer_2": [None, None],
    }
    save_json(root / "model_index.json", index)
    save_json(root / "transformer/config.json", {"_class_name": "WanTransformer3DModel", "num_layers": 2, "eps": 1e-6})
    save_json(root / "scheduler/scheduler_config.json", {"_class_name": "FlowScheduler", "shift": 3.0, "new_key": 1})
    save_json(root / "tokenizer/tokenizer_config.json", {"tokenizer_class": "T5TokenizerFast"})
    save(root / "transformer/diffusion_pytorch_model.safetensors", tensors)
    return root


PORT = """# a comment that stays
schema = 1

[port]
model = "Demo"
slug = "demo"
workload_types = ["t2v"]

[official]
library = "diffusers"
weights = "official_weights/demo"

[components.transformer]
kind = "dit"
mode = "port"
official = "diffusers:WanTransformer3DModel"
native = "fastvideo.models.dits.demo:DemoTransformer3DModel"
config = "fastvideo.configs.models.dits.demo:DemoConfig"
weights = "transformer"  # the folder
mapping = { passthrough = ["table", 'blocks\\.\\d+\\.norm[12]\\.weight'], signed_by = "", signed_on = "", digest = "" }

[components.scheduler]
kind = "scheduler"
mode = "reuse"
official = "diffusers:FlowScheduler"
native = "fastvideo.models.schedulers.flow:FlowScheduler"
weights = "scheduler"
config_ignored = { new_key = "diffusers writes it, nothing reads it" }

[components.tokenizer]
kind = "tokenizer"
mode = "passthrough"
weights = "tokenizer"
"""
SCHEDULER = "class FlowScheduler:\n    def __init__(self, shift: float = 1.0):\n        self.shift = shift\n"


def make_port(root: Path, text: str = PORT) -> Port:
    """A port with a release, before `prep`."""
    release(root / "official_weights/demo")
    for name, content in (
        ("tests/local_tests/demo/port.toml", text),
        ("fastvideo/models/schedulers/flow.py", SCHEDULER),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return spec.load(root)


class Native:
    """Stands for `fvport.models.native`: rules, names and the loaded state are what a test says."""

    def __init__(self, monkeypatch: Any, folder: Path, tensors: dict[str, np.ndarray] | None = None) -> None:
        self.names: dict[str, Any] = dict(NAMES_MAPPING)
        self.state = native_of(transformer() if tensors is None else tensors)
        self.folder = folder
        self.meta_override: dict[str, Any] = {}
        monkeypatch.setattr(native, "rules", lambda port, name, device="auto": Rules.from_fastvideo(self.names))
        monkeypatch.setattr(native, "meta", lambda port, name, device="auto": self.meta())
        monkeypatch.setattr(native, "ask", self.ask)
        monkeypatch.setattr(native, "try_many", lambda port, questions, device="auto": {})

    def meta(self) -> dict[str, Any]:
        return {name: (array.shape, str(array.dtype)) for name, array in self.state.items()} | self.meta_override

    def ask(self, port: Port, what: str, name: str, device: str = "auto") -> Any:
        assert what == "state"
        return {"file": str(save(self.folder / f"{name}.state.safetensors", self.state))}
