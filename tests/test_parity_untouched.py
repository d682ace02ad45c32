# SPDX-License-Identifier: Apache-2.0
"""The objects that computed: foreign classes among them, and what a test changed on them."""

from __future__ import annotations

import torch
from torch import nn

from fvport.parity import untouched


class Foreign(nn.Module):
    """Stands for another library's class: its module is neither FastVideo's nor torch's."""


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2, eps=1e-6))


def test_a_class_of_another_library_is_named() -> None:
    """However it was imported, the object gives it away, with its place in the model."""
    whole = model()
    assert untouched.foreign(whole) == []
    whole.add_module("norm2", Foreign())
    assert untouched.foreign(whole) == [f"norm2 ({__name__}.Foreign)"]


def test_a_test_that_repairs_the_native_object_is_seen() -> None:
    """An eps that is set, a weight that is written: both are named; running the model changes nothing."""
    whole = model()
    before = untouched.state(whole)
    whole(torch.randn(3, 2))
    assert untouched.changed(before, untouched.state(whole)) == []
    whole[1].eps = 1e-5
    with torch.no_grad():
        whole[0].weight.add_(1)
    assert untouched.changed(before, untouched.state(whole)) == ["1.eps", "0.weight (values)"]


def test_what_a_model_keeps_for_itself_may_change() -> None:
    """Caches and counters in private attributes, and attributes that appear, are the model's own business."""
    whole = model()
    whole._calls = 0
    before = untouched.state(whole)
    whole._calls, whole.made_later = 1, 2
    assert untouched.changed(before, untouched.state(whole)) == []
