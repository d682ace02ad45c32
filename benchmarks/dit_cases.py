# SPDX-License-Identifier: Apache-2.0
"""Tiny official transformers and autoencoders, one a class and variant that the archetypes cover, made by diffusers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class DitCase:
    """One class of diffusers with its constructor's arguments. `old_names`: parts of keys as old releases have them."""

    name: str
    archetype: str
    cls: str
    config: dict[str, Any] = field(default_factory=dict)
    kind: str = "dit"
    old_names: tuple[tuple[str, str], ...] = ()

    @property
    def official(self) -> str:
        return f"diffusers:{self.cls}"


_KL = {
    "block_out_channels": [8, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "sample_size": 16,
}
_OLD_ATTENTION = ((".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn."))


def _kl(name: str, old_names: tuple[tuple[str, str], ...] = (), **config: Any) -> DitCase:
    return DitCase(name, "autoencoder_kl", "AutoencoderKL", {**_KL, **config}, "vae", old_names)


VAES = [
    _kl("kl"),
    _kl(
        "kl_no_quant_three_stages",
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.1159,
        scaling_factor=0.3611,
        latent_channels=16,
        block_out_channels=[8, 12, 16],
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        layers_per_block=2,
        mid_block_add_attention=False,
    ),
    _kl(
        "kl_attention_in_stages",
        down_block_types=["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
        up_block_types=["AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
        act_fn="gelu",
        in_channels=4,
        out_channels=5,
    ),
    _kl("kl_old_names", _OLD_ATTENTION, latents_mean=[0.1, -0.2, 0.3, 0.05], latents_std=[1.5, 0.8, 2.0, 1.1]),
]
_WAN_VAE = {
    "base_dim": 4,
    "z_dim": 4,
    "dim_mult": [1, 2, 2, 2],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True, True],
    "latents_mean": [0.1, -0.2, 0.3, 0.05],
    "latents_std": [1.5, 0.8, 2.0, 1.1],
}


def _video(name: str, **config: Any) -> DitCase:
    return DitCase(name, "causal_video_vae", "AutoencoderKLWan", {**_WAN_VAE, **config}, "vae")


VIDEO_VAES = [
    _video("wan_vae"),
    _video(
        "wan_vae_residual_patches",  # as Wan 2.2's
        decoder_base_dim=6,
        dim_mult=[1, 2, 2],
        temperal_downsample=[True, True],
        is_residual=True,
        patch_size=2,
        in_channels=12,
        out_channels=12,
    ),
    _video(
        "wan_vae_two_stages",
        dim_mult=[1, 2],
        temperal_downsample=[True],
        num_res_blocks=2,
        scale_factor_temporal=2,
        scale_factor_spatial=2,
    ),
]
_SD3 = {
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
}
_FLUX = {
    "in_channels": 8,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 20,
    "pooled_projection_dim": 12,
    "axes_dims_rope": [4, 6, 6],
}
_ZIMAGE = {
    "in_channels": 4,
    "dim": 48,
    "n_layers": 2,
    "n_refiner_layers": 1,
    "n_heads": 2,
    "n_kv_heads": 2,
    "cap_feat_dim": 20,
    "norm_eps": 1e-3,  # not that of the norms of queries and keys
    "axes_dims": [8, 6, 10],
    "axes_lens": [256, 128, 128],
}
_HUNYUAN = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 2,
    "num_single_layers": 2,
    "num_refiner_layers": 2,
    "text_embed_dim": 20,
    "pooled_projection_dim": 12,
    "rope_axes_dim": [4, 6, 6],
}


def _joint(name: str, cls: str, base: dict[str, Any], **config: Any) -> DitCase:
    return DitCase(name, "joint_attention_dit", cls, {**base, **config})


JOINT = [
    _joint("sd3", "SD3Transformer2DModel", _SD3),
    _joint("sd35", "SD3Transformer2DModel", _SD3, dual_attention_layers=[0, 1], qk_norm="rms_norm", out_channels=6),
    _joint("sd35_last_dual", "SD3Transformer2DModel", _SD3, dual_attention_layers=[2], qk_norm="layer_norm"),
    _joint("flux", "FluxTransformer2DModel", _FLUX, guidance_embeds=True),
    _joint("flux_no_guidance", "FluxTransformer2DModel", _FLUX, out_channels=4, num_attention_heads=3),
    _joint("zimage", "ZImageTransformer2DModel", _ZIMAGE),
    _joint(
        "zimage_other_axes",
        "ZImageTransformer2DModel",
        _ZIMAGE,
        all_patch_size=[2, 1],
        all_f_patch_size=[1, 2],
        axes_dims=[4, 10, 2],
        axes_lens=[192, 70, 110],
        dim=48,
        n_heads=3,
        n_kv_heads=1,
        rope_theta=10000.0,
        t_scale=500.0,
        qk_norm=False,
        norm_eps=1e-5,
    ),
    # in_channels: the official class fills up with 64 values where an image is missing
    _joint("zimage_omni", "ZImageTransformer2DModel", _ZIMAGE, siglip_feat_dim=12, in_channels=16),
    _joint("hunyuan_video", "HunyuanVideoTransformer3DModel", _HUNYUAN),
    _joint(
        "hunyuan_video_no_guidance",
        "HunyuanVideoTransformer3DModel",
        _HUNYUAN,
        guidance_embeds=False,
        qk_norm="layer_norm",
        out_channels=None,
        in_channels=6,
        patch_size=1,
        patch_size_t=2,
        mlp_ratio=3.0,
        rope_theta=512.0,
        rope_axes_dim=[8, 2, 6],
        num_attention_heads=3,
        num_refiner_layers=1,
    ),
    _joint(
        "hunyuan_video_first_frame",
        "HunyuanVideoTransformer3DModel",
        _HUNYUAN,
        image_condition_type="token_replace",
        qk_norm=None,
    ),
]
_WAN = {
    "patch_size": [1, 2, 2],
    "num_attention_heads": 2,
    "attention_head_dim": 24,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 32,
    "freq_dim": 32,
    "ffn_dim": 64,
    "num_layers": 2,
    "rope_max_seq_len": 64,
}


def _wan(name: str, **config: Any) -> DitCase:
    return DitCase(name, "cross_attention_dit", "WanTransformer3DModel", {**_WAN, **config})


CROSS = [
    _wan("wan_t2v"),
    _wan("wan_i2v", in_channels=36, image_dim=20, added_kv_proj_dim=48),
    _wan("wan_first_last_frame", in_channels=36, image_dim=20, added_kv_proj_dim=48, pos_embed_seq_len=34),
]
_LTX = {
    "in_channels": 8,
    "out_channels": 8,
    "num_attention_heads": 2,
    "attention_head_dim": 16,  # 32 values, 30 of which are turned
    "cross_attention_dim": 32,
    "num_layers": 2,
    "caption_channels": 20,
}


def _ltx(name: str, **config: Any) -> DitCase:
    return DitCase(name, "cross_attention_dit", "LTXVideoTransformer3DModel", {**_LTX, **config})


LTX = [
    _ltx("ltx"),
    _ltx(
        "ltx_patched",
        patch_size=2,
        patch_size_t=3,
        out_channels=None,
        num_attention_heads=3,
        attention_head_dim=20,
        cross_attention_dim=60,
    ),
    _ltx(
        "ltx_other_norms",
        norm_elementwise_affine=True,
        norm_eps=1e-3,
        attention_bias=False,
        attention_out_bias=False,
        activation_fn="gelu",
        attention_head_dim=12,
        cross_attention_dim=24,
    ),
]
_COSMOS = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 2,
    "mlp_ratio": 2.0,
    "text_embed_dim": 20,
    "adaln_lora_dim": 6,
    "max_size": [64, 140, 220],
}


