# SPDX-License-Identifier: Apache-2.0
"""The child of the attention rows: calls each backend that FastVideo may choose once, and says what came of it.

One JSON document: `{"device", "backends": {FastVideo's name: "works" | why not}}`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any


def main() -> None:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    query, key, value = (torch.randn(1, 128, 2, 64, device=device, dtype=dtype) for _ in range(3))
    expected = _sdpa(query, key, value)
    backends = {}
    for backend, call in CALLS.items():
        try:
            error = (call(query, key, value).float() - expected.float()).abs().max().item()
            backends[backend] = "works" if error < 0.1 else f"answers wrongly (off by {error:.2g})"
        except Exception as error:  # noqa: BLE001 - why a backend does not work is the answer
            backends[backend] = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
    print(json.dumps({"device": name, "backends": backends}))


def _sdpa(query: Any, key: Any, value: Any) -> Any:
    """Tensors (batch, tokens, heads, width), as FastVideo's layers have them."""
    from torch.nn.functional import scaled_dot_product_attention

    parts = (tensor.transpose(1, 2) for tensor in (query, key, value))
    return scaled_dot_product_attention(*parts).transpose(1, 2)


def _flash(query: Any, key: Any, value: Any) -> Any:
    from flash_attn import flash_attn_func

    return flash_attn_func(query, key, value)


def _sage(query: Any, key: Any, value: Any) -> Any:
    from sageattention import sageattn

    return sageattn(query, key, value, tensor_layout="NHD")


CALLS: dict[str, Callable[[Any, Any, Any], Any]] = {"TORCH_SDPA": _sdpa, "FLASH_ATTN": _flash, "SAGE_ATTN": _sage}


if __name__ == "__main__":
    main()
