# SPDX-License-Identifier: Apache-2.0
"""Make the distilled release of the tiny Wan: another transformer, another shift; text encoder and VAE are the base's.

python -m examples.tiny_wan_variants.make_official build/official/tiny_wan_distilled [--seed 0]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from examples.tiny_wan import make_official as tiny_wan

DISTILLED = 1000  # added to the seed: other values in every parameter of the transformer
SHIFT = 8.0  # the base's is another


def distilled(seed: int) -> Any:
    """The tiny WanPipeline with the distilled transformer and schedule."""
    from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel

    transformer = WanTransformer3DModel(**tiny_wan.TRANSFORMER)
    transformer = tiny_wan.randomise(transformer, "transformer", seed + DISTILLED)
    scheduler = FlowMatchEulerDiscreteScheduler(**{**tiny_wan.SCHEDULER, "shift": SHIFT})
    return WanPipeline(transformer=transformer, **{**tiny_wan.common(seed), "scheduler": scheduler})


def make(out: Path, seed: int = 0) -> Path:
    """Write the checkpoint to `out` and return it; one that is already there and whole is left alone."""
    return tiny_wan.make(out, seed, distilled, __file__)


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the distilled release of the tiny Wan.")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(make(options.out, options.seed))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
