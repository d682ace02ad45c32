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
    "ZImageTransformer2DModel": [
        ("all_patch_size", "list[int]", [2]),
        ("all_f_patch_size", "list[int]", [1]),
        ("in_channels", "int", 16),
        ("dim", "int", 3840),
        ("n_layers", "int", 30),
        ("n_refiner_layers", "int", 2),
        ("n_heads", "int", 30),
        ("n_kv_heads", "int", 30),
        ("norm_eps", "float", 1e-5),
        ("qk_norm", "bool", True),
        ("cap_feat_dim", "int", 2560),
        ("siglip_feat_dim", NONE_INT, None),
        ("rope_theta", "float", 256.0),
        ("t_scale", "float", 1000.0),
        ("axes_dims", "list[int]", [32, 48, 48]),
        ("axes_lens", "list[int]", [1024, 512, 512]),
    ],
    "HunyuanVideoTransformer3DModel": [
        ("in_channels", "int", 16),
        ("out_channels", NONE_INT, 16),
        ("num_attention_heads", "int", 24),
        ("attention_head_dim", "int", 128),
        ("num_layers", "int", 20),
        ("num_single_layers", "int", 40),
        ("num_refiner_layers", "int", 2),
        ("mlp_ratio", "float", 4.0),
        ("patch_size", "int", 2),
        ("patch_size_t", "int", 1),
        ("qk_norm", "str | None", "rms_norm"),
        ("guidance_embeds", "bool", True),
        ("text_embed_dim", "int", 4096),
        ("pooled_projection_dim", "int", 768),
        ("rope_theta", "float", 256.0),
        ("rope_axes_dim", "list[int]", [16, 56, 56]),
        ("image_condition_type", "str | None", None),
    ],
}
COMMENTS = {
    "out_channels": "type: ignore[assignment]  # None: in_channels",
    "n_kv_heads": "the official class has n_heads of keys too, whatever this says",
}
WB = r"(weight|bias)"


def joint_fields(c: Any) -> list[tuple[str, str, Any, str]]:
    """(name, annotation, value, comment) of each field of the arch config, in the official order."""
    found = []
    for name, kind, default in FIELDS[c.official_class]:
        found.append((name, kind, c.config.get(name, default), COMMENTS.get(name, "")))
    return found


def joint_rules(c: Any) -> dict[str, Target]:
    """Checkpoint name -> ours, in the order in which they are tried."""
    if c.official_class == "ZImageTransformer2DModel":
        return zimage_rules(c.config)
    if c.official_class == "HunyuanVideoTransformer3DModel":
        return hunyuan_rules(c.config)
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


def hunyuan_rules(config: Mapping[str, Any]) -> dict[str, Target]:
    """Those of HunyuanVideo: two kinds of blocks, and a refiner of the text with an embedder of its own."""
    rules = embedder_rules({"guidance_embeds": config.get("guidance_embeds", True)})
    rules |= embedder_rules({}, r"context_embedder\.")
    if config.get("num_refiner_layers", 2):
        rules |= refiner_rules(r"context_embedder\.token_refiner\.refiner_blocks", "context_embedder.refiner_blocks")
    if config.get("num_layers", 20):
        rules |= attention_rules("transformer_blocks", "attn") | text_rules("transformer_blocks")
        rules |= mlp_rules("transformer_blocks", "ff") | mlp_rules("transformer_blocks", "ff_context")
    if config.get("num_single_layers", 40):
        rules |= attention_rules("single_transformer_blocks", "attn", out=False)
    return rules


def refiner_rules(blocks: str, target: str) -> dict[str, Target]:
    """Blocks of a text refiner, which lie one level less deep here."""
    prefix, target = rf"{blocks}\.(\d+)", rf"{target}.\1"
    rules: dict[str, Target] = {
        rf"{prefix}\.attn\.to_{x}\.{WB}": (rf"{target}.to_qkv.\2", n, 3) for n, x in enumerate("qkv")
    }
    return rules | {
        rf"{prefix}\.attn\.to_out\.0\.{WB}": rf"{target}.to_out.\2",
        rf"{prefix}\.ff\.net\.0\.proj\.{WB}": rf"{target}.ff.fc_in.\2",
        rf"{prefix}\.ff\.net\.2\.{WB}": rf"{target}.ff.fc_out.\2",
        rf"{prefix}\.(norm[12])\.{WB}": rf"{target}.\2.\3",
        rf"{prefix}\.norm_out\.linear\.{WB}": rf"{target}.gates.\2",
    }


def zimage_rules(config: Mapping[str, Any]) -> dict[str, Target]:
    """Those of Z-Image, whose three lists of blocks are of one form."""
    omni = config.get("siglip_feat_dim") is not None
    lists = ["layers"] * bool(config.get("n_layers", 30))
    modulated = ["noise_refiner"] * bool(config.get("n_refiner_layers", 2)) + lists
    every = ["context_refiner", "siglip_refiner"][: 1 + omni] * (len(modulated) > len(lists)) + modulated
    prefix, target = rf"({'|'.join(every)})\.(\d+)", r"\1.\2"
    rules: dict[str, Target] = {
        rf"{prefix}\.attention\.to_{x}\.weight": (rf"{target}.attention.to_qkv.weight", n, 3)
        for n, x in enumerate("qkv")
    }
    rules[rf"{prefix}\.attention\.to_out\.0\.weight"] = rf"{target}.attention.to_out.weight"
    for number, part in enumerate(("w1", "w3")):
        rules[rf"{prefix}\.feed_forward\.{part}\.weight"] = (rf"{target}.feed_forward.gate_up.weight", number, 2)
    rules[rf"{prefix}\.feed_forward\.w2\.weight"] = rf"{target}.feed_forward.down.weight"
    if omni:
        rules[r"siglip_embedder\.0\.weight"] = r"siglip_norm.weight"
        rules[rf"siglip_embedder\.1\.{WB}"] = r"siglip_embedder.\1"
    return rules | {
        rf"({'|'.join(modulated)})\.(\d+)\.adaLN_modulation\.0\.{WB}": rf"{target}.modulation.\3",
        rf"all_final_layer\.(\d+-\d+)\.adaLN_modulation\.1\.{WB}": r"all_final_layer.\1.modulation.\2",
        rf"t_embedder\.mlp\.0\.{WB}": r"t_embedder.fc_in.\1",
        rf"t_embedder\.mlp\.2\.{WB}": r"t_embedder.fc_out.\1",
        r"cap_embedder\.0\.weight": r"cap_norm.weight",
        rf"cap_embedder\.1\.{WB}": r"cap_embedder.\1",
    }


def embedder_rules(config: Mapping[str, Any], within: str = "") -> dict[str, Target]:
    """The two layers of each embedder of timestep, pooled text and guidance. `within`: pattern of what is around."""
    names = "timestep|text|guidance" if config.get("guidance_embeds") else "timestep|text"
    prefix = rf"{within}time_text_embed\.({names})_embedder"
    target = rf"{within}time_text_embed.\1_embedder".replace(r"\.", ".")
    return {
        rf"{prefix}\.linear_1\.{WB}": rf"{target}.fc_in.\2",
        rf"{prefix}\.linear_2\.{WB}": rf"{target}.fc_out.\2",
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
