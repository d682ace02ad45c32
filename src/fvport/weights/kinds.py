# SPDX-License-Identifier: Apache-2.0
"""What kind of component a name and a class speak of (`dit`, `vae`, `text_encoder` ...), by words alone."""

from __future__ import annotations

import re
from collections.abc import Mapping

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


# --- by the tensors' names and shapes, where neither a class nor a name says it ------------------------------------

TIME = re.compile(
    r"(^|[._])(t|time|timesteps?|sigma|noise)_(text_|guidance_|in_)?(embed\w*|in|mlp|proj\w*|block|emb)\b"
    r"|ada_?ln|timestep_embed",
    re.IGNORECASE,
)
TOKENS = re.compile(r"(^|\.)(word_embeddings|embed_tokens|token_embedding|wte|tok_embeddings|shared)\.")
PATCHES = re.compile(r"(^|\.)(class_embedding|cls_token|patch_embed\w*)\b")
VOCODES = re.compile(r"(^|\.)(ups|resblocks|upsampler|conv_post|mrfs?)\.")
HEARS = re.compile(r"(^|\.)(feature_extractor\.conv_layers|mel_\w+)\b")


def kind_by_tensors(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """What a whole model's names and shapes ({name: shape}) speak of; "" where they say nothing sure."""
    weights = [shape for name, shape in shapes.items() if len(shape) > 1]
    convolutions = sum(len(shape) > 2 for shape in weights) / max(len(weights), 1)
    heads = {name.partition(".")[0] for name in shapes}
    if convolutions >= 0.25 and ({"encoder", "decoder"} <= heads or heads & {"quant_conv", "post_quant_conv"}):
        return "vae"
    said = {word: any(pattern.search(name) for name in shapes) for word, pattern in _SAYS}
    if said["dit"]:
        return "dit"
    if said["vocoder"] and convolutions > 0.5:
        return "vocoder"
    return next((word for word in ("text_encoder", "audio_encoder", "image_encoder") if said[word]), "")


_SAYS = (
    ("dit", TIME),
    ("text_encoder", TOKENS),
    ("image_encoder", PATCHES),
    ("vocoder", VOCODES),
    ("audio_encoder", HEARS),
)


def _first(table: tuple[tuple[str, str], ...], word: str) -> str:
    return next((kind for kind, pattern in table if word and re.search(pattern, word)), "")
