# SPDX-License-Identifier: Apache-2.0
"""The native side: loaded the way FastVideo loads it in production, and proven to be the class that the port means.

`load`, `build_meta`, `declared` and `schema` need a booted FastVideo (`fastvideo_api.boot`). `ask`, `ask_many`, `rules`
and `meta` do not: they ask a child (`python -m fvport.models.native`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import json
import math
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fvport.errors import BlockedError, FvportError
from fvport.models.ask import ask, ask_many, try_many
from fvport.spec import Component, Port

__all__ = ["ask", "ask_many", "forward_context", "load", "meta", "rules", "try_many"]

SHAPE = tuple[tuple[int, ...], str]


# --- asked from anywhere --------------------------------------------------------------------------


def meta(port: Port, component: str, device: str = "auto") -> dict[str, SHAPE]:
    """The native state dict on the meta device: `{name: (shape, dtype)}`, dtype as torch spells it ("float32")."""
    answer = ask(port, "meta", component, device)
    return {name: (tuple(shape), dtype) for name, (shape, dtype) in answer["tensors"].items()}


def rules(port: Port, component: str, device: str = "auto") -> Any:
    """The rules as FastVideo declares them (`weights.mapping.Rules`), or as a load was seen to follow them."""
    from fvport.weights import mapping

    data = ask(port, "rules", component, device)
    if data["inferred"]:
        return mapping.Rules.from_fastvideo(_seen_as_names(data["seen"]), (), "inferred", data["source"])
    names = {p: tuple(t) if isinstance(t, list) else t for p, t in data["param_names_mapping"]}
    return mapping.Rules.from_fastvideo(names, data["stacked_params_mapping"], source=data["source"])


def _seen_as_names(seen: list[list[Any]]) -> dict[str, Any]:
    """One exact rule a checkpoint tensor, from the copies of a watched load; a tensor that went nowhere has none."""
    parts: dict[str, list[tuple[int, str]]] = {}
    for source, target, row, _ in seen:
        if target and all(source != other for _, other in parts.get(target, ())):
            parts.setdefault(target, []).append((row, source))
    names: dict[str, Any] = {}
    for target, found in parts.items():
        for index, (_, source) in enumerate(sorted(found)):
            names.setdefault(f"^{re.escape(source)}$", target if len(found) == 1 else (target, index, len(found)))
    return names


# --- needs a booted FastVideo ---------------------------------------------------------------------


def load(port: Port, name: str) -> Any:
    """The component through FastVideo's production loader on the load tree, fp32, in eval mode.

    Raises BlockedError without a load tree, FvportError where the loader raises, or where the class that it resolved is
    not the port's (mode "port") or not the one that port.toml names (mode "reuse").
    """
    component = port.component(name)
    folder = component_folder(port, component)
    native_class(port, component)
    try:
        module = _production_load(port, component, folder)
    except FvportError:
        raise
    except Exception as error:
        raise FvportError(
            f"FastVideo's loader raised {_words(error)}", where=f"{name} ({_shown(port, folder)})"
        ) from error
    assert_class(port, component, type(module))
    return module


def component_folder(port: Port, component: Component) -> Path:
    """The component's folder in the load tree. Refuses the official folder (FastVideo finds its own class there)."""
    folder = port.load_tree / (component.weights or component.name)
    if not (port.load_tree / "model_index.json").is_file() or not folder.is_dir():
        raise BlockedError(
            f"no load tree for {component.name} ({_shown(port, folder)})", todo="Run: nox -s prep conversion"
        )
    official = port.official_weights
    same = port.load_tree.resolve() == official.resolve()
    inside = (
        component.mode == "port" and folder.resolve() == (official / (component.weights or component.name)).resolve()
    )
    if same or inside:
        raise FvportError(
            f"{component.name}: the native side would load the official folder, where FastVideo finds its own class",
            where=_shown(port, folder),
            todo="Build the load tree again: fvport check conversion",
        )
    return folder


def native_class(port: Port, component: Component) -> type:
    """The class that port.toml names, imported from the workspace (mode "port": from the port's file)."""
    module_name, _, class_name = component.native.partition(":")
    try:
        module = importlib.import_module(module_name)
        cls = getattr(module, class_name)
    except (ImportError, AttributeError) as error:
        raise FvportError(
            f"{component.name}: native class {component.native} cannot be imported ({_words(error)})",
            todo=f"Correct components.{component.name}.native in port.toml or the class's file",
        ) from error
    assert_class(port, component, cls)
    return cls


