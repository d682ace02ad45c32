# SPDX-License-Identifier: Apache-2.0
"""The tiny Wan with a latent upsampler of LTX Video and a HiFi-GAN vocoder beside it, and the port of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

UPSAMPLER = {"in_channels": 4, "mid_channels": 32, "num_blocks_per_stage": 2, "dims": 3}
VOCODER = {
    "model_in_dim": 8,
    "upsample_initial_channel": 16,
    "upsample_rates": [2, 2],
    "upsample_kernel_sizes": [4, 4],
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 3]],
}
INDEX = {"latent_upsampler": ["ltx", "LTXLatentUpsamplerModel"], "vocoder": ["transformers", "SpeechT5HifiGan"]}


def parts() -> dict[str, Any]:
    """{component: the official model}."""
    from diffusers.pipelines.ltx import LTXLatentUpsamplerModel
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    return {
        "latent_upsampler": LTXLatentUpsamplerModel(**UPSAMPLER),
        "vocoder": SpeechT5HifiGan(SpeechT5HifiGanConfig(**VOCODER)),
    }


def release(folder: Path) -> Path:
    """The whole release, as its libraries write it."""
    from examples.tiny_wan import make_official

    make_official.make(folder)
    (folder / make_official.RECORD).unlink()
    for name, model in parts().items():
        model.save_pretrained(folder / name)
    file = folder / "model_index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | INDEX, indent=2) + "\n", encoding="utf-8")
    return folder
