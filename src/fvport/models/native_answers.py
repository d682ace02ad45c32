# SPDX-License-Identifier: Apache-2.0
"""The child of `models.ask`: boots FastVideo once and answers questions about native components as JSON.

`python -m fvport.models.native_answers PORT_TOML OUT DEVICE what:component ...`
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

from fvport.models import native
from fvport.spec import Component, Port


def answer_meta(port: Port, component: Component) -> dict[str, Any]:
    """`{"tensors": {name: [shape, dtype]}, "built_on", "class"}`; parameters and persistent buffers."""
    if not component.has_weights:
        return {"tensors": {}, "built_on": "none", "class": component.native}
    module, built_on = native.build_meta(port, component)
    tensors = {
        name: [list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]
        for name, tensor in native.own_tensors(module).items()
    }
    return {"tensors": tensors, "built_on": built_on, "class": component.native}


def answer_rules(port: Port, component: Component) -> dict[str, Any]:
    """The declaration as data; `rules` makes `weights.mapping.Rules` of it.

    `param_names_mapping` holds ordered [pattern, target] or [pattern, [target, index, count]], `stacked_params_mapping`
    [target, source, shard]; `inferred` says that `seen` holds [source, target, first row, rows] of a watched load.
    """
    data: dict[str, Any] = {"component": component.name, "class": component.native, "kind": component.kind}
    data |= {"param_names_mapping": [], "stacked_params_mapping": [], "identity": False, "inferred": False, "seen": []}
    if not component.has_weights:
        return {**data, "identity": True, "source": "no weights"}
    is_encoder = component.bucket == "encoders"
    if is_encoder and component.mode != "port":
        from fvport.models import watch

        module, seen = watch.load(port, component)
        return {**data, "inferred": True, "seen": seen, "source": f"watched load of {type(module).__name__}"}
    module, _ = native.build_meta(port, component)
    arch = getattr(getattr(module, "config", None), "arch_config", None)
    names = getattr(module, "param_names_mapping", None) or getattr(arch, "param_names_mapping", None) or {}
    stacked = getattr(arch, "stacked_params_mapping", None) or [] if is_encoder else []
    pairs = names.items() if isinstance(names, dict) else names
    data["param_names_mapping"] = [[p, list(t) if isinstance(t, (tuple, list)) else t] for p, t in pairs]
    data["stacked_params_mapping"] = [list(row) for row in stacked]
    data["identity"] = not data["param_names_mapping"] and not data["stacked_params_mapping"]
    return {**data, "source": f"{component.config or component.native}"}


def answer_schema(port: Port, component: Component) -> dict[str, Any]:
    """Class, file, pipeline config, and the config's fields after FastVideo's own update of it."""
    cls, args, kwargs = native.constructor(port, component)
    given = [*args, *kwargs.values()]
    config = next((value for value in given if hasattr(value, "arch_config")), None)
    if config is None and component.mode == "port" and any(isinstance(value, dict) for value in given):
        # FastVideo hands config.json itself to some kinds; what the class made of it counts.
        config = getattr(native.build_meta(port, component)[0], "config", None)
    arch = getattr(config, "arch_config", None)
    fresh = type(arch)() if arch is not None else None
    folder = native.component_folder(port, component)
    pipeline_config = type(native.arguments(port).pipeline_config)
    return {
        "class": f"{cls.__module__}:{cls.__qualname__}",
        "file": native.shown(port, Path(inspect.getfile(cls))),
        "pipeline_config": f"{pipeline_config.__module__}:{pipeline_config.__qualname__}",
        "config_class": f"{type(config).__module__}:{type(config).__qualname__}" if config is not None else "",
        "arch_class": f"{type(arch).__module__}:{type(arch).__qualname__}" if arch is not None else "",
        "arch": _fields(arch),
        "arch_defaults": _fields(fresh),
        "config": {k: v for k, v in _fields(config).items() if k != "arch_config"},
        "arguments": {k: _plain(v) for k, v in kwargs.items() if v is not config},
        "parameters": [p.name for p in inspect.signature(cls).parameters.values()],
        "folder": native.shown(port, folder),
    }


def answer_state(port: Port, component: Component) -> dict[str, Any]:
    """Load for real and write the state dict: `{"file": safetensors, "tensors": {name: [shape, dtype]}}`."""
    from safetensors.torch import save_file

    file = port.state / "cache" / "native" / f"{component.name}.state.safetensors"
    if not component.has_weights:
        return {"file": "", "tensors": {}}
    module = native.load(port, component.name)
    state = {name: t.detach().cpu().contiguous().clone() for name, t in native.own_tensors(module).items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part")
    save_file(state, str(part))
    os.replace(part, file)
    shapes = {name: [list(t.shape), str(t.dtype).removeprefix("torch.")] for name, t in state.items()}
    return {"file": str(file), "tensors": shapes}


def answer_prototype(port: Port, component: Component) -> dict[str, Any]:
    """Names and shapes without weights, on the meta device and with random values."""
    from fvport.models import native_prototype

    return native_prototype.answer(port, component)


def _fields(config: Any) -> dict[str, Any]:
    if config is None:
        return {}
    if dataclasses.is_dataclass(config):
        return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
    return {key: _plain(value) for key, value in vars(config).items()}


def _plain(value: Any) -> Any:
    """JSON of a config value: what JSON does not know becomes its repr."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if hasattr(value, "tolist"):  # a tensor or an array: short ones by value
        return value.tolist() if math.prod(value.shape) <= 1024 else f"{tuple(value.shape)} {value.dtype}"
    return getattr(value, "name", None) or getattr(value, "__name__", None) or repr(value)


# --- the child of `ask` ---------------------------------------------------------------------------

ANSWERS = {
    "rules": answer_rules,
    "meta": answer_meta,
    "schema": answer_schema,
    "state": answer_state,
    "prototype": answer_prototype,
}


def main(argv: list[str]) -> int:
    """`python -m fvport.models.native_answers PORT_TOML OUT DEVICE what:component ...`: one JSON document in OUT."""
    from fvport import fastvideo_api, spec
    from fvport.models import forked

    forked.interrupt_on_sigterm()
    file, out, device, *words = argv
    port = spec.parse(Path(file))
    fastvideo_api.boot(port.root, device, distributed=False, backend=port.fastvideo.attention_backend)
    answers = {}
    for word in words:
        what, _, name = word.partition(":")
        component = port.component(name)

        def answer(what: str = what, component: Component = component) -> Any:
            fastvideo_api.init_distributed()
            return ANSWERS[what](port, component)

        log = Path(out).with_name(f"{name}.{what}.{os.getpid()}.log")
        outcome = forked.run(answer, name=f"{name} ({what})", log=log, timeout=1500)
        if outcome.status == "done":
            answers[word] = {"value": outcome.value}
            log.unlink(missing_ok=True)
        else:
            answers[word] = {"error": outcome.message, "status": outcome.status, "todo": outcome.todo}
    part = Path(out).with_suffix(".part")
    part.write_text(json.dumps(answers), encoding="utf-8")
    os.replace(part, out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
