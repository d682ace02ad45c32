# SPDX-License-Identifier: Apache-2.0
"""Make a tiny official Wan video-to-video checkpoint (Diffusers layout, under 1 MB) with the real classes.

    python -m examples.tiny_wan_v2v.make_official build/official/tiny_wan_v2v [--seed 0]

The parts are those of the text-to-video one; what differs is the pipeline, which begins from a noised video.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from examples.tiny_wan import make_official as tiny_wan


def build(seed: int) -> Any:
    """The tiny WanVideoToVideoPipeline."""
    from diffusers import WanTransformer3DModel, WanVideoToVideoPipeline

    transformer = tiny_wan.randomise(WanTransformer3DModel(**tiny_wan.TRANSFORMER), "transformer", seed)
    return WanVideoToVideoPipeline(transformer=transformer, **tiny_wan.common(seed))


def make(out: Path, seed: int = 0) -> Path:
    """Write the checkpoint to `out` and return it; one that is already there and whole is left alone."""
    return tiny_wan.make(out, seed, build, __file__)


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the tiny official Wan video-to-video checkpoint.")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(make(options.out, options.seed))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
