# SPDX-License-Identifier: Apache-2.0
"""Tiny official encoders, one a class and variant that the archetypes cover, made by the official libraries themselves.

Every parameter is random, and what a norm reads is quiet, so that its eps and every bias have a say.
"""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

QUIET = 0.03


@dataclass(frozen=True)
class EncoderCase:
    """One class of an official library with the arguments of its config class. `quiet`: parts whose output a norm
    reads, at once or through the residual stream; `centred`: norm weights are offsets from one."""

    name: str
    archetype: str
    cls: str
    config_class: str
    config: dict[str, Any] = field(default_factory=dict)
    quiet: tuple[str, ...] = ()
    centred: bool = False
    library: str = "transformers"
    kind: str = "text_encoder"
    index_library: str = "transformers"  # as a model_index.json of diffusers names it

    @property
    def official(self) -> str:
        return f"{self.library}:{self.cls}"


_TEXT = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
_LM = {**_TEXT, "num_attention_heads": 4, "num_key_value_heads": 2}
_DECODER = ("embed_tokens", "o_proj", "down_proj")
_QK = (*_DECODER, "q_proj", "k_proj")
_THREE = ["sliding_attention", "full_attention", "sliding_attention"]
_LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_GEMMA = {**_LM, "head_dim": 16, "sliding_window": 6, "query_pre_attn_scalar": 24}


def _lm(name: str, cls: str, config_class: str, config: dict[str, Any], **more: Any) -> EncoderCase:
    return EncoderCase(name, "decoder_lm", cls, config_class, {**_LM, **config}, more.pop("quiet", _DECODER), **more)


DECODERS = [
    _lm("llama", "LlamaModel", "LlamaConfig", {}),
    _lm(
        "llama_causal_llama3_biases",
        "LlamaForCausalLM",
        "LlamaConfig",
        {
            "attention_bias": True,
            "mlp_bias": True,
            "rope_parameters": {**_LLAMA3, "rope_theta": 500.0, "original_max_position_embeddings": 64},
        },
    ),
    _lm("mistral", "MistralModel", "MistralConfig", {"sliding_window": 6, "head_dim": 12}),
    _lm("mistral_causal_no_window", "MistralForCausalLM", "MistralConfig", {"sliding_window": None}),
    _lm("qwen2", "Qwen2Model", "Qwen2Config", {}),
    _lm(
        "qwen2_causal_yarn_window",
        "Qwen2ForCausalLM",
        "Qwen2Config",
        {
            "use_sliding_window": True,
            "sliding_window": 5,
            "max_window_layers": 1,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "yarn",
                "factor": 4.0,
                "rope_theta": 300.0,
                "original_max_position_embeddings": 64,
            },
        },
    ),
    _lm("qwen3", "Qwen3Model", "Qwen3Config", {"head_dim": 16}, quiet=_QK),
    _lm(
        "qwen3_causal_linear_bias",
        "Qwen3ForCausalLM",
        "Qwen3Config",
        {
            "head_dim": 8,
            "attention_bias": True,
            "num_key_value_heads": 4,
            "rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 10000.0},
        },
        quiet=_QK,
    ),
    _lm("gemma2", "Gemma2Model", "Gemma2Config", {**_GEMMA, "attn_logit_softcapping": 3.0}, centred=True),
    _lm(
        "gemma2_causal_no_cap",
        "Gemma2ForCausalLM",
        "Gemma2Config",
        {**_GEMMA, "attn_logit_softcapping": None},
        centred=True,
    ),
    _lm("gemma3", "Gemma3TextModel", "Gemma3TextConfig", {**_GEMMA, "layer_types": _THREE}, quiet=_QK, centred=True),
    _lm(
        "gemma3_causal_linear",
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        {
            **_GEMMA,
            "layer_types": _THREE,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        },
        quiet=_QK,
        centred=True,
    ),
    _lm(
        "gemma3_both_directions",
        "Gemma3TextModel",
        "Gemma3TextConfig",
        {**_GEMMA, "layer_types": _THREE, "use_bidirectional_attention": True},
        quiet=_QK,
        centred=True,
    ),
]
_CLIP = {**_TEXT, "num_attention_heads": 4, "max_position_embeddings": 20, "projection_dim": 24}
_CLIP |= {"bos_token_id": 97, "eos_token_id": 98, "pad_token_id": 1}
_RESIDUAL = ("embed", "out_proj", "fc2")


def _clip(name: str, cls: str, config: dict[str, Any]) -> EncoderCase:
    return EncoderCase(name, "clip_text", cls, "CLIPTextConfig", {**_CLIP, **config}, _RESIDUAL)


CLIP_TEXTS = [
    _clip("clip_text", "CLIPTextModel", {}),
    _clip(
        "clip_text_old_end_token", "CLIPTextModel", {"eos_token_id": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-3}
    ),
    _clip("clip_text_masked", "CLIPTextModel", {"use_attention_mask": True}),
    _clip("clip_text_projection", "CLIPTextModelWithProjection", {"hidden_act": "gelu"}),
    _clip("clip_text_projection_old", "CLIPTextModelWithProjection", {"eos_token_id": 2}),
]
_BERT = {**_TEXT, "num_attention_heads": 4, "max_position_embeddings": 60, "type_vocab_size": 3}
_BERT |= {"layer_norm_eps": 1e-5}
_POST = ("embed", "output.dense")


def _bert(name: str, cls: str, config_class: str, config: dict[str, Any]) -> EncoderCase:
    return EncoderCase(name, "bert_encoder", cls, config_class, {**_BERT, **config}, _POST)


