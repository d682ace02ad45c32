# SPDX-License-Identifier: Apache-2.0
"""wav2vec 2.0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fvport.scaffold.encoder_facts.lines import Rules, field_lines, leaves, prefix_of

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
