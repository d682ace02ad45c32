# SPDX-License-Identifier: Apache-2.0
"""CLIP's text model, and the rules of the layers that it shares with image towers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fvport.scaffold.encoder_facts.lines import Rules, field_lines, prefix_of

CLIP_TEXT_DEFAULTS = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "projection_dim": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
}


def clip_layer_rules(at: str) -> Rules:
    """Rules of the layers that CLIP's and SigLIP's encoders share; `at` is a pattern of what stands before them."""
    layer, native = at + r"encoder\.layers\.(\d+)\.", r"encoder.layers.\1."
    rules: Rules = [
        (layer + r"(layer_norm[12]|mlp\.fc[12]|self_attn\.out_proj)\.(weight|bias)", native + r"\2.\3"),
    ]
    for place, letter in enumerate("qkv"):
        target = (native + r"self_attn.qkv_proj.\2", place, 3)
        rules.append((layer + rf"self_attn\.{letter}_proj\.(weight|bias)", target))
    return rules


@dataclass(frozen=True)
class ClipTextFacts:
    """Switches of CLIP's text model."""

    prefix: str
    lines: list[str]
    projection: bool
    highest_id: bool  # the pooled token is the one with the highest id, not the end token that the config names
    masked: bool  # official pipelines hand it a mask
    ignored: list[str]

    @property
    def rules(self) -> Rules:
        at = self.prefix.replace(".", r"\.")
        rules: Rules = [
            (at + r"embeddings\.(token|position)_embedding\.weight", r"embeddings.\1_embedding.weight"),
            (at + r"final_layer_norm\.(weight|bias)", r"final_layer_norm.\1"),
            *clip_layer_rules(at),
        ]
        return [*rules, (r"text_projection\.weight", "text_projection.weight")] if self.projection else rules


def clip_text(c: Any) -> ClipTextFacts:
    """The facts of a component whose official class is CLIPTextModel or CLIPTextModelWithProjection."""
    projection = c.official_class.endswith("WithProjection")
    names = list(CLIP_TEXT_DEFAULTS) + (["use_attention_mask"] if "use_attention_mask" in c.config else [])
    return ClipTextFacts(
        prefix=prefix_of(c.tensors, "embeddings.token_embedding.weight", "text_model." if projection else ""),
        lines=field_lines(c.config, names, CLIP_TEXT_DEFAULTS),
        projection=projection,
        highest_id=c.config.get("eos_token_id", 49407) == 2,
        masked=bool(c.config.get("use_attention_mask")),
        ignored=[r"^.*position_ids$"] if any(name.endswith("position_ids") for name in c.tensors) else [],
    )
