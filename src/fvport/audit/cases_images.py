# SPDX-License-Identifier: Apache-2.0
"""Diffusion transformers with joint attention: Flux, Flux 2, SD3, Z-Image, GLM-Image, Kandinsky 5."""

from __future__ import annotations

from typing import Any

from fvport.audit.case import Case, integers, normal
from fvport.audit.cases_dits import CONFIG, NATIVE, bare, sample


def cases() -> list[Case]:
    return [*flux(), *flux2(), *sd3(), *zimage(), *kandinsky(), *glm()]


# --- Flux, Flux 2 -----------------------------------------------------------------------------------------------------


def ids(axes: int, text: int, rows: int, columns: int) -> tuple[Any, Any]:
    """(text ids, image ids) of Flux's position axes."""
    import torch

    text_ids = torch.zeros(text, axes)
    grid = torch.zeros(rows, columns, axes)
    grid[..., 1] += torch.arange(rows)[:, None]
    grid[..., 2] += torch.arange(columns)[None]
    if axes == 4:
        text_ids[:, 3] = torch.arange(text)
    return text_ids, grid.reshape(-1, axes)


def flux() -> list[Case]:
    config = {
        "in_channels": 8,
        "num_layers": 2,
        "num_single_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 20,
        "pooled_projection_dim": 12,
        "guidance_embeds": True,
        "axes_dims_rope": (4, 6, 6),
    }

    def inputs(batch: int = 1, guidance: bool = True) -> Any:
        def make(generator: Any) -> dict[str, Any]:
            import torch

            text, image = ids(3, 7, 4, 5)
            given = {
                "hidden_states": normal(generator, batch, 20, 8),
                "encoder_hidden_states": normal(generator, batch, 7, 20),
                "pooled_projections": normal(generator, batch, 12),
                "timestep": torch.rand(batch, generator=generator),
                "img_ids": image,
                "txt_ids": text,
            }
            return given | ({"guidance": torch.full((batch,), 3.5)} if guidance else {})

        return make

    base = Case(
        "flux",
        "diffusers:FluxTransformer2DModel",
        f"{NATIVE}.flux:FluxTransformer2DModel",
        "transformer",
        inputs(),
        sample,
        bare,
        config=config,
        native_config=f"{CONFIG}.flux:FluxDiTConfig",
    )
    return [
        base,
        base.variant("batch2", "batch 2", inputs=inputs(2)),
        base.variant(
            "schnell",
            "guidance_embeds false (schnell)",
            config={"guidance_embeds": False},
            inputs=inputs(guidance=False),
        ),
        base.variant("fill", "out_channels other than in_channels (Fill, Depth)", config={"out_channels": 4}),
    ]


def flux2() -> list[Case]:
    config = {
        "in_channels": 8,
        "num_layers": 2,
        "num_single_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 20,
        "timestep_guidance_channels": 16,
        "axes_dims_rope": (4, 4, 4, 4),
        "guidance_embeds": True,
    }

    def inputs(batch: int = 1, guidance: bool = True) -> Any:
        def make(generator: Any) -> dict[str, Any]:
            import torch

            text, image = ids(4, 7, 4, 5)
            given = {
                "hidden_states": normal(generator, batch, 20, 8),
                "encoder_hidden_states": normal(generator, batch, 7, 20),
                "timestep": torch.rand(batch, generator=generator),
                "img_ids": image,
                "txt_ids": text,
            }
            return given | ({"guidance": torch.full((batch,), 4.0)} if guidance else {})

        return make

    def grid(model: Any, given: dict[str, Any]) -> Any:
        """The call of FastVideo's pipeline: a 5-d latent, ids made inside."""
        batch, _, channels = given["hidden_states"].shape
        latents = given["hidden_states"].reshape(batch, 1, 4, 5, channels).permute(0, 4, 1, 2, 3)
        answer = model(latents, [given["encoder_hidden_states"]], given["timestep"], guidance=given.get("guidance"))
        return {"sample": answer.permute(0, 2, 3, 4, 1).reshape(batch, 20, -1)}

    base = Case(
        "flux2",
        "diffusers:Flux2Transformer2DModel",
        f"{NATIVE}.flux_2:Flux2Transformer2DModel",
        "transformer",
        inputs(),
        sample,
        bare,
        config=config,
        native_config=f"{CONFIG}.flux_2:Flux2Config",
    )
    return [
        base,
        base.variant("batch2", "batch 2", inputs=inputs(2)),
        base.variant("grid", "a 5-d latent, position ids made by the native side", theirs=grid),
        base.variant("grid_batch2", "the same, batch 2", theirs=grid, inputs=inputs(2)),
        base.variant(
            "klein", "guidance_embeds false (klein)", config={"guidance_embeds": False}, inputs=inputs(guidance=False)
        ),
        base.variant("theta", "rope_theta 5000", config={"rope_theta": 5000}),
        base.variant("mlp", "mlp_ratio 4, eps 1e-5", config={"mlp_ratio": 4.0, "eps": 1e-5}),
    ]


