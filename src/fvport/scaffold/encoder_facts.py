# SPDX-License-Identifier: Apache-2.0
"""What an encoder's config.json and tensor names decide in its source: one frozen object a family, read by templates.

A switch that follows from the class alone (Gemma's norms) is here and not on the native config; a value that the config
holds stays a field of the arch config, so that a checkpoint of another size loads without a new bake.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fvport.scaffold.literals import pyrepr

ROPE_TYPES = ("default", "linear", "llama3", "yarn")
BASE_TYPES = {  # fields of FastVideo's own arch configs that a checkpoint may set to a value of another type
    "pad_token_id": "int",
    "eos_token_id": "int",
    "hidden_state_skip_layer": "int",
    "decoder_start_token_id": "int",
}


def field_lines(config: Mapping[str, Any], names: Iterable[str], defaults: Mapping[str, Any]) -> list[str]:
    """Dataclass lines for `names`: the config's value, else the official class's default; absent where neither is."""
    found = []
    for name in names:
        if name not in config and name not in defaults:
            continue
        value = config.get(name, defaults.get(name))
        found.append(field_line(name, value))
    return found


def field_line(name: str, value: Any) -> str:
    """`head_dim: int = 64`, as FastVideo's formatter leaves it."""
    kind = annotation(value)
    text = pyrepr(value, 4, 4 + len(f"{name}: {kind} = "))
    if isinstance(value, (list, dict)):
        text = f"field(default_factory=lambda: {pyrepr(value, 4, 4 + len(f'{name}: {kind} = ') + 31)})"
    line = f"{name}: {kind} = {text}"
    if name in BASE_TYPES and kind != BASE_TYPES[name]:
        line += "  # type: ignore[assignment]"
    elif "\n" in text:  # where the formatter would break such a literal nobody can foresee
        line = f"# yapf: disable\n    {line}\n    # yapf: enable"
    return line


def annotation(value: Any) -> str:
    if value is None:
        return "Any"
    if isinstance(value, list):
        kinds = {type(item).__name__ for item in value}
        return f"list[{kinds.pop()}]" if len(kinds) == 1 else "list"
    return "dict[str, Any]" if isinstance(value, dict) else type(value).__name__


def prefix_of(tensors: Iterable[str], known: str, otherwise: str) -> str:
    """What stands before `known` in the release's names (`model.` before `embed_tokens.weight`)."""
    found = sorted((name for name in tensors if name == known or name.endswith(f".{known}")), key=len)
    return found[0][: -len(known)] if found else otherwise


Rules = list[tuple[str, "str | tuple[str, int, int]"]]


def rule_table(rules: Rules) -> str:
    """The field `param_names_mapping` of an encoder's arch config; names are matched as a whole."""
    rows = []
    for pattern, target in rules:
        text = f'r"{target}"' if isinstance(target, str) else f'(r"{target[0]}", {target[1]}, {target[2]})'
        row = f'        r"^{pattern}$": {text},'
        rows.append(row if len(row) <= 120 else f'        r"^{pattern}$":\n            {text},')
    return "\n".join(
        [
            "    # Checkpoint name -> ours, or (ours, its place, number of parts) for a part of a fused parameter.",
            "    # A name without a rule is refused.",
            "    # yapf: disable",
            "    param_names_mapping: dict[str, Any] = field(default_factory=lambda: {",
            *rows,
            "    })",
            "    # yapf: enable",
        ]
    )


def ignored_table(patterns: Iterable[str]) -> str:
    """The field `ignored_checkpoint_keys`: what is in this checkpoint and not in an encoder."""
    rows = list(patterns)
    if not rows:
        return "    ignored_checkpoint_keys: list[str] = field(default_factory=list)"
    lines = [f'        r"{row}",' for row in rows]
    head = "    ignored_checkpoint_keys: list[str] = field(default_factory=lambda: ["
    return "\n".join(["    # In the checkpoint, not in an encoder.", head, *lines, "    ])"])


