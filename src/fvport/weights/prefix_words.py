# SPDX-License-Identifier: Apache-2.0
"""What the first words of a tensor's name are called in releases: components, wrappers, averages, training state."""

from __future__ import annotations

import re


def _any(words: str) -> re.Pattern[str]:
    """Alternatives, one a word; each is a regular expression of whole segments."""
    return re.compile("|".join(words.split()), re.IGNORECASE)


DIT = r"""
    (model\.)?diffusion_model model\.dit model\.unet unet unet_model dit dit_model mmdit video_dit denoiser
    denoise(_fn|_net|_model|r_model)? denoising_model noise_pred(ictor)? score_model velocity_model flow_model
    diffusion diffusion_transformer"""
VAE = r"""
    first_stage(_model)? (image_|video_|spatial_|temporal_)?vae(_model)? autoencoder(_kl)? ae vqgan vqvae vqmodel movq
    pretransform codec latent_codec"""
TEXT = r"""
    text_encoders\.[^.]+ conditioner\.embedders\.\d+ conditioner\.conditioners\.[^.]+ cond_stage(_model)?
    text_?encoder(_?\d+)? txt_encoder prompt_encoder caption_encoder te\d? clip_[lgh] t5xxl umt5(_?xxl)?
    language_encoder llm_encoder"""
IMAGE = "image_encoder img_encoder vision_encoder image_embedder clip_vision(_model)?"

# (the whole prefix without its last dot, name, kind, sure). A sure one is a component wherever it stands. The others
# are also what parts of one model are called (GPT-2 has a `transformer`): they count only where nothing is left over.
COMPONENTS = (
    (_any(DIT), "transformer", "dit", True),
    (_any(r"transformer(_\d+)? backbone"), "transformer", "dit", False),
    (_any("prior(_model)?"), "prior", "dit", False),
    (_any("control_model controlnet"), "controlnet", "dit", True),
    (_any("audio_vae audio_autoencoder"), "audio_vae", "vae", True),
    (_any(VAE), "vae", "vae", True),
    (_any(IMAGE), "image_encoder", "image_encoder", True),
    (_any("vision_model vision_tower visual"), "image_encoder", "image_encoder", False),
    (_any("audio_encoder"), "audio_encoder", "audio_encoder", True),
    (_any(TEXT), "text_encoder", "text_encoder", True),
    (_any("t5 clip bert llm language_model text_model text_tower"), "text_encoder", "text_encoder", False),
    (_any("vocoder"), "vocoder", "vocoder", True),
    (_any("(latent_)?upsampler upscaler"), "upsampler", "upsampler", True),
    (_any("connectors? text_proj(ection)?_model conditioner"), "conditioner", "conditioner", False),
)
DEEP = _any("model conditioner text_encoders")  # first segments of the longer patterns above
# Words that stand around all of one component's names, within its prefix.
INNER = {"text_encoder": ("transformer", "model"), "vae": ("model",), "dit": ("model",)}
# What training frameworks put around a model, at any depth.
SHELL = _any("module _orig_mod _forward_module _fsdp_wrapped_module _checkpoint_wrapped_module state_dict")
WRAPPER = _any(
    f"""{SHELL.pattern} model_state(_dict)? model net network params weights? checkpoint ckpt generator pipeline pipe
    app main online_model raw_model"""
)
EMA = _any(r"(.*_)?ema(_?\d+)?(_.*)? (.*_)?(averaged?|swa|shadow)(_(model|weights|params))? ema_?model")
TRAINING = _any(
    r"""optim(izers?)?(_.*)? .*optimizer.* (lr_)?schedulers?(_states?|_state_dict)? lr_scheduler.* (grad_)?scaler(_.*)?
    callbacks loops rng_.* .*_rng_state.* random_(state|rng).* discriminator disc loss(_fn|es)? lpips perceptual_loss
    hparams hyper_parameters"""
)
STEPS = re.compile(r".*\.(exp_avg(_sq)?|max_exp_avg_sq|momentum_buffer|square_avg|step)")  # of an optimiser


def known(head: str) -> tuple[str, str, str, bool] | None:
    """(prefix without its last dot, name, kind, sure) of the longest known prefix that `head` begins with, or None."""
    segments = head.split(".")
    for length in range(len(segments), 0, -1):
        start = ".".join(segments[:length])
        for pattern, name, kind, sure in COMPONENTS:
            if start and pattern.fullmatch(start):
                return start, _name(name, start), kind, sure
    return None


def _name(name: str, start: str) -> str:
    """`unet` where the prefix says so; `transformer_2` keeps its number."""
    if name == "transformer" and "unet" in start.lower():
        return "unet"
    number = re.search(r"_(\d+)$", start) if name == "transformer" else None
    return f"{name}_{number[1]}" if number else name
