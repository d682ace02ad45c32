# SPDX-License-Identifier: Apache-2.0
"""Archetype templates rendered without a bake, imported with real FastVideo, loaded with random official weights."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import itertools
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fvport.scaffold import library, render

SITE = Path(str(importlib.metadata.distribution("fastvideo").locate_file("")))
ROOT = Path(__file__).parents[1]
_COUNT = itertools.count()


def context(archetype: str, official: str, config: dict[str, Any], **more: Any) -> tuple[Any, Any]:
    """`p` and `c` as a bake makes them, with a slug of their own so that several can live in one process."""
    number = next(_COUNT)
    prefix = more.pop("prefix", f"ArchTest{number}")
    slug = more.pop("slug", f"arch_test_{number}")
    found = library.get(archetype)
    bucket, kind = found.data["bucket"], found.data["kind"]
    native, config_class, arch = (name.replace("{prefix}", prefix) for name in found.class_templates(official))
    p = SimpleNamespace(model="Arch Test", slug=slug, prefix=prefix, defaults=more.pop("defaults", {}))
    c = SimpleNamespace(
        name=more.pop("name", kind),
        kind=kind,
        bucket=bucket,
        official=official,
        official_class=official.partition(":")[2],
        native_module=f"fastvideo.models.{bucket}.{slug}",
        native_class=native,
        config_module=f"fastvideo.configs.models.{bucket}.{slug}",
        config_class=config_class,
        arch_class=arch,
        config=config,
        tensors=more.pop("tensors", {}),
        folder=more.pop("folder", kind),
        tokenizer=more.pop("tokenizer", ""),
        archetype=archetype,
    )
    return p, c


def text(archetype: str, template: str, p: Any, c: Any) -> str:
    return render.render(f"{archetype}/{template}", p, c)


def module(name: str, source: str, folder: Path) -> types.ModuleType:
    """`source` as a module of this name (a FastVideo path too), without a file in FastVideo's own tree."""
    file = folder / f"{name}.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source, encoding="utf-8")
    # A fault of the same length within the same second would be read from the bytecode of what it replaced.
    Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)  # type: ignore[union-attr]
    return made


def native(archetype: str, p: Any, c: Any, folder: Path) -> tuple[type, Any]:
    """(native class, config object brought up to date with the official JSON as FastVideo's loaders do)."""
    made = module(c.config_module, text(archetype, "config.py.jinja", p, c), folder)
    config = getattr(made, c.config_class)()
    config.update_model_arch({k: v for k, v in json.loads(json.dumps(c.config)).items() if not k.startswith("_")})
    config.arch_config.architectures = [c.native_class]
    cls = getattr(module(c.native_module, text(archetype, "native.py.jinja", p, c), folder), c.native_class)
    return cls, config


def oracle(archetype: str, p: Any, c: Any, folder: Path) -> types.ModuleType:
    return module(f"oracle_{p.slug}", text(archetype, "oracle.py.jinja", p, c), folder)


def call(archetype: str, p: Any, c: Any, folder: Path) -> Any:
    return module(f"parity_{p.slug}", text(archetype, "parity_test.py.jinja", p, c), folder).call


def load_dit(cls: type, config: Any, weights: Iterator[tuple[str, Any]], dtype: Any = None) -> Any:
    """Built on the meta device and filled by FastVideo's own loader, strictly."""
    import torch
    from fastvideo.models.loader.fsdp_load import load_model_from_full_model_state_dict, set_default_dtype
    from fastvideo.models.loader.utils import get_param_names_mapping

    dtype = dtype or torch.float32
    with set_default_dtype(dtype), torch.device("meta"):
        model = cls(config=config, hf_config={})
    load_model_from_full_model_state_dict(
        model,
        weights,
        torch.device("cpu"),
        dtype,
        strict=True,
        param_names_mapping=get_param_names_mapping(model.param_names_mapping),
    )
    return model.eval()


def worst(a: dict[str, Any], b: dict[str, Any]) -> dict[str, float]:
    """Largest difference of each output, relative to the largest value of `a`. Both must have the same outputs."""
    assert sorted(a) == sorted(b), f"outputs differ: {sorted(a)} and {sorted(b)}"
    found = {}
    for name, ours in a.items():
        assert ours.shape == b[name].shape, f"{name}: {tuple(ours.shape)} and {tuple(b[name].shape)}"
        scale = float(ours.double().abs().max()) or 1.0
        found[name] = float((ours.double() - b[name].double()).abs().max()) / scale
    return found


def make_official() -> types.ModuleType:
    name = "tiny_wan_make_official"
    if name not in sys.modules:
        file = ROOT / "examples/tiny_wan/make_official.py"
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])  # type: ignore[union-attr]
    return sys.modules[name]