def leaves(bias: bool) -> str:
    return "(weight|bias)" if bias else "(weight)"


# --- decoder language models ------------------------------------------------------------------------------------------

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


# --- CLIP's text model ------------------------------------------------------------------------------------------------

CLIP_TEXT_DEFAULTS = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "projection_dim": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
}


def clip_layer_rules(at: str) -> Rules:
    """Rules of the layers that CLIP's and SigLIP's encoders share; `at` is a pattern of what stands before them."""
    layer, native = at + r"encoder\.layers\.(\d+)\.", r"encoder.layers.\1."
    rules: Rules = [
        (layer + r"(layer_norm[12]|mlp\.fc[12]|self_attn\.out_proj)\.(weight|bias)", native + r"\2.\3"),
    ]
    for place, letter in enumerate("qkv"):
        target = (native + r"self_attn.qkv_proj.\2", place, 3)
        rules.append((layer + rf"self_attn\.{letter}_proj\.(weight|bias)", target))
    return rules


@dataclass(frozen=True)
class ClipTextFacts:
    """Switches of CLIP's text model."""

    prefix: str
    lines: list[str]
    projection: bool
    highest_id: bool  # the pooled token is the one with the highest id, not the end token that the config names
    masked: bool  # official pipelines hand it a mask
    ignored: list[str]

    @property
    def rules(self) -> Rules:
        at = self.prefix.replace(".", r"\.")
        rules: Rules = [
            (at + r"embeddings\.(token|position)_embedding\.weight", r"embeddings.\1_embedding.weight"),
            (at + r"final_layer_norm\.(weight|bias)", r"final_layer_norm.\1"),
            *clip_layer_rules(at),
        ]
        return [*rules, (r"text_projection\.weight", "text_projection.weight")] if self.projection else rules


def clip_text(c: Any) -> ClipTextFacts:
    """The facts of a component whose official class is CLIPTextModel or CLIPTextModelWithProjection."""
    projection = c.official_class.endswith("WithProjection")
    names = list(CLIP_TEXT_DEFAULTS) + (["use_attention_mask"] if "use_attention_mask" in c.config else [])
    return ClipTextFacts(
        prefix=prefix_of(c.tensors, "embeddings.token_embedding.weight", "text_model." if projection else ""),
        lines=field_lines(c.config, names, CLIP_TEXT_DEFAULTS),
        projection=projection,
        highest_id=c.config.get("eos_token_id", 49407) == 2,
        masked=bool(c.config.get("use_attention_mask")),
        ignored=[r"^.*position_ids$"] if any(name.endswith("position_ids") for name in c.tensors) else [],
    )


# --- BERT and RoBERTa -------------------------------------------------------------------------------------------------

BERT_DEFAULTS = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "eos_token_id": None,
    "tie_word_embeddings": True,
}
ROBERTA_DEFAULTS = {**BERT_DEFAULTS, "vocab_size": 50265, "pad_token_id": 1, "eos_token_id": 2}


@dataclass(frozen=True)
class BertFacts:
    """Switches of BERT and its kin."""

    family: str
    prefix: str
    lines: list[str]
    pooler: bool
    positions_from_ids: bool
    ignored: list[str]

    @property
    def rules(self) -> Rules:
        at = self.prefix.replace(".", r"\.")
        layer, native = at + r"encoder\.layer\.(\d+)\.", r"layers.\1."
        embeddings = r"embeddings\.(word|position|token_type)_embeddings\.weight"
        rules: Rules = [
            (at + embeddings, r"embeddings.\1_embeddings.weight"),
            (at + r"embeddings\.LayerNorm\.(weight|bias)", r"embeddings.LayerNorm.\1"),
            (layer + r"attention\.output\.(dense|LayerNorm)\.(weight|bias)", native + r"attention.\2.\3"),
            (layer + r"(intermediate|output)\.dense\.(weight|bias)", native + r"\2.\3"),
            (layer + r"output\.LayerNorm\.(weight|bias)", native + r"LayerNorm.\2"),
        ]
        for place, part in enumerate(("query", "key", "value")):
            target = (native + r"attention.qkv_proj.\2", place, 3)
            rules.append((layer + rf"attention\.self\.{part}\.(weight|bias)", target))
        return [*rules, (at + r"pooler\.dense\.(weight|bias)", r"pooler.\1")] if self.pooler else rules


