# SPDX-License-Identifier: Apache-2.0
"""Changes to FastVideo's encoders that a line is too little for, made in memory in a census case's fork.

`native_audit_fixes.apply` calls them by name.
"""

from __future__ import annotations

import importlib
from typing import Any

from fvport.models.native_audit_fixes import rewrite


def prefixed_names() -> None:
    """CLIP and SigLIP: take tensor names without `text_model.` and `vision_model.` too."""
    from fastvideo.models.encoders import clip, siglip

    for cls, prefix in (
        (clip.CLIPTextModel, "text_model."),
        (clip.CLIPVisionModel, "vision_model."),
        (siglip.SiglipVisionModel, "vision_model."),
    ):
        wrap_names(cls, prefix)


def wrap_names(cls: Any, prefix: str) -> None:
    original = cls.load_weights

    def load_weights(self: Any, weights: Any) -> set[str]:
        kept = ((k if k.startswith((prefix, "text_proj", "visual_")) else prefix + k, v) for k, v in weights)
        return set(original(self, kept))

    cls.load_weights = load_weights


def rope_parameters() -> None:
    """`update_model_arch`: read rope_theta and rope_scaling from transformers 5's `rope_parameters`."""
    from fastvideo.configs.models.base import ModelConfig

    original = ModelConfig.update_model_arch

    def update_model_arch(self: Any, source: dict[str, Any]) -> None:
        rope = dict(source.get("rope_parameters") or {})
        if rope:
            source = {**source, "rope_theta": rope.pop("rope_theta")}
            if set(rope) - {"rope_type"}:
                source["rope_scaling"] = rope
        original(self, source)

    ModelConfig.update_model_arch = update_model_arch


def llama_mask() -> None:
    masked("fastvideo.models.encoders.llama:LlamaModel")


def clip_mask() -> None:
    masked("fastvideo.models.encoders.clip:CLIPTextModel")