def assert_class(port: Port, component: Component, cls: type) -> None:
    """Raises FvportError unless `cls` is the class that this component means, from the file that it means."""
    found = f"{cls.__module__}:{cls.__qualname__}"
    file = Path(inspect.getfile(cls)).resolve() if cls.__module__ in sys.modules else Path()
    if found != component.native:
        where = _shown(port, file)
        raise FvportError(
            f"{component.name}: FastVideo resolved {found} ({where}), port.toml says {component.native}; "
            "the comparison would be with another class",
            todo="Give the native class a name of its own, and build the load tree again",
        )
    if component.mode == "port" and file != (port.root / component.native_file).resolve():
        raise FvportError(f"{component.name}: {found} comes from {file}, not from the port's {component.native_file}")
    if not file.is_relative_to(port.root.resolve()):
        raise FvportError(f"{component.name}: {found} comes from {file}, outside the workspace {port.root}")


@contextlib.contextmanager
def forward_context(timestep: int = 0, attn_metadata: Any = None, batch: Any = None) -> Iterator[None]:
    """FastVideo's forward context (a DiT is called inside one), without gradients."""
    import torch
    from fastvideo.forward_context import set_forward_context

    with torch.no_grad(), set_forward_context(timestep, attn_metadata, batch):
        yield


def arguments(port: Port) -> Any:
    """FastVideoArgs for the load tree with the port's pipeline config: one process, nothing offloaded, all fp32."""
    from fastvideo.fastvideo_args import FastVideoArgs

    offloads = ("dit_cpu_offload", "vae_cpu_offload", "text_encoder_cpu_offload", "image_encoder_cpu_offload")
    off = (*offloads, "pin_cpu_memory", "use_fsdp_inference", "dit_layerwise_offload", "enable_torch_compile")
    try:
        args = FastVideoArgs.from_kwargs(model_path=str(port.load_tree), num_gpus=1, **dict.fromkeys(off, False))
    except Exception as error:
        raise FvportError(
            f"FastVideo finds no pipeline config for the load tree ({_words(error)})",
            where=_shown(port, port.load_tree),
            todo="Register the port: fvport workspace",
        ) from error
    set_precision(args.pipeline_config, "fp32")
    return args


def set_precision(config: Any, precision: str) -> None:
    """Every `*precision` and `*_precisions` of a pipeline config, also those that a loader reads with a default."""
    names = [n for n in dir(config) if n.endswith(("precision", "_precisions")) and not n.startswith("_")]
    for name in {*names, "precision", "audio_decoder_precision", "vocoder_precision", "upsampler_precision"}:
        old = getattr(config, name, "")
        if isinstance(old, (tuple, list)):
            setattr(config, name, type(old)(precision for _ in old))
        elif isinstance(old, str):
            setattr(config, name, precision)


def _production_load(port: Port, component: Component, folder: Path) -> Any:
    from fastvideo.models.loader.component_loader import PipelineComponentLoader

    index = json.loads((port.load_tree / "model_index.json").read_text(encoding="utf-8"))
    entry = index.get(component.name) or index.get(component.weights)
    if not isinstance(entry, list) or not entry:
        raise FvportError(
            f"{component.name} is not in the load tree's model_index.json", where=_shown(port, port.load_tree)
        )
    return PipelineComponentLoader.load_module(component.name, str(folder), entry[0], arguments(port))


# --- without weights: the constructor's arguments, the meta device --------------------------------


