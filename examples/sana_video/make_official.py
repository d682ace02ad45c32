# SPDX-License-Identifier: Apache-2.0
"""Make a tiny official Sana Video checkpoint (Diffusers layout, under 1 MB) with the real classes.

    python -m examples.sana_video.make_official build/official/sana_video [--seed 0]

FastVideo 0.2.1 has no such transformer and no archetype of fvport covers it: this is the release of the tutorial.
Linear attention over the sequence, masked attention to the text of a Gemma 2, Wan's VAE; every parameter random.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from examples.tiny_wan import make_official as tiny_wan

TRANSFORMER = {
    "in_channels": 16,
    "out_channels": 16,
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "num_layers": 2,
    "num_cross_attention_heads": 3,
    "cross_attention_head_dim": 8,
    "cross_attention_dim": 24,
    "caption_channels": 32,
    "rope_max_seq_len": 32,
}
TEXT_ENCODER = {
    "vocab_size": tiny_wan.VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "sliding_window": 6,
    "query_pre_attn_scalar": 24,
}


def build(seed: int) -> Any:
    """The tiny SanaVideoPipeline."""
    from diffusers import SanaVideoPipeline, SanaVideoTransformer3DModel
    from transformers import Gemma2Config, Gemma2Model

    parts = tiny_wan.common(seed)
    parts["text_encoder"] = tiny_wan.randomise(Gemma2Model(Gemma2Config(**TEXT_ENCODER)), "text_encoder", seed)
    transformer = SanaVideoTransformer3DModel(**TRANSFORMER)
    parts["transformer"] = tiny_wan.randomise(transformer, "transformer", seed)
    return SanaVideoPipeline(**parts)


def make(out: Path, seed: int = 0) -> Path:
    """Write the checkpoint to `out` and return it; one that is already there and whole is left alone."""
    return tiny_wan.make(out, seed, build, __file__)


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the tiny official Sana Video checkpoint.")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(make(options.out, options.seed))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
