# SPDX-License-Identifier: Apache-2.0
"""Three skeletons brought to parity: the forwards that a person writes in place of each decision, and nothing else."""

from __future__ import annotations

import difflib
import re
from typing import Any

Fill = dict[str, str]  # official class -> its forward, from `def` on

_PATCHES = """
def forward(self, latent, **kwargs):
    patches = self.proj(latent)
    quarter = patches.shape[1] // 4
    steps = 1.0 / 10000**(torch.arange(quarter, device=latent.device, dtype=torch.float64) / quarter)
    waves = []
    for size in patches.shape[2:]:
        places = torch.arange(size, device=latent.device, dtype=torch.float32)
        angles = torch.outer((places / (size / self.base_size) / self.interpolation_scale).double(), steps)
        waves.append(torch.cat([angles.sin(), angles.cos()], dim=1).float())
    down, across = waves
    height, width = patches.shape[2:]
    position = torch.cat([across[None].expand(height, -1, -1), down[:, None].expand(-1, width, -1)], dim=2)
    return patches.flatten(2).transpose(1, 2) + position.flatten(0, 1)
"""
_BLOCK = """
def forward(
        self,
        hidden_states,
        attention_mask=None,
        encoder_hidden_states=None,
        encoder_attention_mask=None,
        timestep=None,
        **kwargs,
):
    parts = self.scale_shift_table[None] + timestep.unflatten(1, (6, -1))
    shift, scale, gate, shift_ff, scale_ff, gate_ff = parts.chunk(6, dim=1)
    normed = self.norm1(hidden_states) * (1 + scale) + shift
    hidden_states = hidden_states + gate * self.attn1(normed, None, attention_mask)
    if self.attn2 is not None:
        hidden_states = hidden_states + self.attn2(hidden_states, encoder_hidden_states, encoder_attention_mask)
    normed = self.norm2(hidden_states) * (1 + scale_ff) + shift_ff
    return hidden_states + gate_ff * self.ff(normed)
"""
_PIXART = """
def forward(
        self,
        hidden_states,
        encoder_hidden_states=None,
        timestep=None,
        added_cond_kwargs=None,
        cross_attention_kwargs=None,
        attention_mask=None,
        encoder_attention_mask=None,
        **kwargs,
):
    if encoder_attention_mask is not None and encoder_attention_mask.dim() == 2:
        encoder_attention_mask = ((1 - encoder_attention_mask.to(hidden_states.dtype)) * -10000.0).unsqueeze(1)
    patch = self.config.patch_size
    height, width = (size // patch for size in hidden_states.shape[2:])
    tokens = self.pos_embed(hidden_states)
    modulation, embedded = self.adaln_single(timestep, hidden_dtype=tokens.dtype)
    text = self.caption_projection(encoder_hidden_states)
    for block in self.transformer_blocks:
        tokens = block(tokens, attention_mask, text, encoder_attention_mask, modulation)
    shift, scale = (self.scale_shift_table[None] + embedded[:, None]).chunk(2, dim=1)
    tokens = self.proj_out(self.norm_out(tokens) * (1 + scale) + shift)[0]
    tokens = tokens.unflatten(2, (patch, patch, -1)).unflatten(1, (height, width))
    return tokens.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
"""
_LATTE = """
def forward(
        self,
        hidden_states,
        timestep=None,
        encoder_hidden_states=None,
        encoder_attention_mask=None,
        enable_temporal_attentions=True,
        **kwargs,
):
    batch, _, frames, height, width = hidden_states.shape
    patch = self.config.patch_size
    height, width = height // patch, width // patch
    tokens = self.pos_embed(hidden_states.transpose(1, 2).flatten(0, 1))
    modulation, embedded = self.adaln_single(timestep, hidden_dtype=tokens.dtype)
    text = self.caption_projection(encoder_hidden_states).repeat_interleave(frames, dim=0)
    in_space = modulation.repeat_interleave(frames, dim=0)
    in_time = modulation.repeat_interleave(height * width, dim=0)
    for number, (block, temporal) in enumerate(zip(self.transformer_blocks, self.temporal_transformer_blocks)):
        tokens = block(tokens, None, text, encoder_attention_mask, in_space)
        if not enable_temporal_attentions:
            continue
        tokens = tokens.unflatten(0, (batch, frames)).transpose(1, 2).flatten(0, 1)
        if number == 0 and frames > 1:
            tokens = tokens + self._positions(frames, tokens)
        tokens = temporal(tokens, None, None, None, in_time)
        tokens = tokens.unflatten(0, (batch, height * width)).transpose(1, 2).flatten(0, 1)
    shift, scale = (self.scale_shift_table[None] + embedded.repeat_interleave(frames, dim=0)[:, None]).chunk(2, dim=1)
    tokens = self.proj_out(self.norm_out(tokens) * (1 + scale) + shift)[0]
    tokens = tokens.unflatten(2, (patch, patch, -1)).unflatten(1, (height, width))
    images = tokens.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
    return images.unflatten(0, (batch, frames)).transpose(1, 2)

def _positions(self, frames, tokens):
    half = tokens.shape[2] // 2
    steps = 1.0 / 10000**(torch.arange(half, device=tokens.device, dtype=torch.float64) / half)
    angles = torch.outer(torch.arange(frames, device=tokens.device, dtype=torch.float64), steps)
    return torch.cat([angles.sin(), angles.cos()], dim=1).to(tokens.dtype)
"""
_LTX_ROPE = """
def forward(
        self,
        hidden_states,
        num_frames=None,
        height=None,
        width=None,
        rope_interpolation_scale=None,
        video_coords=None,
        **kwargs,
):
    base = (self.base_num_frames, self.base_height, self.base_width)
    if video_coords is not None:
        grid = [video_coords[:, axis] / base[axis] for axis in range(3)]
    else:
        sizes = (num_frames, height, width)
        places = [torch.arange(n, device=hidden_states.device, dtype=torch.float32) for n in sizes]
        grid = list(torch.meshgrid(*places, indexing="ij"))
        if rope_interpolation_scale is not None:
            patches = (self.patch_size_t, self.patch_size, self.patch_size)
            grid = [g * rope_interpolation_scale[i] * patches[i] / base[i] for i, g in enumerate(grid)]
        grid = [g.flatten()[None].expand(hidden_states.shape[0], -1) for g in grid]
    powers = torch.linspace(0.0, 1.0, self.dim // 6, device=hidden_states.device, dtype=torch.float32)
    steps = self.theta**powers * torch.pi / 2.0
    angles = (steps * (torch.stack(grid, dim=-1).unsqueeze(-1) * 2 - 1)).transpose(-1, -2).flatten(2)
    cos, sin = (wave.repeat_interleave(2, dim=-1) for wave in (angles.cos(), angles.sin()))
    free = self.dim % 6
    return nn.functional.pad(cos, (free, 0), value=1.0), nn.functional.pad(sin, (free, 0))
"""
_LTX_ATTENTION = """
def forward(self, hidden_states, encoder_hidden_states=None, attention_mask=None, image_rotary_emb=None, **kwargs):
    context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
    query, key = self.norm_q(self.to_q(hidden_states)[0]), self.norm_k(self.to_k(context)[0])
    value = self.to_v(context)[0]
    if image_rotary_emb is not None:
        query, key = self._turned(query, *image_rotary_emb), self._turned(key, *image_rotary_emb)
    query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (query, key, value))
    if attention_mask is not None:
        attention_mask = attention_mask.unsqueeze(1)
    attended = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
    return self.to_out[0](attended.transpose(1, 2).flatten(2))[0]

def _turned(self, x, cos, sin):
    real, imaginary = x.unflatten(2, (-1, 2)).unbind(-1)
    turned = torch.stack([-imaginary, real], dim=-1).flatten(2)
    return (x.float() * cos + turned.float() * sin).to(x.dtype)
"""
_LTX_BLOCK = """
def forward(
        self,
        hidden_states,
        encoder_hidden_states,
        temb,
        image_rotary_emb=None,
        encoder_attention_mask=None,
        **kwargs,
):
    parts = self.scale_shift_table[None, None] + temb.unflatten(2, (6, -1))
    shift, scale, gate, shift_ff, scale_ff, gate_ff = parts.unbind(dim=2)
    normed = self.norm1(hidden_states) * (1 + scale) + shift
    hidden_states = hidden_states + self.attn1(normed, image_rotary_emb=image_rotary_emb) * gate
    hidden_states = hidden_states + self.attn2(hidden_states, encoder_hidden_states, encoder_attention_mask)
    normed = self.norm2(hidden_states) * (1 + scale_ff) + shift_ff
    return hidden_states + self.ff(normed) * gate_ff
"""
_LTX = """
def forward(
        self,
        hidden_states,
        encoder_hidden_states,
        timestep,
        encoder_attention_mask=None,
        num_frames=None,
        height=None,
        width=None,
        rope_interpolation_scale=None,
        video_coords=None,
        **kwargs,
):
    rope = self.rope(hidden_states, num_frames, height, width, rope_interpolation_scale, video_coords)
    if encoder_attention_mask is not None and encoder_attention_mask.dim() == 2:
        encoder_attention_mask = ((1 - encoder_attention_mask.to(hidden_states.dtype)) * -10000.0).unsqueeze(1)
    batch = hidden_states.shape[0]
    tokens = self.proj_in(hidden_states)[0]
    modulation, embedded = self.time_embed(timestep.flatten(), hidden_dtype=tokens.dtype)
    modulation, embedded = modulation.unflatten(0, (batch, -1)), embedded.unflatten(0, (batch, -1))
    text = self.caption_projection(encoder_hidden_states)
    for block in self.transformer_blocks:
        tokens = block(tokens, text, modulation, rope, encoder_attention_mask)
    shift, scale = (self.scale_shift_table[None, None] + embedded[:, :, None]).unbind(dim=2)
    return self.proj_out(self.norm_out(tokens) * (1 + scale) + shift)[0]
"""
FILLS: dict[str, Fill] = {
    "PixArtTransformer2DModel": {
        "PatchEmbed": _PATCHES,
        "BasicTransformerBlock": _BLOCK,
        "PixArtTransformer2DModel": _PIXART,
    },
    "LatteTransformer3DModel": {
        "PatchEmbed": _PATCHES,
        "BasicTransformerBlock": _BLOCK,
        "LatteTransformer3DModel": _LATTE,
    },
    "LTXVideoTransformer3DModel": {
        "LTXVideoRotaryPosEmbed": _LTX_ROPE,
        "LTXAttention": _LTX_ATTENTION,
        "LTXVideoTransformerBlock": _LTX_BLOCK,
        "LTXVideoTransformer3DModel": _LTX,
    },
}