def masked(name: str) -> None:
    """A causal encoder that ignores `attention_mask`: hand causal and padding mask to its attention layers."""
    import torch
    from fastvideo.attention.backends.sdpa import SDPAImpl, SDPAMetadata
    from fastvideo.forward_context import set_forward_context

    module, _, attribute = name.partition(":")
    cls = getattr(importlib.import_module(module), attribute)
    original, attend = cls.forward, SDPAImpl.forward

    def forward(self: Any, input_ids: Any, *args: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
        if attention_mask is None:
            return original(self, input_ids, *args, **kwargs)
        length = input_ids.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        mask = causal[None, None] & attention_mask.bool()[:, None, None]
        mask = mask | torch.eye(length, dtype=torch.bool)  # a padded row attends to itself: no empty softmax
        with set_forward_context(0, SDPAMetadata(0, attn_mask=mask)):
            return original(self, input_ids, *args, **kwargs)

    def not_twice(self: Any, query: Any, key: Any, value: Any, metadata: Any) -> Any:
        if getattr(metadata, "attn_mask", None) is not None:
            self.causal = False  # the mask says it
        return attend(self, query, key, value, metadata)

    cls.forward, SDPAImpl.forward = forward, not_twice


def t5_states() -> None:
    """T5 and UMT5: return the hidden states that were asked for."""
    from fastvideo.models.encoders import t5

    for cls in (t5.T5EncoderModel, t5.UMT5EncoderModel):
        original = cls.forward

        def forward(self: Any, *args: Any, _original: Any = original, **kwargs: Any) -> Any:
            states: list[Any] = []
            handles = [b.register_forward_pre_hook(lambda m, a, k: states.append(k["hidden_states"]), with_kwargs=True)
                       for b in self.encoder.block]  # fmt: skip
            try:
                answer = _original(self, *args, **kwargs)
            finally:
                for handle in handles:
                    handle.remove()
            answer.hidden_states = (*states, answer.last_hidden_state)
            return answer

        cls.forward = forward


def bert_entry() -> None:
    """The registry's BertModel: a class that loads transformers' own, as T5's wrapper does."""
    from fastvideo.models import registry
    from fastvideo.models.encoders import bert
    from fastvideo.models.encoders.t5_hf import T5EncoderModel
    from transformers import BertModel

    class BertEncoder(T5EncoderModel):
        @classmethod
        def from_pretrained_local(cls, model_path: str, config: Any, *, dtype: Any, device: Any) -> Any:
            return BertModel.from_pretrained(model_path, local_files_only=True, dtype=dtype).eval().to(device)

    bert.HunyuanClip = BertModel
    registry.ModelRegistry.models["BertModel"] = registry._RegisteredModel.from_model_cls(BertEncoder)
    registry._try_load_model_cls.cache_clear()


def llama3_rope() -> None:
    """`get_rope`: Llama 3.1's frequency scaling, as transformers defines it."""
    import math

    import torch
    from fastvideo.layers import rotary_embedding
    from fastvideo.models.encoders import llama

    original = rotary_embedding.get_rope

    def get_rope(head_size: int, rotary_dim: int, max_position: int, base: Any, *a: Any, **kw: Any) -> Any:
        scaling = kw.pop("rope_scaling", None)
        rope = original(head_size, rotary_dim, max_position, base, *a, **kw)
        if not scaling:
            return rope
        inverse = 1.0 / base ** (torch.arange(0, rotary_dim, 2, dtype=torch.float) / rotary_dim)
        low, high, old = (
            scaling["low_freq_factor"],
            scaling["high_freq_factor"],
            scaling["original_max_position_embeddings"],
        )
        wave = 2 * math.pi / inverse
        smooth = ((old / wave - low) / (high - low)).clamp(0, 1)
        inverse = (1 - smooth) * inverse / scaling["factor"] + smooth * inverse
        angles = torch.outer(torch.arange(max_position, dtype=torch.float), inverse)
        rope.cos_sin_cache = torch.cat((angles.cos(), angles.sin()), dim=-1)
        return rope

    llama.get_rope = get_rope


def siglip_head() -> None:
    """SigLIP: the pooling head that the release has and the native class lacks."""
    from fastvideo.configs.models.encoders.base import BaseEncoderOutput
    from fastvideo.models.encoders.siglip import SiglipVisionModel
    from transformers.models.siglip.modeling_siglip import SiglipMultiheadAttentionPoolingHead

    init, load, forward = SiglipVisionModel.__init__, SiglipVisionModel.load_weights, SiglipVisionModel.forward

    def __init__(self: Any, config: Any) -> None:
        init(self, config)
        self.head = SiglipMultiheadAttentionPoolingHead(config.arch_config)

    def load_weights(self: Any, weights: Any) -> set[str]:
        rest, found = [], {}
        for name, tensor in weights:
            bare = name.removeprefix("vision_model.")
            found[bare] = tensor
            if not bare.startswith("head."):
                rest.append((name, tensor))
        names = {k: v for k, v in found.items() if k.startswith("head.")}
        self.head.load_state_dict({k.removeprefix("head."): v for k, v in names.items()})
        return set(load(self, iter(rest))) | set(names)

    def pooled(self: Any, *args: Any, **kwargs: Any) -> Any:
        answer = forward(self, *args, **kwargs)
        states = getattr(answer, "last_hidden_state", answer)
        return BaseEncoderOutput(last_hidden_state=states, pooler_output=self.head(states))

    SiglipVisionModel.__init__, SiglipVisionModel.load_weights = __init__, load_weights
    SiglipVisionModel.forward = pooled


def clip_vision_projection() -> None:
    """CLIPVisionModelWithProjection: keep `visual_projection` and answer `image_embeds`."""
    from types import SimpleNamespace

    from fastvideo.models.encoders.clip import CLIPVisionModel
    from torch import nn

    init, forward = CLIPVisionModel.__init__, CLIPVisionModel.forward

    def __init__(self: Any, config: Any) -> None:
        init(self, config)
        self.visual_projection = nn.Linear(config.hidden_size, config.projection_dim, bias=False)

    def projected(self: Any, *args: Any, **kwargs: Any) -> Any:
        states = forward(self, *args, **kwargs).last_hidden_state
        return SimpleNamespace(last_hidden_state=states, image_embeds=self.visual_projection(states[:, 0]))

    CLIPVisionModel.__init__, CLIPVisionModel.forward = __init__, projected
    rewrite(
        "fastvideo.models.encoders.clip:CLIPVisionModel.load_weights",
        'if name.startswith("visual_projection"):\n            continue',
        'if name.startswith("visual_projection"):\n            pass',
    )


def qwen25_window() -> None:
    """Qwen2.5-VL: layers of kind sliding_attention get the window's mask."""
    import torch
    from fastvideo.configs.models.encoders.qwen2_5 import Qwen2_5_VLArchConfig
    from fastvideo.models.encoders import qwen2_5

    cls = qwen2_5.Qwen2_5_VLAttention
    forward, post = cls.forward, Qwen2_5_VLArchConfig.__post_init__

    def __post_init__(self: Any) -> None:
        kinds = list(self.layer_types)
        post(self)
        self.layer_types = kinds

    def windowed(self: Any, hidden_states: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
        if self.sliding_window:
            n = hidden_states.shape[1]
            near = torch.ones(n, n, dtype=torch.bool).tril() & torch.ones(n, n, dtype=torch.bool).triu(
                1 - self.sliding_window
            )
            attention_mask = near[None, None] if attention_mask is None else attention_mask & near[None, None]
        return forward(self, hidden_states, attention_mask=attention_mask, **kwargs)

    cls.forward, Qwen2_5_VLArchConfig.__post_init__ = windowed, __post_init__
