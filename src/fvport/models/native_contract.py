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
    sound = component.kind == "audio_encoder"
    return {"processor": _guarded(processor, port, found, sound)} if found is not None else {}


def _guarded(function: Any, *arguments: Any) -> dict[str, Any]:
    try:
        return dict(function(*arguments))
    except Exception as error:  # noqa: BLE001 - FastVideo may raise anything; the check says it in one sentence
        return {"error": native_facts.words(error)}


def tokens(port: Port, component: Component) -> dict[str, Any]:
    """`{"facts", "cases", "kwargs", "first_side", "by", "staged", "own_stage"}`: the tokenizer, and ids as FastVideo's
    text stage makes them (`staged`). `own_stage`: the port's pipeline does not use that stage.
    """
    from fastvideo.models.loader.component_loader import TokenizerLoader

    asked = {"encoders": [component.name], "prompts": native_facts.PROMPTS}
    found = dict(native_facts.tokens(port, asked)[component.name])
    args = native.arguments(port)
    loaded = TokenizerLoader().load(str(port.load_tree / component.tokenizer), args)
    try:
        found = {**found, "cases": staged(port, component, loaded, args), "by": "TextEncodingStage"}
    except Exception as error:  # noqa: BLE001 - a pipeline with a stage of its own: the tokenizer is called as it would be
        found["by"] = f"the tokenizer itself ({native_facts.words(error)})"
    found["staged"] = found["by"] == "TextEncodingStage"
    found["own_stage"] = facts.own_text_stage(port)
    if "error" in found and not found.get("cases"):
        return found
    found.pop("error", None)
    first = getattr(args.pipeline_config.text_encoder_configs[0].arch_config, "padding_side", None)
    return {**found, "facts": tokenizer.facts(loaded), "first_side": first or ""}


class _Seen(BaseException):
    """Leaves FastVideo's text stage at the moment when it would call the encoder."""

    def __init__(self, ids: Any, mask: Any) -> None:
        self.ids, self.mask = ids, mask
        super().__init__()


def staged(port: Port, component: Component, loaded: Any, args: Any) -> dict[str, Any]:
    """`{case: {"ids", "mask"}}` that FastVideo's own text stage hands to the encoder: preprocessing, chat template,
    padding and lengths are its own. Raises what the stage raises before that.
    """
    import torch
    from fastvideo.pipelines.stages.text_encoding import TextEncodingStage

    class StandIn(torch.nn.Module):
        def forward(self, input_ids: Any, attention_mask: Any = None, **more: Any) -> Any:
            raise _Seen(input_ids, attention_mask)

    names = [n for n, c in port.components.items() if c.kind == "text_encoder" and c.mode != "passthrough"]
    index = names.index(component.name)
    config = args.pipeline_config.text_encoder_configs[index]
    config.update_model_arch(native_facts._loader_config(port.load_tree / (component.weights or component.name)))
    parts: list[Any] = [None] * len(names)
    tokenizers: list[Any] = [None] * len(names)
    parts[index], tokenizers[index] = StandIn(), loaded
    stage, found = TextEncodingStage(parts, tokenizers), {}
    for case, prompts in native_facts.PROMPTS.items():
        try:
            stage.encode_text(list(prompts), args, encoder_index=[index])
        except _Seen as seen:
            mask = seen.mask.tolist() if seen.mask is not None else None
            found[case] = {"ids": seen.ids.tolist(), "mask": mask}
    return found


def processor(port: Port, component: Component, sound: bool) -> dict[str, Any]:
    """`{"class", "cases", "by", "staged"}` from the load tree: FastVideo's loader for images (`staged`); it has none
    for sound, where the library reads the files that FastVideo would be given.
    """
    folder = str(port.load_tree / (component.weights or component.name))
    if sound:
        from transformers import AutoFeatureExtractor

        loaded = AutoFeatureExtractor.from_pretrained(folder)
    else:
        from fastvideo.models.loader.component_loader import ImageProcessorLoader

        loaded = ImageProcessorLoader().load(folder, native.arguments(port))
    by = "transformers, from the load tree's files (FastVideo loads no preprocessor of sound)" if sound else ""
    return {"class": type(loaded).__name__, "cases": tokenizer.processed(loaded), "by": by, "staged": not sound}
