# SPDX-License-Identifier: Apache-2.0
"""Forward passes of diffusers' shared blocks, written on the children that a module has.

Only what follows from the structure alone: a block that has other children, or an attribute that changes what it does,
is left to a person.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Json = dict[str, Any]
Lines = list[str]
SILU = ("SiLU", "FP32SiLU")
ACTIVATIONS = "diffusers.models.activations"
FUNCTIONAL = "import torch.nn.functional as F"


def forward(node: Json) -> tuple[Lines, list[str]] | None:
    """(lines of `forward`, imports), or None where a person decides."""
    maker = BLOCKS.get(node["cls"]) if node["home"].startswith("diffusers.") else None
    return maker(node) if maker else None


def _has(node: Json, *names: str) -> bool:
    return set(node["children"]) == set(names)


def _two_layers(node: Json) -> tuple[Lines, list[str]] | None:
    act = "act_1" if "act_1" in node["children"] else "act"
    if not _has(node, "linear_1", act, "linear_2"):
        return None
    return ["def forward(self, x):", f"    return self.linear_2(self.{act}(self.linear_1(x)[0]))[0]"], []


def _feed_forward(node: Json) -> tuple[Lines, list[str]] | None:
    net = node["children"].get("net", {"children": {}})["children"]
    plain = [child["cls"] for child in net.values()]
    if not _has(node, "net") or not plain or plain[1:] not in (["Dropout", "Linear"], ["Dropout", "Linear", "Dropout"]):
        return None
    return ["def forward(self, x):", "    return self.net[2](self.net[0](x))[0]"], []


def _gelu(node: Json) -> tuple[Lines, list[str]] | None:
    if not _has(node, "proj") or "approximate" not in node["attributes"]:
        return None
    kind = node["attributes"]["approximate"]
    return ["def forward(self, x):", f'    return F.gelu(self.proj(x)[0], approximate="{kind}")'], [FUNCTIONAL]


def _gated(function: str) -> Callable[[Json], tuple[Lines, list[str]] | None]:
    def make(node: Json) -> tuple[Lines, list[str]] | None:
        if "proj" not in node["children"]:
            return None
        body = ["def forward(self, x):", "    x, gate = self.proj(x)[0].chunk(2, dim=-1)"]
        return [*body, f"    return x * {function}(gate)"], [FUNCTIONAL]

    return make


def _linear_activation(node: Json) -> tuple[Lines, list[str]] | None:
    if not _has(node, "proj", "activation"):
        return None
    return ["def forward(self, x):", "    return self.activation(self.proj(x)[0])"], []


def _timesteps(node: Json) -> tuple[Lines, list[str]] | None:
    wanted = {"num_channels", "flip_sin_to_cos", "downscale_freq_shift", "scale"}
    if node["children"] or not wanted <= set(node["attributes"]):
        return None
    a = node["attributes"]
    if a["downscale_freq_shift"] != 0 or a["scale"] != 1 or not a["flip_sin_to_cos"]:
        return None
    found = ["def forward(self, timestep):", f"    return timestep_embedding(timestep, {a['num_channels']})"]
    return found, ["from fastvideo.layers.visual_embedding import timestep_embedding"]


def _zero(parts: int) -> Callable[[Json], tuple[Lines, list[str]] | None]:
    """A norm without weights, modulated; what is left of the projection is handed on."""

    def make(node: Json) -> tuple[Lines, list[str]] | None:
        linear = node["children"].get("linear", {"parameters": {}})["parameters"].get("weight")
        if not _has(node, "silu", "linear", "norm") or not linear or linear[0] != parts * linear[1]:
            return None
        rest = ["gate", "shift_mlp", "scale_mlp", "gate_mlp"][: parts - 2]
        signature = "def forward(self, x, timestep=None, class_labels=None, hidden_dtype=None, emb=None):"
        return [
            signature if parts == 6 else "def forward(self, x, emb=None):",
            f"    shift, scale, {', '.join(rest)} = self.linear(self.silu(emb))[0].chunk({parts}, dim=1)",
            f"    return self.norm(x) * (1 + scale[:, None]) + shift[:, None], {', '.join(rest)}",
        ], []

    return make


def _continuous(node: Json) -> tuple[Lines, list[str]] | None:
    if not _has(node, "silu", "linear", "norm"):
        return None
    return [
        "def forward(self, x, conditioning_embedding):",
        "    scale, shift = self.linear(self.silu(conditioning_embedding).to(x.dtype))[0].chunk(2, dim=1)",
        "    return self.norm(x) * (1 + scale)[:, None, :] + shift[:, None, :]",
    ], []


def _time_and_text(node: Json) -> tuple[Lines, list[str]] | None:
    if not _has(node, "time_proj", "timestep_embedder", "text_embedder"):
        return None
    return [
        "def forward(self, timestep, pooled_projection):",
        "    time = self.timestep_embedder(self.time_proj(timestep).to(pooled_projection.dtype))",
        "    return time + self.text_embedder(pooled_projection)",
    ], []


def _size_embedding(node: Json) -> tuple[Lines, list[str]] | None:
    if not _has(node, "time_proj", "timestep_embedder"):
        return None
    return [
        "def forward(self, timestep, resolution=None, aspect_ratio=None, batch_size=None, hidden_dtype=None):",
        "    return self.timestep_embedder(self.time_proj(timestep).to(hidden_dtype))",
    ], []


def _single(node: Json) -> tuple[Lines, list[str]] | None:
    if not _has(node, "emb", "silu", "linear") or node["children"]["emb"]["children"].keys() != {
        "time_proj",
        "timestep_embedder",
    }:
        return None
    return [
        "def forward(self, timestep, added_cond_kwargs=None, batch_size=None, hidden_dtype=None):",
        "    embedded = self.emb(timestep, batch_size=batch_size, hidden_dtype=hidden_dtype)",
        "    return self.linear(self.silu(embedded))[0], embedded",
    ], []


def _attention(node: Json) -> tuple[Lines, list[str]] | None:
    """diffusers' general attention with its plain processor: query, key and value are explicit."""
    a, children = node["attributes"], set(node["children"])
    plain = {"to_q", "to_k", "to_v", "to_out", "norm_q", "norm_k"}
    settings = {"residual_connection": False, "rescale_output_factor": 1.0, "scale_qk": True}
    settings["only_cross_attention"] = False
    if node["processor"] != "AttnProcessor2_0" or not {"to_q", "to_k", "to_v", "to_out"} <= children <= plain:
        return None
    if any(a.get(key, value) != value for key, value in settings.items()) or not a.get("heads"):
        return None
    norms = [f"        {x} = self.norm_{x[0]}({x})" for x in ("query", "key") if f"norm_{x[0]}" in children]
    return [
        "def forward(self, hidden_states, encoder_hidden_states=None, attention_mask=None):",
        "    context = hidden_states if encoder_hidden_states is None else encoder_hidden_states",
        "    query, key, value = self.to_q(hidden_states)[0], self.to_k(context)[0], self.to_v(context)[0]",
        f"    parts = (part.unflatten(2, ({a['heads']}, -1)) for part in (query, key, value))",
        "    query, key, value = (part.transpose(1, 2) for part in parts)",
        *(line[4:] for line in norms),
        "    if attention_mask is not None and attention_mask.dim() == 3:",
        "        attention_mask = attention_mask.unsqueeze(1)",
        "    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)",
        "    return self.to_out[0](attended.transpose(1, 2).flatten(2))[0]",
    ], [FUNCTIONAL]


BLOCKS: dict[str, Callable[[Json], tuple[Lines, list[str]] | None]] = {
    "TimestepEmbedding": _two_layers,
    "PixArtAlphaTextProjection": _two_layers,
    "FeedForward": _feed_forward,
    "GELU": _gelu,
    "GEGLU": _gated("F.gelu"),
    "SwiGLU": _gated("F.silu"),
    "LinearActivation": _linear_activation,
    "Timesteps": _timesteps,
    "AdaLayerNormZero": _zero(6),
    "AdaLayerNormZeroSingle": _zero(3),
    "AdaLayerNormContinuous": _continuous,
    "CombinedTimestepTextProjEmbeddings": _time_and_text,
    "PixArtAlphaCombinedTimestepSizeEmbeddings": _size_embedding,
    "AdaLayerNormSingle": _single,
    "Attention": _attention,
}