BERTS = [
    _bert("bert", "BertModel", "BertConfig", {}),
    _bert("bert_relu", "BertModel", "BertConfig", {"hidden_act": "relu", "layer_norm_eps": 1e-3}),
    _bert("roberta", "RobertaModel", "RobertaConfig", {"pad_token_id": 1}),
    _bert("xlm_roberta", "XLMRobertaModel", "XLMRobertaConfig", {"pad_token_id": 1, "type_vocab_size": 1}),
]
_IMAGE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 16, "patch_size": 4}
_TOWER = {**_IMAGE, "intermediate_size": 48}
_DINO = ("embed", "cls_token", "output.dense", "fc2", "weights_out")


def _vit(
    name: str, cls: str, config_class: str, config: dict[str, Any], quiet: tuple[str, ...] = _RESIDUAL
) -> EncoderCase:
    return EncoderCase(name, "vit", cls, config_class, config, quiet, kind="image_encoder")


VITS = [
    _vit("clip_vision", "CLIPVisionModel", "CLIPVisionConfig", _TOWER),
    _vit(
        "clip_vision_projection",
        "CLIPVisionModelWithProjection",
        "CLIPVisionConfig",
        {**_TOWER, "projection_dim": 24, "hidden_act": "gelu", "num_channels": 4},
    ),
    _vit("siglip", "SiglipVisionModel", "SiglipVisionConfig", _TOWER),
    _vit("siglip_no_head", "SiglipVisionModel", "SiglipVisionConfig", {**_TOWER, "vision_use_head": False}),
    _vit("dinov2", "Dinov2Model", "Dinov2Config", _IMAGE, _DINO),
    _vit("dinov2_gated", "Dinov2Model", "Dinov2Config", {**_IMAGE, "use_swiglu_ffn": True, "qkv_bias": False}, _DINO),
]
_SOUND = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
_SOUND |= {"conv_dim": [16, 24, 16], "conv_stride": [4, 2, 2], "conv_kernel": [8, 3, 2], "vocab_size": 32}
_SOUND |= {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4}
_STABLE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
_STABLE |= {"num_conv_pos_embeddings": 7}


def _audio(name: str, config: dict[str, Any]) -> EncoderCase:
    quiet = ("projection", "out_proj", "output_dense", "original0")
    made = {**_SOUND, **config}
    return EncoderCase(name, "audio_encoder", "Wav2Vec2Model", "Wav2Vec2Config", made, quiet, kind="audio_encoder")


AUDIO = [_audio("wav2vec2", {}), _audio("wav2vec2_stable", _STABLE)]
_SECONDS = {"text_encoder_dim": 20, "conditioning_dim": 24, "min_value": 2, "max_value": 47}


CONDITIONERS = [
    EncoderCase(
        "stable_audio",
        "conditioner",
        "StableAudioProjectionModel",
        "",
        _SECONDS,
        library="diffusers",
        kind="conditioner",
        index_library="stable_audio",
    ),
    EncoderCase(
        "stable_audio_same_width",
        "conditioner",
        "StableAudioProjectionModel",
        "",
        {**_SECONDS, "text_encoder_dim": 24},
        library="diffusers",
        kind="conditioner",
        index_library="diffusers",
    ),
]
_T5 = {"vocab_size": 100, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_heads": 4}
_T5 |= {"relative_attention_num_buckets": 16, "relative_attention_max_distance": 40}
_T5_QUIET = ("shared", "embed_tokens", ".o.", ".wo.")
T5S = [
    EncoderCase("t5", "t5_encoder", "T5EncoderModel", "T5Config", {**_T5, "feed_forward_proj": "relu"}, _T5_QUIET),
    EncoderCase("umt5", "t5_encoder", "UMT5EncoderModel", "UMT5Config", _T5, _T5_QUIET),
]
CASES = {case.name: case for case in [*T5S, *CLIP_TEXTS, *DECODERS, *BERTS, *VITS, *AUDIO, *CONDITIONERS]}


def make(case: EncoderCase, folder: Path, seed: int = 0) -> Path:
    """Write the official model (config.json, safetensors) to `folder` and return it."""
    model = randomise(case, build(case), seed)
    model.save_pretrained(folder)
    return folder


def build(case: EncoderCase) -> Any:
    import importlib

    library = importlib.import_module(case.library)
    if case.library == "transformers":
        library.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    if not case.config_class:
        return getattr(library, case.cls)(**case.config)
    config = getattr(library, case.config_class)(**json.loads(json.dumps(case.config)))
    return getattr(library, case.cls)(config)


def randomise(case: EncoderCase, model: Any, seed: int = 0) -> Any:
    """Random values of a sensible scale for every parameter, in place; each has a generator of its own."""
    import numpy as np
    import torch

    with torch.no_grad():
        for key, parameter in model.named_parameters():
            random = np.random.default_rng([seed, zlib.crc32(f"{case.name}.{key}".encode())])
            values = torch.from_numpy(random.standard_normal(tuple(parameter.shape)))
            mean, deviation = _scale(case, key, tuple(parameter.shape))
            parameter.copy_(mean + deviation * values)
    return model.eval()


def _scale(case: EncoderCase, key: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Mean and deviation: norms near one, biases not zero, embeddings of unit scale, the rest of unit gain."""
    quiet = QUIET if any(part in key for part in case.quiet) else 1.0
    leaf = key.rpartition(".")[2]
    if leaf.endswith("bias"):
        return 0.0, 0.2 * quiet
    if len(shape) == 1 and leaf in ("weight", "lambda1"):
        return (0.0 if case.centred else 1.0), 0.2
    if "embed" in key and "conv" not in key and len(shape) <= 3:
        return 0.0, quiet
    return 0.0, quiet * 1.2 / math.sqrt(math.prod(shape[1:]) or 1)
