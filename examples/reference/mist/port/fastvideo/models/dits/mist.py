# SPDX-License-Identifier: Apache-2.0
"""Mist: video tokens with fixed places attend to one another, then to text; the timestep steers every block."""
import math
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F

from fastvideo.attention import DistributedAttention, LocalAttention
from fastvideo.configs.models.dits.mist import MistDiTConfig
from fastvideo.distributed.communication_op import (sequence_model_parallel_all_gather_with_unpad,
                                                    sequence_model_parallel_shard)
from fastvideo.layers.linear import ReplicatedLinear
from fastvideo.layers.mlp import MLP
from fastvideo.layers.visual_embedding import PatchEmbed
from fastvideo.models.dits.base import BaseDiT
from fastvideo.platforms import AttentionBackendEnum


def sinusoids(values: torch.Tensor, dim: int) -> torch.Tensor:
    """(n,) -> (n, dim), cosines first, in fp64: a timestep of 1000 loses digits in fp32."""
    exponents = torch.arange(dim // 2, dtype=torch.float64, device=values.device) / (dim // 2)
    angles = torch.outer(values.double(), torch.exp(-math.log(10000.0) * exponents))
    return torch.cat((torch.cos(angles), torch.sin(angles)), dim=-1)


def place_embedding(frames: int, height: int, width: int, dim: int, device: torch.device) -> torch.Tensor:
    """(frames * height * width, dim): frame, row and column take a third of the channels each."""
    part = dim // 3
    columns = [sinusoids(torch.arange(n, device=device), part) for n in (frames, height, width)]
    t = columns[0].repeat_interleave(height * width, dim=0)
    h = columns[1].repeat_interleave(width, dim=0).repeat(frames, 1)
    w = columns[2].repeat(frames * height, 1)
    return torch.cat((t, h, w), dim=-1)


class SelfAttention(nn.Module):
    """Attention among the video's tokens; queries and keys are normed head by head."""

    def __init__(self, config: MistDiTConfig, prefix: str) -> None:
        super().__init__()
        dim, self.num_heads = config.width, config.heads
        self.to_qkv = ReplicatedLinear(dim, 3 * dim, quant_config=config.quant_config, prefix=f"{prefix}.to_qkv")
        self.to_out = ReplicatedLinear(dim, dim, quant_config=config.quant_config, prefix=f"{prefix}.to_out")
        self.norm_q = nn.RMSNorm(dim // self.num_heads, eps=config.eps)
        self.norm_k = nn.RMSNorm(dim // self.num_heads, eps=config.eps)
        self.attn = DistributedAttention(num_heads=self.num_heads,
                                         head_size=dim // self.num_heads,
                                         causal=False,
                                         supported_attention_backends=config._supported_attention_backends,
                                         prefix=f"{prefix}.attn")

    def forward(self, x: torch.Tensor, seq_len: int) -> torch.Tensor:
        query, key, value = (part.unflatten(2, (self.num_heads, -1)) for part in self.to_qkv(x)[0].chunk(3, dim=-1))
        x, _ = self.attn(self.norm_q(query), self.norm_k(key), value, seq_len)
        return self.to_out(x.flatten(2))[0]


class CrossAttention(nn.Module):
    """Attention to the text tokens."""

    def __init__(self, config: MistDiTConfig, prefix: str) -> None:
        super().__init__()
        dim, self.num_heads = config.width, config.heads
        self.to_q = ReplicatedLinear(dim, dim, quant_config=config.quant_config, prefix=f"{prefix}.to_q")
        self.to_kv = ReplicatedLinear(dim, 2 * dim, quant_config=config.quant_config, prefix=f"{prefix}.to_kv")
        self.to_out = ReplicatedLinear(dim, dim, quant_config=config.quant_config, prefix=f"{prefix}.to_out")
        self.attn = LocalAttention(num_heads=self.num_heads,
                                   head_size=dim // self.num_heads,
                                   causal=False,
                                   supported_attention_backends=(AttentionBackendEnum.FLASH_ATTN,
                                                                 AttentionBackendEnum.TORCH_SDPA))

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        key, value = self.to_kv(context)[0].chunk(2, dim=-1)
        query, key, value = (part.unflatten(2, (self.num_heads, -1)) for part in (self.to_q(x)[0], key, value))
        return self.to_out(self.attn(query, key, value).flatten(2))[0]


class GatedFeedForward(nn.Module):

    def __init__(self, config: MistDiTConfig, prefix: str) -> None:
        super().__init__()
        quant_config = config.quant_config
        self.gate_up = ReplicatedLinear(config.width, 2 * config.inner, bias=False, quant_config=quant_config,
                                        prefix=f"{prefix}.gate_up")
        self.down = ReplicatedLinear(config.inner, config.width, bias=False, quant_config=quant_config,
                                     prefix=f"{prefix}.down")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_up(x)[0].chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)[0]


class MistBlock(nn.Module):
    """Self-attention and feed-forward steered by the timestep, attention to text between them."""

    def __init__(self, config: MistDiTConfig, prefix: str) -> None:
        super().__init__()
        dim = config.width
        self.modulation = ReplicatedLinear(dim, 6 * dim, prefix=f"{prefix}.modulation")
        self.norm1 = nn.LayerNorm(dim, eps=config.eps, elementwise_affine=False)
        self.attn1 = SelfAttention(config, f"{prefix}.attn1")
        self.norm2 = nn.LayerNorm(dim, eps=config.eps)
        self.attn2 = CrossAttention(config, f"{prefix}.attn2")
        self.norm3 = nn.LayerNorm(dim, eps=config.eps, elementwise_affine=False)
        self.ffn = GatedFeedForward(config, f"{prefix}.ffn")

    def forward(self, x: torch.Tensor, context: torch.Tensor, time: torch.Tensor, seq_len: int) -> torch.Tensor:
        steering = self.modulation(F.silu(time))[0].unsqueeze(1)
        scale1, shift1, gate1, scale3, shift3, gate3 = steering.chunk(6, dim=-1)
        x = x + gate1 * self.attn1(self.norm1(x) * (1 + scale1) + shift1, seq_len)
        x = x + self.attn2(self.norm2(x), context)
        return x + gate3 * self.ffn(self.norm3(x) * (1 + scale3) + shift3)


class MistTransformer3DModel(BaseDiT):
    """Noisy latents (batch, channels, frames, height, width) to the flow's velocity of the same size."""

    _fsdp_shard_conditions = MistDiTConfig()._fsdp_shard_conditions
    _compile_conditions = MistDiTConfig()._compile_conditions
    _supported_attention_backends = MistDiTConfig()._supported_attention_backends
    param_names_mapping = MistDiTConfig().param_names_mapping
    reverse_param_names_mapping = MistDiTConfig().reverse_param_names_mapping
    lora_param_names_mapping = MistDiTConfig().lora_param_names_mapping

    def __init__(self, config: MistDiTConfig, hf_config: dict[str, Any]) -> None:
        super().__init__(config=config, hf_config=hf_config)
        self.hidden_size, self.num_attention_heads = config.width, config.heads
        self.in_channels = self.out_channels = self.num_channels_latents = config.channels
        self.patch_size, self.time_width = tuple(config.patch), config.time_width

        self.patch_embedding = PatchEmbed(patch_size=self.patch_size,
                                          in_chans=config.channels,
                                          embed_dim=config.width,
                                          flatten=False)
        self.time_embedder = MLP(config.time_width, config.width, config.width, act_type="silu")
        self.text_embedder = ReplicatedLinear(config.text_width, config.width)
        self.blocks = nn.ModuleList([MistBlock(config, f"{config.prefix}.blocks.{i}") for i in range(config.depth)])
        self.norm_out = nn.LayerNorm(config.width, eps=config.eps, elementwise_affine=False)
        self.modulation_out = ReplicatedLinear(config.width, 2 * config.width)
        self.proj_out = ReplicatedLinear(config.width, config.channels * math.prod(self.patch_size))
        self.gradient_checkpointing = False
        self.__post_init__()

    def forward(self,
                hidden_states: torch.Tensor,
                encoder_hidden_states: torch.Tensor | list[torch.Tensor],
                timestep: torch.Tensor,
                encoder_hidden_states_image: torch.Tensor | list[torch.Tensor] | None = None,
                guidance: torch.Tensor | None = None,
                **kwargs: Any) -> torch.Tensor:
        """timestep: (batch,), 0 to 1000. encoder_hidden_states: (batch, tokens, text_width), zero after a prompt."""
        text = encoder_hidden_states if isinstance(encoder_hidden_states, torch.Tensor) else encoder_hidden_states[0]
        batch, _, frames, height, width = hidden_states.shape
        p_t, p_h, p_w = self.patch_size
        grid = (frames // p_t, height // p_h, width // p_w)

        x = self.patch_embedding(hidden_states).flatten(2).transpose(1, 2).contiguous()
        x = x + place_embedding(*grid, self.hidden_size, x.device).to(x.dtype)
        x, seq_len = sequence_model_parallel_shard(x, dim=1)
        time = self.time_embedder(sinusoids(timestep, self.time_width).to(x.dtype))
        context, _ = self.text_embedder(text.to(x.dtype))
        for block in self.blocks:
            x = block(x, context, time, seq_len)

        scale, shift = self.modulation_out(F.silu(time))[0].unsqueeze(1).chunk(2, dim=-1)
        x, _ = self.proj_out(self.norm_out(x) * (1 + scale) + shift)
        x = sequence_model_parallel_all_gather_with_unpad(x, seq_len, dim=1)
        x = x.reshape(batch, *grid, p_t, p_h, p_w, self.out_channels).permute(0, 7, 1, 4, 2, 5, 3, 6)
        return x.flatten(6, 7).flatten(4, 5).flatten(2, 3)


# Entry point for model registry
EntryClass = MistTransformer3DModel
