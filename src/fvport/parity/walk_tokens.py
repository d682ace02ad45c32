# SPDX-License-Identifier: Apache-2.0
"""The tokens that both sides of a walk hand to their text encoders."""

from __future__ import annotations

from typing import Any

Tensors = dict[str, Any]


def difference(official: Tensors, native: Tensors) -> str:
    """A sentence where the tokens that count (mask 1) differ, '' where they agree or one side shows none."""
    for name in sorted(n for n in official if n.startswith("text/") and n.endswith("/input_ids")):
        if name not in native:
            continue
        a, b = (_valid(side, name) for side in (official, native))
        if a != b:
            where = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            _, encoder, call, _ = name.split("/")
            counts = f"{len(a)} officially, {len(b)} natively"
            return f"{encoder} is given other tokens in its call {call} from position {where} ({counts})"
    return ""


def _valid(side: Tensors, name: str) -> list[int]:
    ids = side[name]
    mask = side.get(name.replace("input_ids", "attention_mask"))
    return [int(i) for i in (ids if mask is None else ids[mask > 0]).flatten()]
