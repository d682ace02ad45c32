# SPDX-License-Identifier: Apache-2.0
"""Text and image encoders."""

from __future__ import annotations

from typing import Any

from fvport.audit.calls import encode, pixels, tokens
from fvport.audit.case import Case

NATIVE = "fastvideo.models.encoders"
CONFIG = "fastvideo.configs.models.encoders"

CLIP = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "projection_dim": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 16,
    "eos_token_id": 63,
    "bos_token_id": 1,
    "pad_token_id": 0,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 4,
}
LLAMA = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "head_dim": 8,
}
T5 = {
    "vocab_size": 64,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 3,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
}


def cases() -> list[Case]:
    return [*clip_text(), *clip_vision(), *siglip(), *llama(), *t5(), *bert()]


def prefixed(prefix: str) -> Any:
    """Tensor names as published: transformers 5 drops `prefix` from some state dicts."""
    keep = (prefix, "text_projection", "visual_projection")
    return lambda tensors: {k if k.startswith(keep) else prefix + k: v for k, v in tensors.items()}


def clip_text() -> list[Case]:
    outputs = ("last_hidden_state", "pooler_output", "hidden_states")
    base = Case(
        "clip_text",
        "transformers:CLIPTextModel",
        f"{NATIVE}.clip:CLIPTextModel",
        "text_encoder",
        tokens(64, batch=2, end=63),
        encode(*outputs),
        encode(*outputs),
        config=CLIP,
        native_config=f"{CONFIG}:CLIPTextConfig",
        names=prefixed("text_model."),
    )
    projected = ("text_embeds", "last_hidden_state")

    def native_projected(model: Any, given: Any) -> Any:
        answer = model(**given)
        return {"text_embeds": answer.pooler_output, "last_hidden_state": answer.last_hidden_state}

    plain = encode(*projected, states=False)
    masked = encode(*outputs, real_only=True)
    return [
        base,
        base.variant("gelu", "hidden_act gelu, as OpenCLIP-bigG has it", config={"hidden_act": "gelu"}),
        base.variant(
            "eos2",
            "eos_token_id 2, as the CLIP-L of SD and Flux: pooled at the highest id",
            config={"eos_token_id": 2},
        ),
        base.variant("v5_names", "tensor names as transformers 5 writes them", names=None),
        base.variant(
            "padding_right",
            "attention mask, padding on the right",
            inputs=tokens(64, 2, mask="right", end=63),
            ours=masked,
            theirs=masked,
        ),
        base.variant(
            "padding_left",
            "attention mask, padding on the left",
            inputs=tokens(64, 2, mask="left", end=63),
            ours=masked,
            theirs=masked,
        ),
        base.variant(
            "projection",
            "with text_projection (SD3, SDXL)",
            official="transformers:CLIPTextModelWithProjection",
            native=f"{NATIVE}.clip:CLIPTextModelWithProjection",
            ours=plain,
            theirs=native_projected,
        ),
    ]


def clip_vision() -> list[Case]:
    def hidden(model: Any, given: Any) -> Any:
        return {"last_hidden_state": model(**given).last_hidden_state}

    def states(model: Any, given: Any) -> Any:
        return {"hidden_states": model(**given, output_hidden_states=True).hidden_states}

    def images(model: Any, given: Any) -> Any:
        return {"image_embeds": model(**given).image_embeds}

    def penultimate(model: Any, given: Any) -> Any:
        return {"penultimate": model(**given, output_hidden_states=True).hidden_states[-2]}

    base = Case(
        "clip_vision",
        "transformers:CLIPVisionModel",
        f"{NATIVE}.clip:CLIPVisionModel",
        "image_encoder",
        pixels(2),
        hidden,
        hidden,
        config=VISION,
        native_config=f"{CONFIG}:CLIPVisionConfig",
        settings={"num_hidden_layers_override": None},
        names=prefixed("vision_model."),
    )
    return [
        base,
        base.variant(
            "wan_i2v",
            "as Wan I2V reads it: all layers but the last (num_hidden_layers_override)",
            config={"num_hidden_layers": 3, "hidden_act": "gelu"},
            settings={"num_hidden_layers_override": 2, "require_post_norm": False},
            ours=penultimate,
            theirs=lambda model, given: {"penultimate": model(**given).last_hidden_state},
        ),
        base.variant("v5_names", "tensor names as transformers 5 writes them", names=None),
        base.variant(
            "projection",
            "CLIPVisionModelWithProjection's image_embeds, which the registry maps to CLIPVisionModel",
            official="transformers:CLIPVisionModelWithProjection",
            ours=images,
            theirs=images,
        ),
        base.variant(
            "projection_states",
            "the last hidden state of CLIPVisionModelWithProjection (the checkpoint of Wan 2.1 I2V)",
            official="transformers:CLIPVisionModelWithProjection",
        ),
    ]


