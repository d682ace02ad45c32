# SPDX-License-Identifier: Apache-2.0
"""How text and image encoders are called on either side, and the inputs they are given."""

from __future__ import annotations

from typing import Any

from fvport.audit.case import Make, integers, normal

HIDDEN = ("last_hidden_state", "hidden_states")


def tokens(vocab: int, batch: int = 1, length: int = 9, mask: str = "", low: int = 3, end: int | None = None) -> Make:
    """`input_ids` and, with `mask` "ones", "right" or "left", the attention mask of rows of different length.

    `end` is put at each row's last real place (an end token that pooling looks for).
    """

    def make(generator: Any) -> dict[str, Any]:
        import torch

        ids = integers(generator, vocab, batch, length, low=low)
        keep = torch.ones(batch, length, dtype=torch.int64)
        for row in range(batch):
            pad = (0 if mask in ("", "ones") else 3) + 2 * row * (mask not in ("", "ones"))
            if pad and mask == "left":
                keep[row, :pad] = 0
            elif pad:
                keep[row, length - pad :] = 0
        if end is not None:
            for row in range(batch):
                ids[row, int(keep[row].nonzero()[-1])] = end
        given = {"input_ids": ids}
        return given | ({"attention_mask": keep} if mask else {})

    return make


def pixels(batch: int = 1, size: int = 16, channels: int = 3) -> Make:
    """`pixel_values`."""
    return lambda generator: {"pixel_values": normal(generator, batch, channels, size, size)}


def encode(*names: str, states: bool = True, real_only: bool = False, **fixed: Any) -> Any:
    """A call that returns `names` of the model's output; `real_only` compares the places that the mask keeps.

    What an official model says at padded places is not read by any pipeline that also passes the mask on.
    """
    names = names or (HIDDEN if states else HIDDEN[:1])

    def call(model: Any, given: dict[str, Any]) -> dict[str, Any]:
        if states:
            given = {**given, "output_hidden_states": True}
        answer = model(**given, **fixed)
        found = {name: getattr(answer, name) for name in names}
        return {name: kept(value, given) for name, value in found.items()} if real_only else found

    return call


def kept(value: Any, given: dict[str, Any]) -> Any:
    """The rows of [batch, length, ...] tensors where the mask is 1; sequences item by item."""
    if isinstance(value, (list, tuple)):
        return [kept(part, given) for part in value]
    mask = given["attention_mask"]
    return value[mask.bool()] if value.dim() >= 2 and value.shape[:2] == mask.shape else value
