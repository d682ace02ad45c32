# SPDX-License-Identifier: Apache-2.0
"""Names on both sides for the `mapping_suggest` benchmark, asked of FastVideo itself, in a child.

`python -m benchmarks.mapping_tables ROOT OUT` boots FastVideo from ROOT, finds every native class with a non-empty
mapping, builds it on the meta device at its config's full size, and writes {class: {"native", "official", "truth"}}.
Official names are those of the diffusers or transformers class of that name where there is one and its tensors are
what FastVideo's rules expect; else the checkpoint is not public as a class, and its names are FastVideo's own rules
read backwards. The truth is always what FastVideo's rules make of the official names.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import pkgutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.mapping_inverse import official_names
from fvport.weights.mapping import Rules

# What a class needs to be built without a checkpoint's config.json: values of a published one.
FILLED: dict[str, dict[str, Any]] = {
    "LlamaModel": {"num_key_value_heads": 8, "head_dim": 128},
    "Qwen2_5_VLTextModel": {
        "rope_scaling": {"rope_type": "default", "mrope_section": [16, 24, 24]},
    },
    "CLIPVisionModel": {"num_hidden_layers": 32},
    "T5EncoderModel": {"num_layers": 24},
    "UMT5EncoderModel": {"num_layers": 24},
}
TRANSFORMERS = {  # native class -> (official class, its config), where their names differ
    "LlamaModel": "LlamaModel LlamaConfig",
    "CLIPTextModel": "CLIPTextModel CLIPTextConfig",
    "CLIPVisionModel": "CLIPVisionModel CLIPVisionConfig",
    "Qwen3ForCausalLM": "Qwen3ForCausalLM Qwen3Config",
    "SiglipVisionModel": "SiglipVisionModel SiglipVisionConfig",
    "T5EncoderModel": "T5EncoderModel T5Config",
    "UMT5EncoderModel": "UMT5EncoderModel UMT5Config",
    "Qwen2_5_VLTextModel": "Qwen2ForCausalLM Qwen2Config",
}


def main(root: str, out: str) -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from fvport import fastvideo_api

    fastvideo_api.boot(Path(root), "cpu")
    configs = {name: item for name, item in _classes("fastvideo.configs.models") if name.endswith("Config")}
    tables: dict[str, Any] = {}
    for name, cls in _classes("fastvideo.models.dits", "fastvideo.models.encoders"):
        if not _loads_weights(cls):
            continue
        try:
            table = _table(name, cls, configs)
        except Exception as error:  # noqa: BLE001 - a class that cannot be built here is reported as such
            table = {"reason": f"{type(error).__name__}: {str(error)[:200]}"}
        if table:
            tables[name] = table
            print(name, table.get("origin", table.get("reason")), len(table.get("native", ())), flush=True)
    Path(out).write_text(json.dumps(tables), encoding="utf-8")


def _classes(*packages: str) -> list[tuple[str, type]]:
    found: dict[str, type] = {}
    for package in packages:
        top = importlib.import_module(package)
        for info in pkgutil.walk_packages(top.__path__, package + "."):
            try:
                module = importlib.import_module(info.name)
            except Exception as error:  # noqa: BLE001 - kernels that only a GPU has
                print(f"not importable: {info.name}: {error!r:.100}", flush=True)
                continue
            for name, item in vars(module).items():
                if inspect.isclass(item) and item.__module__ == info.name and item.__name__ == name:
                    found.setdefault(name, item)
    return sorted(found.items())


def _loads_weights(cls: type) -> bool:
    from fastvideo.models.dits.base import BaseDiT
    from fastvideo.models.encoders.base import ImageEncoder, TextEncoder

    entry = getattr(sys.modules[cls.__module__], "EntryClass", ())
    named = cls in (entry if isinstance(entry, (list, tuple)) else (entry,))
    base = issubclass(cls, BaseDiT) and hasattr(cls, "param_names_mapping")
    return not inspect.isabstract(cls) and (base or (named and issubclass(cls, (ImageEncoder, TextEncoder))))


def _table(name: str, cls: type, configs: dict[str, type]) -> dict[str, Any]:
    module, arch = _built(name, cls, configs)
    native = _shapes(module)
    names = getattr(module, "param_names_mapping", None)
    names = names if isinstance(names, dict) and names else getattr(arch, "param_names_mapping", None) or {}
    stacked = getattr(arch, "stacked_params_mapping", None) or []
    if not names and not stacked:
        return {}
    rules = Rules.from_fastvideo(names, stacked)
    for origin, official in (
        ("official class", _official_class(name, arch)),
        ("rules read backwards", official_names(rules, native, _heads(arch))),
    ):
        truth = _truth(rules, official, native)
        covered = len({target for target, _, _ in truth.values()} & set(native))
        if official and covered >= 0.9 * len(native):
            official = {key: shape for key, shape in official.items() if key in truth}
            return {"origin": origin, "rules": len(rules.rules), "native": native, "official": official, "truth": truth}
    return {"reason": f"FastVideo's rules reach {covered} of {len(native)} native names"}


def _heads(arch: Any) -> tuple[int, int]:
    queries = getattr(arch, "num_attention_heads", None) or 1
    return queries, getattr(arch, "num_key_value_heads", None) or queries


def _truth(rules: Rules, official: dict[str, Any], native: dict[str, Any]) -> dict[str, Any]:
    """{official name: (native name, index, count)} for the names that a native tensor waits for."""
    placed = rules.apply(official).placed
    return {item.source: (item.target, item.index, item.count) for item in placed if item.target in native}


def _built(name: str, cls: type, configs: dict[str, type]) -> tuple[Any, Any]:
    import torch

    source = inspect.getsource(sys.modules[cls.__module__])
    parameters = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
    said = str(getattr(parameters.get("config"), "annotation", ""))
    likely = [item for key, item in configs.items() if key in said.replace("'", " ").replace(".", " ").split()]
    likely += [item for key, item in sorted(configs.items(), key=lambda c: -len(c[0])) if key in source]
    likely += [item for key, item in configs.items() if key.removesuffix("Config")[:10] in name]
    problem: Exception = LookupError("no config class for it")
    for item in dict.fromkeys(likely):
        try:
            config = item()
            arch = config.arch_config  # type: ignore[attr-defined]
            for key, value in FILLED.get(name, {}).items():
                setattr(arch, key, value)
            with torch.device("meta"):
                return cls(config, {}) if "hf_config" in parameters else cls(config), arch
        except Exception as error:  # noqa: BLE001 - the next config is tried
            problem = error if isinstance(problem, LookupError) else problem
    raise problem


def _shapes(module: Any) -> dict[str, list[int]]:
    seen: set[int] = set()
    found = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if hasattr(tensor, "shape") and id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = list(tensor.shape)
    return found


def _official_class(name: str, arch: Any) -> dict[str, list[int]]:
    """Names and shapes of the official class, built on the meta device with what the arch config says; {} if none."""
    import diffusers
    import torch
    import transformers

    try:
        if name in TRANSFORMERS:
            model, config = (getattr(transformers, word) for word in TRANSFORMERS[name].split())
            keys = inspect.signature(config.__init__).parameters
            with torch.device("meta"):
                return _shapes(model(config(**_values(arch, keys))))
        cls = getattr(diffusers, name, None)
        if cls is None:
            return {}
        with torch.device("meta"):
            return _shapes(cls(**_values(arch, inspect.signature(cls.__init__).parameters)))
    except Exception as error:  # noqa: BLE001 - then the rules are read backwards
        print(f"no official {name}: {error!r:.200}", flush=True)
        return {}


def _values(arch: Any, keys: Any) -> dict[str, Any]:
    return {
        key: getattr(arch, key)
        for key in keys
        if hasattr(arch, key) and key not in ("self", "dtype", "torch_dtype", "layer_types")
    }


if __name__ == "__main__":
    main(*sys.argv[1:3])