def filled(source: str, fill: Fill) -> str:
    """The skeleton's source with each decision's forward replaced. Raises KeyError for a decision without a fill."""
    decision = re.compile(
        r"    def forward\((?:(?!\n\n).)*?\n"
        r"        raise NotImplementedError\(\"FVPORT-DECIDE: forward of (\w+)[^\n]*\n",
        re.DOTALL,
    )

    def written(found: re.Match[str]) -> str:
        return "".join(f"    {line}\n" if line else "\n" for line in fill[found[1]].strip().splitlines())

    return decision.sub(written, source)


def diff(cls: str, source: str) -> str:
    """The edit of one class, as a unified diff."""
    after = filled(source, FILLS[cls])
    lines = difflib.unified_diff(source.splitlines(), after.splitlines(), "skeleton", "port", lineterm="", n=1)
    return "\n".join(lines)


def inputs(cls: str, generator: Any) -> list[dict[str, Any]]:
    """Cases for both sides: batch 2, not square, ragged text, noise levels off the grid; then another shape."""
    import torch

    def noise(*shape: int) -> Any:
        return torch.randn(*shape, generator=generator)

    keep = torch.ones(2, 7)
    keep[0, 3:] = 0
    if cls == "LTXVideoTransformer3DModel":
        text = {"encoder_hidden_states": noise(2, 7, 20), "encoder_attention_mask": keep}
        shape = {"num_frames": 3, "height": 2, "width": 4, "rope_interpolation_scale": (8 / 25, 32.0, 32.0)}
        plain = {"num_frames": 2, "height": 3, "width": 1}
        return [
            {"hidden_states": noise(2, 24, 4), "timestep": torch.tensor([998.39, 1.0]), **text, **shape},
            {"hidden_states": noise(2, 6, 4), "timestep": torch.rand(2, 6, generator=generator) * 999, **text, **plain},
        ]
    if cls == "LatteTransformer3DModel":
        steps = torch.tensor([998.39, 1.0])
        return [
            {"hidden_states": noise(2, 4, 3, 8, 12), "timestep": steps, "encoder_hidden_states": noise(2, 7, 32)},
            {
                "hidden_states": noise(2, 4, 1, 12, 8),
                "timestep": steps,
                "encoder_hidden_states": noise(2, 7, 32),
                "enable_temporal_attentions": False,
            },
        ]
    more = {"added_cond_kwargs": {"resolution": None, "aspect_ratio": None}}
    text = {"encoder_hidden_states": noise(2, 7, 32), "encoder_attention_mask": keep}
    return [
        {"hidden_states": noise(2, 4, 8, 12), "timestep": torch.tensor([998.39, 1.0]), **text, **more},
        {"hidden_states": noise(2, 4, 8, 8), "timestep": torch.tensor([17.3, 501.7]), **text, **more},
    ]
