# SPDX-License-Identifier: Apache-2.0
"""The text encoder: a few layers that read a prompt in both directions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mist.files import OnDisk


class Reader(nn.Module):
    def __init__(self, width: int, heads: int, inner: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_a, self.norm_b = nn.RMSNorm(width, eps=eps), nn.RMSNorm(width, eps=eps)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.qkv(self.norm_a(x)).chunk(3, dim=-1))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=keep).transpose(1, 2).flatten(2))
        return x + self.fc2(F.gelu(self.fc1(self.norm_b(x))))


class MistTextEncoder(OnDisk):
    """Token ids (batch, tokens) to hidden states (batch, tokens, width). Padding is on the right and not read."""

    def __init__(
        self,
        words: int = 320,
        width: int = 32,
        heads: int = 4,
        depth: int = 2,
        inner: int = 80,
        longest: int = 64,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.config = {"words": words, "width": width, "heads": heads, "depth": depth, "inner": inner}
        self.config |= {"longest": longest, "eps": eps}
        self.word, self.place = nn.Embedding(words, width), nn.Embedding(longest, width)
        self.readers = nn.ModuleList(Reader(width, heads, inner, eps) for _ in range(depth))
        self.norm = nn.RMSNorm(width, eps=eps)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """mask: 1 for a token, 0 for padding."""
        x = self.word(tokens) + self.place(torch.arange(tokens.shape[1], device=tokens.device))
        keep = mask[:, None, None, :].bool()
        for reader in self.readers:
            x = reader(x, keep)
        return self.norm(x)
