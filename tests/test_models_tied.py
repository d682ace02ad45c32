# SPDX-License-Identifier: Apache-2.0
"""Tied tensors of a native model: one entry while they are one, two as soon as a loader broke the tie."""

from __future__ import annotations

import torch
from torch import nn

from fvport.models.native import own_tensors


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Embedding(4, 2)
        self.encoder = nn.Module()
        self.encoder.embed_tokens = self.shared


def test_a_tied_tensor_has_one_name() -> None:
    """The first name stands for both; the state dict has both."""
    model = Tied()
    assert list(model.state_dict()) == ["shared.weight", "encoder.embed_tokens.weight"]
    assert list(own_tensors(model)) == ["shared.weight"]


def test_a_broken_tie_is_seen() -> None:
    """Two objects with equal values are two tensors, and the second one needs a source of its own."""
    model = Tied()
    model.encoder.embed_tokens = nn.Embedding(4, 2)
    model.encoder.embed_tokens.weight = nn.Parameter(torch.clone(model.shared.weight))
    assert list(own_tensors(model)) == ["shared.weight", "encoder.embed_tokens.weight"]