def siglip() -> list[Case]:
    def hidden(model: Any, given: Any) -> Any:
        return {"last_hidden_state": model(**given).last_hidden_state}

    def pooled(model: Any, given: Any) -> Any:
        return {"pooler_output": model(**given).pooler_output}

    base = Case(
        "siglip_vision",
        "transformers:SiglipVisionModel",
        f"{NATIVE}.siglip:SiglipVisionModel",
        "image_encoder",
        pixels(2),
        hidden,
        hidden,
        config=VISION,
        native_config=f"{CONFIG}:SiglipVisionConfig",
        names=prefixed("vision_model."),
    )
    return [
        base,
        base.variant(
            "eps", "layer_norm_eps 1e-5, hidden_act gelu", config={"layer_norm_eps": 1e-5, "hidden_act": "gelu"}
        ),
        base.variant("v5_names", "tensor names as transformers 5 writes them", names=None),
        base.variant("pooler", "the pooling head's output", ours=pooled, theirs=pooled),
    ]


def rope_record(theta: float, scaling: Any = None) -> dict[str, Any]:
    """config.json as transformers 4 wrote it, which is what published checkpoints have."""
    return {"rope_theta": theta, "rope_scaling": scaling, "rope_parameters": None}


def new_record(theta: float, **more: Any) -> dict[str, Any]:
    """config.json as transformers 5 writes it."""
    rope = {"rope_type": "default", "rope_theta": theta, **more}
    return {"rope_theta": None, "rope_scaling": None, "rope_parameters": rope}


def llama() -> list[Case]:
    masked = encode(real_only=True)
    scaled = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    }
    base = Case(
        "llama",
        "transformers:LlamaModel",
        f"{NATIVE}.llama:LlamaModel",
        "text_encoder",
        tokens(64),
        encode(),
        encode(),
        config=LLAMA,
        native_config=f"{CONFIG}:LlamaConfig",
        record=rope_record(10000.0),
    )
    return [
        base,
        base.variant("batch2", "batch 2", inputs=tokens(64, 2)),
        base.variant(
            "theta",
            "rope_theta 500000, as Llama 3",
            config={"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
            record=rope_record(500000.0),
        ),
        base.variant(
            "v5_config",
            "config.json as transformers 5 writes it (rope_parameters), rope_theta 500000",
            config={"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
            record=new_record(500000.0),
        ),
        base.variant(
            "llama3_rope",
            "rope_scaling llama3, as Llama 3.1 in HunyuanVideo's release",
            config={"rope_parameters": {**scaled, "rope_theta": 500000.0}},
            record=rope_record(500000.0, scaled),
        ),
        base.variant("no_head_dim", "config.json without head_dim", record={"head_dim": None}),
        base.variant(
            "attention_bias", "attention_bias and mlp_bias true", config={"attention_bias": True, "mlp_bias": True}
        ),
        base.variant(
            "padding_right", "mask, padding right", inputs=tokens(64, 1, mask="right"), ours=masked, theirs=masked
        ),
        base.variant(
            "padding_left", "mask, padding left", inputs=tokens(64, 1, mask="left"), ours=masked, theirs=masked
        ),
    ]


def t5() -> list[Case]:
    masked = encode(states=False, real_only=True)
    base = Case(
        "t5",
        "transformers:T5EncoderModel",
        f"{NATIVE}.t5:T5EncoderModel",
        "text_encoder",
        tokens(64, 2, mask="ones"),
        encode(states=False),
        encode(states=False),
        config=T5,
        native_config=f"{CONFIG}:T5Config",
    )
    umt5 = base.variant("x", "")
    from dataclasses import replace

    umt5 = replace(
        umt5,
        name="umt5",
        official="transformers:UMT5EncoderModel",
        native=f"{NATIVE}.t5:UMT5EncoderModel",
        config={**T5, "is_gated_act": True},
    )
    found = []
    for pair in (base, umt5):
        found += [
            pair,
            pair.variant("padding_right", "mask, padding right", inputs=tokens(64, 2, mask="right")),
            pair.variant(
                "padding_left",
                "mask, padding left",
                inputs=tokens(64, 2, mask="left"),
                ours=masked,
                theirs=masked,
            ),
            pair.variant("long", "200 tokens: far relative positions", inputs=tokens(64, 1, 200, mask="ones")),
            pair.variant("no_mask", "no attention mask", inputs=tokens(64, 2)),
            pair.variant(
                "buckets",
                "relative_attention_num_buckets 16, max_distance 64",
                config={"relative_attention_num_buckets": 16, "relative_attention_max_distance": 64},
                inputs=tokens(64, 1, 100, mask="ones"),
            ),
            pair.variant("states", "hidden states of every layer", ours=encode(), theirs=encode()),
            pair.variant(
                "relu",
                "feed_forward_proj relu, as T5 1.0 has it",
                config={"feed_forward_proj": "relu", "is_gated_act": False},
            ),
        ]
    return found


def bert() -> list[Case]:
    return [
        Case(
            "bert",
            "transformers:BertModel",
            f"{NATIVE}.bert:BertModel",
            "text_encoder",
            tokens(64, 2, mask="right"),
            encode("last_hidden_state", states=False),
            encode("last_hidden_state", states=False),
            config={
                "vocab_size": 64,
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "max_position_embeddings": 16,
            },
            native_config=f"{CONFIG}:CLIPTextConfig",
        )
    ]
