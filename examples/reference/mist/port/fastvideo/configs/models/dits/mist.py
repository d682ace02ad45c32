# SPDX-License-Identifier: Apache-2.0
"""Configuration of MistTransformer3DModel: the checkpoint's values, and whose weights are whose."""
from dataclasses import dataclass, field
from typing import Any

from fastvideo.configs.models.dits.base import DiTArchConfig, DiTConfig
from fastvideo.platforms import AttentionBackendEnum


def _is_block(name: str, module: Any) -> bool:
    return "blocks" in name and name.split(".")[-1].isdigit()


@dataclass
class MistDiTArchConfig(DiTArchConfig):
    """Fields have the names of the official config.json, which replaces these values when a checkpoint is loaded."""

    width: int = 48
    heads: int = 2
    depth: int = 2
    channels: int = 16
    patch: list[int] = field(default_factory=lambda: [1, 2, 2])
    text_width: int = 32
    inner: int = 96
    time_width: int = 32
    eps: float = 1e-6

    _fsdp_shard_conditions: list = field(default_factory=lambda: [_is_block])
    _compile_conditions: list = field(default_factory=lambda: [_is_block])
    _supported_attention_backends: tuple[AttentionBackendEnum,
                                         ...] = (AttentionBackendEnum.SAGE_ATTN, AttentionBackendEnum.FLASH_ATTN,
                                                 AttentionBackendEnum.TORCH_SDPA)

    # Checkpoint name -> ours. Every name has a rule.
    param_names_mapping: dict = field(
        default_factory=lambda: {
            r"^embed\.(weight|bias)$": r"patch_embedding.proj.\1",
            r"^time_a\.(weight|bias)$": r"time_embedder.fc_in.\1",
            r"^time_b\.(weight|bias)$": r"time_embedder.fc_out.\1",
            r"^text\.(weight|bias)$": r"text_embedder.\1",
            r"^layers\.(\d+)\.steer\.(weight|bias)$": r"blocks.\1.modulation.\2",
            r"^layers\.(\d+)\.attn\.wq\.(weight|bias)$": (r"blocks.\1.attn1.to_qkv.\2", 0, 3),
            r"^layers\.(\d+)\.attn\.wk\.(weight|bias)$": (r"blocks.\1.attn1.to_qkv.\2", 1, 3),
            r"^layers\.(\d+)\.attn\.wv\.(weight|bias)$": (r"blocks.\1.attn1.to_qkv.\2", 2, 3),
            r"^layers\.(\d+)\.attn\.wo\.(weight|bias)$": r"blocks.\1.attn1.to_out.\2",
            r"^layers\.(\d+)\.attn\.(q|k)_scale\.weight$": r"blocks.\1.attn1.norm_\2.weight",
            r"^layers\.(\d+)\.ask_norm\.(weight|bias)$": r"blocks.\1.norm2.\2",
            r"^layers\.(\d+)\.ask\.wq\.(weight|bias)$": r"blocks.\1.attn2.to_q.\2",
            r"^layers\.(\d+)\.ask\.wkv\.(weight|bias)$": r"blocks.\1.attn2.to_kv.\2",
            r"^layers\.(\d+)\.ask\.wo\.(weight|bias)$": r"blocks.\1.attn2.to_out.\2",
            r"^layers\.(\d+)\.mlp\.gate\.weight$": (r"blocks.\1.ffn.gate_up.weight", 0, 2),
            r"^layers\.(\d+)\.mlp\.up\.weight$": (r"blocks.\1.ffn.gate_up.weight", 1, 2),
            r"^layers\.(\d+)\.mlp\.down\.weight$": r"blocks.\1.ffn.down.weight",
            r"^last_steer\.(weight|bias)$": r"modulation_out.\1",
            r"^last\.(weight|bias)$": r"proj_out.\1",
        })

    # Ours -> checkpoint name, for saving: the loader fills it with what it really loaded.
    reverse_param_names_mapping: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.hidden_size, self.num_attention_heads = self.width, self.heads
        self.in_channels = self.out_channels = self.num_channels_latents = self.channels


@dataclass
class MistDiTConfig(DiTConfig):
    arch_config: DiTArchConfig = field(default_factory=MistDiTArchConfig)

    prefix: str = "Mist"
