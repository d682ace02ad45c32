# SPDX-License-Identifier: Apache-2.0
"""The load tree: what the native side loads, so that FastVideo's loaders find the port's classes and not their own.

`converted_weights/<slug>/` links the official weight files and rewrites the names that FastVideo resolves classes by:
`_class_name`, `architectures`, `model_index.json`. It is made beside its place and renamed, it is made again only when
something that it was made from changed, and a folder that was not made here is never touched.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fvport import __version__
from fvport.errors import BlockedError, FvportError
from fvport.spec import Component, Port
from fvport.weights import layout, manifest, sides
from fvport.words import module_name

MARKER = ".fvport-tree.json"
DUMPS = "_mapping"  # what fvport prototype writes: names and shapes of both sides, no part of the tree
LIBRARY = {  # FastVideo's word for the library of a kind, as its component loaders expect it
    "dit": "diffusers",
    "vae": "diffusers",
    "scheduler": "diffusers",
    "vocoder": "diffusers",
    "upsampler": "diffusers",
    "conditioner": "fastvideo",
    "text_encoder": "transformers",
    "image_encoder": "transformers",
    "audio_encoder": "transformers",
    "tokenizer": "transformers",
    "processor": "transformers",
}


@dataclass
class Plan:
    """What the tree will hold: `links` {path in the tree: official file}, `texts` {path in the tree: content}."""

    links: dict[str, Path] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def digest(self) -> str:
        parts = [__version__, *(f"{name} {_stamp(file)}" for name, file in sorted(self.links.items()))]
        parts += [f"{name}\0{text}" for name, text in sorted(self.texts.items())]
        return "sha256:" + hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _stamp(file: Path) -> str:
    stat = file.stat()
    return f"{file} {stat.st_size} {stat.st_mtime_ns}"


def pipeline_class(port: Port) -> str:
    """The port's pipeline class: `tiny_wan` -> `TinyWanPipeline`."""
    return "".join(word[:1].upper() + word[1:] for word in port.key.split("_")) + "Pipeline"


def build_load_tree(port: Port, verify: bool = True) -> Path:
    """Make `converted_weights/<slug>/` or find it as it should be. Gives its path.

    Raises BlockedError when official weights are missing or differ from the lock, FvportError when the declaration does
    not fit the release (an undeclared component, a scheduler key that the native constructor rejects).
    """
    if verify:
        from fvport.weights import prep

        prep.verify(port)
    if port.official.needs_conversion:
        from fvport.weights import converter

        converter.require(port)
    plan = _plan(port)
    target, digest = port.load_tree, plan.digest()
    marker = target / MARKER
    if target.is_symlink() or (target.exists() and not marker.is_file() and not _only_dumps(target)):
        todo = "Move it away, then run again"
        raise FvportError("was not made by fvport and is not overwritten", where=str(target), todo=todo)
    if marker.is_file() and _is_current(target, plan, digest):
        return target
    _write(target, plan, digest)
    return target


def _only_dumps(target: Path) -> bool:
    """Nothing but what `fvport prototype` leaves there before there is a tree."""
    return target.is_dir() and {path.name for path in target.iterdir()} == {DUMPS}


