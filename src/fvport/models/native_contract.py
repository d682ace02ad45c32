# SPDX-License-Identifier: Apache-2.0
"""FastVideo's tokenizers and preprocessors as data, as its loaders give them for a port. Needs a booted FastVideo."""

from __future__ import annotations

from typing import Any

from fvport.contract import facts, tokenizer
from fvport.models import native, native_facts
from fvport.spec import Component, Port


def of(port: Port, component: Component) -> dict[str, Any]:
    """`{"tokens"}` of a text encoder, `{"processor"}` of an image or audio encoder, {} of neither; never raises."""
    if facts.has_tokens(component):
        return {"tokens": _guarded(tokens, port, component)}
    found = facts.processor_of(port, component)
    return {"processor": _guarded(processor, port, found)} if found is not None else {}


def _guarded(function: Any, *arguments: Any) -> dict[str, Any]:
    try:
        return dict(function(*arguments))
    except Exception as error:  # noqa: BLE001 - FastVideo may raise anything; the check says it in one sentence
        return {"error": native_facts.words(error)}


def tokens(port: Port, component: Component) -> dict[str, Any]:
    """`{"facts", "cases", "kwargs", "first_side"}`: ids as FastVideo's text stage makes them, and the tokenizer."""
    from fastvideo.models.loader.component_loader import TokenizerLoader

    asked = {"encoders": [component.name], "prompts": native_facts.PROMPTS}
    found = native_facts.tokens(port, asked)[component.name]
    if "error" in found:
        return dict(found)
    args = native.arguments(port)
    loaded = TokenizerLoader().load(str(port.load_tree / component.tokenizer), args)
    first = getattr(args.pipeline_config.text_encoder_configs[0].arch_config, "padding_side", None)
    return {**found, "facts": tokenizer.facts(loaded), "first_side": first or ""}


def processor(port: Port, component: Component) -> dict[str, Any]:
    """`{"class", "cases"}` of FastVideo's image processor loader, on the load tree."""
    from fastvideo.models.loader.component_loader import ImageProcessorLoader

    folder = port.load_tree / (component.weights or component.name)
    loaded = ImageProcessorLoader().load(str(folder), native.arguments(port))
    return {"class": type(loaded).__name__, "cases": tokenizer.processed(loaded)}
