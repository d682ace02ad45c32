# SPDX-License-Identifier: Apache-2.0
"""The native side: loaded the way FastVideo loads it in production, and proven to be the class that the port means.

`load`, `build_meta`, `declared` and `schema` need a booted FastVideo (`fastvideo_api.boot`). `ask`, `ask_many`, `rules`
and `meta` do not: they ask a child (`models.native_answers`).
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fvport.errors import BlockedError, FvportError
from fvport.models import native_encoders, native_parallel
from fvport.models.ask import ask, ask_many, try_many
from fvport.spec import Component, Port
from fvport.words import module_name
from fvport.workspace import entries

__all__ = ["ask", "ask_many", "forward_context", "load", "meta", "rules", "try_many"]

SHAPE = tuple[tuple[int, ...], str]


# --- asked from anywhere --------------------------------------------------------------------------


def meta(port: Port, component: str, device: str = "auto") -> dict[str, SHAPE]:
    """The native state dict on the meta device: `{name: (shape, dtype)}`, dtype as torch spells it ("float32")."""
    answer = ask(port, "meta", component, device)
    return {name: (tuple(shape), dtype) for name, (shape, dtype) in answer["tensors"].items()}


def rules(port: Port, component: str, device: str = "auto") -> Any:
    """The rules as FastVideo declares them (`weights.mapping.Rules`), or as a load was seen to follow them."""
    return as_rules(ask(port, "rules", component, device))


def as_rules(data: dict[str, Any]) -> Any:
    """`weights.mapping.Rules` of an answer to `rules`."""
    from fvport.weights import mapping

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


def load(port: Port, name: str, precision: str = "fp32") -> Any:
    """The component through FastVideo's production loader on the load tree, in eval mode.

    Raises BlockedError without a load tree, FvportError where the loader raises, or where the class that it resolved is
    not the port's (mode "port") or not the one that port.toml names (mode "reuse").
    """
    component = port.component(name)
    folder = component_folder(port, component)
    native_class(port, component)
    own_name(port, component)
    try:
        module = _production_load(port, _whole(port, component), folder, precision)
    except FvportError:
        raise
    except Exception as error:
        raise FvportError(
            f"FastVideo's loader raised {_words(error)}", where=f"{name} ({shown(port, folder)})"
        ) from error
    if module is None:
        what = f"FastVideo's loader gives nothing for a component of the name {name}"
        raise FvportError(what, where=shown(port, folder), todo=f"Bake it as {name}=port, or mend FastVideo's loader")
    if component.part:
        module = _part(component, module)
    assert_class(port, component, type(module))
    return module


def _whole(port: Port, component: Component) -> Component:
    """What production loads for a component: for a part, the component of the same weights that it is a part of."""
    others = port.components.values() if component.part else ()
    mine = component.weights or component.name
    return next((c for c in others if not c.part and (c.weights or c.name) == mine), component)


def _part(component: Component, module: Any) -> Any:
    """The submodule that a part names, out of the whole that production loaded."""
    try:
        return module.get_submodule(component.part)
    except AttributeError:
        known = ", ".join(name for name, _ in module.named_children())
        what = f"{type(module).__name__} has no submodule {component.part} (it has {known})"
        raise FvportError(what, where=f"components.{component.name}.part") from None


def component_folder(port: Port, component: Component) -> Path:
    """The component's folder in the load tree. Refuses the official folder (FastVideo finds its own class there)."""
    folder = port.load_tree / (component.weights or component.name)
    if not (port.load_tree / "model_index.json").is_file() or not folder.is_dir():
        raise BlockedError(
            f"no load tree for {component.name} ({shown(port, folder)})", todo="Run: nox -s prep conversion"
        )
    official = port.official_tree
    same = port.load_tree.resolve() == official.resolve()
    inside = (
        component.mode == "port" and folder.resolve() == (official / (component.weights or component.name)).resolve()
    )
    if same or inside:
        raise FvportError(
            f"{component.name}: the native side would load the official folder, where FastVideo finds its own class",
            where=shown(port, folder),
            todo="Build the load tree again: fvport check conversion",
        )
    return folder


def native_class(port: Port, component: Component) -> type:
    """The class that port.toml names, imported from the workspace (mode "port": from the port's file)."""
    module_name, _, class_name = component.native.partition(":")
    try:
        module = importlib.import_module(module_name)
        cls: type = getattr(module, class_name)
    except (ImportError, AttributeError) as error:
        raise FvportError(
            f"{component.name}: native class {component.native} cannot be imported ({_words(error)})",
            todo=f"Correct components.{component.name}.native in port.toml or the class's file",
        ) from error
    assert_class(port, component, cls)
    return cls


def own_name(port: Port, component: Component) -> None:
    """Raises FvportError where FastVideo's registry has the class name from another file, too: which loads is luck."""
    twins = entries.others(port.root, component.native, component.native_file) if component.mode == "port" else []
    if twins:
        raise FvportError(
            f"{component.name}: FastVideo's registry finds {component.native_class} in {twins[0]} too; which of them "
            "it loads is luck",
            todo="Give the native class a name of its own, and build the load tree again",
        )


def assert_class(port: Port, component: Component, cls: type) -> None:
    """Raises FvportError unless `cls` is the class that this component means, from the file that it means."""
    found = f"{cls.__module__}:{cls.__qualname__}"
    file = Path(inspect.getfile(cls)).resolve() if cls.__module__ in sys.modules else Path()
    if found != component.native:
        where = shown(port, file)
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


def arguments(port: Port, precision: str = "fp32") -> Any:
    """FastVideoArgs for the load tree with the port's pipeline config: this process's groups, nothing offloaded.

    `precision`: what everything computes in; '' leaves it as the config ships it.
    """
    from fastvideo.fastvideo_args import FastVideoArgs

    offloads = ("dit_cpu_offload", "vae_cpu_offload", "text_encoder_cpu_offload", "image_encoder_cpu_offload")
    off = (*offloads, "pin_cpu_memory", "use_fsdp_inference", "dit_layerwise_offload", "enable_torch_compile")
    try:
        sizes = native_parallel.sizes()
        args = FastVideoArgs.from_kwargs(model_path=str(port.load_tree), **sizes, **dict.fromkeys(off, False))
    except Exception as error:
        raise FvportError(
            f"FastVideo finds no pipeline config for the load tree ({_words(error)})",
            where=shown(port, port.load_tree),
            todo="Register the port: fvport workspace",
        ) from error
    if precision:
        set_precision(args.pipeline_config, precision)
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


def _production_load(port: Port, component: Component, folder: Path, precision: str = "fp32") -> Any:
    from fastvideo.models.loader.component_loader import PipelineComponentLoader

    index = json.loads((port.load_tree / "model_index.json").read_text(encoding="utf-8"))
    entry = index.get(component.name) or index.get(component.weights)
    if not isinstance(entry, list) or not entry:
        raise FvportError(
            f"{component.name} is not in the load tree's model_index.json", where=shown(port, port.load_tree)
        )
    if native_encoders.concerns(component):
        return native_encoders.load(component, folder, arguments(port, precision))
    name = module_name(component.name, component.kind)
    return PipelineComponentLoader.load_module(name, str(folder), entry[0], arguments(port, precision))


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
            f"FastVideo's loader raised {_words(error)}", where=f"{component.name} ({shown(port, folder)})"
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


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"


def shown(port: Port, path: Path) -> str:
    try:
        return str(path.resolve().relative_to(port.root.resolve()))
    except ValueError:
        return str(path)