# --- SD3, Z-Image, Kandinsky 5 ----------------------------------------------------------------------------------------


def sd3() -> list[Case]:
    config = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 3,
        "attention_head_dim": 12,
        "num_attention_heads": 2,
        "joint_attention_dim": 20,
        "caption_projection_dim": 24,
        "pooled_projection_dim": 12,
        "pos_embed_max_size": 12,
        "dual_attention_layers": (0, 1),
        "qk_norm": "rms_norm",
    }

    def inputs(batch: int = 1, height: int = 8, width: int = 12) -> Any:
        def make(generator: Any) -> dict[str, Any]:
            import torch

            return {
                "hidden_states": normal(generator, batch, 4, height, width),
                "encoder_hidden_states": normal(generator, batch, 7, 20),
                "pooled_projections": normal(generator, batch, 12),
                "timestep": torch.rand(batch, generator=generator) * 999,
            }

        return make

    base = Case(
        "sd3",
        "diffusers:SD3Transformer2DModel",
        f"{NATIVE}.sd3:SD3Transformer2DModel",
        "transformer",
        inputs(),
        sample,
        bare,
        config=config,
        native_config=f"{CONFIG}.sd3:SD3DiTConfig",
    )
    return [
        base,
        base.variant("batch2", "batch 2", inputs=inputs(2)),
        base.variant(
            "sd30", "no dual attention, no qk norm (SD 3.0)", config={"dual_attention_layers": (), "qk_norm": None}
        ),
        base.variant("large", "rms_norm without dual attention (SD 3.5 large)", config={"dual_attention_layers": ()}),
        base.variant("skip", "skip_layers (skip layer guidance)", ours=_skip(sample), theirs=_skip(bare)),
    ]


def _skip(call: Any) -> Any:
    return lambda model, given: call(model, {**given, "skip_layers": [1]})


def zimage() -> list[Case]:
    config = {
        "in_channels": 4,
        "dim": 32,
        "n_layers": 2,
        "n_refiner_layers": 1,
        "n_heads": 2,
        "n_kv_heads": 2,
        "cap_feat_dim": 20,
        "axes_dims": [4, 6, 6],
        "axes_lens": [128, 32, 32],
    }

    def inputs(sizes: tuple[tuple[int, int], ...] = ((8, 12),), words: tuple[int, ...] = (7,)) -> Any:
        def make(generator: Any) -> dict[str, Any]:
            import torch

            return {
                "x": [normal(generator, 4, 1, *size) for size in sizes],
                "t": torch.rand(len(sizes), generator=generator),
                "cap_feats": [normal(generator, count, 20) for count in words],
            }

        return make

    def official(model: Any, given: dict[str, Any]) -> Any:
        return {"sample": list(model(**given, return_dict=False)[0])}

    def native(model: Any, given: dict[str, Any]) -> Any:
        return {"sample": list(model(given["x"], given["cap_feats"], given["t"])[0])}

    base = Case(
        "z_image",
        "diffusers:ZImageTransformer2DModel",
        f"{NATIVE}.zimage:ZImageTransformer2DModel",
        "transformer",
        inputs(),
        official,
        native,
        config=config,
        native_config=f"{CONFIG}.zimage:ZImageDiTConfig",
    )
    return [
        base,
        base.variant("batch2", "two images of one size", inputs=inputs(((8, 12), (8, 12)), (7, 7))),
        base.variant("ragged", "images and captions of different sizes", inputs=inputs(((8, 12), (16, 8)), (7, 40))),
        base.variant("exact", "a caption of a multiple of 32: no padding", inputs=inputs(((8, 16),), (32,))),
        base.variant("theta", "rope_theta 10000, t_scale 500", config={"rope_theta": 10000.0, "t_scale": 500.0}),
        base.variant("no_qk_norm", "qk_norm false, norm_eps 1e-6", config={"qk_norm": False, "norm_eps": 1e-6}),
        base.variant("norm_eps", "norm_eps 1e-3 with qk_norm", config={"norm_eps": 1e-3}),
    ]


