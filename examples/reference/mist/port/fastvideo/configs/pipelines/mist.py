# SPDX-License-Identifier: Apache-2.0
"""Configuration of MistPipeline: its components, and the defaults of the official pipeline and checkpoint."""
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from fastvideo.configs.models import DiTConfig, EncoderConfig, VAEConfig
from fastvideo.configs.models.dits.mist import MistDiTConfig
from fastvideo.configs.models.encoders import BaseEncoderOutput
from fastvideo.configs.models.encoders.mist import MistTextEncoderConfig
from fastvideo.configs.models.vaes.wanvae import WanVAEConfig
from fastvideo.configs.pipelines.base import PipelineConfig

TEXT_LENGTH = 64  # text_encoder/config.json: longest


def clean_prompt(prompt: str) -> str:
    """The official pipeline hands a prompt to its tokenizer as it is."""
    return prompt


def valid_tokens(outputs: BaseEncoderOutput) -> torch.Tensor:
    """Hidden states of the real tokens, zeros after them: (batch, TEXT_LENGTH, width)."""
    hidden, mask = outputs.last_hidden_state, outputs.attention_mask
    if hidden is None or mask is None:
        raise ValueError("the text encoder must return last_hidden_state and attention_mask")
    return hidden * mask.unsqueeze(-1).to(hidden)


def text_encoders() -> tuple[EncoderConfig, ...]:
    return (MistTextEncoderConfig(), )


@dataclass
class MistPipelineConfig(PipelineConfig):
    """Defaults are the official pipeline's and its checkpoint's; precisions are what the stages really compute in."""

    dit_config: DiTConfig = field(default_factory=MistDiTConfig)
    vae_config: VAEConfig = field(default_factory=WanVAEConfig)
    vae_tiling: bool = False
    vae_sp: bool = False

    flow_shift: float | None = 2.0  # scheduler/scheduler_config.json

    text_encoder_configs: tuple[EncoderConfig, ...] = field(default_factory=text_encoders)
    text_encoder_max_lengths: tuple[int, ...] = (TEXT_LENGTH, )
    preprocess_text_funcs: tuple[Callable[[str], str], ...] = (clean_prompt, )
    postprocess_text_funcs: tuple[Callable[[BaseEncoderOutput], torch.Tensor], ...] = (valid_tokens, )

    # As most of the checkpoint's values are stored; the gate compares in fp32.
    dit_precision: str = "fp32"
    # A VAE loses visible detail below fp32, so encode and decode stay there until decoded frames were compared.
    vae_precision: str = "fp32"
    vae_decode_precision: str | None = "fp32"
    text_encoder_precisions: tuple[str, ...] = ("fp32", )

    def __post_init__(self) -> None:
        # Both halves, so that the load covers every tensor of the checkpoint.
        self.vae_config.load_encoder = True
        self.vae_config.load_decoder = True
