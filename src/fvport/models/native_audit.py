# SPDX-License-Identifier: Apache-2.0
"""The native side of a census case: built by FastVideo's production loader from a checkpoint folder that was written
by the official class. Needs a booted FastVideo.

`build(case, folder)` -> the native object. Loaders: transformer, vae, text_encoder, image_encoder, audio, vocoder,
upsampler, conditioner, scheduler (FastVideo's own); plain: the class on its config, strict state dict; encoder_class:
the same with the encoder's own `load_weights`.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from fvport.audit.case import Case
from fvport.errors import FvportError
from fvport.models import native

LOADERS = {
    "transformer": "TransformerLoader",
    "vae": "VAELoader",
    "text_encoder": "TextEncoderLoader",
    "image_encoder": "ImageEncoderLoader",
    "audio": "AudioDecoderLoader",
    "vocoder": "VocoderLoader",
    "upsampler": "UpsamplerLoader",
    "conditioner": "ConditionerLoader",
    "scheduler": "SchedulerLoader",
}


def locate(name: str) -> Any:
    """The object that `module:name` names."""
    module, _, attribute = name.partition(":")
    found = importlib.import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    return found


def build(case: Case, folder: Path) -> Any:
    """The native object of a case. Raises FvportError where FastVideo resolves another class than the case names."""
    import torch

    if case.loader in ("plain", "encoder_class"):
        return plain(case, folder)
    module = production(case, folder)
    found = f"{type(module).__module__}:{type(module).__qualname__}"
    if found != case.native and type(module) is not locate(case.native):
        raise FvportError(f"FastVideo resolved {found}, the census expects {case.native}")
    return module.float().eval() if isinstance(module, torch.nn.Module) else module


def production(case: Case, folder: Path) -> Any:
    """What FastVideo's own loader makes of the folder."""
    from fastvideo.models.loader import component_loader

    loader = getattr(component_loader, LOADERS[case.loader])()
    return loader.load(str(folder), arguments(case, folder))


def arguments(case: Case, folder: Path) -> Any:
    """FastVideoArgs with the case's config in a plain pipeline config: one process, fp32, nothing offloaded."""
    from fastvideo.configs.pipelines.base import PipelineConfig
    from fastvideo.fastvideo_args import FastVideoArgs

    pipeline = PipelineConfig()
    if case.native_config:
        config = configured(case)
        slot = {"transformer": "dit_config", "audio": "audio_vae_config"}
        if case.loader == "text_encoder":
            pipeline.text_encoder_configs = (config,)
            pipeline.text_encoder_precisions = ("fp32",)
        else:
            setattr(pipeline, slot.get(case.loader, f"{case.loader}_config"), config)
    pipeline.flow_shift = case.settings.get("flow_shift")
    off = ("dit_cpu_offload", "vae_cpu_offload", "text_encoder_cpu_offload", "image_encoder_cpu_offload")
    more = ("pin_cpu_memory", "use_fsdp_inference", "dit_layerwise_offload", "enable_torch_compile")
    args = FastVideoArgs(
        model_path=str(folder.parent), num_gpus=1, pipeline_config=pipeline, **dict.fromkeys((*off, *more), False)
    )
    args.pipeline_config = pipeline
    native.set_precision(pipeline, "fp32")
    args.hsdp_shard_dim = args.hsdp_shard_dim or 1
    return args


def configured(case: Case) -> Any:
    """The native config with the case's settings on it or on its arch config."""
    config = locate(case.native_config)()
    for key, value in case.settings.items():
        if key == "flow_shift":
            continue
        arch = getattr(config, "arch_config", config)
        setattr(config if hasattr(type(config), key) or key in vars(config) else arch, key, value)
    return config


def plain(case: Case, folder: Path) -> Any:
    """The class on its updated config, and the checkpoint's tensors strictly: for classes that no loader builds."""
    import torch
    from safetensors.torch import load_file

    file = next(folder.glob("*config.json"))
    record = json.loads(file.read_text(encoding="utf-8"))
    cls = locate(case.native)
    if case.native_config:
        config = configured(case)
        config.update_model_arch({k: v for k, v in record.items() if not k.startswith("_")})
        module = cls(config)
        if case.loader == "encoder_class":
            return with_own_loader(module, folder)
    else:
        module = case.build(cls, record) if case.build else cls(record)
    files = sorted(folder.glob("*.safetensors"))
    if files and isinstance(module, torch.nn.Module):
        tensors = {k: v for file in files for k, v in load_file(str(file)).items()}
        module.load_state_dict(tensors, strict=True)
    return module.float().eval() if isinstance(module, torch.nn.Module) else module


def with_own_loader(module: Any, folder: Path) -> Any:
    """An encoder class filled by its own `load_weights`, and every parameter of it; no transformers class in its place.

    Production puts the transformers class there where `supports_hf_from_pretrained` is set: that would compare the
    official class with itself.
    """
    from safetensors.torch import load_file

    tensors = [pair for file in sorted(folder.glob("*.safetensors")) for pair in load_file(str(file)).items()]
    missing = {name for name, _ in module.named_parameters()} - set(module.load_weights(iter(tensors)))
    if missing:
        raise ValueError(f"Following weights were not initialized from checkpoint: {sorted(missing)}")
    return module.float().eval()


def call(case: Case, module: Any, given: dict[str, Any]) -> Any:
    """The native outputs, inside FastVideo's forward context."""
    with native.forward_context():
        return case.theirs(module, given)
