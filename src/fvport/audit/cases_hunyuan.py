# SPDX-License-Identifier: Apache-2.0
"""The HunyuanVideo transformers, 1.0 and 1.5."""

from __future__ import annotations

from typing import Any

from fvport.audit.case import Case, normal
from fvport.audit.cases_dits import CONFIG, NATIVE, sample


def cases() -> list[Case]:
    return [*hunyuan(), *hunyuan15()]


# --- HunyuanVideo -----------------------------------------------------------------------------------------------------

HUNYUAN = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 2,
    "num_single_layers": 2,
    "num_refiner_layers": 2,
    "text_embed_dim": 20,
    "pooled_projection_dim": 12,
    "rope_axes_dim": (4, 6, 6),
    "guidance_embeds": True,
}


def hunyuan() -> list[Case]:
    def inputs(batch: int = 1, pad: int = 0, guidance: bool = True) -> Any:
        def make(generator: Any) -> dict[str, Any]:
            import torch

            mask = torch.ones(batch, 7, dtype=torch.int64)
            if pad:
                mask[0, -pad:] = 0
            given = {
                "hidden_states": normal(generator, batch, 4, 3, 8, 10),
                "timestep": torch.rand(batch, generator=generator) * 999,
                "encoder_hidden_states": normal(generator, batch, 7, 20),
                "encoder_attention_mask": mask,
                "pooled_projections": normal(generator, batch, 12),
            }
            return given | ({"guidance": torch.full((batch,), 6000.0)} if guidance else {})

        return make

    def native(model: Any, given: dict[str, Any], trim: bool = False) -> Any:
        text = given["encoder_hidden_states"]
        if trim:  # what the pipeline's text stage hands over: the real tokens only
            text = text[:, : int(given["encoder_attention_mask"].sum(1).max())]
        return {
            "sample": model(
                given["hidden_states"],
                [text, given["pooled_projections"]],
                given["timestep"],
                guidance=given.get("guidance"),
                encoder_attention_mask=given["encoder_attention_mask"],
            )
        }

    base = Case(
        "hunyuan_video",
        "diffusers:HunyuanVideoTransformer3DModel",
        f"{NATIVE}.hunyuanvideo:HunyuanVideoTransformer3DModel",
        "transformer",
        inputs(),
        sample,
        native,
        config=HUNYUAN,
        native_config=f"{CONFIG}:HunyuanVideoConfig",
    )
    return [
        base,
        base.variant("batch2", "batch 2", inputs=inputs(2)),
        base.variant(
            "trimmed",
            "padded text, trimmed for the native side as FastVideo's pipeline does",
            inputs=inputs(1, pad=3),
            theirs=lambda model, given: native(model, given, trim=True),
        ),
        base.variant("padded", "padded text with its mask, batch 2 of different length", inputs=inputs(2, pad=3)),
        base.variant(
            "no_guidance", "guidance_embeds false", config={"guidance_embeds": False}, inputs=inputs(guidance=False)
        ),
        base.variant("theta", "rope_theta 512", config={"rope_theta": 512.0}),
        base.variant(
            "token_replace",
            "image_condition_type token_replace, as HunyuanVideo I2V",
            config={"image_condition_type": "token_replace"},
        ),
        base.variant("mlp", "mlp_ratio 3", config={"mlp_ratio": 3.0}),
    ]


# --- HunyuanVideo 1.5 -------------------------------------------------------------------------------------------------


def hunyuan15() -> list[Case]:
    config = {
        "in_channels": 5,
        "out_channels": 4,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "num_layers": 2,
        "num_refiner_layers": 2,
        "text_embed_dim": 20,
        "text_embed_2_dim": 14,
        "image_embed_dim": 12,
        "rope_axes_dim": (4, 6, 6),
    }

    def inputs(batch: int = 1, t2v: bool = False, pad: int = 0, meanflow: bool = False) -> Any:
        def make(generator: Any) -> dict[str, Any]:
            import torch

            image = normal(generator, batch, 6, 12)
            masks = [torch.ones(batch, length, dtype=torch.int64) for length in (7, 5)]
            if pad:
                masks[0][0, -pad:] = 0
                masks[1][0, -pad:] = 0
            given = {
                "hidden_states": normal(generator, batch, 5, 3, 4, 5),
                "timestep": torch.rand(batch, generator=generator) * 999,
                "encoder_hidden_states": normal(generator, batch, 7, 20),
                "encoder_attention_mask": masks[0],
                "encoder_hidden_states_2": normal(generator, batch, 5, 14),
                "encoder_attention_mask_2": masks[1],
                "image_embeds": image * 0 if t2v else image,
            }
            return given | ({"timestep_r": torch.rand(batch, generator=generator) * 999} if meanflow else {})

        return make

    def native(model: Any, given: dict[str, Any], trim: bool = False) -> Any:
        texts = [given["encoder_hidden_states"], given["encoder_hidden_states_2"]]
        if trim:
            masks = [given["encoder_attention_mask"], given["encoder_attention_mask_2"]]
            texts = [t[:, : int(m.sum(1).max())] for t, m in zip(texts, masks, strict=True)]
        return {
            "sample": model(
                given["hidden_states"],
                texts,
                given["timestep"],
                [given["image_embeds"]],
                timestep_r=given.get("timestep_r"),
            )
        }

    base = Case(
        "hunyuan_video15",
        "diffusers:HunyuanVideo15Transformer3DModel",
        f"{NATIVE}.hunyuanvideo15:HunyuanVideo15Transformer3DModel",
        "transformer",
        inputs(),
        sample,
        native,
        config=config,
        native_config=f"{CONFIG}:HunyuanVideo15Config",
    )
    return [
        base,
        base.variant("t2v", "zero image embeddings (text to video)", inputs=inputs(t2v=True)),
        base.variant("batch2", "batch 2", inputs=inputs(2)),
        base.variant(
            "trimmed",
            "padded text, trimmed for the native side as FastVideo's pipeline does",
            inputs=inputs(t2v=True, pad=2),
            theirs=lambda model, given: native(model, given, trim=True),
        ),
        base.variant("padded", "padded text with its masks, batch 2", inputs=inputs(2, t2v=True, pad=2)),
        base.variant(
            "meanflow", "use_meanflow: a second timestep", config={"use_meanflow": True}, inputs=inputs(meanflow=True)
        ),
        base.variant("patch", "patch_size 2", config={"patch_size": 2, "in_channels": 5}, inputs=_even(inputs())),
    ]


def _even(make: Any) -> Any:
    """The same inputs with an even number of columns."""

    def even(generator: Any) -> dict[str, Any]:
        given = make(generator)
        return {**given, "hidden_states": given["hidden_states"][..., :4].contiguous()}

    return even
