# SPDX-License-Identifier: Apache-2.0
"""MistTextEncoder against the official class of that name: same weights, same tokens."""
from typing import Any

import torch

from fvport.models.native import forward_context


def call(native: Any, case: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    with forward_context():
        result = native(input_ids=case["tokens"], attention_mask=case["mask"])
    real = case["mask"].bool()
    found = {"states": result.last_hidden_state[real]}
    if not bool(real.all()):
        found["states.padding"] = result.last_hidden_state[~real]
    return found


def test_mist_text_encoder_parity(parity: Any) -> None:
    parity.compare("text_encoder", call)