def bert(c: Any) -> BertFacts:
    """The facts of a component whose official class is BertModel, RobertaModel or XLMRobertaModel."""
    roberta = "Roberta" in c.official_class
    names = [*BERT_DEFAULTS, *(["position_embedding_type"] if "position_embedding_type" in c.config else [])]
    buffers = any(name.endswith("position_ids") for name in c.tensors)
    heads = sorted({name.split(".")[0] for name in c.tensors if name.startswith(("cls.", "lm_head."))})
    return BertFacts(
        family="RoBERTa" if roberta else "BERT",
        prefix=prefix_of(c.tensors, "embeddings.word_embeddings.weight", ""),
        lines=field_lines(c.config, names, ROBERTA_DEFAULTS if roberta else BERT_DEFAULTS),
        pooler=not c.tensors or any(name.endswith("pooler.dense.weight") for name in c.tensors),
        positions_from_ids=roberta,
        ignored=[*([r"^.*position_ids$"] if buffers else []), *(rf"^{head}\." for head in heads)],
    )


# --- image towers -----------------------------------------------------------------------------------------------------

CLIP_VISION_DEFAULTS = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "projection_dim": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
_SIGLIP = {"patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
SIGLIP_DEFAULTS = {key: value for key, value in {**CLIP_VISION_DEFAULTS, **_SIGLIP}.items() if key != "projection_dim"}
DINO_DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "mlp_ratio": 4,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "image_size": 224,
    "patch_size": 14,
    "num_channels": 3,
    "qkv_bias": True,
    "use_swiglu_ffn": False,
}


@dataclass(frozen=True)
class VitFacts:
    """Switches of an image tower."""

    family: str  # clip, siglip, dino
    prefix: str
    lines: list[str]
    projection: bool
    head: bool  # SigLIP's pooling by attention
    qkv_bias: bool
    swiglu: bool
    ignored: list[str]

    @property
    def clip(self) -> bool:
        return self.family == "clip"

    @property
    def siglip(self) -> bool:
        return self.family == "siglip"

    @property
    def dino(self) -> bool:
        return self.family == "dino"

    @property
    def pooled(self) -> bool:
        return not self.siglip or self.head

    @property
    def described(self) -> str:
        if self.dino:
            return "DINOv2, with a gated feed-forward layer" if self.swiglu else "DINOv2"
        if self.siglip:
            return "SigLIP's vision tower" + (" with its pooling head" if self.head else "")
        return "CLIP's vision tower" + (" and its projection" if self.projection else "")

    @property
    def rules(self) -> Rules:
        at = self.prefix.replace(".", r"\.")
        return self._dino(at) if self.dino else self._clip(at)

    def _clip(self, at: str) -> Rules:
        rules: Rules = [(at + r"embeddings\.position_embedding\.weight", "embeddings.position_embedding.weight")]
        leaf = "(weight)" if self.clip else "(weight|bias)"
        rules.append((at + rf"embeddings\.patch_embedding\.{leaf}", r"embeddings.patch_embedding.\1"))
        norms = "pre_layrnorm|post_layernorm" if self.clip else "post_layernorm"
        rules.append((at + rf"({norms})\.(weight|bias)", r"\1.\2"))
        if self.clip:
            rules.append((at + r"embeddings\.class_embedding", "embeddings.class_embedding"))
        if self.head:
            rules.append((at + r"head\.(probe|attention\.in_proj_(?:weight|bias))", r"head.\1"))
            parts = r"attention\.out_proj|layernorm|mlp\.fc[12]"
            rules.append((at + rf"head\.({parts})\.(weight|bias)", r"head.\1.\2"))
        if self.projection:
            rules.append((r"visual_projection\.weight", "visual_projection.weight"))
        return [*rules, *clip_layer_rules(at)]

    def _dino(self, at: str) -> Rules:
        layer, native = at + r"encoder\.layer\.(\d+)\.", r"encoder.layers.\1."
        feed = r"mlp\.weights_(?:in|out)" if self.swiglu else r"mlp\.fc[12]"
        rules: Rules = [
            (at + r"embeddings\.(cls_token|position_embeddings)", r"embeddings.\1"),
            (at + r"embeddings\.patch_embeddings\.projection\.(weight|bias)", r"embeddings.patch_embedding.\1"),
            (at + r"layernorm\.(weight|bias)", r"post_layernorm.\1"),
            (layer + r"norm([12])\.(weight|bias)", native + r"layer_norm\2.\3"),
            (layer + r"layer_scale([12])\.lambda1", native + r"scale\2"),
            (layer + r"attention\.output\.dense\.(weight|bias)", native + r"self_attn.out_proj.\2"),
            (layer + rf"({feed})\.(weight|bias)", native + r"\2.\3"),
        ]
        for place, part in enumerate(("query", "key", "value")):
            target = (native + r"self_attn.qkv_proj.\2", place, 3)
            rules.append((layer + rf"attention\.attention\.{part}\.{leaves(self.qkv_bias)}", target))
        return rules


