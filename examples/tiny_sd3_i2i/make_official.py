# SPDX-License-Identifier: Apache-2.0
"""Make a tiny official Stable Diffusion 3 image-to-image checkpoint (Diffusers layout, about 1 MB).

    python -m examples.tiny_sd3_i2i.make_official build/official/tiny_sd3_i2i [--seed 0]

The parts are those of the text-to-image one; what differs is the pipeline, which begins from a noised image.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from examples.tiny_sd3 import make_official as tiny_sd3
from examples.tiny_wan import make_official as tiny_wan


def build(seed: int) -> Any:
    """The tiny StableDiffusion3Img2ImgPipeline."""
    from diffusers import StableDiffusion3Img2ImgPipeline

    parts = tiny_sd3.build(seed).components
    return StableDiffusion3Img2ImgPipeline(**{name: part for name, part in parts.items() if part is not None})


def make(out: Path, seed: int = 0) -> Path:
    """Write the checkpoint to `out` and return it; one that is already there and whole is left alone."""
    return tiny_wan.make(out, seed, build, __file__)


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the tiny official Stable Diffusion 3 image-to-image checkpoint.")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(make(options.out, options.seed))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
