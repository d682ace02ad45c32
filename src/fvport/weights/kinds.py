# SPDX-License-Identifier: Apache-2.0
"""What kind of component a name and a class speak of (`dit`, `vae`, `text_encoder` ...), by words alone."""

from __future__ import annotations

import re

LANGUAGE = r"T5|CLIPText|CLIPModel|Bert|Roberta|Llama|Qwen|Gemma|Mistral|GPT|Glm|Phi\d|TextEncoder|TextModel|CausalLM"
# Ordered: the first whose words are found decides. The class is asked before the name, because a release chooses its
# component names freely ("text_encoder_2", "prompt_model") while classes follow their library's habits.
BY_CLASS = (
    ("tokenizer", r"Tokenizer"),
    ("processor", r"Processor|FeatureExtractor|SafetyChecker|Watermark"),
    ("scheduler", r"Scheduler|Solver"),
    ("vocoder", r"Vocoder|HifiGan|HiFiGAN|BigVGAN|Vocos"),
    ("upsampler", r"Upsampl|Upscal"),
    ("vae", r"Autoencoder|VAE|VQModel|VQGAN|MoVQ|Oobleck"),
    ("image_encoder", r"(CLIP|Siglip|D[Ii][Nn][Oo]v|ViT|Image|Redux)\w*(Vision|Image)|Dinov\d|ViTModel"),
    ("audio_encoder", r"Wav2Vec|Whisper|HuBERT|Hubert|AudioEncoder|ClapModel|ClapAudio|EncodecModel"),
    ("conditioner", r"Connector|Conditioner|Projection(Net|Model)?$|ImageProjection|Adapter$"),
    ("dit", r"Transformer\w*Model$|UNet\w*|DiT\w*|Prior\w*|ControlNet\w*"),
    ("text_encoder", LANGUAGE),
)
BY_NAME = (
    ("tokenizer", r"tokenizer"),
    ("processor", r"processor|feature_extractor|safety_checker"),
    ("scheduler", r"scheduler"),
    ("vocoder", r"vocoder"),
    ("upsampler", r"upsampl|upscal"),
    ("text_encoder", r"text_encoder|text_model|language_model|caption_encoder"),
    ("image_encoder", r"image_encoder|vision_encoder|vision_model"),
    ("audio_encoder", r"audio_encoder"),
    ("conditioner", r"conditioner|connector|projector|projection"),
    ("vae", r"vae|vqgan|vqvae|autoencoder|first_stage"),
    ("dit", r"transformer|unet|dit\b|denoiser|prior|diffusion_model|controlnet"),
)


def kind_of(name: str, cls: str = "", library: str = "") -> tuple[str, bool]:
    """(kind, sure): `sure` is False where neither the class nor the name says it and the kind is a guess."""
    by_name = _first(BY_NAME, name)
    by_class = _first(BY_CLASS, cls)
    if by_class in ("conditioner", "dit", "text_encoder") and by_name not in ("", by_class):
        return by_name, True  # CLIPTextModelWithProjection as text_encoder_2; a Transformer2DModel that is a prior
    if by_class:
        return by_class, True
    if by_name:
        return by_name, True
    return ("text_encoder" if library == "transformers" else "dit"), False


def _first(table: tuple[tuple[str, str], ...], word: str) -> str:
    return next((kind for kind, pattern in table if word and re.search(pattern, word)), "")
