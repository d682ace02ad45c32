# SPDX-License-Identifier: Apache-2.0
"""What a key of a config means, by its words and never by a model's name."""

from __future__ import annotations

import re
from typing import Any

DEPTH = re.compile(
    r"^(num_(\w+_)?(layers|blocks)|n_(\w+_)?layers?|(encoder|decoder|transformer|refiner)_layers|num_layers_\w+|"
    r"(\w+_)?depth|depth_\w+|num_(\w+_)?hidden_layers)$"
)
REPEATS = re.compile(r"^((\w+_)?layers_per_block|num_res_blocks|num_resnets|(\w+_)?layers_per_\w+)$")
LAYER_INDEX = re.compile(r"(layers?|blocks?)(_\w+)?_(index|indices|indexes|idx|ids)$|^\w*(_layers|_blocks|indexes)$")
INTERVAL = re.compile(r"(_interval|_pattern|_every_n\w*|_sparse_step|_every|_period)$")
LAYER_LIST = re.compile(r"layer|block|type|pattern|mlp|attn|attention")
HEADS = ("num_attention_heads", "num_heads", "n_heads", "n_head", "heads", "nhead", "encoder_attention_heads")
KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads", "num_key_value_attention_heads", "kv_heads")
HEAD_DIM = ("attention_head_dim", "head_dim", "d_kv", "kv_channels", "dim_head")
PRIMARY = ("hidden_size", "d_model", "dim", "model_dim", "n_embd", "embed_dim", "inner_dim", "hidden_dim", "width")
INNER = re.compile(r"(intermediate_size|(^|_)ffn?_?\w*dim|^d_ff$|^ffn\w*|^mlp_dim|^mlp_hidden\w*|n_inner|ff_dim)$")
TIME = re.compile(
    r"^(freq_dim|time_embed_dim|time_proj_dim|frequency_embedding_size|timestep_\w*(channels|dim)|adaln_lora_dim|"
    r"time_cond_proj_dim|\w+_lora_rank|ofs_embed_dim)$"
)
WIDTH = re.compile(r"(_dim|_dims|hidden_size|d_model|_feat_dim|projection_size|^dim$|^width$|^n_embd$|_embed)$")
WIDTH_CHANNELS = re.compile(
    r"^(caption_channels|encoder_hidden_states_channels|crossattn_proj_in_channels|cross_attention_input_channels|"
    r"global_states_input_dim|context_channels|text_channels)$"
)
NO_WIDTH = re.compile(
    r"class_embeddings|addition_|patch|head_dim|latent|^z_dim$|rope|axes|sample|vocab|^d_kv$|kv_channels|dim_mult|^in_|^out_dim"
)
CHANNEL_LIST = re.compile(
    r"^((\w+_)?block_out_channels|(\w+_)?channels_list|hidden_sizes|embed_dims|dims|conv_dim|num_channels)$"
)
CHANNEL = re.compile(r"^((\w+_)?base_(dim|channels)|model_channels|decoder_channels|block_channels|conv_channels)$")
GROUPS = re.compile(r"^(norm_num_groups|num_groups|groups)$")
VOCABULARY = re.compile(r"^(\w+_)?vocab_size$|^vocabulary_size$|^num_embeddings$")
TOKEN_ID = re.compile(r"(_token_id|_token_ids|_token_index|_token)$")
EXPERTS = re.compile(r"^(num_(local_|routed_)?experts|n_routed_experts|moe_num_experts)$")
PER_TOKEN = re.compile(r"^(num_experts_per_tok|moe_topk|num_experts_per_token|moe_top_k)$")
TABLE = re.compile(r"^(pos_embed_max_size|sample_size|sample_(height|width)|image_size)$")
AXES = re.compile(r"axes|rope|section")


def integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def integers(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and all(integer(v) for v in value)


def is_width(key: str, value: Any) -> bool:
    """A width that other components may share: not of heads, patches, latents, feed-forwards or timesteps."""
    if not integer(value) or value < 64 or INNER.search(key) or TIME.search(key) or CHANNEL.search(key):
        return False
    return bool((WIDTH.search(key) and not NO_WIDTH.search(key)) or WIDTH_CHANNELS.search(key) or key in PRIMARY)


def first(level: dict[str, Any], names: tuple[str, ...]) -> str:
    """The first of `names` that the level has as a whole number above one, or ''."""
    return next((n for n in names if integer(level.get(n)) and level[n] >= 1), "")


def levels(config: dict[str, Any], prefix: str = "") -> list[tuple[str, dict[str, Any]]]:
    """(dotted prefix, mapping) of a config and of every mapping inside it."""
    found = [(prefix, config)]
    for key, value in config.items():
        if isinstance(value, dict) and not key.startswith("_"):
            found += levels(value, f"{prefix}{key}.")
    return found


def get(config: dict[str, Any], path: str) -> Any:
    """The value at a dotted path; KeyError where there is none."""
    value: Any = config
    for word in path.split("."):
        value = value[word]
    return value


def patched(config: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """A copy of the config with the values at dotted paths replaced."""
    import copy

    made = copy.deepcopy(config)
    for path, value in patch.items():
        *way, last = path.split(".")
        level = made
        for word in way:
            level = level[word]
        level[last] = value
    return made
