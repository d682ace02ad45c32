# SPDX-License-Identifier: Apache-2.0
"""LTX 2's codecs, vocoders, upsamplers, MMAudio's vocoder, and Stable Audio's number conditioner."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from fvport.audit.case import Case, normal

AUDIO = "fastvideo.models.audio"


def cases() -> list[Case]:
    return [*ltx2_vae(), *ltx2_audio(), *vocoders(), *upsampler(), *numbers()]


def statistics(model: Any) -> None:
    """Latent statistics of LTX 2 are buffers: drawn, the deviations positive."""
    import torch

    generator = torch.Generator().manual_seed(3)
    model.latents_mean.copy_(torch.randn(model.latents_mean.shape, generator=generator) * 0.3)
    model.latents_std.copy_(torch.rand(model.latents_std.shape, generator=generator) + 0.5)


def renamed(rules: list[tuple[str, Any]]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A `names` function of regular expressions, applied in order."""

    def names(tensors: dict[str, Any]) -> dict[str, Any]:
        found = {}
        for key, value in tensors.items():
            for pattern, name in rules:
                key = re.sub(pattern, name, key)
            found[key] = value
        return found

    return names


STATISTICS = [
    (r"^latents_mean$", "per_channel_statistics.mean-of-means"),
    (r"^latents_std$", "per_channel_statistics.std-of-means"),
]
LTX2_VAE_NAMES = renamed(
    [
        *STATISTICS,
        (r"^encoder\.mid_block\.resnets\.", "encoder.down_blocks.8.res_blocks."),
        (r"^encoder\.down_blocks\.(\d)\.downsamplers\.0\.", lambda m: f"encoder.DOWN.{2 * int(m[1]) + 1}."),
        (r"^encoder\.down_blocks\.(\d)\.resnets\.", lambda m: f"encoder.DOWN.{2 * int(m[1])}.res_blocks."),
        (r"^decoder\.mid_block\.resnets\.", "decoder.UP.0.res_blocks."),
        (r"^decoder\.up_blocks\.(\d)\.upsamplers\.0\.", lambda m: f"decoder.UP.{2 * int(m[1]) + 1}."),
        (r"^decoder\.up_blocks\.(\d)\.resnets\.", lambda m: f"decoder.UP.{2 * int(m[1]) + 2}.res_blocks."),
        (r"\.DOWN\.", ".down_blocks."),
        (r"\.UP\.", ".up_blocks."),
    ]
)


def ltx2_vae() -> list[Case]:
    shrink = {"num_layers": 1}
    grow = {"residual": True, "multiplier": 2}
    record = {
        "_class_name": "CausalVideoAutoencoder",
        "vae": {
            "latent_channels": 8,
            "patch_size": 4,
            "encoder_blocks": [
                ["res_x", shrink],
                ["compress_space_res", {"multiplier": 2}],
                ["res_x", shrink],
                ["compress_time_res", {"multiplier": 2}],
                ["res_x", shrink],
                ["compress_all_res", {"multiplier": 2}],
                ["res_x", shrink],
                ["compress_all_res", {"multiplier": 2}],
                ["res_x", shrink],
            ],
            "decoder_blocks": [
                ["res_x", shrink],
                ["compress_all", grow],
                ["res_x", shrink],
                ["compress_all", grow],
                ["res_x", shrink],
                ["compress_all", grow],
                ["res_x", shrink],
            ],
            "causal_decoder": False,
            "timestep_conditioning": False,
            "encoder_spatial_padding_mode": "zeros",
            "decoder_spatial_padding_mode": "reflect",
        },
    }

    def inputs(generator: Any) -> dict[str, Any]:
        return {"video": normal(generator, 1, 3, 9, 64, 96, scale=0.5), "latent": normal(generator, 1, 8, 3, 2, 3)}

    def official(model: Any, given: dict[str, Any]) -> Any:
        mean, std = (x.view(1, -1, 1, 1, 1).to(given["latent"]) for x in (model.latents_mean, model.latents_std))
        mode = model.encode(given["video"]).latent_dist.mode()
        return {"mode": (mode - mean) / std, "decoded": model.decode(given["latent"] * std + mean).sample}

    def native(model: Any, given: dict[str, Any]) -> Any:
        return {"mode": model.encode(given["video"]).mode(), "decoded": model.decode(given["latent"])}

    base = Case(
        "ltx2_vae",
        "diffusers:AutoencoderKLLTX2Video",
        "fastvideo.models.vaes.ltx2vae:LTX2CausalVideoAutoencoder",
        "vae",
        inputs,
        official,
        native,
        config={
            "latent_channels": 8,
            "block_out_channels": (16, 32, 64, 128),
            "decoder_block_out_channels": (16, 32, 64),
            "layers_per_block": (1, 1, 1, 1, 1),
            "decoder_layers_per_block": (1, 1, 1, 1),
            "decoder_causal": False,
        },
        native_config="fastvideo.configs.models.vaes:LTX2VAEConfig",
        record=record,
        names=LTX2_VAE_NAMES,
        adjust=statistics,
    )
    causal = {**record["vae"], "causal_decoder": True}  # type: ignore[dict-item]
    return [
        base,
        base.variant("causal", "causal decoder", config={"decoder_causal": True}, record={"vae": causal}),
    ]


