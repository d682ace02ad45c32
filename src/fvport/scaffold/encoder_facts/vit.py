# SPDX-License-Identifier: Apache-2.0
"""Image towers: CLIP's, SigLIP's, DINOv2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fvport.scaffold.encoder_facts.clip_text import clip_layer_rules
from fvport.scaffold.encoder_facts.lines import Rules, field_lines, leaves, prefix_of

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
