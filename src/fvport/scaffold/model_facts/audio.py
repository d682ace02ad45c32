# SPDX-License-Identifier: Apache-2.0
"""Transformers of audio latents: the config's fields, and whose weights are whose."""

from __future__ import annotations

from typing import Any

from fvport.scaffold.model_facts.joint import Fields, mlp_rules
from fvport.scaffold.model_facts.lines import Target

BLOCKS = "transformer_blocks"
# (name, annotation, what the official class takes where the config.json is silent)
FIELDS: Fields = [
    ("sample_size", "int", 1024),
    ("in_channels", "int", 64),
    ("num_layers", "int", 24),
    ("attention_head_dim", "int", 64),
    ("num_attention_heads", "int", 24),
    ("num_key_value_attention_heads", "int", 12),
    ("out_channels", "int", 64),
    ("cross_attention_dim", "int", 768),
    ("time_proj_dim", "int", 256),
    ("global_states_input_dim", "int", 1536),
    ("cross_attention_input_dim", "int", 768),
]


def audio_fields(c: Any) -> list[tuple[str, str, Any]]:
    """(name, annotation, value) of each field of the arch config, in the official order."""
    return [(name, kind, c.config.get(name, value)) for name, kind, value in FIELDS]


def audio_rules(c: Any) -> dict[str, Target]:
    """Checkpoint name -> ours, in the order in which they are tried."""
    rules: dict[str, Target] = {
        rf"(timestep_proj|global_proj|cross_attention_proj)\.{number}\.(weight|bias)": rf"\1.{layer}.\2"
        for number, layer in ((0, "fc_in"), (2, "fc_out"))
    }
    rules |= {
        rf"{BLOCKS}\.(\d+)\.attn1\.to_{part}\.weight": (rf"{BLOCKS}.\1.attn1.to_qkv.weight", number, 3)
        for number, part in enumerate("qkv")
    }
    rules[rf"{BLOCKS}\.(\d+)\.attn([12])\.to_out\.0\.weight"] = rf"{BLOCKS}.\1.attn\2.to_out.weight"
    return rules | mlp_rules(BLOCKS, "ff")
