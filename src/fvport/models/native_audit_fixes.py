# SPDX-License-Identifier: Apache-2.0
"""Changes to FastVideo's classes, made in memory in a census case's fork: what would make the two sides equal.

`apply` takes edits of source text, or the name of a function where one line is not enough: the transformers', VAEs' and
schedulers' are here, the encoders' in `native_audit_encoders`.
"""

from __future__ import annotations

import importlib
import inspect
import linecache
import textwrap
from typing import Any


def apply(fix: Any) -> None:
    """Raises LookupError where the text that an edit replaces is no longer there."""
    if isinstance(fix, str):
        from fvport.models import native_audit_encoders

        (globals() | vars(native_audit_encoders))[fix]()
        return
    for edit in fix:
        rewrite(edit.target, edit.old, edit.new)


def rewrite(target: str, old: str, new: str) -> None:
    """Replace `old` by `new` in the source of the function `module:Class.name`, and put the result in its place."""
    module_name, _, path = target.partition(":")
    module = importlib.import_module(module_name)
    *owners, name = path.split(".")
    owner: Any = module
    for part in owners:
        owner = getattr(owner, part)
    raw = vars(owner)[name]
    function = inspect.unwrap(getattr(raw, "__func__", raw))
    source = textwrap.dedent(getattr(function, "fvport_source", "") or inspect.getsource(function))
    if old not in source:
        raise LookupError(f"{target} has no {old!r}")
    source = source.replace(old, new)
    made = compiled(source, name, module, owner)
    made.fvport_source = source
    setattr(owner, name, type(raw)(made) if isinstance(raw, (staticmethod, classmethod)) else made)


def compiled(source: str, name: str, module: Any, owner: Any) -> Any:
    """The function of `source` in the module's namespace; `super()` finds its class."""
    lines = source.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(("def ", "async def ")))
    decorators = [line for line in lines[:start] if "staticmethod" not in line and "classmethod" not in line]
    body = textwrap.indent("\n".join([*decorators, *lines[start:]]), "    ")
    text = f"def _made(__class__):\n{body}\n    return {name}\n"
    file = f"<changed {module.__name__}.{name}>"
    linecache.cache[file] = (len(text), None, text.splitlines(True), file)
    # annotations of a copied function need not be evaluated
    code = compile("from __future__ import annotations\n" + text, file, "exec")
    found: dict[str, Any] = {}
    exec(code, vars(module), found)  # noqa: S102 - FastVideo's own source with one line changed
    return found["_made"](owner if inspect.isclass(owner) else None)


# --- where one line is not enough -------------------------------------------------------------------------------------


def hunyuan_mask() -> None:
    """HunyuanVideo: the text mask that **kwargs swallows, in the refiner's mean and in every attention."""
    from fastvideo.attention.backends.sdpa import SDPAMetadata
    from fastvideo.forward_context import set_forward_context
    from fastvideo.models.dits import hunyuanvideo

    cls, refiner = hunyuanvideo.HunyuanVideoTransformer3DModel, hunyuanvideo.SingleTokenRefiner
    original = cls.forward
    rewrite(
        "fastvideo.models.dits.hunyuanvideo:SingleTokenRefiner.forward",
        "context_aware_representations = torch.mean(x, dim=1)",
        "context_aware_representations = (x * self.mask).sum(1) / self.mask.sum(1)",
    )

    def forward(self: Any, *args: Any, encoder_attention_mask: Any = None, **kwargs: Any) -> Any:
        refiner.mask = encoder_attention_mask[..., None].to(args[0])
        with set_forward_context(0, SDPAMetadata(0, attn_mask=encoder_attention_mask)):
            return original(self, *args, **kwargs)

    cls.forward = forward


def wan_image_positions() -> None:
    """Wan FLF2V: `pos_embed` of two images, and a context split at 512 words instead of at 257 image tokens."""
    import torch
    from fastvideo.models.dits import wanvideo
    from torch import nn

    cls = wanvideo.WanImageEmbedding
    init, forward = cls.__init__, cls.forward

    def __init__(self: Any, in_features: int, out_features: int) -> None:
        init(self, in_features, out_features)
        self.pos_embed = nn.Parameter(torch.zeros(1, 514, in_features))

    def positioned(self: Any, image: Any) -> Any:
        image = image.view(-1, 2 * image.shape[1], image.shape[2])
        return forward(self, image + self.pos_embed)

    cls.__init__, cls.forward = __init__, positioned
    for old, new in (("context[:, :257]", "context[:, :-512]"), ("context[:, 257:]", "context[:, -512:]")):
        rewrite("fastvideo.models.dits.wanvideo:WanI2VCrossAttention.forward", old, new)