def ltx2_audio() -> list[Case]:
    config = {
        "base_channels": 32,
        "latent_channels": 8,
        "mel_bins": 16,
        "resolution": 16,
        "num_res_blocks": 1,
        "ch_mult": (1, 2, 2),
    }
    params = {
        "ch": 32,
        "ch_mult": [1, 2, 2],
        "num_res_blocks": 1,
        "z_channels": 8,
        "mel_bins": 16,
        "resolution": 16,
        "attn_resolutions": [],
        "mid_block_add_attention": False,
        "causality_axis": "height",
        "norm_type": "pixel",
    }
    record = {"audio_vae": {"model": {"params": {"ddconfig": params, "sampling_rate": 16000}}}}

    def inputs(generator: Any) -> dict[str, Any]:
        return {"mel": normal(generator, 1, 2, 17, 16), "latent": normal(generator, 1, 8, 5, 4)}

    def shaped(model: Any, latent: Any, undo: bool) -> Any:
        """(de)normalised on packed channels and bins, as diffusers' pipeline does."""
        packed = latent.transpose(1, 2).flatten(2)
        mean, std = model.latents_mean.to(latent), model.latents_std.to(latent)
        packed = packed * std + mean if undo else (packed - mean) / std
        return packed.unflatten(2, latent.shape[1::2]).transpose(1, 2)

    base = Case(
        "ltx2_audio_decoder",
        "diffusers:AutoencoderKLLTX2Audio",
        f"{AUDIO}.ltx2_audio_vae:LTX2AudioDecoder",
        "audio",
        inputs,
        lambda model, given: {"mel": model.decode(shaped(model, given["latent"], True)).sample},
        lambda model, given: {"mel": model(given["latent"])},
        config=config,
        record={**record, "_class_name": "LTX2AudioDecoder"},
        names=renamed(STATISTICS),
        adjust=statistics,
    )

    def encoder_only(tensors: dict[str, Any]) -> dict[str, Any]:
        found = renamed([*STATISTICS, (r"^encoder\.", "")])(tensors)
        return {f"model.{key}": value for key, value in found.items() if not key.startswith("decoder.")}

    encoder = Case(
        "ltx2_audio_encoder",
        "diffusers:AutoencoderKLLTX2Audio",
        f"{AUDIO}.ltx2_audio_vae:LTX2AudioEncoder",
        "plain",
        inputs,
        lambda model, given: {"latent": shaped(model, model.encode(given["mel"]).latent_dist.mode(), False)},
        lambda model, given: {"latent": model(given["mel"])},
        config=config,
        record=record,
        names=encoder_only,
        adjust=statistics,
    )
    return [base, encoder]


VOCODER_NAMES = renamed(
    [
        (r"^conv_in\.", "conv_pre."),
        (r"^upsamplers\.", "ups."),
        (r"^resnets\.", "resblocks."),
        (r"^act_out\.", "act_post."),
        (r"^conv_out\.", "conv_post."),
    ]
)


def vocoders() -> list[Case]:
    sizes = {
        "upsample_kernel_sizes": [4, 4],
        "resnet_kernel_sizes": [3, 5],
        "resnet_dilations": [[1, 3, 5], [1, 3, 5]],
    }
    wave = {"mel": lambda generator: {"mel": normal(generator, 1, 2, 6, 64, scale=0.5)}}["mel"]
    ltx2 = Case(
        "ltx2_vocoder",
        "diffusers.pipelines.ltx2.vocoder:LTX2Vocoder",
        f"{AUDIO}.ltx2_audio_vae:LTX2Vocoder",
        "vocoder",
        wave,
        lambda model, given: {"wave": model(given["mel"])},
        lambda model, given: {"wave": model(given["mel"])},
        config={"hidden_channels": 16, "upsample_factors": [2, 2], **sizes},
        record={
            "_class_name": "LTX2Vocoder",
            "vocoder": {
                "upsample_initial_channel": 16,
                "upsample_rates": [2, 2],
                "upsample_kernel_sizes": [4, 4],
                "resblock_kernel_sizes": [3, 5],
                "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5]],
            },
        },
        names=VOCODER_NAMES,
    )
    bigvgan = Case(
        "bigvgan",
        "diffusers:MMAudioVocoder",
        f"{AUDIO}.bigvgan:BigVGANV2",
        "vocoder",
        lambda generator: {"mel": normal(generator, 1, 12, 6, scale=0.5)},
        lambda model, given: {"wave": model(given["mel"]).sample},
        lambda model, given: {"wave": model(given["mel"])},
        config={
            "num_mels": 12,
            "upsample_initial_channel": 16,
            "upsample_rates": (2, 2),
            "upsample_kernel_sizes": (4, 4),
            "resblock_kernel_sizes": (3, 5),
            "resblock_dilation_sizes": ((1, 3, 5), (1, 3, 5)),
        },
        record={
            "_class_name": "BigVGANV2",
            "resblock": "1",
            "activation": "snakebeta",
            "snake_logscale": True,
            "use_bias_at_final": False,
            "use_tanh_at_final": False,
            "weight_norm_removed": True,
        },
        adjust=quiet,
    )
    return [ltx2, bigvgan]


