# SPDX-License-Identifier: Apache-2.0
"""Make a tiny official Stable Diffusion 3 checkpoint (Diffusers layout, about 1 MB) with the real classes.

    python -m examples.tiny_sd3.make_official build/official/tiny_sd3 [--seed 0]

Two CLIP text encoders with projection, a T5, the joint-attention transformer and an image VAE; every parameter random,
the same bytes every time.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from examples.tiny_wan import make_official as tiny_wan

WIDTH = 48
TRANSFORMER = {
    "sample_size": 16,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 2,
    "attention_head_dim": 24,
    "num_attention_heads": 2,
    "joint_attention_dim": 32,
    "caption_projection_dim": WIDTH,
    "pooled_projection_dim": 28,
    "pos_embed_max_size": 24,
    "qk_norm": "rms_norm",
}
CLIP = {
    "vocab_size": tiny_wan.VOCAB,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "max_position_embeddings": 77,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
CLIPS = {
    "text_encoder": {**CLIP, "hidden_size": 12, "projection_dim": 12, "hidden_act": "quick_gelu"},
    "text_encoder_2": {**CLIP, "hidden_size": 16, "projection_dim": 16, "hidden_act": "gelu"},
}
VAE = {
    "block_out_channels": (8, 8, 8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 16,
    "scaling_factor": 1.5305,
    "shift_factor": 0.0609,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}


def build(seed: int) -> Any:
    """The tiny StableDiffusion3Pipeline."""
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
    from diffusers import StableDiffusion3Pipeline as Pipeline
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

    parts: dict[str, Any] = {
        name: CLIPTextModelWithProjection(CLIPTextConfig(**config)) for name, config in CLIPS.items()
    }
    parts["text_encoder_3"] = T5EncoderModel(T5Config(**tiny_wan.TEXT_ENCODER))
    parts["transformer"] = SD3Transformer2DModel(**TRANSFORMER)
    parts["vae"] = AutoencoderKL(**VAE)
    parts = {name: tiny_wan.randomise(part, name, seed) for name, part in parts.items()}
    for name in ("tokenizer", "tokenizer_2", "tokenizer_3"):
        parts[name] = tiny_wan.make_tokenizer()
    parts["tokenizer"].model_max_length = parts["tokenizer_2"].model_max_length = 77
    return Pipeline(scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), **parts)


def make(out: Path, seed: int = 0) -> Path:
    """Write the checkpoint to `out` and return it; one that is already there and whole is left alone."""
    return tiny_wan.make(out, seed, build, __file__)


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the tiny official Stable Diffusion 3 checkpoint.")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(make(options.out, options.seed))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
