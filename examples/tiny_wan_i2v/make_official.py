# SPDX-License-Identifier: Apache-2.0
"""Make a tiny official Wan image-to-video checkpoint (Diffusers layout, about 1 MB) with the real classes.

    python -m examples.tiny_wan_i2v.make_official build/official/tiny_wan_i2v [--seed 0]

As the text-to-video one (every parameter random, the same bytes every time), with what image to video adds: a
transformer of 16 + 4 + 16 input channels that also attends to image tokens, a CLIP vision tower, its preprocessor.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from examples.tiny_wan import make_official as tiny_wan

IMAGE_DIM = 24
TRANSFORMER = {**tiny_wan.TRANSFORMER, "in_channels": 36, "image_dim": IMAGE_DIM, "added_kv_proj_dim": 48}
# Four layers: the pipeline takes the last but one, and a port that takes another one is wrong.
IMAGE_ENCODER = {
    "hidden_size": IMAGE_DIM,
    "intermediate_size": 48,
    "projection_dim": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
SQUARE = {"height": 32, "width": 32}


def build(seed: int) -> Any:
    """The tiny WanImageToVideoPipeline."""
    from diffusers import WanImageToVideoPipeline, WanTransformer3DModel
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    encoder = CLIPVisionModel(CLIPVisionConfig(**IMAGE_ENCODER))
    return WanImageToVideoPipeline(
        transformer=tiny_wan.randomise(WanTransformer3DModel(**TRANSFORMER), "transformer", seed),
        image_encoder=tiny_wan.randomise(encoder, "image_encoder", seed),
        image_processor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SQUARE),
        **tiny_wan.common(seed),
    )


def make(out: Path, seed: int = 0) -> Path:
    """Write the checkpoint to `out` and return it; one that is already there and whole is left alone."""
    return tiny_wan.make(out, seed, build, __file__)


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the tiny official Wan image-to-video checkpoint.")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(make(options.out, options.seed))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