class _Captured(BaseException):
    """Leaves the production loader at the moment when it would build the native class."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args_, self.kwargs = args, kwargs
        super().__init__()


def constructor(port: Port, component: Component) -> tuple[type, tuple[Any, ...], dict[str, Any]]:
    """(class, args, kwargs) with which the production loader builds the component."""
    cls = native_class(port, component)
    folder = component_folder(port, component)
    original = cls.__init__  # type: ignore[misc]
    own = "__init__" in vars(cls)

    def capture(self: Any, *args: Any, **kwargs: Any) -> None:
        if type(self) is cls:
            raise _Captured(args, kwargs)
        original(self, *args, **kwargs)

    cls.__init__ = capture  # type: ignore[misc]
    try:
        module = _production_load(port, component, folder)
    except _Captured as found:
        return cls, found.args_, found.kwargs
    except FvportError:
        raise
    except Exception as error:
        raise FvportError(
            f"FastVideo's loader raised {_words(error)}", where=f"{component.name} ({_shown(port, folder)})"
        ) from error
    finally:
        if own:
            cls.__init__ = original  # type: ignore[misc]
        else:
            del cls.__init__  # type: ignore[misc]
    assert_class(port, component, type(module))
    raise FvportError(f"{component.name}: the production loader does not build {component.native} itself")


def build_meta(port: Port, component: Component) -> tuple[Any, str]:
    """(module, "meta"); "cpu" for a class that the meta device cannot build; "loaded" for one that wraps another."""
    import torch

    if getattr(native_class(port, component), "supports_hf_from_pretrained", False):
        return load(port, component.name), "loaded"
    cls, args, kwargs = constructor(port, component)
    for device in ("meta", "cpu"):
        try:
            with torch.device(device):
                return cls(*args, **kwargs), device
        except (RuntimeError, NotImplementedError, ValueError):
            if device == "cpu":
                raise
    raise AssertionError("unreachable")


def answer_meta(port: Port, component: Component) -> dict[str, Any]:
    """`{"tensors": {name: [shape, dtype]}, "built_on", "class"}`; parameters and persistent buffers."""
    if not component.has_weights:
        return {"tensors": {}, "built_on": "none", "class": component.native}
    module, built_on = build_meta(port, component)
    tensors = {
        name: [list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]
        for name, tensor in own_tensors(module).items()
    }
    return {"tensors": tensors, "built_on": built_on, "class": component.native}


def own_tensors(module: Any) -> dict[str, Any]:
    """The state dict with each tensor once: one that is tied stands under its first name only.

    Tied means the same object. A loader that breaks a tie makes two of it, and both are here: the second then has no
    source, which `conversion` says.
    """
    seen: set[int] = set()
    found = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if hasattr(tensor, "shape") and id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor
    return found


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
    module, _ = build_meta(port, component)
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
    cls, args, kwargs = constructor(port, component)
    given = [*args, *kwargs.values()]
    config = next((value for value in given if hasattr(value, "arch_config")), None)
    arch = getattr(config, "arch_config", None)
    fresh = type(arch)() if arch is not None else None
    folder = component_folder(port, component)
    pipeline_config = type(arguments(port).pipeline_config)
    return {
        "class": f"{cls.__module__}:{cls.__qualname__}",
        "file": _shown(port, Path(inspect.getfile(cls))),
        "pipeline_config": f"{pipeline_config.__module__}:{pipeline_config.__qualname__}",
        "config_class": f"{type(config).__module__}:{type(config).__qualname__}" if config is not None else "",
        "arch_class": f"{type(arch).__module__}:{type(arch).__qualname__}" if arch is not None else "",
        "arch": _fields(arch),
        "arch_defaults": _fields(fresh),
        "config": {k: v for k, v in _fields(config).items() if k != "arch_config"},
        "arguments": {k: _plain(v) for k, v in kwargs.items() if v is not config},
        "parameters": [p.name for p in inspect.signature(cls).parameters.values()],
        "folder": _shown(port, folder),
    }


def answer_state(port: Port, component: Component) -> dict[str, Any]:
    """Load for real and write the state dict: `{"file": safetensors, "tensors": {name: [shape, dtype]}}`."""
    from safetensors.torch import save_file

    file = port.state / "cache" / "native" / f"{component.name}.state.safetensors"
    if not component.has_weights:
        return {"file": "", "tensors": {}}
    module = load(port, component.name)
    state = {name: t.detach().cpu().contiguous().clone() for name, t in own_tensors(module).items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part")
    save_file(state, str(part))
    os.replace(part, file)
    shapes = {name: [list(t.shape), str(t.dtype).removeprefix("torch.")] for name, t in state.items()}
    return {"file": str(file), "tensors": shapes}


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


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"


def _shown(port: Port, path: Path) -> str:
    try:
        return str(path.resolve().relative_to(port.root.resolve()))
    except ValueError:
        return str(path)


# --- the child of `ask` ---------------------------------------------------------------------------

ANSWERS = {"rules": answer_rules, "meta": answer_meta, "schema": answer_schema, "state": answer_state}


def main(argv: list[str]) -> int:
    """`python -m fvport.models.native PORT_TOML OUT DEVICE what:component ...`: one JSON document in OUT."""
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