def vit(c: Any) -> VitFacts:
    """The facts of a component whose official class is an image tower of transformers."""
    families = {"CLIP": ("clip", CLIP_VISION_DEFAULTS), "Siglip": ("siglip", SIGLIP_DEFAULTS)}
    known = next((name for name in families if c.official_class.startswith(name)), "")
    family, defaults = families.get(known, ("dino", DINO_DEFAULTS))
    projection = c.official_class.endswith("WithProjection")
    names = [*defaults, *(["vision_use_head"] if "vision_use_head" in c.config else [])]
    patch = "embeddings.patch_embeddings.projection.weight" if family == "dino" else "embeddings.patch_embedding.weight"
    head = any("head.probe" in name for name in c.tensors) if c.tensors else True
    found = [name for name in (r"position_ids", r"mask_token") if any(n.endswith(name) for n in c.tensors)]
    return VitFacts(
        family=family,
        prefix=prefix_of(c.tensors, patch, "vision_model." if projection else ""),
        lines=field_lines(c.config, names, defaults),
        projection=projection,
        head=family == "siglip" and head and c.config.get("vision_use_head", True) is not False,
        qkv_bias=family != "dino" or bool(c.config.get("qkv_bias", True)),
        swiglu=family == "dino" and bool(c.config.get("use_swiglu_ffn")),
        ignored=[rf"^.*{name}$" for name in found],
    )


# --- wav2vec 2.0 ------------------------------------------------------------------------------------------------------

WAV2VEC2_DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "feat_extract_norm": "group",
    "feat_extract_activation": "gelu",
    "conv_dim": [512] * 7,
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_bias": False,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
    "do_stable_layer_norm": False,
    "add_adapter": False,
    "adapter_attn_dim": None,
}


