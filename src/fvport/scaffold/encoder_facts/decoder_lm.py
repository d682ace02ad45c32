# SPDX-License-Identifier: Apache-2.0
"""Decoder language models as encoders: Llama, Mistral, Qwen2, Qwen3, Gemma 2, Gemma 3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fvport.scaffold.encoder_facts.lines import Rules, field_lines, leaves, prefix_of

ROPE_TYPES = ("default", "linear", "llama3", "yarn")

DECODER_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "hidden_activation",
    "rms_norm_eps",
    "max_position_embeddings",
    "rope_parameters",
    "rope_theta",
    "rope_local_base_freq",
    "rope_scaling",
    "attention_bias",
    "mlp_bias",
    "layer_types",
    "sliding_window",
    "use_sliding_window",
    "max_window_layers",
    "sliding_window_pattern",
    "query_pre_attn_scalar",
    "attn_logit_softcapping",
    "use_bidirectional_attention",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "tie_word_embeddings",
)
_SIZES = {"num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 4096}
DECODER_DEFAULTS: dict[str, dict[str, Any]] = {  # what the official config class takes where the file is silent
    "Llama": {**_SIZES, "vocab_size": 32000, "intermediate_size": 11008, "pad_token_id": None, "eos_token_id": 2},
    "Mistral": {**_SIZES, "vocab_size": 32000, "intermediate_size": 14336, "pad_token_id": None, "eos_token_id": 2},
    "Qwen2": {**_SIZES, "vocab_size": 151936, "intermediate_size": 22016, "pad_token_id": None, "eos_token_id": None},
    "Qwen3": {**_SIZES, "vocab_size": 151936, "intermediate_size": 22016, "pad_token_id": None, "eos_token_id": None},
    "Gemma2": {"vocab_size": 256000, "intermediate_size": 9216, "pad_token_id": 0, "eos_token_id": 1},
    "Gemma3": {"vocab_size": 262208, "intermediate_size": 9216, "pad_token_id": 0, "eos_token_id": 1},
}
for _name in ("Gemma2", "Gemma3"):
    DECODER_DEFAULTS[_name] |= {"num_hidden_layers": 26, "num_attention_heads": 8, "hidden_size": 2304}
    DECODER_DEFAULTS[_name] |= {"num_key_value_heads": 4, "head_dim": 256, "query_pre_attn_scalar": 256}
    DECODER_DEFAULTS[_name] |= {"hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": True}
    DECODER_DEFAULTS[_name] |= {"sliding_window": 4096}
for _name in ("Llama", "Mistral", "Qwen2", "Qwen3"):
    DECODER_DEFAULTS[_name] |= {"hidden_act": "silu", "tie_word_embeddings": False}
DECODER_DEFAULTS["Qwen3"]["head_dim"] = 128
DECODER_DEFAULTS["Gemma2"]["attn_logit_softcapping"] = 50.0


@dataclass(frozen=True)
class DecoderFacts:
    """Switches of one decoder language model."""

    family: str  # Llama, Mistral, Qwen2, Qwen3, Gemma2, Gemma3
    prefix: str  # of its names in the checkpoint: "", "model.", "model.language_model."
    lines: list[str]  # fields of the arch config
    nested: bool  # the config.json holds this model's values under text_config
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool
    qk_norm: bool
    gemma: bool
    softcap: bool
    windows: str  # "none", "all" or "some" layers attend to a window
    layer_types: bool  # the config.json has the list
    bidirectional: bool
    rope: (
        str  # "parameters", "by_layer" (parameters by layer type), "theta" (rope_theta, rope_scaling), "theta_by_layer"
    )
    rope_types: tuple[str, ...]
    has_head_dim: bool
    gqa: bool  # fewer key heads than query heads
    has_head: bool  # lm_head.weight is in the checkpoint
    old_buffers: bool  # rotary_emb.inv_freq of old releases is in the checkpoint
    no_length: bool  # rope_scaling leaves the original length to max_position_embeddings
    act: str
    unknown_ropes: tuple[str, ...]

    @property
    def by_layer(self) -> bool:
        """Whether layers differ in their window or their rotary embedding."""
        return self.windows == "some" or self.rope in ("by_layer", "theta_by_layer")

    @property
    def rules(self) -> Rules:
        """Official names to native ones."""
        at = self.prefix.replace(".", r"\.")
        layer, native = at + r"layers\.(\d+)\.", r"layers.\1."
        norms = "input_layernorm|post_attention_layernorm"
        norms += "|pre_feedforward_layernorm|post_feedforward_layernorm" if self.gemma else ""
        rules: Rules = [
            (at + r"embed_tokens\.weight", "embed_tokens.weight"),
            (at + r"norm\.weight", "norm.weight"),
            (layer + rf"({norms})\.weight", native + r"\2.weight"),
        ]
        if self.qk_norm:
            rules.append((layer + r"self_attn\.([qk]_norm)\.weight", native + r"self_attn.\2.weight"))
        rules.append((layer + rf"self_attn\.o_proj\.{leaves(self.o_bias)}", native + r"self_attn.o_proj.\2"))
        rules.append((layer + rf"mlp\.down_proj\.{leaves(self.mlp_bias)}", native + r"mlp.down_proj.\2"))
        for place, letter in enumerate("qkv"):
            target = (native + r"self_attn.qkv_proj.\2", place, 3)
            rules.append((layer + rf"self_attn\.{letter}_proj\.{leaves(self.qkv_bias)}", target))
        for place, half in enumerate(("gate", "up")):
            target = (native + r"mlp.gate_up_proj.\2", place, 2)
            rules.append((layer + rf"mlp\.{half}_proj\.{leaves(self.mlp_bias)}", target))
        return rules

    @property
    def ignored(self) -> list[str]:
        found = [r"^(.+\.)?lm_head\.weight$"] if self.has_head else []
        return [*found, r"^.*rotary_emb\.inv_freq$"] if self.old_buffers else found


def decoder(c: Any) -> DecoderFacts:
    """The facts of a component whose official class is a decoder language model of transformers."""
    nested = isinstance(c.config.get("text_config"), dict)
    config = c.config["text_config"] if nested else c.config
    family = next((name for name in DECODER_DEFAULTS if c.official_class.startswith(name)), "Llama")
    gemma = family.startswith("Gemma")
    defaults = DECODER_DEFAULTS[family]
    causal = c.official_class.endswith("ForCausalLM")
    rope, kinds = _rope(config, family)
    names = list(c.tensors)
    biased = bool(config.get("attention_bias"))
    act = "hidden_activation" if gemma and "hidden_act" not in config else "hidden_act"
    if gemma and config.get("hidden_activation"):
        act = "hidden_activation"
    return DecoderFacts(
        family=family,
        prefix=prefix_of(names, "embed_tokens.weight", "model." if causal else ""),
        lines=field_lines(config, DECODER_FIELDS, {**defaults, **_implied(config, family, rope)}),
        nested=nested,
        qkv_bias=family == "Qwen2" or (biased and family != "Mistral"),
        o_bias=biased and family not in ("Qwen2", "Mistral"),
        mlp_bias=family == "Llama" and bool(config.get("mlp_bias")),
        qk_norm=family in ("Qwen3", "Gemma3"),
        gemma=gemma,
        softcap=family == "Gemma2" and config.get("attn_logit_softcapping", 50.0) is not None,
        windows=_windows(config, family),
        layer_types=config.get("layer_types") is not None,
        bidirectional=gemma and bool(config.get("use_bidirectional_attention")),
        rope=rope,
        rope_types=tuple(kind for kind in kinds if kind in ROPE_TYPES),
        unknown_ropes=tuple(kind for kind in kinds if kind not in ROPE_TYPES),
        has_head_dim=(config.get("head_dim") or (defaults.get("head_dim") if "head_dim" not in config else None))
        is not None,
        gqa=_heads(config, family, "num_key_value_heads") != _heads(config, family, "num_attention_heads"),
        has_head=any(name.endswith("lm_head.weight") for name in names),
        old_buffers=any(name.endswith("rotary_emb.inv_freq") for name in names),
        no_length=rope == "theta"
        and bool(kinds and kinds[0] in ("yarn", "llama3"))
        and "original_max_position_embeddings" not in (config.get("rope_scaling") or {}),
        act=act,
    )


def _heads(config: Mapping[str, Any], family: str, name: str) -> int:
    own = config.get(name, {**DECODER_DEFAULTS[family], **_implied(config, family, "")}.get(name))
    return int(config.get("num_attention_heads", 32) if own is None else own)


def _implied(config: Mapping[str, Any], family: str, rope: str) -> dict[str, Any]:
    """Fields that the source reads and this config.json leaves to its class."""
    found: dict[str, Any] = {"rms_norm_eps": 1e-6}
    if family != "Mistral":
        found["num_key_value_heads"] = DECODER_DEFAULTS[family].get("num_key_value_heads", 32)
    else:
        found["num_key_value_heads"] = 8
        found["sliding_window"] = 4096
    if family == "Llama":
        found["num_key_value_heads"] = config.get("num_attention_heads", 32)
    if rope == "parameters" and "rope_parameters" not in config:
        found["rope_parameters"] = {"rope_theta": 10000.0, "rope_type": "default"}
    if rope == "theta_by_layer":
        found |= {"rope_theta": 1000000.0, "rope_local_base_freq": 10000.0}
        if config.get("layer_types") is None:
            found["sliding_window_pattern"] = 6
    if "max_window_layers" not in config and family in ("Qwen2", "Qwen3"):
        found["max_window_layers"] = 28
    return found


def _rope(config: Mapping[str, Any], family: str) -> tuple[str, list[str]]:
    """(how the config says the rotary embedding, its types)."""
    given = config.get("rope_parameters")
    if isinstance(given, dict) and given:
        if all(isinstance(value, dict) for value in given.values()):
            return "by_layer", sorted({_kind(value) for value in given.values()})
        return "parameters", [_kind(given)]
    scaling = config.get("rope_scaling")
    kinds = [_kind(scaling)] if isinstance(scaling, dict) else ["default"]
    if family == "Gemma3":
        return "theta_by_layer", sorted({"default", *kinds})
    return ("theta" if "rope_theta" in config else "parameters"), kinds


def _kind(given: Mapping[str, Any]) -> str:
    kind = str(given.get("rope_type", given.get("type", "default")))
    return "default" if kind == "mrope" else kind  # three position axes, equal where there is text only


def _windows(config: Mapping[str, Any], family: str) -> str:
    """Which layers attend to a window: none, all, some."""
    if family == "Llama":
        return "none"
    window = config.get("sliding_window", DECODER_DEFAULTS[family].get("sliding_window", 4096))
    if family == "Mistral":
        return "none" if window is None else "all"
    if family.startswith("Qwen"):
        if not config.get("use_sliding_window") or window is None:
            return "none"
    elif window is None:
        return "none"
    types = config.get("layer_types")
    if types is None:
        return "some"
    sliding = {kind == "sliding_attention" for kind in types}
    return "some" if len(sliding) > 1 else "all" if True in sliding else "none"
