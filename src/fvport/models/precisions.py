# SPDX-License-Identifier: Apache-2.0
"""In which precision each component ships: the pipeline config's fields, as FastVideo's loaders and stages read them.

The gate computes in float32 whatever they say (`native.set_precision`); what they say is what users get.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from fvport.spec import Component, Port

FIELDS = {  # kind -> fields of the pipeline config; one that ends in s has an entry a component
    "dit": ("dit_precision",),
    "vae": ("vae_precision", "vae_decode_precision"),
    "text_encoder": ("text_encoder_precisions",),
    "image_encoder": ("image_encoder_precision",),
}
WORDS = {"F64": "fp32", "F32": "fp32", "BF16": "bf16", "F16": "fp16"}  # as a header says it -> FastVideo's word
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def stored(tensors: Iterable[tuple[str, tuple[int, ...]]]) -> str:
    """FastVideo's word for the dtype of most values of (dtype, shape)s; '' where it has no word, or there are none."""
    counts: dict[str, int] = {}
    for dtype, shape in tensors:
        counts[dtype] = counts.get(dtype, 0) + math.prod(shape)
    return WORDS.get(max(counts, key=lambda dtype: counts[dtype]), "") if counts else ""


def shipped(port: Port, c: Component, own: Mapping[str, Any]) -> dict[str, str]:
    """{field: the precision that this component gets of it}; `own`: the pipeline config's fields."""
    same = [other.name for other in port.components.values() if other.kind == c.kind and other.mode != "passthrough"]
    index = same.index(c.name)
    found: dict[str, str] = {}
    for field in FIELDS[c.kind]:
        value = own.get(field)
        if field == "image_encoder_precision" and own.get("image_encoder_configs"):
            several = own.get("image_encoder_precisions") or ()
            value = several[index] if index < len(several) else value
        elif isinstance(value, list | tuple):
            value = value[index] if index < len(value) else None
        if field == "vae_decode_precision":
            value = value or own.get("vae_precision")
        found[field] = str(value)
    return found


def coarsest(port: Port, own: Mapping[str, Any]) -> str:
    """The dtype, as torch spells it, of the coarsest precision that any component ships in."""
    parts = [c for c in port.components.values() if c.kind in FIELDS and c.mode not in ("passthrough", "external")]
    used = {value for c in parts for value in shipped(port, c, own).values()}
    return next((DTYPES[word] for word in ("bf16", "fp16") if word in used), "float32")