@dataclass(frozen=True)
class AudioFacts:
    """Switches of wav2vec 2.0."""

    prefix: str
    lines: list[str]
    group: bool  # the first convolution is normed by channel, the others not at all
    stable: bool  # norms stand before the sums, and one after the last layer
    conv_bias: bool
    unknown: list[str]
    ignored: list[str]

    @property
    def rules(self) -> Rules:
        at = self.prefix.replace(".", r"\.")
        layer, native = at + r"encoder\.layers\.(\d+)\.", r"layers.\1."
        position = at + r"encoder\.pos_conv_embed\.conv\."
        norm = "0" if self.group else r"\d+"
        conv = at + r"feature_extractor\.conv_layers\."
        rules: Rules = [
            (conv + rf"(\d+)\.conv\.{leaves(self.conv_bias)}", r"conv_layers.\1.conv.\2"),
            (conv + rf"({norm})\.layer_norm\.(weight|bias)", r"conv_layers.\1.layer_norm.\2"),
            (at + r"feature_projection\.layer_norm\.(weight|bias)", r"feature_norm.\1"),
            (at + r"feature_projection\.projection\.(weight|bias)", r"projection.\1"),
            (position + r"(?:parametrizations\.weight\.original0|weight_g)", "positions.length"),
            (position + r"(?:parametrizations\.weight\.original1|weight_v)", "positions.direction"),
            (position + "bias", "positions.bias"),
            (at + r"encoder\.layer_norm\.(weight|bias)", r"layer_norm.\1"),
            (layer + r"(layer_norm|final_layer_norm|attention\.out_proj)\.(weight|bias)", native + r"\2.\3"),
            (layer + r"feed_forward\.(intermediate_dense|output_dense)\.(weight|bias)", native + r"\2.\3"),
        ]
        for place, letter in enumerate("qkv"):
            target = (native + r"attention.qkv_proj.\2", place, 3)
            rules.append((layer + rf"attention\.{letter}_proj\.(weight|bias)", target))
        return rules


def audio(c: Any) -> AudioFacts:
    """The facts of a component whose official class is Wav2Vec2Model."""
    given = {**WAV2VEC2_DEFAULTS, **c.config}
    heads = ("lm_head", "quantizer", "project_hid", "project_q")
    ignored = [r"^(.+\.)?masked_spec_embed$"] if any("masked_spec_embed" in name for name in c.tensors) else []
    ignored += [rf"^{head}\." for head in heads if any(name.startswith(f"{head}.") for name in c.tensors)]
    switches = {"add_adapter": "an adapter behind the layers", "adapter_attn_dim": "an adapter in each layer"}
    return AudioFacts(
        prefix=prefix_of(c.tensors, "feature_projection.projection.weight", ""),
        lines=field_lines(c.config, WAV2VEC2_DEFAULTS, WAV2VEC2_DEFAULTS),
        group=given["feat_extract_norm"] == "group",
        stable=bool(given["do_stable_layer_norm"]),
        conv_bias=bool(given["conv_bias"]),
        unknown=[what for name, what in switches.items() if given[name]],
        ignored=ignored,
    )


# --- Stable Audio's conditioner ---------------------------------------------------------------------------------------

CONDITIONER_DEFAULTS = {"text_encoder_dim": 768, "conditioning_dim": 768, "min_value": 0, "max_value": 512}


@dataclass(frozen=True)
class ConditionerFacts:
    """Switches of a compound conditioner: text states, a start and an end."""

    lines: list[str]
    projection: bool  # the text states change their width
    number_dim: int

    @property
    def rules(self) -> Rules:
        number = r"(start|end)_number_conditioner\.time_positional_embedding\."
        rules: Rules = [
            (number + r"0\.weights", r"\1_number_conditioner.frequencies"),
            (number + r"1\.(weight|bias)", r"\1_number_conditioner.projection.\2"),
        ]
        return [(r"text_projection\.(weight|bias)", r"text_projection.\1"), *rules] if self.projection else rules


def conditioner(c: Any) -> ConditionerFacts:
    """The facts of a component whose official class is StableAudioProjectionModel."""
    given = {**CONDITIONER_DEFAULTS, **c.config}
    learned = c.tensors.get("start_number_conditioner.time_positional_embedding.0.weights")
    return ConditionerFacts(
        lines=field_lines(c.config, CONDITIONER_DEFAULTS, CONDITIONER_DEFAULTS),
        projection=given["text_encoder_dim"] != given["conditioning_dim"],
        number_dim=2 * learned[1][0] if learned else 256,
    )


FILTERS = {
    "decoder_facts": decoder,
    "clip_text_facts": clip_text,
    "bert_facts": bert,
    "vit_facts": vit,
    "audio_facts": audio,
    "conditioner_facts": conditioner,
    "rule_table": rule_table,
    "ignored_table": ignored_table,
}