def _is_current(target: Path, plan: Plan, digest: str) -> bool:
    try:
        if json.loads((target / MARKER).read_text(encoding="utf-8"))["digest"] != digest:
            return False
        files = [p.relative_to(target) for p in target.rglob("*") if not p.is_dir() and p.name != MARKER]
        found = {path.as_posix() for path in files if path.parts[0] != DUMPS}
        same_texts = all((target / name).read_text(encoding="utf-8") == text for name, text in plan.texts.items())
        same_links = all((target / name).resolve() == file.resolve() for name, file in plan.links.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return found == set(plan.links) | set(plan.texts) and same_texts and same_links


def _write(target: Path, plan: Plan, digest: str) -> None:
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    shutil.rmtree(part, ignore_errors=True)
    try:
        for name, file in plan.links.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            (part / name).symlink_to(os.path.relpath(file, (part / name).parent))
        for name, text in plan.texts.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            (part / name).write_text(text, encoding="utf-8", newline="\n")
        (part / MARKER).write_text(json.dumps({"made_by": "fvport", "digest": digest}) + "\n", encoding="utf-8")
        if (target / DUMPS).is_dir():  # key dumps outlive the tree that lies beside them
            shutil.copytree(target / DUMPS, part / DUMPS)
        if target.exists():
            os.replace(target, old)
        os.replace(part, target)
    except OSError as error:
        if old.exists() and not target.exists():
            os.replace(old, target)
        raise BlockedError(f"could not be written ({error.strerror or error})", where=str(target)) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


# --- what goes into the tree -----------------------------------------------------------------------------------------


def _plan(port: Port) -> Plan:
    release = layout.inspect(port.official_tree)
    if not (port.official_tree / "model_index.json").is_file():
        raise BlockedError("has no model_index.json", where=str(port.official_tree), todo="Run: fvport prep")
    plan = Plan()
    index: dict[str, Any] = {"_class_name": pipeline_class(port), "_diffusers_version": _version(port)}
    index |= release.pipeline_config | {name: [None, None] for name in release.absent}
    tokenizers = {component.tokenizer for component in port.components.values() if component.tokenizer}
    for name, info in release.components.items():
        whole = (c for c in port.components.values() if not c.part)
        component = next((c for c in whole if sides.folder_of(c) == info.folder), None)
        if component is None and info.kind not in ("tokenizer", "processor") and info.folder not in tokenizers:
            todo = f'Add [components.{name}] to port.toml (mode = "passthrough" if nothing runs it)'
            raise FvportError(
                f"the release has a component {name} ({info.cls}) that port.toml does not name", todo=todo
            )
        index[name] = _component(port, plan, info, component)
        module = module_name(name, component.kind if component else info.kind)
        if module not in release.components and module not in index:  # where FastVideo's pipeline looks for it
            index[module] = index[name]
            _again(plan, info.folder, module)
    for hybrid in (c for c in port.components.values() if c.hybrid):
        _external(port, plan, hybrid)
    plan.texts["model_index.json"] = json.dumps(index, indent=2) + "\n"
    lacking = [c.name for c in port.components.values() if c.mode in ("port", "reuse") and not _held(c, release)]
    if lacking:
        what = f"port.toml names components that the release does not have: {', '.join(lacking)}"
        raise FvportError(what, where=str(port.file), todo="Correct their `weights` (a folder of the release)")
    return plan


def _external(port: Port, plan: Plan, component: Component) -> None:
    """The other library's model, linked as it is at its own place; a component's folder is linked already."""
    from fvport.weights import external

    folder = external.folder(port.official_tree, component)
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            plan.links.setdefault(file.relative_to(port.official_tree).as_posix(), file)


def _held(component: Component, release: layout.Inspection) -> bool:
    return any(info.folder == sides.folder_of(component) for info in release.components.values())


def _version(port: Port) -> str:
    index = manifest.read_json(port.official_tree / "model_index.json")
    return str(index.get("_diffusers_version", ""))


def _component(port: Port, plan: Plan, info: layout.ComponentInfo, component: Component | None) -> list[str]:
    """Put one component into the plan; gives its entry of model_index.json."""
    folder = port.official_tree / info.folder
    native = component.native_class if component and (component.mode in ("port", "reuse") or component.hybrid) else ""
    skip = _unused_weights(folder)
    for name, _ in info.files:
        if name in skip:
            continue
        path = f"{info.folder}/{name}"
        if native and name in ("config.json", "scheduler_config.json"):
            config = _config(port, component, manifest.read_json(folder / name), native)
            plan.texts[path] = json.dumps(config, indent=2) + "\n"
        else:
            plan.links[path] = folder / name
    kind = component.kind if component else info.kind
    return [LIBRARY.get(kind, info.library), native or info.cls]


def _again(plan: Plan, folder: str, module: str) -> None:
    """What the tree holds in `folder`, in the folder `module` too."""
    inside = f"{folder}/"
    plan.links |= {module + k[len(folder) :]: v for k, v in plan.links.items() if k.startswith(inside)}
    plan.texts |= {module + k[len(folder) :]: v for k, v in plan.texts.items() if k.startswith(inside)}


def _unused_weights(folder: Path) -> set[str]:
    """Weight files that the official library does not load; FastVideo's loaders take every *.safetensors file."""
    kept = set(manifest.read_weights(folder).files)
    return {file.name for file in folder.glob("*.safetensors") if file.name not in kept}


def _config(port: Port, component: Component | None, config: dict[str, Any], native: str) -> dict[str, Any]:
    """The component's own config with the class names that FastVideo resolves it by."""
    assert component is not None
    text_like = component.bucket == "encoders" and component.kind != "conditioner"
    if text_like:
        config = {**config, "architectures": [native]}
    if not text_like or "_class_name" in config:
        config = {"_class_name": native, **{key: value for key, value in config.items() if key != "_class_name"}}
    return _scheduler(port, component, config) if component.kind == "scheduler" else config


def _scheduler(port: Port, component: Component, config: dict[str, Any]) -> dict[str, Any]:
    """FastVideo passes every key to the constructor: one that it rejects is dropped if port.toml says why or if it is
    null, which sets nothing; else it is refused.
    """
    accepted = constructor_arguments(port.root / component.native_file, component.native_class)
    if accepted is None:
        return config
    rejected = [key for key in config if not key.startswith("_") and key not in accepted]
    silent = [key for key in rejected if config[key] is not None and not component.config_ignored.get(key)]
    if silent:
        what = f"{component.native_class} does not take {', '.join(silent)}, which the official config sets"
        todo = f"Give the reason in components.{component.name}.config_ignored, or a scheduler that takes it"
        raise FvportError(what, where=component.name, todo=todo)
    return {key: value for key, value in config.items() if key not in rejected}


def constructor_arguments(file: Path, cls: str) -> set[str] | None:
    """Names that a class's `__init__` takes, read from its source; None where that cannot be told (inherited,
    **kwargs).
    """
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == cls:
            init = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
            if init is None or init.args.kwarg is not None:
                return None
            return {arg.arg for arg in (*init.args.posonlyargs, *init.args.args, *init.args.kwonlyargs)} - {"self"}
    return None
