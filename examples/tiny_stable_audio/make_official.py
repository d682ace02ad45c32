# SPDX-License-Identifier: Apache-2.0
"""Make a tiny official Stable Audio checkpoint (Diffusers layout, under 1 MB) with the real classes.

    python -m examples.tiny_stable_audio.make_official build/official/tiny_stable_audio [--seed 0] [--scheduler edm]

T5, the projection model (text, start and end in seconds), the audio transformer with grouped cross-attention, and the
Oobleck autoencoder (two channels, 16 samples a latent); every parameter random, the same bytes every time.

A call makes 0.512 s at most: 512 latents of 16 samples at 16 kHz, so loudness (blocks of 400 ms) can be measured.
The scheduler is Stable Audio Open's own, with its own levels: CosineDPMSolverMultistepScheduler, which draws the noise
of every step from a Brownian path of torchsde. `edm` is the one that the official pipeline's signature names.
"""

from __future__ import annotations

import argparse
import re
from functools import partial
from pathlib import Path
from typing import Any

from examples.tiny_wan import make_official as tiny_wan

LATENTS, TEXT_LENGTH = 8, 128
TRANSFORMER = {
    "sample_size": 512,
    "in_channels": LATENTS,
    "out_channels": LATENTS,
    "num_layers": 2,
    "attention_head_dim": 12,
    "num_attention_heads": 4,
    "num_key_value_attention_heads": 2,
    "cross_attention_dim": 32,
    "cross_attention_input_dim": 32,
    "global_states_input_dim": 64,
    "time_proj_dim": 32,
}
PROJECTION = {"text_encoder_dim": tiny_wan.TEXT_DIM, "conditioning_dim": 32, "min_value": 0, "max_value": 64}
TEXT_ENCODER = {**tiny_wan.TEXT_ENCODER, "feed_forward_proj": "relu"}
VAE = {
    "encoder_hidden_size": 8,
    "downsampling_ratios": [4, 4],
    "channel_multiples": [1, 2],
    "decoder_channels": 8,
    "decoder_input_channels": LATENTS,
    "audio_channels": 2,
    "sampling_rate": 16000,
}
# Factors on what `randomise` draws. No norm reads queries, keys or what a block adds here, so they are loud enough for
# a wrong block to be heard; the autoencoder's sines are kept so gentle that fp32 differs from float64 by 2e-6 after
# eight steps (0.4 % before), and the last layer so quiet that no sample is clipped.
GAINS = (
    (r"attn\d\.to_[qk]\.", 0.5 / tiny_wan.QUIET),
    (r"(to_out\.0|ff\.net\.2)\.", 0.3 / tiny_wan.QUIET),
    (r"^proj_in\.", 0.2),
    (r"number_conditioner\..*\.1\.weight", 3.0),
    (r"^decoder\..*res_unit\d\.conv2\.weight_g", 0.25),
    (r"^decoder\.conv1\.weight_g", 0.05),
    (r"^decoder\.conv2\.weight_g", 0.1),
)
SHARED = {"solver_order": 2, "prediction_type": "v_prediction", "sigma_data": 1.0, "sigma_schedule": "exponential"}
SCHEDULERS = {
    "edm": ("EDMDPMSolverMultistepScheduler", {"sigma_min": 0.3, "sigma_max": 50.0, **SHARED}),
    "cosine": ("CosineDPMSolverMultistepScheduler", {"sigma_min": 0.3, "sigma_max": 500, **SHARED}),
}


def build(seed: int, scheduler: str = "cosine") -> Any:
    """The tiny StableAudioPipeline."""
    import diffusers
    from diffusers import AutoencoderOobleck, StableAudioDiTModel, StableAudioPipeline, StableAudioProjectionModel
    from transformers import T5Config, T5EncoderModel

    parts: dict[str, Any] = {
        "text_encoder": T5EncoderModel(T5Config(**TEXT_ENCODER)),
        "projection_model": StableAudioProjectionModel(**PROJECTION),
        "transformer": StableAudioDiTModel(**TRANSFORMER),
        "vae": AutoencoderOobleck(**VAE),
    }
    parts = {name: _adjusted(tiny_wan.randomise(part, name, seed)) for name, part in parts.items()}
    cls, config = SCHEDULERS[scheduler]
    tokenizer = tiny_wan.make_tokenizer()
    tokenizer.model_max_length = TEXT_LENGTH
    return StableAudioPipeline(tokenizer=tokenizer, scheduler=getattr(diffusers, cls)(**config), **parts)


def _adjusted(part: Any) -> Any:
    import torch

    with torch.no_grad():
        for name, parameter in part.named_parameters():
            for pattern, gain in GAINS:
                if re.search(pattern, name):
                    parameter.mul_(gain)
    return part


def make(out: Path, seed: int = 0, scheduler: str = "cosine") -> Path:
    """Write the checkpoint to `out` and return it; one that is already there and whole is left alone."""
    return tiny_wan.make(out, seed, partial(build, scheduler=scheduler), __file__)


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the tiny official Stable Audio checkpoint.")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scheduler", choices=sorted(SCHEDULERS), default="cosine")
    options = parser.parse_args()
    print(make(options.out, options.seed, options.scheduler))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