def quiet(model: Any) -> None:
    """Keep the wave inside [-1, 1]: both sides clamp, and a clamp hides differences."""
    import torch

    with torch.no_grad():
        model.conv_post.weight.mul_(0.1)


def upsampler() -> list[Case]:
    def call(model: Any, given: dict[str, Any]) -> Any:
        return {"latent": model(given["latent"])}

    base = Case(
        "ltx2_upsampler",
        "diffusers.pipelines.ltx2.latent_upsampler:LTX2LatentUpsamplerModel",
        "fastvideo.models.upsamplers.ltx2_upsampler:LTX2LatentUpsampler",
        "upsampler",
        lambda generator: {"latent": normal(generator, 1, 4, 3, 4, 6)},
        call,
        call,
        config={"in_channels": 4, "mid_channels": 32, "num_blocks_per_stage": 1, "use_rational_resampler": False},
        record={"_class_name": "LTX2LatentUpsampler", "rational_resampler": False},
    )
    rational = {"use_rational_resampler": True, "rational_spatial_scale": 1.5}
    return [
        base,
        base.variant(
            "rational",
            "rational resampler, scale 1.5",
            config=rational,
            record={"rational_resampler": True, "spatial_scale": 1.5},
        ),
        base.variant(
            "rational_saved",
            "rational resampler, config.json as diffusers writes it",
            config=rational,
            record={"rational_resampler": None},
        ),
        base.variant(
            "temporal",
            "temporal upsampling",
            config={"spatial_upsample": False, "temporal_upsample": True},
        ),
        base.variant("both", "space and time at once", config={"temporal_upsample": True}),
    ]


def numbers() -> list[Case]:
    def names(tensors: dict[str, Any]) -> dict[str, Any]:
        rules = [
            (
                rf"^{part}_number_conditioner\.time_positional_embedding\.",
                f"conditioners.seconds_{to}.embedder.embedding.",
            )
            for part, to in (("start", "start"), ("end", "total"))
        ]
        return renamed([*rules])(tensors)

    ranges = {"min_val": 0, "max_val": 512}
    return [
        Case(
            "stable_audio_conditioner",
            "diffusers.pipelines.stable_audio.modeling_stable_audio:StableAudioProjectionModel",
            "fastvideo.models.encoders.stable_audio_conditioner:StableAudioMultiConditioner",
            "plain",
            lambda generator: {"start": [0.0, 7.5], "total": [47.0, 600.0]},
            _official_numbers,
            _native_numbers,
            config={"text_encoder_dim": 24, "conditioning_dim": 24, "min_value": 0, "max_value": 512},
            native_config="fastvideo.configs.models.encoders:StableAudioConditionerConfig",
            settings={
                "cond_dim": 24,
                "configs": [
                    {"id": name, "type": "number", "config": ranges} for name in ("seconds_start", "seconds_total")
                ],
            },
            names=names,
            what="seconds_start and seconds_total; the text encoder is the official T5 itself",
        )
    ]


def _official_numbers(model: Any, given: dict[str, Any]) -> Any:
    import torch

    seconds = [torch.tensor(given[key], dtype=model.dtype) for key in ("start", "total")]
    answer = model(None, *seconds)
    return {"start": answer.seconds_start_hidden_states, "total": answer.seconds_end_hidden_states}


def _native_numbers(model: Any, given: dict[str, Any]) -> Any:
    rows = [{"seconds_start": a, "seconds_total": b} for a, b in zip(given["start"], given["total"], strict=True)]
    found = model(rows, "cpu")
    return {"start": found["seconds_start"][0], "total": found["seconds_total"][0]}
