# SPDX-License-Identifier: Apache-2.0
"""Diffusion transformers with cross attention: Wan, Cosmos 2, Cosmos 2.5."""

from __future__ import annotations

import re
from typing import Any

from fvport.audit.case import Case, normal

NATIVE = "fastvideo.models.dits"
CONFIG = "fastvideo.configs.models.dits"


def cases() -> list[Case]:
    return [*wan(), *cosmos(), *cosmos25()]


def sample(model: Any, given: dict[str, Any]) -> Any:
    """The official call of a diffusers transformer."""
    return {"sample": model(**given).sample}


def bare(model: Any, given: dict[str, Any]) -> Any:
    """The native call where it takes the official arguments."""
    answer = model(**given)
    answer = getattr(answer, "sample", answer)
    return {"sample": answer[0] if isinstance(answer, (tuple, list)) else answer}


# --- Wan --------------------------------------------------------------------------------------------------------------

WAN = {
    "num_attention_heads": 2,
    "attention_head_dim": 24,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 16,
    "freq_dim": 16,
    "ffn_dim": 40,
    "num_layers": 2,
}


def wan() -> list[Case]:
    def inputs(batch: int = 1, channels: int = 4, image: int = 0, frames: int = 3, per_token: bool = False) -> Any:
        words = 512 if image else 7  # with an image the official class splits the context at 512 words

        def make(generator: Any) -> dict[str, Any]:
            import torch

            size = (batch, frames * 4 * 5) if per_token else (batch,)
            given = {
                "hidden_states": normal(generator, batch, channels, frames, 8, 10),
                "timestep": torch.rand(size, generator=generator) * 999,
                "encoder_hidden_states": normal(generator, batch, words, 16),
            }
            if image:  # two pictures of one sample lie behind each other in the batch (FLF2V)
                given["encoder_hidden_states_image"] = normal(generator, batch * max(1, image // 257), 257, 12)
            return given

        return make

    base = Case(
        "wan",
        "diffusers:WanTransformer3DModel",
        f"{NATIVE}.wanvideo:WanTransformer3DModel",
        "transformer",
        inputs(),
        sample,
        bare,
        config=WAN,
        native_config=f"{CONFIG}:WanVideoConfig",
    )
    i2v = {"image_dim": 12, "added_kv_proj_dim": 48, "in_channels": 9}
    return [
        base,
        base.variant("batch2", "batch 2, two timesteps", inputs=inputs(2)),
        base.variant(
            "i2v",
            "image embeddings (Wan 2.1 I2V), with the release's unused norm_added_q",
            config=i2v,
            inputs=inputs(1, 9, 257),
            names=_unused_norm,
        ),
        base.variant("i2v_saved", "the same as diffusers 0.42 writes it", config=i2v, inputs=inputs(1, 9, 257)),
        base.variant(
            "flf2v",
            "first and last frame: pos_embed_seq_len, as Wan 2.1 FLF2V has it",
            config={**i2v, "pos_embed_seq_len": 514},
            inputs=inputs(1, 9, 514),
            names=_unused_norm,
        ),
        base.variant("ti2v", "one timestep a token (Wan 2.2 TI2V)", inputs=inputs(1, per_token=True)),
        base.variant("no_cross_norm", "cross_attn_norm false", config={"cross_attn_norm": False}),
        base.variant("no_qk_norm", "qk_norm none", config={"qk_norm": None}),
        base.variant("eps", "eps 1e-5", config={"eps": 1e-5}),
        base.variant("patch", "patch_size (1, 4, 2)", config={"patch_size": (1, 4, 2)}),
    ]


def _unused_norm(tensors: dict[str, Any]) -> dict[str, Any]:
    """Published Wan I2V checkpoints hold a norm_added_q that the official class ignores."""
    more = {k.replace("norm_added_k", "norm_added_q"): v * 0.5 for k, v in tensors.items() if "norm_added_k" in k}
    return {**tensors, **more}


# --- Cosmos -----------------------------------------------------------------------------------------------------------


def cosmos() -> list[Case]:
    config = {
        "in_channels": 5,
        "out_channels": 4,
        "num_attention_heads": 2,
        "attention_head_dim": 24,
        "num_layers": 2,
        "mlp_ratio": 2.0,
        "text_embed_dim": 16,
        "adaln_lora_dim": 8,
        "max_size": (16, 32, 32),
        "rope_scale": (1.0, 3.0, 3.0),
        "extra_pos_embed_type": None,
    }

    def inputs(batch: int = 1, fps: int | None = 16, mask: bool = False, per_frame: bool = False) -> Any:
        def make(generator: Any) -> dict[str, Any]:
            import torch

            time = torch.rand((batch, 1, 3, 1, 1) if per_frame else (batch,), generator=generator)
            text_mask = torch.ones(batch, 7, dtype=torch.bool)
            text_mask[0, -3:] = False
            given = {
                "hidden_states": normal(generator, batch, 4, 3, 8, 12),
                "timestep": time,
                "encoder_hidden_states": normal(generator, batch, 7, 16),
                "condition_mask": (torch.rand(batch, 1, 3, 8, 12, generator=generator) > 0.5).float(),
                "padding_mask": (torch.rand(1, 1, 64, 96, generator=generator) > 0.5).float(),
            }
            given |= {"attention_mask": text_mask} if mask else {}
            return given | ({"fps": fps} if fps else {})

        return make

    base = Case(
        "cosmos2",
        "diffusers:CosmosTransformer3DModel",
        f"{NATIVE}.cosmos:CosmosTransformer3DModel",
        "transformer",
        inputs(),
        sample,
        bare,
        config=config,
        native_config=f"{CONFIG}:CosmosVideoConfig",
    )
    return [
        base,
        base.variant("batch2", "batch 2", inputs=inputs(2)),
        base.variant("fps24", "fps 24", inputs=inputs(fps=24)),
        base.variant("no_fps", "no fps (text to image)", inputs=inputs(fps=None)),
        base.variant("per_frame", "one timestep a frame (video2world)", inputs=inputs(per_frame=True)),
        base.variant("mask", "text attention mask", inputs=inputs(mask=True)),
        base.variant(
            "learnable", "extra_pos_embed_type learnable (Cosmos 1)", config={"extra_pos_embed_type": "learnable"}
        ),
        base.variant(
            "cosmos1",
            "rope_scale (2, 1, 1) and fps 30, as Cosmos 1.0 7B",
            config={"rope_scale": (2.0, 1.0, 1.0), "extra_pos_embed_type": "learnable"},
            inputs=inputs(fps=30),
        ),
    ]


# --- Cosmos 2.5 -------------------------------------------------------------------------------------------------------

COSMOS25_NAMES = [
    (r"^transformer_blocks\.", "net.blocks."),
    (r"\.attn1\.", ".self_attn."),
    (r"\.attn2\.", ".cross_attn."),
    (r"\.to_q\.", ".q_proj."),
    (r"\.to_k\.", ".k_proj."),
    (r"\.to_v\.", ".v_proj."),
    (r"\.to_out\.0\.", ".output_proj."),
    (r"\.norm_q\.", ".q_norm."),
    (r"\.norm_k\.", ".k_norm."),
    (r"\.ff\.net\.0\.proj\.", ".mlp.layer1."),
    (r"\.ff\.net\.2\.", ".mlp.layer2."),
    (r"\.norm1\.linear_(\d)\.", r".adaln_modulation_self_attn.\1."),
    (r"\.norm2\.linear_(\d)\.", r".adaln_modulation_cross_attn.\1."),
    (r"\.norm3\.linear_(\d)\.", r".adaln_modulation_mlp.\1."),
    (r"^norm_out\.linear_(\d)\.", r"net.final_layer.adaln_modulation.\1."),
    (r"^proj_out\.", "net.final_layer.linear."),
    (r"^patch_embed\.proj\.", "net.x_embedder.proj.1."),
    (r"^time_embed\.t_embedder\.", "net.t_embedder.1."),
    (r"^time_embed\.norm\.", "net.t_embedding_norm."),
    (r"^crossattn_proj\.", "net.crossattn_proj."),
]


def cosmos25_names(tensors: dict[str, Any]) -> dict[str, Any]:
    """The names of NVIDIA's release, from diffusers' own."""
    found = {}
    for key, value in tensors.items():
        for pattern, name in COSMOS25_NAMES:
            key = re.sub(pattern, name, key)
        found[key] = value
    return found


def cosmos25() -> list[Case]:
    def inputs(batch: int = 1, fps: int | None = 24, per_frame: bool = True) -> Any:
        def make(generator: Any) -> dict[str, Any]:
            import torch

            given = {
                "hidden_states": normal(generator, batch, 4, 3, 8, 12),
                "timestep": torch.rand((batch, 3) if per_frame else (batch,), generator=generator),
                "encoder_hidden_states": normal(generator, batch, 7, 24),
                "condition_mask": (torch.rand(batch, 1, 3, 8, 12, generator=generator) > 0.5).float(),
                "padding_mask": torch.zeros(1, 1, 64, 96),
            }
            return given | ({"fps": fps} if fps else {})

        return make

    def official(model: Any, given: dict[str, Any]) -> Any:
        time = given["timestep"]
        time = time[:, None, :, None, None] if time.dim() == 2 else time
        return sample(model, {**given, "timestep": time})

    def native(model: Any, given: dict[str, Any]) -> Any:
        mask = given["padding_mask"].expand(given["hidden_states"].shape[0], -1, -1, -1)
        return bare(model, {**given, "padding_mask": mask})

    base = Case(
        "cosmos25",
        "diffusers:CosmosTransformer3DModel",
        f"{NATIVE}.cosmos2_5:Cosmos25Transformer3DModel",
        "transformer",
        inputs(),
        official,
        native,
        config={
            "in_channels": 5,
            "out_channels": 4,
            "num_attention_heads": 2,
            "attention_head_dim": 24,
            "num_layers": 2,
            "mlp_ratio": 2.0,
            "text_embed_dim": 16,
            "adaln_lora_dim": 8,
            "max_size": (16, 32, 32),
            "rope_scale": (1.0, 3.0, 3.0),
            "extra_pos_embed_type": None,
            "use_crossattn_projection": True,
            "crossattn_proj_in_channels": 24,
            "encoder_hidden_states_channels": 16,
        },
        native_config=f"{CONFIG}.cosmos2_5:Cosmos25VideoConfig",
        record={"_class_name": "Cosmos25Transformer3DModel", "in_channels": 4},
        names=cosmos25_names,
    )
    return [
        base,
        base.variant("batch2", "batch 2", inputs=inputs(2)),
        base.variant("fps16", "fps 16", inputs=inputs(fps=16)),
        base.variant("no_fps", "no fps", inputs=inputs(fps=None)),
        base.variant("one_level", "one timestep a sample", inputs=inputs(per_frame=False)),
    ]
