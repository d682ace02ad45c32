# SPDX-License-Identifier: Apache-2.0
"""MistTransformer3DModel against the official MistDenoiser: same weights, same inputs."""
from typing import Any

import torch

from fvport.models.native import forward_context


def call(native: Any, case: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    with forward_context():
        sample = native(hidden_states=case["latents"], timestep=case["time"], encoder_hidden_states=case["text"])
    return {"sample": sample}


def test_mist_transformer_parity(parity: Any) -> None:
    parity.compare("transformer", call)
