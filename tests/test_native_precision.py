# SPDX-License-Identifier: Apache-2.0
"""bf16 on a machine without a GPU: the gains of norms are what they are on one, so that layers after them can run."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
import torch
from torch import nn

from fvport.models import native


class RMSNorm(nn.Module):
    """As FastVideo's off CUDA: a gain in float32, whatever the default dtype is."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width, dtype=torch.float32))

    def forward(self, x: Any) -> Any:
        return x * self.weight


def model() -> nn.Module:
    """A norm, and a linear layer that reads it."""
    norm, linear = RMSNorm(4), nn.Linear(4, 4).to(torch.bfloat16)
    return nn.Sequential(norm, linear)


@pytest.fixture(params=[False, True], ids=["cpu", "cuda"])
def cuda_alike(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Stand-ins for the two modules of FastVideo that are asked."""
    layers, platforms = types.ModuleType("fastvideo.layers.layernorm"), types.ModuleType("fastvideo.platforms")
    layers.RMSNorm = RMSNorm
    platforms.current_platform = types.SimpleNamespace(is_cuda_alike=lambda: request.param)
    for name, module in (
        ("fastvideo", types.ModuleType("fastvideo")),
        ("fastvideo.layers", types.ModuleType("fastvideo.layers")),
        ("fastvideo.layers.layernorm", layers),
        ("fastvideo.platforms", platforms),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    return request.param


def test_a_float32_gain_breaks_the_next_layer_and_the_mended_one_does_not(cuda_alike: bool) -> None:
    """The fault as it is seen, and its mend; on a GPU nothing is touched."""
    given = torch.randn(2, 4, dtype=torch.bfloat16)
    with pytest.raises(RuntimeError, match="dtype"):
        model()(given)
    mended = model()
    native.norms_as_on_cuda(mended, "bf16")
    assert (mended[0].weight.dtype is torch.float32) == cuda_alike
    if not cuda_alike:
        assert mended(given).dtype is torch.bfloat16


def test_full_precision_is_left_alone(cuda_alike: bool) -> None:
    """The comparison in float32 sees the gains as they were loaded."""
    whole = model()
    before = whole[0].weight
    native.norms_as_on_cuda(whole, "fp32")
    assert whole[0].weight is before
