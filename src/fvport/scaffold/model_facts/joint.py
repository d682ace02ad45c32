# SPDX-License-Identifier: Apache-2.0
"""Transformers whose blocks attend to image and text tokens together: fields, whose weights are whose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fvport.scaffold.model_facts.lines import Target

Fields = list[tuple[str, str, Any]]
NONE_INT = "int | None"

# (name, annotation, what the official class takes where the config.json is silent)
FIELDS: dict[str, Fields] = {
    "SD3Transformer2DModel": [
        ("sample_size", "int", 128),
        ("patch_size", "int", 2),
        ("in_channels", "int", 16),
        ("out_channels", NONE_INT, 16),
        ("num_layers", "int", 18),
        ("attention_head_dim", "int", 64),
        ("num_attention_heads", "int", 18),
        ("joint_attention_dim", "int", 4096),
        ("caption_projection_dim", "int", 1152),
        ("pooled_projection_dim", "int", 2048),
        ("pos_embed_max_size", "int", 96),
        ("dual_attention_layers", "list[int]", []),
        ("qk_norm", "str | None", None),
    ],
    "FluxTransformer2DModel": [
        ("patch_size", "int", 1),
        ("in_channels", "int", 64),
        ("out_channels", NONE_INT, None),
        ("num_layers", "int", 19),
        ("num_single_layers", "int", 38),
        ("attention_head_dim", "int", 128),
        ("num_attention_heads", "int", 24),
        ("joint_attention_dim", "int", 4096),
        ("pooled_projection_dim", "int", 768),
        ("guidance_embeds", "bool", False),
        ("axes_dims_rope", "list[int]", [16, 56, 56]),
    ],
}
WB = r"(weight|bias)"


def joint_fields(c: Any) -> list[tuple[str, str, Any, str]]:
    """(name, annotation, value, comment) of each field of the arch config, in the official order."""
    found = []
    for name, kind, default in FIELDS[c.official_class]:
        why = "type: ignore[assignment]  # None: in_channels" if name == "out_channels" else ""
        found.append((name, kind, c.config.get(name, default), why))
    return found


def joint_rules(c: Any) -> dict[str, Target]:
    """Checkpoint name -> ours, in the order in which they are tried."""
    rules = embedder_rules(c.config)
    if c.official_class == "SD3Transformer2DModel":
        layers = c.config.get("num_layers", 18)
        rules |= attention_rules("transformer_blocks", "attn2?" if c.config.get("dual_attention_layers") else "attn")
        rules |= text_rules("transformer_blocks")
        rules |= mlp_rules("transformer_blocks", "ff")
        rules |= mlp_rules("transformer_blocks", "ff_context") if layers > 1 else {}
        return rules
    rules |= attention_rules("transformer_blocks", "attn") | text_rules("transformer_blocks")
    rules |= mlp_rules("transformer_blocks", "ff") | mlp_rules("transformer_blocks", "ff_context")
    return rules | attention_rules("single_transformer_blocks", "attn", out=False)


def embedder_rules(config: Mapping[str, Any]) -> dict[str, Target]:
    """The two layers of each embedder of timestep, pooled text and guidance."""
    names = "timestep|text|guidance" if config.get("guidance_embeds") else "timestep|text"
    prefix = rf"time_text_embed\.({names})_embedder"
    return {
        rf"{prefix}\.linear_1\.{WB}": r"time_text_embed.\1_embedder.fc_in.\2",
        rf"{prefix}\.linear_2\.{WB}": r"time_text_embed.\1_embedder.fc_out.\2",
    }


def attention_rules(blocks: str, attention: str, out: bool = True) -> dict[str, Target]:
    """Query, key and value of one attention side by side in one layer."""
    prefix, target = rf"{blocks}\.(\d+)\.({attention})", rf"{blocks}.\1.\2"
    rules: dict[str, Target] = {
        rf"{prefix}\.to_{part}\.{WB}": (rf"{target}.to_qkv.\3", number, 3) for number, part in enumerate("qkv")
    }
    return rules | ({rf"{prefix}\.to_out\.0\.{WB}": rf"{target}.to_out.\3"} if out else {})


def text_rules(blocks: str) -> dict[str, Target]:
    """The same for the text's own projections."""
    prefix, target = rf"{blocks}\.(\d+)\.attn", rf"{blocks}.\1.attn"
    return {rf"{prefix}\.add_{x}_proj\.{WB}": (rf"{target}.add_qkv.\2", n, 3) for n, x in enumerate("qkv")}


def mlp_rules(blocks: str, name: str) -> dict[str, Target]:
    """The two layers of a feed-forward."""
    prefix, target = rf"{blocks}\.(\d+)\.{name}\.net", rf"{blocks}.\1.{name}"
    return {
        rf"{prefix}\.0\.proj\.{WB}": rf"{target}.fc_in.\2",
        rf"{prefix}\.2\.{WB}": rf"{target}.fc_out.\2",
    }
