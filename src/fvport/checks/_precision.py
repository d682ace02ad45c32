# SPDX-License-Identifier: Apache-2.0
"""The precision that production computes in, against the one that the checkpoint is stored in.

The gate compares in float32, whatever the pipeline config says, so its calls cannot show a VAE that ships in half
precision. What the config says is compared: it is float32, or what the checkpoint stores, or bfloat16 for a model whose
blocks `parity` compares in it. Anything else was run by nobody.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fvport.errors import FvportError
from fvport.evidence import Item
from fvport.models import precisions
from fvport.spec import Component, Port

Json = dict[str, Any]
WEIGHTS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
BLOCKS = {"dit", "text_encoder", "image_encoder"}  # what `parity` runs in bf16, block by block
TODO = (
    "Set {field} of the pipeline config to {good}, or say in components.{name}.config_ignored why production "
    "may compute in it: {field}"
)


def asked(c: Component) -> bool:
    """Components that have such an item."""
    return c.kind in precisions.FIELDS and c.mode in ("port", "reuse") and c.has_weights


def accepted(c: Component) -> set[str]:
    """Keys of `config_ignored` in which a person says why production computes in less."""
    return set(precisions.FIELDS[c.kind]) if asked(c) else set()


def item(port: Port, c: Component, own: Json) -> Item:
    """`own`: `{field: value}` of the pipeline config as it ships, before the gate sets it to float32."""
    name = f"{c.name}: precision"
    if not own:
        return Item(name, "blocked", f"{name}: FastVideo did not say what the pipeline config ships", component=c.name)
    try:
        stored = stored_in(port.load_tree / (c.weights or c.name))
        if stored is None:
            raise FvportError("the load tree has no weights of it that can be read")
    except FvportError as error:
        return Item(name, "blocked", f"{name}: {error}", component=c.name)
    used = precisions.shipped(port, c, own)
    said = ", ".join(f"{field} {value}" for field, value in used.items())
    wrong = {field: value for field, value in used.items() if not _known(c, value, stored)}
    excused = {field: c.config_ignored.get(field, "").strip() for field in wrong}
    figures = {"stored": stored or "another dtype", **used}
    for field, value in wrong.items():
        if not excused[field]:
            what = f"{c.name}: {field} is {value}, and the checkpoint stores {stored or 'another dtype'}"
            what += f": no check computes {_what(c)} in it"
            good = " or ".join(dict.fromkeys(word for word in (stored, "fp32") if word))
            todo = TODO.format(field=field, good=good, name=c.name)
            return Item(name, "fail", what, figures, component=c.name, todo=todo)
    reason = f"by declaration: {'; '.join(excused.values())}" if wrong else said
    return Item(name, "pass", reason, figures, component=c.name)


def stored_in(folder: Path) -> str | None:
    """FastVideo's word for the dtype of most values in a load tree's folder; '' for one that it has no word for, None
    where no weights are.
    """
    from fvport.weights import manifest

    files = sorted(file for file in folder.glob("*") if file.suffix in WEIGHTS)
    found = [(tensor.dtype, tensor.shape) for file in files for tensor in manifest.read_any(file).values()]
    return precisions.stored(found) if found else None


def _known(c: Component, value: str, stored: str) -> bool:
    return value in ("fp32", stored) or (value == "bf16" and c.kind in BLOCKS)


def _what(c: Component) -> str:
    return "its blocks" if c.kind in BLOCKS else "a VAE"