def kandinsky() -> list[Case]:
    config = {
        "in_visual_dim": 4,
        "out_visual_dim": 4,
        "in_text_dim": 20,
        "in_text_dim2": 12,
        "time_dim": 16,
        "model_dim": 32,
        "ff_dim": 48,
        "num_text_blocks": 2,
        "num_visual_blocks": 2,
        "axes_dims": (4, 6, 6),
    }

    def inputs(batch: int = 1, cond: bool = False) -> Any:
        def make(generator: Any) -> dict[str, Any]:
            import torch

            channels = 4 * 2 + 1 if cond else 4
            return {
                "hidden_states": normal(generator, batch, 3, 4, 6, channels),
                "encoder_hidden_states": normal(generator, batch, 7, 20),
                "timestep": torch.rand(batch, generator=generator) * 999,
                "pooled_projections": normal(generator, batch, 12),
                "visual_rope_pos": [torch.arange(3), torch.arange(2), torch.arange(3)],
                "text_rope_pos": torch.arange(7),
            }

        return make

    base = Case(
        "kandinsky5",
        "diffusers:Kandinsky5Transformer3DModel",
        f"{NATIVE}.kandinsky5:Kandinsky5Transformer3DModel",
        "transformer",
        inputs(),
        sample,
        bare,
        config=config,
        native_config=f"{CONFIG}.kandinsky5:Kandinsky5VideoConfig",
    )
    return [
        base,
        base.variant("batch2", "batch 2", inputs=inputs(2)),
        base.variant(
            "visual_cond", "visual_cond (image to video)", config={"visual_cond": True}, inputs=inputs(cond=True)
        ),
        base.variant("scale", "scale_factor (1, 2, 2), as 512p has it", ours=_scaled(sample), theirs=_scaled(bare)),
    ]


def _scaled(call: Any) -> Any:
    return lambda model, given: call(model, {**given, "scale_factor": (1.0, 2.0, 2.0)})


# --- GLM-Image --------------------------------------------------------------------------------------------------------


def glm() -> list[Case]:
    def inputs(batch: int = 1, drop: bool = False) -> Any:
        def make(generator: Any) -> dict[str, Any]:
            import torch

            return {
                "hidden_states": normal(generator, batch, 4, 8, 12),
                "encoder_hidden_states": normal(generator, batch, 7, 20),
                "prior_token_id": integers(generator, 32, batch, 24),
                "prior_token_drop": torch.full((batch, 24), drop),
                "timestep": torch.rand(batch, generator=generator) * 999,
                "target_size": torch.tensor([[64.0, 96.0]]).repeat(batch, 1),
                "crop_coords": torch.tensor([[0.0, 8.0]]).repeat(batch, 1),
            }

        return make

    base = Case(
        "glm_image",
        "diffusers:GlmImageTransformer2DModel",
        f"{NATIVE}.glm_image:GlmImageTransformer2DModel",
        "transformer",
        inputs(),
        sample,
        bare,
        config={
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "text_embed_dim": 20,
            "time_embed_dim": 16,
            "condition_dim": 8,
            "prior_vq_quantizer_codebook_size": 32,
        },
        native_config=f"{CONFIG}.glm_image:GlmImageDiTConfig",
    )
    return [
        base,
        base.variant("batch2", "batch 2", inputs=inputs(2)),
        base.variant("drop", "prior tokens dropped (the unconditional half)", inputs=inputs(1, True)),
    ]
