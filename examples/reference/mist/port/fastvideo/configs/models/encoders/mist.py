# SPDX-License-Identifier: Apache-2.0
"""Configuration of MistTextEncoder: the checkpoint's values, and whose weights are whose."""
from dataclasses import dataclass, field
from typing import Any

from fastvideo.configs.models.encoders.base import TextEncoderArchConfig, TextEncoderConfig


def _is_layer(name: str, module: Any) -> bool:
    return "layers" in name and name.split(".")[-1].isdigit()


@dataclass
class MistTextEncoderArchConfig(TextEncoderArchConfig):
    """Fields have the names of the official config.json, which replaces these values when a checkpoint is loaded."""

    architectures: list[str] = field(default_factory=lambda: ["MistTextEncoder"])
    words: int = 320
    width: int = 32
    heads: int = 4
    depth: int = 2
    inner: int = 80
    longest: int = 64
    eps: float = 1e-6

    # Not in the official config.json: how the official pipeline calls its tokenizer.
    text_len: int = 64
    tokenizer_kwargs: dict[str, Any] = field(
        default_factory=lambda: {
            "padding": "max_length",
            "max_length": 64,
            "truncation": True,
            "return_attention_mask": True,
            "return_tensors": "pt",
        })

    # Checkpoint name -> ours. A name without a rule is refused.
    param_names_mapping: dict[str, str] = field(
        default_factory=lambda: {
            r"^word\.weight$": r"word_embedding.weight",
            r"^place\.weight$": r"place_embedding.weight",
            r"^readers\.(\d+)\.norm_a\.weight$": r"layers.\1.norm1.weight",
            r"^readers\.(\d+)\.qkv\.weight$": r"layers.\1.qkv_proj.weight",
            r"^readers\.(\d+)\.out\.weight$": r"layers.\1.out_proj.weight",
            r"^readers\.(\d+)\.norm_b\.weight$": r"layers.\1.norm2.weight",
            r"^readers\.(\d+)\.fc1\.(weight|bias)$": r"layers.\1.fc_in.\2",
            r"^readers\.(\d+)\.fc2\.(weight|bias)$": r"layers.\1.fc_out.\2",
            r"^norm\.weight$": r"final_norm.weight",
        })

    _fsdp_shard_conditions: list = field(default_factory=lambda: [_is_layer])

    def __post_init__(self) -> None:
        super().__post_init__()
        self.vocab_size, self.hidden_size = self.words, self.width
        self.num_hidden_layers, self.num_attention_heads = self.depth, self.heads


@dataclass
class MistTextEncoderConfig(TextEncoderConfig):
    arch_config: TextEncoderArchConfig = field(default_factory=MistTextEncoderArchConfig)

    prefix: str = "Mist"
