# SPDX-License-Identifier: Apache-2.0
"""Transformers whose blocks attend to the video's tokens, then to others: family, fields, whose weights are whose."""

from __future__ import annotations

from typing import Any

from fvport.scaffold.model_facts.joint import NONE_INT, WB, Fields, attention_rules, mlp_rules
from fvport.scaffold.model_facts.lines import Target

FAMILIES = {"LTXVideoTransformer3DModel": "ltx", "CosmosTransformer3DModel": "cosmos"}

# (name, annotation, what the official class takes where the config.json is silent)
FIELDS: dict[str, Fields] = {
    "ltx": [
        ("in_channels", "int", 128),
        ("out_channels", NONE_INT, 128),
        ("patch_size", "int", 1),
        ("patch_size_t", "int", 1),
        ("num_attention_heads", "int", 32),
        ("attention_head_dim", "int", 64),
        ("cross_attention_dim", "int", 2048),
        ("num_layers", "int", 28),
        ("activation_fn", "str", "gelu-approximate"),
        ("qk_norm", "str", "rms_norm_across_heads"),
        ("norm_elementwise_affine", "bool", False),
        ("norm_eps", "float", 1e-6),
        ("caption_channels", "int", 4096),
        ("attention_bias", "bool", True),
        ("attention_out_bias", "bool", True),
    ],
    "cosmos": [
        ("in_channels", "int", 16),
        ("out_channels", "int", 16),
        ("num_attention_heads", "int", 32),
        ("attention_head_dim", "int", 128),
        ("num_layers", "int", 28),
        ("mlp_ratio", "float", 4.0),
        ("text_embed_dim", "int", 1024),
        ("adaln_lora_dim", "int", 256),
        ("max_size", "list[int]", [128, 240, 240]),
        ("patch_size", "list[int]", [1, 2, 2]),
        ("rope_scale", "list[float]", [2.0, 1.0, 1.0]),
        ("concat_padding_mask", "bool", True),
        ("extra_pos_embed_type", "str | None", "learnable"),
        ("use_crossattn_projection", "bool", False),
        ("crossattn_proj_in_channels", "int", 1024),
        ("encoder_hidden_states_channels", "int", 1024),
        ("controlnet_block_every_n", NONE_INT, None),
        ("img_context_dim_in", NONE_INT, None),
        ("img_context_num_tokens", "int", 256),
        ("img_context_dim_out", "int", 2048),
    ],
}
WHY = {
    ("ltx", "out_channels"): "type: ignore[assignment]  # None: in_channels",
    ("ltx", "qk_norm"): "the official class knows no other",
    ("cosmos", "in_channels"): "a condition mask is one of them, the padding mask is not",
    ("cosmos", "extra_pos_embed_type"): "learnable, or null for none",
    ("cosmos", "img_context_num_tokens"): "read by nothing, as in the official model",
}
BLOCKS = "transformer_blocks"


def cross_family(c: Any) -> str:
    """The folder's files that this official class is written from: wan, ltx or cosmos."""
    return FAMILIES.get(c.official_class, "wan")


def cross_fields(c: Any) -> list[tuple[str, str, Any, str]]:
    """(name, annotation, value, comment) of each field of the arch config, in the official order."""
    family = cross_family(c)
    return [(n, kind, c.config.get(n, value), WHY.get((family, n), "")) for n, kind, value in FIELDS[family]]


def cross_rules(c: Any) -> dict[str, Target]:
    """Checkpoint name -> ours, in the order in which they are tried."""
    rules: dict[str, Target] = {}
    if cross_family(c) == "ltx":
        rules |= _two_layers(r"time_embed\.emb\.timestep_embedder", "time_embed.timestep_embedder")
        rules |= _two_layers("caption_projection", "caption_projection")
    else:
        rules |= _two_layers(r"time_embed\.t_embedder", "time_embed.t_embedder")
        if c.config.get("use_crossattn_projection"):
            rules[rf"crossattn_proj\.0\.{WB}"] = r"crossattn_proj.\1"
        if c.config.get("img_context_dim_in"):
            rules[rf"img_context_proj\.0\.{WB}"] = r"img_context_proj.\1"
    rules |= attention_rules(BLOCKS, "attn1")
    rules[rf"{BLOCKS}\.(\d+)\.attn2\.to_out\.0\.{WB}"] = rf"{BLOCKS}.\1.attn2.to_out.\2"
    return rules | mlp_rules(BLOCKS, "ff")


def _two_layers(official: str, ours: str) -> dict[str, Target]:
    return {
        rf"{official}\.linear_1\.{WB}": rf"{ours}.fc_in.\1",
        rf"{official}\.linear_2\.{WB}": rf"{ours}.fc_out.\1",
    }
