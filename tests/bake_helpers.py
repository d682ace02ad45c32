# SPDX-License-Identifier: Apache-2.0
"""Releases made of headers alone, and bakes of them: for tests of the template."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fvport.scaffold import new

REPO = Path(__file__).resolve().parent.parent
Tensors = Mapping[str, tuple[int, ...]]

DIT: dict[str, Any] = {
    "_class_name": "WanTransformer3DModel",
    "added_kv_proj_dim": None,
    "attention_head_dim": 24,
    "cross_attn_norm": True,
    "eps": 1e-06,
    "ffn_dim": 64,
    "freq_dim": 32,
    "image_dim": None,
    "in_channels": 16,
    "num_attention_heads": 2,
    "num_layers": 2,
    "out_channels": 16,
    "patch_size": [1, 2, 2],
    "pos_embed_seq_len": None,
    "qk_norm": "rms_norm_across_heads",
    "rope_max_seq_len": 32,
    "text_dim": 32,
}
T5: dict[str, Any] = {
    "architectures": ["UMT5EncoderModel"],
    "d_ff": 48,
    "d_kv": 8,
    "d_model": 32,
    "feed_forward_proj": "gated-gelu",
    "is_gated_act": True,
    "layer_norm_epsilon": 1e-06,
    "model_type": "umt5",
    "num_heads": 4,
    "num_layers": 2,
    "pad_token_id": 0,
    "relative_attention_max_distance": 40,
    "relative_attention_num_buckets": 16,
    "tie_word_embeddings": True,
    "vocab_size": 512,
}
VAE: dict[str, Any] = {
    "_class_name": "AutoencoderKLWan",
    "base_dim": 8,
    "dim_mult": [1, 1, 1, 2],
    "latents_mean": [-0.7571, -0.7089, -0.9113],
    "latents_std": [2.8184, 1.4541, 2.3275],
    "scale_factor_spatial": 8,
    "scale_factor_temporal": 4,
    "z_dim": 16,
}
SCHEDULER: dict[str, Any] = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
WAN: dict[str, tuple[str, str, dict[str, Any], Tensors]] = {
    "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler", SCHEDULER, {}),
    "text_encoder": ("transformers", "UMT5EncoderModel", T5, {"shared.weight": (512, 32)}),
    "tokenizer": ("transformers", "T5Tokenizer", {}, {}),
    "transformer": (
        "diffusers",
        "WanTransformer3DModel",
        DIT,
        {"scale_shift_table": (1, 2, 48), "blocks.0.scale_shift_table": (1, 6, 48), "proj_out.weight": (64, 48)},
    ),
    "vae": ("diffusers", "AutoencoderKLWan", VAE, {"conv_in.weight": (8, 3, 3, 3, 3)}),
}


def safetensors(file: Path, tensors: Tensors) -> None:
    """A safetensors file of fp32 zeros."""
    header, at = {}, 0
    for name, shape in tensors.items():
        size = 4
        for n in shape:
            size *= n
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * at)


def release(folder: Path, pipeline: str = "WanPipeline", components: Mapping[str, Any] = WAN) -> Path:
    """A release in Diffusers layout: {name: (library, class, config, tensors)}."""
    index: dict[str, Any] = {"_class_name": pipeline, "transformer_2": [None, None]}
    for name, (library, cls, config, tensors) in components.items():
        index[name] = [library, cls]
        (folder / name).mkdir(parents=True)
        kind = "scheduler_" if name == "scheduler" else "tokenizer_" if "tokenizer" in name else ""
        (folder / name / f"{kind}config.json").write_text(json.dumps(config))
        if tensors:
            safetensors(folder / name / "model.safetensors", tensors)
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def answers(**given: str) -> list[str]:
    """The demo's answers, with changes."""
    known = {
        "model_name": "Tiny Wan",
        "workload_type": "t2v",
        "components": "transformer=port,text_encoder=port,vae=reuse,scheduler=reuse",
        "gate_device": "cpu",
    }
    return [f"{key}={value}" for key, value in {**known, **given}.items()]


def bake(out: Path, **given: str) -> Path:
    """The root of a port baked below `out`."""
    return new.bake(answers(**given), output_dir=out, no_input=True).root


def files(root: Path) -> dict[str, bytes]:
    """{relative path: bytes} of a port, without the link to the weights."""
    found = (path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink())
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in found if "official_weights" not in p.parts}