def _cosmos(name: str, **config: Any) -> DitCase:
    return DitCase(name, "cross_attention_dit", "CosmosTransformer3DModel", {**_COSMOS, **config})


COSMOS = [
    _cosmos("cosmos"),  # as 1.0 text to world
    _cosmos("cosmos_video", in_channels=5, patch_size=[2, 1, 3], max_size=[9, 8, 30], num_attention_heads=3),
    _cosmos(
        "cosmos_2",
        in_channels=5,
        rope_scale=[20 / 24, 3.0, 4.0],
        extra_pos_embed_type=None,
        concat_padding_mask=False,
        attention_head_dim=20,
    ),
    _cosmos(
        "cosmos_2_5",
        in_channels=5,
        rope_scale=[1.0, 3.0, 3.0],
        extra_pos_embed_type=None,
        use_crossattn_projection=True,
        crossattn_proj_in_channels=28,
        encoder_hidden_states_channels=20,
    ),
    _cosmos(
        "cosmos_2_5_transfer",
        num_layers=3,
        rope_scale=[1.0, 3.0, 3.0],
        extra_pos_embed_type=None,
        use_crossattn_projection=True,
        crossattn_proj_in_channels=28,
        encoder_hidden_states_channels=20,
        controlnet_block_every_n=2,
        img_context_dim_in=12,
        img_context_dim_out=32,
        img_context_num_tokens=11,
    ),
]
CASES = {case.name: case for case in [*VAES, *VIDEO_VAES, *JOINT, *CROSS, *LTX, *COSMOS]}


def make(case: DitCase, folder: Path, seed: int = 0) -> Path:
    """Write the official model (config.json, safetensors), every parameter drawn, to `folder` and return it."""
    import torch
    from safetensors.torch import load_file, save_file

    from fvport.audit import official

    model = build(case)
    official.randomise(model, torch.Generator().manual_seed(seed))
    model.save_pretrained(folder)
    if case.old_names:
        file = folder / "diffusion_pytorch_model.safetensors"
        renamed = {_old(key, case.old_names): value for key, value in load_file(file).items()}
        save_file(renamed, file, metadata={"format": "pt"})
    return folder


def _old(key: str, names: tuple[tuple[str, str], ...]) -> str:
    for now, before in names:
        key = key.replace(now, before)
    return key


def build(case: DitCase) -> Any:
    """The official object as its constructor leaves it, in eval mode."""
    import diffusers

    return getattr(diffusers, case.cls)(**json.loads(json.dumps(case.config))).eval()
