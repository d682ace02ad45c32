# SPDX-License-Identifier: Apache-2.0
"""A tokenizer or preprocessor as data. Both sides use this one file (by its path where fvport may not be imported)."""

from __future__ import annotations

import hashlib
import json
from typing import Any

SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")


def facts(tokenizer: Any) -> dict[str, Any]:
    """Class, special tokens with their ids, sides, length, chat template, vocabulary's size."""
    inner = getattr(tokenizer, "tokenizer", tokenizer)  # a processor's own tokenizer
    template = getattr(inner, "chat_template", None) or ""
    text = template if isinstance(template, str) else json.dumps(template, sort_keys=True)
    return {
        "class": type(inner).__name__,
        "special": {name: _special(inner, name) for name in SPECIAL},
        "padding_side": getattr(inner, "padding_side", ""),
        "truncation_side": getattr(inner, "truncation_side", ""),
        "model_max_length": min(int(getattr(inner, "model_max_length", 0) or 0), 1 << 30),
        "chat_template": hashlib.sha256(text.encode()).hexdigest()[:16] if text else "",
        "vocabulary": len(inner) if hasattr(inner, "__len__") else 0,
    }


def _special(tokenizer: Any, name: str) -> list[Any] | None:
    token = getattr(tokenizer, name, None)
    return [str(token), getattr(tokenizer, f"{name}_id", None)] if token is not None else None


def ids_of(value: Any) -> Any:
    """Lists of numbers of a tensor, an array or a list."""
    return value.tolist() if hasattr(value, "tolist") else [list(row) for row in value]


# --- images and sound -------------------------------------------------------------------------------------------------


def pictures() -> dict[str, Any]:
    """Images that a preprocessor may get wrong, (height, width, 3) uint8: oblong, one colour, tiny, loud edges."""
    import numpy as np

    random = np.random.default_rng(11)
    wide, edges = random.integers(0, 256, (37, 91, 3), dtype=np.uint8), np.zeros((64, 48, 3), np.uint8)
    edges[::2] = 255
    grey = np.full((33, 33, 3), 94, np.uint8)
    return {"wide": wide, "edges": edges, "grey": grey, "tiny": random.integers(0, 256, (5, 9, 3), dtype=np.uint8)}


def sounds(rate: int) -> dict[str, Any]:
    """Mono waves in [-1, 1]: noise, a tone with silence behind it, silence."""
    import numpy as np

    random, time = np.random.default_rng(7), np.arange(rate // 4) / rate
    tone = np.concatenate([0.5 * np.sin(2 * np.pi * 440 * time), np.zeros(rate // 8)]).astype(np.float32)
    return {"noise": random.uniform(-1, 1, rate // 4).astype(np.float32), "tone": tone, "silence": 0 * tone}


def processed(processor: Any) -> dict[str, Any]:
    """`{case: {output: {"shape", "dtype", "values"}}}` of an image processor or a feature extractor."""
    rate = int(getattr(processor, "sampling_rate", 0) or 0)
    inner = getattr(processor, "image_processor", processor)
    given = sounds(rate) if rate else pictures()
    found: dict[str, Any] = {}
    for case, value in given.items():
        out = inner(value, sampling_rate=rate, return_tensors="pt") if rate else inner(value, return_tensors="pt")
        found[case] = {name: _summary(tensor) for name, tensor in dict(out).items() if hasattr(tensor, "shape")}
    return found


def _summary(tensor: Any) -> dict[str, Any]:
    """Shape, dtype, and 64 values spread over the tensor with its mean: what a difference is measured on."""
    flat = tensor.detach().double().flatten()
    step = max(1, flat.numel() // 64)
    values = [*flat[::step][:64].tolist(), float(flat.mean()) if flat.numel() else 0.0]
    return {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch."), "values": values}
