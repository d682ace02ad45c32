# SPDX-License-Identifier: Apache-2.0
"""Mist's text encoder: pre-normed layers that read a prompt in both directions, with a learned embedding of places."""
import re
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fastvideo.configs.models.encoders.base import BaseEncoderOutput
from fastvideo.configs.models.encoders.mist import MistTextEncoderConfig
from fastvideo.distributed import get_tp_world_size
from fastvideo.layers.linear import ColumnParallelLinear, QKVParallelLinear, RowParallelLinear
from fastvideo.layers.vocab_parallel_embedding import VocabParallelEmbedding
from fastvideo.models.encoders.base import TextEncoder
from fastvideo.models.loader.weight_utils import default_weight_loader


class MistEncoderLayer(nn.Module):

    def __init__(self, config: MistTextEncoderConfig, prefix: str) -> None:
        super().__init__()
        width, quant_config = config.width, config.quant_config
        self.head_dim, self.num_heads = width // config.heads, config.heads // get_tp_world_size()
        self.norm1 = nn.RMSNorm(width, eps=config.eps)
        self.qkv_proj = QKVParallelLinear(width, self.head_dim, config.heads, bias=False, quant_config=quant_config,
                                          prefix=f"{prefix}.qkv_proj")
        self.out_proj = RowParallelLinear(width, width, bias=False, quant_config=quant_config,
                                          prefix=f"{prefix}.out_proj")
        self.norm2 = nn.RMSNorm(width, eps=config.eps)
        self.fc_in = ColumnParallelLinear(width, config.inner, quant_config=quant_config, prefix=f"{prefix}.fc_in")
        self.fc_out = RowParallelLinear(config.inner, width, quant_config=quant_config, prefix=f"{prefix}.fc_out")

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        qkv, _ = self.qkv_proj(self.norm1(x))
        query, key, value = (part.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
                             for part in qkv.chunk(3, dim=-1))
        # A mask of padding: FastVideo's attention layers take none.
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + self.out_proj(attended.transpose(1, 2).flatten(2))[0]
        return x + self.fc_out(F.gelu(self.fc_in(self.norm2(x))[0]))[0]


class MistTextEncoder(TextEncoder):
    """Token ids to hidden states of the same length."""

    def __init__(self, config: MistTextEncoderConfig) -> None:
        super().__init__(config)
        self.config = config
        padding = get_tp_world_size()
        self.word_embedding = VocabParallelEmbedding(config.words, config.width, org_num_embeddings=config.words,
                                                     padding_size=padding)
        self.place_embedding = nn.Embedding(config.longest, config.width)
        self.layers = nn.ModuleList(
            [MistEncoderLayer(config, f"{config.prefix}.layers.{i}") for i in range(config.depth)])
        self.final_norm = nn.RMSNorm(config.width, eps=config.eps)

    def forward(self,
                input_ids: torch.Tensor | None,
                position_ids: torch.Tensor | None = None,
                attention_mask: torch.Tensor | None = None,
                inputs_embeds: torch.Tensor | None = None,
                output_hidden_states: bool | None = None,
                **kwargs: Any) -> BaseEncoderOutput:
        """attention_mask: 1 for a token, 0 for padding on the right; (batch, tokens)."""
        x = inputs_embeds if inputs_embeds is not None else self.word_embedding(input_ids)
        if position_ids is None:
            position_ids = torch.arange(x.shape[1], device=x.device)
        if attention_mask is None:
            attention_mask = torch.ones(x.shape[:2], dtype=torch.long, device=x.device)
        x = x + self.place_embedding(position_ids)
        states, mask = [x], attention_mask[:, None, None, :].bool()
        for layer in self.layers:
            x = layer(x, mask)
            states.append(x)
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return BaseEncoderOutput(last_hidden_state=self.final_norm(x),
                                 hidden_states=tuple(states) if wanted else None,
                                 attention_mask=attention_mask)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Load by the rules of the arch config and nothing else; every parameter exactly once, or ValueError."""
        parameters = dict(self.named_parameters())
        loaded: set[str] = set()
        for name, tensor in weights:
            target = self._target(name)
            if target not in parameters or target in loaded:
                raise ValueError(f"{name}: {target} {'has weights already' if target in loaded else 'is not there'}")
            loader = getattr(parameters[target], "weight_loader", default_weight_loader)
            loader(parameters[target], tensor)
            loaded.add(target)
        if missing := sorted(set(parameters) - loaded):
            raise ValueError(f"the checkpoint has no weights for {', '.join(missing)}")
        return loaded

    def _target(self, name: str) -> str:
        for pattern, target in self.config.arch_config.param_names_mapping.items():
            if re.match(pattern, name):
                return re.sub(pattern, target, name)
        raise ValueError(f"{name}: no rule names this checkpoint key")


# Entry point for model registry
EntryClass = MistTextEncoder
