# SPDX-License-Identifier: Apache-2.0
"""Diffusion transformers of audio and video together: LTX 2, MiniMax H3; and of audio: Stable Audio."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

from fvport.audit.case import Case, integers, normal
from fvport.audit.cases_dits import CONFIG, NATIVE


def cases() -> list[Case]:
    return [*ltx2(), *stable_audio(), *minimax()]


# --- LTX 2 ------------------------------------------------------------------------------------------------------------

LTX = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "cross_attention_dim": 32,
    "audio_in_channels": 32,
    "audio_out_channels": 32,
    "audio_num_attention_heads": 2,
    "audio_attention_head_dim": 8,
    "audio_cross_attention_dim": 16,
    "num_layers": 2,
    "caption_channels": 20,
    "rope_type": "split",
    "rope_double_precision": True,
    "vae_scale_factors": (8, 32, 32),
}
LTX_RECORD = {  # the release's own config names the same things otherwise
    "_class_name": "LTX2Transformer3DModel",
    "num_channels_latents": 4,
    "positional_embedding_theta": 10000.0,
    "positional_embedding_max_pos": [20, 2048, 2048],
    "audio_positional_embedding_max_pos": [20],
    "double_precision_rope": True,
    "av_ca_timestep_scale_multiplier": 1000,
    "patch_size": [1, 1, 1],
}
LTX_NAMES = [
    ("proj_in.", "patchify_proj."),
    ("av_cross_attn_video_scale_shift.", "av_ca_video_scale_shift_adaln_single."),
    ("av_cross_attn_video_a2v_gate.", "av_ca_a2v_gate_adaln_single."),
    ("av_cross_attn_audio_scale_shift.", "av_ca_audio_scale_shift_adaln_single."),
    ("av_cross_attn_audio_v2a_gate.", "av_ca_v2a_gate_adaln_single."),
    ("video_a2v_cross_attn_scale_shift_table", "scale_shift_table_a2v_ca_video"),
    ("audio_a2v_cross_attn_scale_shift_table", "scale_shift_table_a2v_ca_audio"),
    ("norm_q.", "q_norm."),
    ("norm_k.", "k_norm."),
]


def ltx_names(tensors: dict[str, Any]) -> dict[str, Any]:
    """The release's names of LTX 2, from diffusers' own."""

    def name(key: str) -> str:
        for ours, theirs in LTX_NAMES:
            key = key.replace(ours, theirs)
        key = re.sub(r"^time_embed\.", "adaln_single.", key)
        return re.sub(r"^audio_time_embed\.", "audio_adaln_single.", key)

    return {name(key): value for key, value in tensors.items()}


def ltx2() -> list[Case]:
    def inputs(batch: int = 1, mask: bool = False) -> Any:
        def make(generator: Any) -> dict[str, Any]:
            import torch

            given = {
                "video": normal(generator, batch, 4, 3, 2, 3),
                "audio": normal(generator, batch, 2, 5, 16),
                "text": normal(generator, batch, 7, 20),
                "audio_text": normal(generator, batch, 7, 20),
                "sigma": torch.rand(batch, generator=generator) * 0.9 + 0.05,
            }
            keep = torch.ones(batch, 7, dtype=torch.int64)
            keep[0, -3:] = 0
            return given | ({"mask": keep} if mask else {})

        return make

    def official(model: Any, given: dict[str, Any]) -> Any:
        """The velocity of diffusers, as the clean sample that the native class answers."""
        video, audio, sigma = given["video"], given["audio"], given["sigma"]
        packed = video.flatten(2).transpose(1, 2)
        sound = audio.transpose(1, 2).flatten(2)
        masks = {f"{who}encoder_attention_mask": given["mask"] for who in ("", "audio_")} if "mask" in given else {}
        answer = model(
            packed,
            sound,
            given["text"],
            given["audio_text"],
            timestep=sigma[:, None].expand(-1, packed.shape[1]) * 1000,
            audio_timestep=sigma[:, None].expand(-1, sound.shape[1]) * 1000,
            num_frames=3,
            height=2,
            width=3,
            fps=24.0,
            audio_num_frames=5,
            **masks,
        )
        clean = packed - answer.sample * sigma[:, None, None]
        clean_audio = sound - answer.audio_sample * sigma[:, None, None]
        return {
            "video": clean.transpose(1, 2).reshape(video.shape),
            "audio": clean_audio.unflatten(2, (2, 16)).transpose(1, 2),
        }

    def native(model: Any, given: dict[str, Any]) -> Any:
        from fvport.models import native as fastvideo

        video, audio, sigma = given["video"], given["audio"], given["sigma"]
        with fastvideo.forward_context(batch=SimpleNamespace(fps=24)):
            clean, sound = model(
                video,
                given["text"],
                sigma[:, None].expand(-1, 18),
                encoder_attention_mask=given.get("mask"),
                audio_hidden_states=audio,
                audio_encoder_hidden_states=given["audio_text"],
                audio_timestep=sigma[:, None].expand(-1, audio.shape[2]),
                audio_encoder_attention_mask=given.get("mask"),
            )
        return {"video": clean, "audio": sound}

    base = Case(
        "ltx2",
        "diffusers:LTX2VideoTransformer3DModel",
        f"{NATIVE}.ltx2:LTX2Transformer3DModel",
        "transformer",
        inputs(),
        official,
        native,
        config=LTX,
        native_config=f"{CONFIG}.ltx2:LTX2VideoConfig",
        record=LTX_RECORD,
        names=ltx_names,
    )
    return [
        base,
        base.variant("batch2", "batch 2, two noise levels", inputs=inputs(2)),
        base.variant("mask", "text attention mask", inputs=inputs(2, mask=True)),
        base.variant(
            "interleaved",
            "rope_type interleaved",
            config={"rope_type": "interleaved"},
            record={"rope_type": "interleaved"},
        ),
        base.variant(
            "single_rope",
            "rope in single precision",
            config={"rope_double_precision": False},
            record={"double_precision_rope": False},
        ),
        base.variant(
            "diffusers_config",
            "config.json and names as diffusers writes them",
            record={key: None for key in LTX_RECORD if key not in ("_class_name", "patch_size")},
        ),
    ]


# --- Stable Audio -----------------------------------------------------------------------------------------------------

SA_NAMES = [
    (r"^time_proj\.weight$", "timestep_features.weight"),
    (r"^timestep_proj\.(\d)\.", r"to_timestep_embed.\1."),
    (r"^global_proj\.(\d)\.", r"to_global_embed.\1."),
    (r"^cross_attention_proj\.(\d)\.", r"to_cond_embed.\1."),
    (r"^proj_in\.", "transformer.project_in."),
    (r"^proj_out\.", "transformer.project_out."),
    (r"^transformer_blocks\.(\d+)\.norm1\.", r"transformer.layers.\1.pre_norm."),
    (r"^transformer_blocks\.(\d+)\.norm2\.", r"transformer.layers.\1.cross_attend_norm."),
    (r"^transformer_blocks\.(\d+)\.norm3\.", r"transformer.layers.\1.ff_norm."),
    (r"^transformer_blocks\.(\d+)\.ff\.net\.", r"transformer.layers.\1.ff.ff."),
    (r"^transformer_blocks\.(\d+)\.attn1\.to_out\.0\.", r"transformer.layers.\1.self_attn.to_out."),
    (r"^transformer_blocks\.(\d+)\.attn2\.to_out\.0\.", r"transformer.layers.\1.cross_attn.to_out."),
    (r"^transformer_blocks\.(\d+)\.attn2\.to_q\.", r"transformer.layers.\1.cross_attn.to_q."),
]


def sa_names(tensors: dict[str, Any]) -> dict[str, Any]:
    """The names of stable_audio_tools: q, k, v of self attention and k, v of cross attention lie in one tensor."""
    import torch

    found: dict[str, Any] = {}
    for key, value in tensors.items():
        if re.search(r"attn1\.to_[qkv]\.|attn2\.to_[kv]\.", key):
            continue
        for pattern, name in SA_NAMES:
            key = re.sub(pattern, name, key)
        found[key] = value[:, None] if key == "timestep_features.weight" else value
    for block in {int(key.split(".")[1]) for key in tensors if key.startswith("transformer_blocks.")}:
        prefix, target = f"transformer_blocks.{block}", f"transformer.layers.{block}"
        parts = [tensors[f"{prefix}.attn1.to_{x}.weight"] for x in "qkv"]
        found[f"{target}.self_attn.to_qkv.weight"] = torch.cat(parts)
        parts = [tensors[f"{prefix}.attn2.to_{x}.weight"] for x in "kv"]
        found[f"{target}.cross_attn.to_kv.weight"] = torch.cat(parts)
    found["transformer.rotary_pos_emb.inv_freq"] = 10000 ** -(torch.arange(0, 32, 2) / 32)
    return {f"model.model.{key}": value for key, value in found.items()}


def stable_audio() -> list[Case]:
    def inputs(batch: int = 1) -> Any:
        def make(generator: Any) -> dict[str, Any]:
            import torch

            return {
                "x": normal(generator, batch, 4, 12),
                "t": torch.rand(batch, generator=generator),
                "text": normal(generator, batch, 7, 128),
                "state": normal(generator, batch, 24),
            }

        return make

    def official(model: Any, given: dict[str, Any]) -> Any:
        from diffusers.models.embeddings import get_1d_rotary_pos_embed

        length = given["x"].shape[2] + 1
        rope = get_1d_rotary_pos_embed(32, length, use_real=True, repeat_interleave_real=False)
        rope = tuple(part.to(given["x"]) for part in rope)
        answer = model(given["x"], given["t"], given["text"], given["state"][:, None], rotary_embedding=rope)
        return {"sample": answer.sample}

    def native(model: Any, given: dict[str, Any]) -> Any:
        return {"sample": model(given["x"], given["t"], cross_attn_cond=given["text"], global_embed=given["state"])}

    base = Case(
        "stable_audio",
        "diffusers:StableAudioDiTModel",
        f"{NATIVE}.stable_audio:StableAudioDiT",
        "transformer",
        inputs(),
        official,
        native,
        config={
            "sample_size": 12,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 2,
            "attention_head_dim": 64,
            "num_attention_heads": 4,
            "num_key_value_attention_heads": 2,
            "cross_attention_dim": 128,
            "time_proj_dim": 256,
            "global_states_input_dim": 24,
            "cross_attention_input_dim": 128,
        },
        native_config=f"{CONFIG}.stable_audio:StableAudioConfig",
        record={
            "_class_name": "StableAudioDiT",
            "io_channels": 4,
            "embed_dim": 256,
            "depth": 2,
            "cond_token_dim": 128,
            "global_cond_dim": 24,
        },
        names=sa_names,
    )
    return [base, base.variant("batch2", "batch 2", inputs=inputs(2))]


# --- MiniMax H3 -------------------------------------------------------------------------------------------------------


def minimax() -> list[Case]:
    def inputs(levels: int = 2) -> Any:
        def make(generator: Any) -> dict[str, Any]:
            import torch

            text, video, audio = 5, 8, 4
            total = text + video + audio
            order = torch.randperm(total, generator=generator)
            rows = [part.sort().values for part in order.split([text, video, audio])]
            tags = torch.zeros(total, dtype=torch.int64)
            tags[rows[0]], tags[rows[2]] = 1, 2
            return {
                "hidden_states": normal(generator, 1, video, 16),
                "audio_hidden_states": normal(generator, 1, audio, 6),
                "encoder_hidden_states": normal(generator, 1, text, 20),
                "timestep": torch.rand(levels, generator=generator),
                "timestep_indices": integers(generator, levels, total),
                "token_tags": tags,
                "position_ids": integers(generator, 9, total, 3).float(),
                "video_indices": rows[1],
                "audio_indices": rows[2],
                "text_indices": rows[0],
            }

        return make

    def official(model: Any, given: dict[str, Any]) -> Any:
        video, audio = model(**given, return_dict=False)
        return {"video": video, "audio": audio}

    def native(model: Any, given: dict[str, Any]) -> Any:
        answer = model(**given)
        video, audio = answer if isinstance(answer, tuple) else (answer.sample, answer.audio_sample)
        return {"video": video, "audio": audio}

    base = Case(
        "minimax_h3",
        "diffusers:MiniMaxH3Transformer3DModel",
        f"{NATIVE}.minimax_h3:MiniMaxH3Transformer3DModel",
        "transformer",
        inputs(),
        official,
        native,
        config={
            "num_attention_heads": 2,
            "attention_head_dim": 32,
            "hidden_size": 48,
            "num_layers": 2,
            "num_refiner_layers": 1,
            "ffn_dim": 40,
            "in_channels": 4,
            "audio_in_channels": 6,
            "text_dim": 20,
            "freq_dim": 16,
            "time_embed_hidden_dim": 24,
            "time_embed_dim": 16,
            "rope_freq_dim": 4,
        },
        native_config=f"{CONFIG}.minimax_h3:MiniMaxH3Config",
    )
    return [
        base,
        base.variant("levels", "three noise levels in one sequence", inputs=inputs(3)),
        base.variant(
            "theta", "rope_theta 100, other eps", config={"rope_theta": 100.0, "norm_eps": 1e-6, "qk_norm_eps": 1e-6}
        ),
    ]
