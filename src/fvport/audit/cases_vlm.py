# SPDX-License-Identifier: Apache-2.0
"""Decoder language models and vision-language encoders, MMAudio's CLIP, LingBot's UMT5, LTX 2's connectors."""

from __future__ import annotations

from typing import Any

from fvport.audit.calls import encode, pixels, tokens
from fvport.audit.case import Case, integers, normal
from fvport.audit.cases_audio import renamed
from fvport.audit.cases_encoders import CLIP, CONFIG, LLAMA, NATIVE, VISION, new_record, rope_record

QWEN = {**LLAMA, "rms_norm_eps": 1e-6}


def cases() -> list[Case]:
    return [*qwen3(), *qwen25(), *qwen3_vl(), *mmaudio(), *lingbot_t5(), *connectors()]


def theta(value: float, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": value, **more}}


def qwen3() -> list[Case]:
    masked = encode(real_only=True)
    base = Case(
        "qwen3",
        "transformers:Qwen3Model",
        f"{NATIVE}.qwen3:Qwen3ForCausalLM",
        "encoder_class",
        tokens(64, 2, mask="ones"),
        encode(),
        encode(),
        config={**QWEN, **theta(1e6)},
        native_config=f"{CONFIG}.qwen3:Qwen3TextConfig",
        record=rope_record(1e6),
    )
    return [
        base,
        base.variant("no_mask", "no attention mask, batch 2", inputs=tokens(64, 2)),
        base.variant(
            "padding_right", "mask, padding right", inputs=tokens(64, 2, mask="right"), ours=masked, theirs=masked
        ),
        base.variant(
            "padding_left", "mask, padding left", inputs=tokens(64, 2, mask="left"), ours=masked, theirs=masked
        ),
        base.variant("theta", "rope_theta 5000000", config=theta(5e6), record=rope_record(5e6)),
        base.variant(
            "v5_config",
            "config.json as transformers 5 writes it, rope_theta 10000",
            config=theta(1e4),
            record=new_record(1e4),
        ),
        base.variant("bias", "attention_bias true", config={"attention_bias": True}),
        base.variant("heads", "head_dim larger than hidden_size / heads", config={"head_dim": 16}),
    ]


def qwen25() -> list[Case]:
    masked = encode(real_only=True)
    rope = {"rope_theta": 1e6, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}, "rope_parameters": None}
    base = Case(
        "qwen2_5_vl_text",
        "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl:Qwen2_5_VLTextModel",
        f"{NATIVE}.qwen2_5:Qwen2_5_VLTextModel",
        "text_encoder",
        tokens(64, 2, mask="ones"),
        encode(),
        encode(),
        config={**{k: v for k, v in QWEN.items() if k != "head_dim"}, **theta(1e6, mrope_section=[1, 1, 2])},
        native_config=f"{CONFIG}.qwen2_5:Qwen2_5_VLConfig",
        record=rope,
    )
    return [
        base,
        base.variant("no_mask", "no attention mask", inputs=tokens(64, 2)),
        base.variant(
            "padding_right", "mask, padding right", inputs=tokens(64, 2, mask="right"), ours=masked, theirs=masked
        ),
        base.variant(
            "padding_left", "mask, padding left", inputs=tokens(64, 2, mask="left"), ours=masked, theirs=masked
        ),
        base.variant(
            "v5_config", "config.json as transformers 5 writes it", record=new_record(1e6, mrope_section=[1, 1, 2])
        ),
        base.variant(
            "window",
            "use_sliding_window with a window of 4",
            config={"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
        ),
    ]


VL_VISION = {
    "depth": 2,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_heads": 2,
    "patch_size": 2,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
    "out_hidden_size": 32,
    "num_position_embeddings": 16,
    "deepstack_visual_indexes": [0],
    "in_channels": 3,
}


def qwen3_vl() -> list[Case]:
    masked = encode(real_only=True)
    rope = {"mrope_interleaved": True, "mrope_section": [2, 1, 1]}
    text = Case(
        "lingbot_qwen3_vl",
        "transformers.models.qwen3_vl.modeling_qwen3_vl:Qwen3VLTextModel",
        f"{NATIVE}.lingbot_video:LingBotVideoQwen3VLTextModel",
        "text_encoder",
        tokens(64, 1, mask="ones"),
        encode(),
        encode(),
        config={**QWEN, **theta(5e6, **rope)},
        native_config=f"{CONFIG}.lingbot_video:LingBotVideoQwen3VLTextConfig",
        record={**rope_record(5e6), "architectures": ["LingBotVideoQwen3VLTextModel"]},
        names=lambda tensors: {f"model.language_model.{key}": value for key, value in tensors.items()},
    )

    def official(model: Any, given: dict[str, Any]) -> Any:
        return {"state": model(**given, output_hidden_states=True).hidden_states[2][0]}

    def native(model: Any, given: dict[str, Any]) -> Any:
        given = {key: value for key, value in given.items() if key != "mm_token_type_ids"}
        return {"state": model.encode_ids(given.pop("input_ids")[0], **given)}

    def image(generator: Any) -> dict[str, Any]:
        import torch

        ids = integers(generator, 50, 1, 12, low=3)
        ids[0, 3], ids[0, 4:8], ids[0, 8] = 60, 62, 61
        kinds = (ids == 62).long()
        return {
            "input_ids": ids,
            "pixel_values": normal(generator, 16, 24),
            "image_grid_thw": torch.tensor([[1, 4, 4]]),
            "mm_token_type_ids": kinds,
        }

    conditioner = Case(
        "minimax_h3_conditioner",
        "transformers.models.qwen3_vl.modeling_qwen3_vl:Qwen3VLModel",
        f"{NATIVE}.minimax_h3_qwen3_vl:MiniMaxH3Qwen3VLConditioner",
        "encoder_class",
        tokens(50, 1),
        official,
        native,
        config={
            "text_config": {**QWEN, **theta(5e6, **rope)},
            "vision_config": VL_VISION,
            "image_token_id": 62,
            "video_token_id": 63,
            "vision_start_token_id": 60,
            "vision_end_token_id": 61,
        },
        native_config=f"{CONFIG}.minimax_h3_qwen3_vl:MiniMaxH3Qwen3VLConfig",
        settings={"output_hidden_state_index": 2, "num_hidden_layers_override": 2},
        record={"rope_theta": 5e6, "rope_scaling": {"rope_type": "default", **rope}},
    )
    return [
        text,
        text.variant("batch2", "batch 2", inputs=tokens(64, 2, mask="ones")),
        text.variant(
            "padding_right", "mask, padding right", inputs=tokens(64, 2, mask="right"), ours=masked, theirs=masked
        ),
        text.variant(
            "padding_left", "mask, padding left", inputs=tokens(64, 2, mask="left"), ours=masked, theirs=masked
        ),
        conditioner,
        conditioner.variant("image", "one image among the words (vision tower, deepstack)", inputs=image),
    ]


def mmaudio() -> list[Case]:
    import functools

    def official_text(model: Any, given: dict[str, Any]) -> Any:
        import torch

        return {"text": torch.nn.functional.normalize(model(**given).last_hidden_state, dim=-1)}

    def official_image(model: Any, given: dict[str, Any]) -> Any:
        import torch

        return {"image": torch.nn.functional.normalize(model(**given).image_embeds, dim=-1)}

    def native(model: Any, given: dict[str, Any], key: str) -> Any:
        return {key: model(**given).last_hidden_state}

    def prefixed(prefix: str) -> Any:
        keep = (prefix, "visual_projection")
        return lambda tensors: {k if k.startswith(keep) else f"{prefix}.{k}": v for k, v in tensors.items()}

    text = Case(
        "mmaudio_clip_text",
        "transformers:CLIPTextModel",
        f"{NATIVE}.mmaudio_clip:MMAudioDFNCLIPTextEncoder",
        "text_encoder",
        tokens(64, 2, end=63),
        official_text,
        functools.partial(native, key="text"),
        config=CLIP,
        native_config=f"{CONFIG}.mmaudio_clip:MMAudioDFNCLIPTextConfig",
        record={"architectures": ["MMAudioDFNCLIPTextEncoder"]},
        names=prefixed("text_model"),
    )
    image = Case(
        "mmaudio_clip_vision",
        "transformers:CLIPVisionModelWithProjection",
        f"{NATIVE}.mmaudio_clip:MMAudioDFNCLIPVisionEncoder",
        "image_encoder",
        pixels(2),
        official_image,
        functools.partial(native, key="image"),
        config={**VISION, "projection_dim": 24, "hidden_act": "quick_gelu"},
        native_config=f"{CONFIG}.mmaudio_clip:MMAudioDFNCLIPVisionConfig",
        record={"architectures": ["MMAudioDFNCLIPVisionEncoder"]},
        names=prefixed("vision_model"),
    )
    return [text, image]


def lingbot_t5() -> list[Case]:
    block = r"^encoder\.block\.(\d+)\.layer\."
    names = renamed(
        [
            (r"^shared\.|^encoder\.embed_tokens\.", "token_embedding."),
            (r"^encoder\.final_layer_norm\.", "norm."),
            (block + r"0\.layer_norm\.", r"blocks.\1.norm1."),
            (block + r"1\.layer_norm\.", r"blocks.\1.norm2."),
            (block + r"0\.SelfAttention\.relative_attention_bias\.", r"blocks.\1.pos_embedding.embedding."),
            (block + r"0\.SelfAttention\.([qkvo])\.", r"blocks.\1.attn.\2."),
            (block + r"1\.DenseReluDense\.wi_0\.", r"blocks.\1.ffn.gate.0."),
            (block + r"1\.DenseReluDense\.wi_1\.", r"blocks.\1.ffn.fc1."),
            (block + r"1\.DenseReluDense\.wo\.", r"blocks.\1.ffn.fc2."),
        ]
    )
    base = Case(
        "lingbot_umt5",
        "transformers:UMT5EncoderModel",
        f"{NATIVE}.lingbotworld2_t5:LingBotWorld2T5EncoderModel",
        "encoder_class",
        tokens(64, 2, mask="ones"),
        encode(states=False),
        encode(states=False),
        config={
            "vocab_size": 64,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 48,
            "num_layers": 3,
            "num_heads": 4,
            "feed_forward_proj": "gated-gelu",
        },
        native_config=f"{CONFIG}.lingbotworld2_t5:LingBotWorld2UMT5Config",
        record={"dim": 32, "dim_attn": 32, "dim_ffn": 48, "num_buckets": 32},
        names=names,
    )
    masked = encode(states=False, real_only=True)
    return [
        base,
        base.variant(
            "padding_right", "mask, padding right", inputs=tokens(64, 2, mask="right"), ours=masked, theirs=masked
        ),
        base.variant("long", "200 tokens: far relative positions", inputs=tokens(64, 1, 200, mask="ones")),
    ]


def connectors() -> list[Case]:
    def inputs(side: str, batch: int = 1) -> Any:
        def make(generator: Any) -> dict[str, Any]:
            import torch

            keep = torch.ones(batch, 8, dtype=torch.int64)
            for row in range(batch):
                pads = 3 + row
                keep[row, slice(None, pads) if side == "left" else slice(-pads, None)] = 0
            return {"states": normal(generator, batch, 8, 24, 3), "mask": keep}

        return make

    def official(model: Any, given: dict[str, Any], side: str = "left") -> Any:
        video, audio, mask = model(given["states"], given["mask"], padding_side=side)
        return {"video": video, "audio": audio, "mask": mask}

    def native(model: Any, given: dict[str, Any], side: str = "left") -> Any:
        features = model._run_feature_extractor(tuple(given["states"].unbind(-1)), given["mask"], side)
        video, audio, mask = model._run_connectors(*features, given["mask"])
        return {"video": video, "audio": audio, "mask": mask}

    def right(call: Any) -> Any:
        return lambda model, given: call(model, given, "right")

    heads = {"num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 1, "num_learnable_registers": 4}
    config = {f"{who}_connector_{key}": value for who in ("video", "audio") for key, value in heads.items()}
    base = Case(
        "ltx2_connectors",
        "diffusers.pipelines.ltx2.connectors:LTX2TextConnectors",
        f"{NATIVE}.gemma:LTX2GemmaTextEncoderModel",
        "text_encoder",
        inputs("left"),
        official,
        native,
        config={**config, "caption_channels": 24, "text_proj_in_factor": 3, "rope_type": "split"},
        native_config=f"{CONFIG}.gemma:LTX2GemmaConfig",
        record={
            "architectures": ["LTX2GemmaTextEncoderModel"],
            "hidden_size": 24,
            "feature_extractor_in_features": 72,
            "feature_extractor_out_features": 24,
            "connector_num_attention_heads": 2,
            "connector_attention_head_dim": 12,
            "connector_num_layers": 1,
            "connector_num_learnable_registers": 4,
            "connector_double_precision_rope": True,
            "connector_rope_type": "split",
        },
        names=renamed(
            [
                (r"^text_proj_in\.", "aggregate_embed."),
                (r"\.transformer_blocks\.", ".transformer_1d_blocks."),
                (r"\.norm_([qk])\.", r".\1_norm."),
            ]
        ),
    )
    gated = {"connector_apply_gated_attention": True}
    return [
        base,
        base.variant("batch2", "batch 2, prompts of different length", inputs=inputs("left", 2)),
        base.variant(
            "padding_right", "padding on the right", inputs=inputs("right"), ours=right(official), theirs=right(native)
        ),
        base.variant(
            "gated",
            "gated attention (LTX 2.3)",
            config={"video_gated_attn": True, "audio_gated_attn": True},
            record=gated,
        ),
        base.variant(
            "single_rope",
            "rope in single precision",
            config={"rope_double_precision": False},
            record={"connector_double_precision_rope": False},
        ),
    ]
