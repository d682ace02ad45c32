# SPDX-License-Identifier: Apache-2.0
"""Image, video and audio autoencoders: what they encode, what they decode, tiled and not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fvport.audit.case import Case, normal

NATIVE = "fastvideo.models.vaes"
CONFIG = "fastvideo.configs.models.vaes"


def cases() -> list[Case]:
    return [*kl(), *flux2(), *wan(), *hunyuan(), *hunyuan15(), *oobleck(), *minimax()]


def pair(video: tuple[int, ...], latent: tuple[int, ...]) -> Any:
    """Inputs: `video` in about [-1, 1] and `latent`."""
    return lambda generator: {"video": normal(generator, *video, scale=0.5), "latent": normal(generator, *latent)}


def both(model: Any, given: dict[str, Any]) -> dict[str, Any]:
    """{"moments", "mode", "decoded"} of a VAE on either side, whatever its encode and decode return."""
    return {**encoded(model, given), **decoded(model, given)}


def encoded(model: Any, given: dict[str, Any]) -> dict[str, Any]:
    posterior = model.encode(given["video"])
    posterior = getattr(posterior, "latent_dist", posterior)
    return {"mode": posterior.mode(), "std": posterior.std}


def decoded(model: Any, given: dict[str, Any]) -> dict[str, Any]:
    answer = model.decode(given["latent"])
    answer = getattr(answer, "sample", answer)
    return {"decoded": answer[0] if isinstance(answer, tuple) else answer}


KL = {
    "block_out_channels": [8, 16],
    "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"],
    "latent_channels": 4,
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "sample_size": 16,
}


def kl() -> list[Case]:
    base = Case(
        "autoencoder_kl",
        "diffusers:AutoencoderKL",
        f"{NATIVE}.autoencoder_kl:AutoencoderKL",
        "vae",
        pair((2, 3, 16, 24), (2, 4, 8, 12)),
        both,
        both,
        config=KL,
        native_config=f"{CONFIG}.autoencoder_kl:AutoencoderKLVAEConfig",
    )

    def tiled(model: Any, given: dict[str, Any]) -> dict[str, Any]:
        model.enable_tiling()
        return both(model, given)

    return [
        base,
        base.variant(
            "flux",
            "no quant convolutions, shift_factor (Flux, SD3)",
            config={
                "use_quant_conv": False,
                "use_post_quant_conv": False,
                "shift_factor": 0.1159,
                "latent_channels": 16,
            },
            inputs=pair((2, 3, 16, 24), (2, 16, 8, 12)),
        ),
        base.variant("no_attention", "mid_block_add_attention false", config={"mid_block_add_attention": False}),
        base.variant("tiling", "tiled", inputs=pair((1, 3, 40, 40), (1, 4, 20, 20)), ours=tiled, theirs=tiled),
    ]


def flux2() -> list[Case]:
    base = Case(
        "flux2_vae",
        "diffusers:AutoencoderKLFlux2",
        f"{NATIVE}.flux2vae:AutoencoderKLFlux2",
        "vae",
        pair((2, 3, 16, 24), (2, 4, 8, 12)),
        both,
        both,
        config={**KL, "patch_size": (2, 2), "batch_norm_eps": 1e-4},
        native_config=f"{CONFIG}.flux2vae:Flux2VAEConfig",
    )

    def statistics(model: Any, given: dict[str, Any]) -> dict[str, Any]:
        found = {"bn_mean": model.bn.running_mean, "bn_var": model.bn.running_var, "bn_eps": float(model.bn.eps)}
        return {**decoded(model, given), **found}

    def tiled(model: Any, given: dict[str, Any]) -> dict[str, Any]:
        model.enable_tiling()
        return both(model, given)

    return [
        base,
        base.variant("statistics", "the latent batch norm's statistics", ours=statistics, theirs=statistics),
        base.variant("tiling", "tiled", inputs=pair((1, 3, 40, 40), (1, 4, 20, 20)), ours=tiled, theirs=tiled),
        base.variant(
            "no_quant", "no quant convolutions", config={"use_quant_conv": False, "use_post_quant_conv": False}
        ),
    ]


WAN = {
    "base_dim": 8,
    "z_dim": 4,
    "dim_mult": [1, 2, 2, 2],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True, True],
    "latents_mean": [0.1, -0.2, 0.3, 0.05],
    "latents_std": [1.5, 0.8, 2.0, 1.1],
}


def wan() -> list[Case]:
    base = Case(
        "wan_vae",
        "diffusers:AutoencoderKLWan",
        f"{NATIVE}.wanvae:AutoencoderKLWan",
        "vae",
        pair((1, 3, 9, 16, 24), (1, 4, 3, 2, 3)),
        both,
        both,
        config=WAN,
        native_config=f"{CONFIG}.wanvae:WanVAEConfig",
        adjust=quiet_decoder,
    )
    tiles = {
        "tile_sample_min_height": 32,
        "tile_sample_min_width": 32,
        "tile_sample_stride_height": 24,
        "tile_sample_stride_width": 24,
    }

    def tiled(model: Any, given: dict[str, Any]) -> dict[str, Any]:
        model.enable_tiling(**tiles)
        return decoded(model, given)

    return [
        base,
        base.variant("batch2", "batch 2", inputs=pair((2, 3, 9, 16, 24), (2, 4, 3, 2, 3))),
        base.variant("image", "one frame", inputs=pair((1, 3, 1, 16, 24), (1, 4, 1, 2, 3))),
        base.variant(
            "wan22",
            "residual blocks, patch_size 2, decoder_base_dim (Wan 2.2 TI2V)",
            config={
                "is_residual": True,
                "patch_size": 2,
                "in_channels": 12,
                "out_channels": 12,
                "decoder_base_dim": 16,
                "scale_factor_spatial": 16,
            },
            inputs=pair((1, 3, 9, 32, 48), (1, 4, 3, 2, 3)),
        ),
        base.variant("no_cache", "use_feature_cache false", settings={"use_feature_cache": False}),
        base.variant(
            "tiling",
            "spatially tiled decode",
            inputs=pair((1, 3, 1, 16, 16), (1, 4, 2, 6, 6)),
            ours=tiled,
            theirs=tiled,
        ),
        base.variant(
            "tiling_no_cache",
            "spatially tiled decode, use_feature_cache false",
            inputs=pair((1, 3, 1, 16, 16), (1, 4, 2, 6, 6)),
            settings={"use_feature_cache": False},
            ours=tiled,
            theirs=tiled,
        ),
    ]


def quiet_decoder(model: Any) -> None:
    """Keep the decoded picture inside [-1, 1]: both sides clamp, and a clamp hides differences."""
    import torch

    with torch.no_grad():
        model.decoder.conv_out.weight.mul_(0.1)


HUNYUAN = {
    "latent_channels": 4,
    "block_out_channels": [8, 8, 16, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


def video_tiles(model: Any, given: dict[str, Any], call: Any = decoded, frames: bool = False) -> dict[str, Any]:
    """Tiled: 16 pixels with a stride of 8; in time as well where `frames`."""
    size = {"tile_sample_min_height": 16, "tile_sample_min_width": 16}
    size |= {"tile_sample_stride_height": 8, "tile_sample_stride_width": 8}
    if frames:
        size |= {"tile_sample_min_num_frames": 8, "tile_sample_stride_num_frames": 4}
    model.enable_tiling(**size)
    if hasattr(model, "use_framewise_decoding"):
        model.use_framewise_decoding = model.use_framewise_encoding = frames
    elif hasattr(model, "use_temporal_tiling"):
        model.use_temporal_tiling = frames
    return dict(call(model, given))


def hunyuan() -> list[Case]:
    base = Case(
        "hunyuan_vae",
        "diffusers:AutoencoderKLHunyuanVideo",
        f"{NATIVE}.hunyuanvae:AutoencoderKLHunyuanVideo",
        "vae",
        pair((1, 3, 9, 16, 24), (1, 4, 3, 2, 3)),
        both,
        both,
        config=HUNYUAN,
        native_config=f"{CONFIG}.hunyuanvae:HunyuanVAEConfig",
    )

    def framewise(model: Any, given: dict[str, Any]) -> Any:
        return video_tiles(model, given, both, frames=True)

    return [
        base,
        base.variant("batch2", "batch 2", inputs=pair((2, 3, 9, 16, 24), (2, 4, 3, 2, 3))),
        base.variant("image", "one frame", inputs=pair((1, 3, 1, 16, 24), (1, 4, 1, 2, 3))),
        base.variant("no_attention", "mid_block_add_attention false", config={"mid_block_add_attention": False}),
        base.variant(
            "no_attention_batch2",
            "the same, batch 2",
            config={"mid_block_add_attention": False},
            inputs=pair((2, 3, 9, 16, 24), (2, 4, 3, 2, 3)),
        ),
        base.variant(
            "tiling",
            "spatially tiled decode",
            inputs=pair((1, 3, 1, 16, 16), (1, 4, 2, 3, 4)),
            ours=video_tiles,
            theirs=video_tiles,
        ),
        base.variant(
            "tiling_time",
            "tiled in time and space, encode and decode",
            inputs=pair((1, 3, 9, 16, 24), (1, 4, 3, 2, 3)),
            ours=framewise,
            theirs=framewise,
        ),
    ]


def hunyuan15() -> list[Case]:
    base = Case(
        "hunyuan15_vae",
        "diffusers:AutoencoderKLHunyuanVideo15",
        f"{NATIVE}.hunyuan15vae:AutoencoderKLHunyuanVideo15",
        "vae",
        pair((1, 3, 9, 16, 32), (1, 4, 3, 1, 2)),
        both,
        both,
        config={
            "latent_channels": 4,
            "block_out_channels": [8, 8, 16, 16, 16],
            "layers_per_block": 1,
        },
        native_config=f"{CONFIG}.hunyuan15vae:Hunyuan15VAEConfig",
    )
    world = replace(
        base,
        name="hyworld_vae",
        native=f"{NATIVE}.hyworldvae:AutoencoderKLHYWorld",
        record={"_class_name": "AutoencoderKLHYWorld"},
        what="HY-World's copy of the HunyuanVideo 1.5 VAE",
    )
    return [
        base,
        base.variant("image", "one frame", inputs=pair((1, 3, 1, 16, 32), (1, 4, 1, 1, 2))),
        world,
        world.variant("image", "one frame", inputs=pair((1, 3, 1, 16, 32), (1, 4, 1, 1, 2))),
    ]


def oobleck() -> list[Case]:
    def inputs(generator: Any) -> dict[str, Any]:
        return {"video": normal(generator, 2, 2, 64, scale=0.3), "latent": normal(generator, 2, 4, 6)}

    return [
        Case(
            "oobleck",
            "diffusers:AutoencoderOobleck",
            f"{NATIVE}.oobleck:OobleckVAE",
            "vae",
            inputs,
            both,
            both,
            config={
                "encoder_hidden_size": 8,
                "downsampling_ratios": [2, 4],
                "channel_multiples": [1, 2],
                "decoder_channels": 8,
                "decoder_input_channels": 4,
                "audio_channels": 2,
                "sampling_rate": 16000,
            },
            native_config=f"{CONFIG}.oobleck:OobleckVAEConfig",
        )
    ]


def minimax() -> list[Case]:
    video = Case(
        "minimax_h3_vae",
        "diffusers:AutoencoderKLMiniMaxH3",
        f"{NATIVE}.minimax_h3_video:AutoencoderKLMiniMaxH3",
        "vae",
        pair((1, 3, 9, 16, 16), (1, 4, 3, 4, 4)),
        both,
        both,
        config={
            "latent_channels": 4,
            "block_out_channels": (8, 8, 16),
            "layers_per_block": 1,
            "spatial_downsample_factors": (2, 2, 1),
            "temporal_downsample_factors": (1, 2, 2),
            "norm_num_groups": 4,
            "decoder_num_layers": 2,
            "decoder_num_attention_heads": 2,
            "decoder_attention_head_dim": 16,
            "decoder_num_register_tokens": 2,
            "clip_length": 9,
            "token_drop": 1,
            "latents_mean": (0.1, -0.2, 0.3, 0.05),
            "latents_std": (1.5, 0.8, 2.0, 1.1),
        },
        native_config=f"{CONFIG}.minimax_h3_video:MiniMaxH3VideoVAEConfig",
    )
    audio = Case(
        "minimax_h3_audio",
        "diffusers:AutoencoderKLMiniMaxH3Audio",
        f"{NATIVE}.minimax_h3_audio:AutoencoderKLMiniMaxH3Audio",
        "audio",
        lambda generator: {"video": normal(generator, 1, 1, 64, scale=0.3), "latent": normal(generator, 1, 4, 6)},
        both,
        both,
        config={
            "encoder_dim": 8,
            "encoder_rates": (2, 4),
            "latent_dim": 32,
            "latent_channels": 4,
            "num_attention_heads": 2,
            "decoder_dim": 16,
            "decoder_rates": (4, 2),
            "decoder_kernel_sizes": (8, 4),
            "resblock_kernel_sizes": (3,),
            "resblock_dilation_sizes": ((1, 3),),
            "sampling_rate": 16000,
        },
        native_config=f"{CONFIG}.minimax_h3_audio:MiniMaxH3AudioVAEConfig",
    )
    return [video, audio]
