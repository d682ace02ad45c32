# SPDX-License-Identifier: Apache-2.0
"""The denoiser: video tokens that attend to one another and to text, each layer steered by the time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mist.files import OnDisk


def waves(position: Tensor, width: int) -> Tensor:
    """(n,) positions to (n, width): cosines, then sines, of frequencies from 1 down to 1/10000; computed in float64."""
    half = width // 2
    rate = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float64, device=position.device) / half)
    angle = position.double()[:, None] * rate
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def grid_waves(grid: Sequence[int], width: int) -> Tensor:
    """(frames * height * width, channels): a third of the channels for each axis."""
    part = width // 3
    axes = [waves(torch.arange(size), part) for size in grid]
    full = [
        axis.reshape([-1 if i == n else 1 for i in range(3)] + [part]).expand(*grid, part)
        for n, axis in enumerate(axes)
    ]
    return torch.cat(full, dim=-1).reshape(math.prod(grid), -1)


class Attention(nn.Module):
    """Self-attention with one norm for all heads' queries and one for their keys."""

    def __init__(self, width: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.wq, self.wk, self.wv, self.wo = (nn.Linear(width, width) for _ in range(4))
        self.q_scale = nn.RMSNorm(width // heads, eps=eps)
        self.k_scale = nn.RMSNorm(width // heads, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (w(x).unflatten(-1, (self.heads, -1)) for w in (self.wq, self.wk, self.wv))
        q, k, v = (t.transpose(1, 2) for t in (self.q_scale(q), self.k_scale(k), v))
        return self.wo(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class TextAttention(nn.Module):
    """Video tokens ask, text tokens answer; keys and values come out of one projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.wq, self.wkv, self.wo = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        k, v = self.wkv(text).chunk(2, dim=-1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (self.wq(x), k, v))
        return self.wo(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class GatedMLP(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Layer(nn.Module):
    def __init__(self, width: int, heads: int, inner: int, eps: float) -> None:
        super().__init__()
        self.width, self.eps = width, eps
        self.steer = nn.Linear(width, 6 * width)
        self.attn = Attention(width, heads, eps)
        self.ask_norm = nn.LayerNorm(width, eps=eps)
        self.ask = TextAttention(width, heads)
        self.mlp = GatedMLP(width, inner)

    def forward(self, x: Tensor, text: Tensor, time: Tensor) -> Tensor:
        scale_a, shift_a, gate_a, scale_m, shift_m, gate_m = self.steer(F.silu(time))[:, None].chunk(6, dim=-1)
        x = x + gate_a * self.attn(self.plain(x) * (1 + scale_a) + shift_a)
        x = x + self.ask(self.ask_norm(x), text)
        return x + gate_m * self.mlp(self.plain(x) * (1 + scale_m) + shift_m)

    def plain(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (self.width,), eps=self.eps)


class MistDenoiser(OnDisk):
    """Noisy latents (batch, channels, frames, height, width) to the flow's velocity of the same size."""

    def __init__(
        self,
        width: int = 48,
        heads: int = 2,
        depth: int = 2,
        channels: int = 16,
        patch: Sequence[int] = (1, 2, 2),
        text_width: int = 32,
        inner: int = 96,
        time_width: int = 32,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.config = {"width": width, "heads": heads, "depth": depth, "channels": channels, "patch": list(patch)}
        self.config |= {"text_width": text_width, "inner": inner, "time_width": time_width, "eps": eps}
        self.patch, self.channels, self.width = tuple(patch), channels, width
        self.time_width, self.eps = time_width, eps
        self.embed = nn.Conv3d(channels, width, self.patch, self.patch)
        self.time_a, self.time_b = nn.Linear(time_width, width), nn.Linear(width, width)
        self.text = nn.Linear(text_width, width)
        self.layers = nn.ModuleList(Layer(width, heads, inner, eps) for _ in range(depth))
        self.last_steer = nn.Linear(width, 2 * width)
        self.last = nn.Linear(width, channels * math.prod(self.patch))

    def forward(self, latents: Tensor, time: Tensor, text: Tensor) -> Tensor:
        """time: (batch,) from 0 to 1000. text: (batch, tokens, text_width), zeros where a prompt has ended."""
        x = self.embed(latents)
        grid = x.shape[2:]
        x = x.flatten(2).transpose(1, 2)
        x = x + grid_waves(grid, self.width).to(x)
        time = self.time_b(F.silu(self.time_a(waves(time, self.time_width).to(x))))
        text = self.text(text.to(x))
        for layer in self.layers:
            x = layer(x, text, time)
        scale, shift = self.last_steer(F.silu(time))[:, None].chunk(2, dim=-1)
        x = self.last(F.layer_norm(x, (self.width,), eps=self.eps) * (1 + scale) + shift)
        t, h, w = self.patch
        x = x.reshape(x.shape[0], *grid, t, h, w, self.channels)
        return x.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(latents.shape[0], self.channels, *latents.shape[2:])
