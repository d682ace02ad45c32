# SPDX-License-Identifier: Apache-2.0
"""What a scheduler draws in its steps, on both sides of a walk: `drawn/<step>/<n>` of a record."""

from __future__ import annotations

from typing import Any

Tensors = dict[str, Any]


def count(tensors: Tensors) -> int:
    return sum(name.startswith("drawn/") for name in tensors)


def difference(official: Tensors, native: Tensors, last: int) -> str:
    """How the noise of the steps 0 to `last` differs, in a sentence; '' where every value is the same."""
    for step in range(last + 1):
        a, b = _of_step(official, step), _of_step(native, step)
        if len(a) != len(b):
            return f"step {step} draws noise {len(a)} times officially, {len(b)} times natively"
        for x, y in zip(a, b, strict=True):
            if x.numel() != y.numel():
                return f"the noise of step {step} has shape {tuple(x.shape)} officially, {tuple(y.shape)} natively"
            x, y = x.double().flatten(), y.double().flatten()
            if bool((x != y).any()):
                correlation = float((x * y).mean() / x.pow(2).mean())
                what = f"the noise that step {step} draws differs (correlation {correlation:.3f})"
                return f"{what}: other seed, path, levels or dtype"
    return ""


def _of_step(tensors: Tensors, step: int) -> list[Any]:
    return [tensors[name] for name in sorted(tensors) if name.startswith(f"drawn/{step:03d}/")]
