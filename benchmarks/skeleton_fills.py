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
_SANA_ROPE = """
def forward(self, hidden_states, **kwargs):
    grid = [size // patch for size, patch in zip(hidden_states.shape[2:], self.patch_size)]
    angles = []
    for axis, (count, dim) in enumerate(zip(grid, (self.t_dim, self.h_dim, self.w_dim))):
        places, pairs = (
            torch.arange(0, end, step, dtype=torch.float64, device=hidden_states.device)
            for end, step in ((count, 1), (dim, 2))
        )
        shape = [count if axis == other else 1 for other in range(3)]
        angles.append(torch.outer(places, 1.0 / 10000**(pairs / dim)).view(*shape, -1).expand(*grid, -1))
    angle = torch.cat(angles, dim=-1).flatten(0, 2)[None, :, None]
    return angle.cos().float(), angle.sin().float()
"""
_SANA_ATTENTION = """
def forward(self, hidden_states, encoder_hidden_states=None, attention_mask=None, rotary_emb=None, **kwargs):
    context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
    parts = (self.norm_q(self.to_q(hidden_states)[0]), self.norm_k(self.to_k(context)[0]), self.to_v(context)[0])
    query, key, value = (part.unflatten(2, (self.heads, -1)) for part in parts)
    if rotary_emb is not None:  # linear attention: what is turned is summed, what is not is its measure
        query, key = query.relu(), key.relu()
        query, key, value, plain, keys = (
            part.transpose(1, 2).float()
            for part in (self._turned(query, *rotary_emb), self._turned(key, *rotary_emb), value, query, key)
        )
        measure = plain @ keys.sum(dim=2).unsqueeze(-1) + 1e-15
        attended = (query @ (key.transpose(2, 3) @ value)) / measure
    else:
        mask = None if attention_mask is None else attention_mask.unsqueeze(1)
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        attended = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return self.to_out[0](attended.transpose(1, 2).flatten(2).to(hidden_states.dtype))[0]

def _turned(self, x, cos, sin):
    real, imaginary = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], dim=-1)
    return turned.flatten(-2).to(x.dtype)
"""
_SANA_CONVOLUTIONS = """
def forward(self, hidden_states, **kwargs):
    batch, frames, height, width, _ = hidden_states.shape
    images = self.nonlinearity(self.conv_inverted(hidden_states.flatten(0, 1).permute(0, 3, 1, 2)))
    values, gate = self.conv_depth(images).chunk(2, dim=1)
    images = self.conv_point(values * self.nonlinearity(gate))
    places = images.unflatten(0, (batch, frames)).flatten(3).transpose(1, 2)
    places = places + self.conv_temp(places)
    return places.permute(0, 2, 3, 1).unflatten(2, (height, width))
"""
_SANA_BLOCK = """
def forward(
        self,
        hidden_states,
        attention_mask=None,
        encoder_hidden_states=None,
        encoder_attention_mask=None,
        timestep=None,
        frames=None,
        height=None,
        width=None,
        rotary_emb=None,
        **kwargs,
):
    parts = (self.scale_shift_table + timestep.unflatten(2, (6, -1))).unbind(dim=2)
    shift, scale, gate, shift_ff, scale_ff, gate_ff = parts
    normed = self.norm1(hidden_states) * (1 + scale) + shift
    hidden_states = hidden_states + gate * self.attn1(normed, rotary_emb=rotary_emb)
    hidden_states = hidden_states + self.attn2(hidden_states, encoder_hidden_states, encoder_attention_mask)
    normed = self.norm2(hidden_states) * (1 + scale_ff) + shift_ff
    return hidden_states + gate_ff * self.ff(normed.unflatten(1, (frames, height, width))).flatten(1, 3)
"""
_SANA_NORM = """
def forward(self, hidden_states, temb, scale_shift_table, **kwargs):
    shift, scale = (scale_shift_table + temb[:, :, None]).unbind(dim=2)
    return self.norm(hidden_states) * (1 + scale) + shift
"""
_SANA = """
def forward(
        self,
        hidden_states,
        encoder_hidden_states,
        timestep,
        guidance=None,
        encoder_attention_mask=None,
        attention_mask=None,
        attention_kwargs=None,
        controlnet_block_samples=None,
        return_dict=None,
        **kwargs,
):
    patch = self.config.patch_size
    grid = [size // step for size, step in zip(hidden_states.shape[2:], patch)]
    rope = self.rope(hidden_states)
    if encoder_attention_mask is not None and encoder_attention_mask.dim() == 2:
        encoder_attention_mask = ((1 - encoder_attention_mask.to(hidden_states.dtype)) * -10000.0).unsqueeze(1)
    tokens = self.patch_embedding(hidden_states).flatten(2).transpose(1, 2)
    times = self.time_embed(timestep.flatten(), hidden_dtype=tokens.dtype)
    modulation, embedded = (part.unflatten(0, (tokens.shape[0], -1)) for part in times)
    text = self.caption_norm(self.caption_projection(encoder_hidden_states))
    for number, block in enumerate(self.transformer_blocks):
        tokens = block(tokens, None, text, encoder_attention_mask, modulation, *grid, rope)
        if controlnet_block_samples is not None and 0 < number <= len(controlnet_block_samples):
            tokens = tokens + controlnet_block_samples[number - 1]
    tokens = self.proj_out(self.norm_out(tokens, embedded, self.scale_shift_table))[0]
    video = tokens.unflatten(2, (*patch, -1)).unflatten(1, grid).permute(0, 7, 1, 4, 2, 5, 3, 6)
    return video.flatten(6, 7).flatten(4, 5).flatten(2, 3)
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
    "SanaVideoTransformer3DModel": {
        "WanRotaryPosEmbed": _SANA_ROPE,
        "Attention": _SANA_ATTENTION,
        "GLUMBTempConv": _SANA_CONVOLUTIONS,
        "SanaVideoTransformerBlock": _SANA_BLOCK,
        "SanaModulatedNorm": _SANA_NORM,
        "SanaVideoTransformer3DModel": _SANA,
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
    if cls == "SanaVideoTransformer3DModel":
        text = {"encoder_hidden_states": noise(2, 7, 20), "encoder_attention_mask": keep}
        return [
            {"hidden_states": noise(2, 4, 3, 4, 10), "timestep": torch.tensor([998.39, 1.0]), **text},
            {
                "hidden_states": noise(2, 4, 2, 6, 2),
                "timestep": torch.rand(2, 6, generator=generator) * 999,
                **text,
                "controlnet_block_samples": (noise(2, 6, 24),),
            },
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