def wan_no_cross_norm() -> None:
    """Wan: with cross_attn_norm false the norm before cross attention is the identity."""
    from fastvideo.models.dits import wanvideo
    from torch import nn

    class Residual(nn.Module):
        def forward(self, residual: Any, x: Any, gate: Any, shift: Any, scale: Any) -> Any:
            value = residual + x * gate
            return value, value

    cls = wanvideo.WanTransformerBlock
    init = cls.__init__

    def __init__(self: Any, dim: int, ffn: int, heads: int, qk: str, cross: bool, *args: Any, **kwargs: Any) -> None:
        init(self, dim, ffn, heads, qk, True, *args, **kwargs)
        if not cross:
            self.self_attn_residual_norm = Residual()

    cls.__init__ = __init__


def ltx2_record() -> None:
    """LTX 2: read the names under which diffusers writes the same settings."""
    from fastvideo.configs.models.dits.ltx2 import LTX2VideoConfig

    original = LTX2VideoConfig.update_model_arch

    def update_model_arch(self: Any, source: dict[str, Any]) -> None:
        source = {**source, "num_channels_latents": source["in_channels"]}
        source["av_ca_timestep_scale_multiplier"] = source["cross_attn_timestep_scale_multiplier"]
        source["positional_embedding_theta"] = source["rope_theta"]
        source["double_precision_rope"] = source["rope_double_precision"]
        original(self, source)

    LTX2VideoConfig.update_model_arch = update_model_arch


def unipc_keys() -> None:
    """UniPC: accept the keys that diffusers writes since; None means what their absence means."""
    from fastvideo.models.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

    original = UniPCMultistepScheduler.__init__

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        for key in ("shift_terminal", "sigma_min", "sigma_max"):
            kwargs.pop(key, None)
        original(self, *args, **kwargs)

    UniPCMultistepScheduler.__init__ = __init__


def wan_tiles() -> None:
    """Wan's VAE: decode each tile with the feature cache, then blend as the official class does."""
    import torch
    from fastvideo.models.vaes.wanvae import AutoencoderKLWan

    whole = AutoencoderKLWan.decode

    def decode(self: Any, z: Any) -> Any:
        ratio = self.spatial_compression_ratio
        size = (self.tile_sample_min_height // ratio, self.tile_sample_min_width // ratio)
        step = (self.tile_sample_stride_height // ratio, self.tile_sample_stride_width // ratio)
        self.use_feature_cache = True
        rows = [
            [whole(self, z[..., i : i + size[0], j : j + size[1]]) for j in range(0, z.shape[-1], step[1])]
            for i in range(0, z.shape[-2], step[0])
        ]
        down = self.tile_sample_min_height - self.tile_sample_stride_height
        across = self.tile_sample_min_width - self.tile_sample_stride_width
        stride = (self.tile_sample_stride_height, self.tile_sample_stride_width)
        merged = self._merge_spatial_tiles(rows, down, across, *stride)
        return torch.clamp(merged[..., : z.shape[-2] * ratio, : z.shape[-1] * ratio], -1.0, 1.0)

    AutoencoderKLWan.decode = decode


def hyworld_attention() -> None:
    """HY-World's VAE: the attention of a middle block sees the chunks before, as the convolutions' caches do."""
    import torch
    from fastvideo.models.vaes import hyworldvae

    def forward(self: Any, states: Any, feat_cache: Any = None, feat_idx: Any = None) -> Any:
        states = self.resnets[0](states, feat_cache, feat_idx)
        for index, (attention, resnet) in enumerate(zip(self.attentions, self.resnets[1:], strict=True)):
            past = self.__dict__.setdefault("past", {})
            past[index] = torch.cat([past[index], states], dim=2) if index in past else states
            states = attention(past[index])[:, :, -states.shape[2] :]
            states = resnet(states, feat_cache, feat_idx)
        return states

    clear = hyworldvae.AutoencoderKLHYWorld.clear_cache

    def clear_cache(self: Any) -> None:
        clear(self)
        for module in self.modules():
            module.__dict__.pop("past", None)

    hyworldvae.HYWorldMidBlock.forward = forward
    hyworldvae.AutoencoderKLHYWorld.clear_cache = clear_cache
