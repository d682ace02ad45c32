# SPDX-License-Identifier: Apache-2.0
"""A release without a `model_index.json`: what its weight files and folders are, and what to call the whole."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fvport.errors import BlockedError
from fvport.weights import manifest, prefixes, sets
from fvport.weights.kinds import kind_by_tensors, kind_of
from fvport.weights.layout import Aside, ComponentInfo, Inspection, declared_class
from fvport.weights.manifest import TensorInfo
from fvport.weights.prefixes import Part
from fvport.weights.sets import WeightSet

NO_INDEX = "there is no model_index.json: the pipeline's class and parts must be declared"
NAMES = {"dit": "transformer"}  # kind -> what a component of it is usually called, where it is not the kind itself
GENERIC = re.compile(r"(pytorch_|diffusion_pytorch_)?model|checkpoint|ckpt|weights|consolidated|last|latest|\d+|\.?")
RANKS = re.compile(r"(mp_rank|consolidated|model_part|tp_rank|rank|shard)[._-]?\d+.*")
VARIANT = re.compile(r"fp16|bf16|fp8|int8|ema|pruned|distil|turbo|lightning|lora|non_ema", re.IGNORECASE)


@dataclass
class Found:
    """What was gathered so far."""

    root: Path
    components: dict[str, ComponentInfo] = field(default_factory=dict)
    aside: list[Aside] = field(default_factory=list)
    concerns: list[str] = field(default_factory=list)
    sets: list[WeightSet] = field(default_factory=list)
    several: list[str] = field(default_factory=list)  # files that hold more than one component
    own_code: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    def free(self, name: str) -> str:
        """`name`, or with a number where it is taken."""
        name = re.sub(r"\W+", "_", name).strip("_").lower() or "model"
        name = f"model_{name}" if name[0].isdigit() else name
        number, free = 1, name
        while free in self.components:
            number += 1
            free = f"{name}_{number}"
        return free


def single_file(file: Path) -> Inspection:
    """One weight file."""
    if file.name.endswith(".index.json"):
        weights = manifest.read_index(file, located=False)
    elif file.suffix == ".gguf" or file.suffix in sets.UNREAD:
        raise _unread(file)
    else:
        header = manifest.read_file(file, located=False)
        weights = manifest.together(file, {file.name: header})
    found = Found(file.parent)
    _add(found, WeightSet(".", sets.stem(file.name), weights), {}, alone=False)
    return _finish(found, str(file))


def _unread(file: Path) -> BlockedError:
    if file.suffix == ".gguf":
        what, todo = "GGUF holds quantised weights, which no native class loads", "Use the safetensors release"
    else:
        what, todo = f"is of a format that is not read here ({sets.UNREAD[file.suffix]})", "Use the safetensors release"
    return BlockedError(what, where=str(file), todo=todo)


def read(root: Path) -> Inspection:
    """The release in `root`. BlockedError where there is none."""
    found = Found(root)
    for folder in sets.folders(root):
        _folder(found, folder)
    return _finish(found, str(root))


def _folder(found: Found, folder: Path) -> None:
    relative = folder.relative_to(found.root).as_posix()
    config = sets.config(folder)
    found.unread += [f"{relative}/{name}".removeprefix("./") for name in sets.unread(folder)]
    here = sets.of_folder(folder, relative, bool(declared_class(config)))
    for name in sets.training_files(folder):
        size = (folder / name).stat().st_size
        path = f"{relative}/{name}".removeprefix("./")
        found.aside.append(Aside("training", "", path, bytes=size, why="named like training state"))
    if config.get("auto_map"):
        found.own_code.append(f"{relative}/config.json".removeprefix("./"))
    owner = _configured(here) if config else None
    for item in here:
        _add(found, item, config if item is owner else {}, alone=len(here) == 1)
    if not here:
        _weightless(found, folder, relative, config)
    elif (folder / "tokenizer_config.json").is_file():
        _tokenizer(found, folder, relative)


def _configured(here: list[WeightSet]) -> WeightSet | None:
    """The set that a folder's config speaks of: the only one, or the one under a library's default name."""
    named = [item for item in here if item.stem in (*manifest.DEFAULT_NAMES, "pytorch_model")]
    return here[0] if len(here) == 1 else next(iter(named), None)


def _weightless(found: Found, folder: Path, relative: str, config: dict[str, Any]) -> None:
    """A folder with a config or a tokenizer only."""
    if (folder / "tokenizer_config.json").is_file() or (folder / "tokenizer.json").is_file():
        _tokenizer(found, folder, relative)
        return
    cls = declared_class(config)
    kind, sure = kind_of(folder.name, cls)
    if config and relative != "." and (cls or sure):
        name = found.free(folder.name)
        library = _library(config)
        found.components[name] = ComponentInfo(name, kind, library, cls, relative, config, files=sets.files(folder))


def _tokenizer(found: Found, folder: Path, relative: str) -> None:
    file = folder / "tokenizer_config.json"
    config = manifest.read_json(file) if file.is_file() else {}
    cls = config.get("tokenizer_class")
    name = found.free("tokenizer" if relative == "." or "tokenizer" not in folder.name else folder.name)
    files = tuple((f.name, f.stat().st_size) for f in sets.here(folder))
    cls = cls if isinstance(cls, str) else ""
    found.components[name] = ComponentInfo(name, "tokenizer", "transformers", cls, relative, config, files=files)


def _library(config: dict[str, Any]) -> str:
    return "" if not declared_class(config) else "diffusers" if config.get("_class_name") else "transformers"


# --- the components of one set ---------------------------------------------------------------------------------------


def _add(found: Found, item: WeightSet, config: dict[str, Any], alone: bool) -> None:
    """Put what one set holds into `found`: components, and what is none."""
    tensors = item.weights.tensors
    parts = _parts(item, bool(declared_class(config)))
    own = [part for part in parts if part.role == "component"]
    if not own:
        first = next(iter(item.weights.files), item.stem)
        found.concerns.append(f"{first} holds no component, only {', '.join(sorted({p.role for p in parts}))} tensors")
    where = "" if item.folder == "." else f"{item.folder}/"
    found.concerns += [f"{where}{item.stem}: {text}" for text in item.weights.concerns]
    _sharing(found, item)
    found.sets.append(item)
    if len(own) > 1:
        found.several.append(f"{where}{next(iter(item.weights.files))}")
    named: dict[str, str] = {}
    for part in own:
        component = _component(found, item, part, config, alone)
        named[part.name] = component.name
        found.components[component.name] = component
    for part in parts:
        if part.role != "component":
            found.aside.append(_aside(part, item, where, tensors, named.get(part.of, part.of)))


def _parts(item: WeightSet, declared: bool) -> list[Part]:
    tensors = item.weights.tensors
    names = list(tensors)
    if declared and not item.weights.containers:
        return [Part("model", "", "", tuple(names), why="its config names its class")]

    def guess(own: dict[str, str]) -> str:
        return kind_by_tensors({name: tensors[full].shape for name, full in own.items()})

    parts = prefixes.split(names, item.weights.containers, guess)
    own = [part for part in parts if part.role == "component"]
    if declared and len(own) > 1:  # one class, whatever its parts are called
        return [Part("model", "", "", tuple(names), why="its config names its class")]
    return parts


def _component(found: Found, item: WeightSet, part: Part, config: dict[str, Any], alone: bool) -> ComponentInfo:
    tensors = {part.own(name): item.weights.tensors[name] for name in part.names}
    cls = declared_class(config)
    kind, name = _kind(found, item, part, tensors, cls, _library(config))
    groups = tuple(tuple(part.own(n) for n in g) for g in sets.tied(item.weights) if set(g) <= set(part.names))
    folder = found.root if item.folder == "." else found.root / item.folder
    weights = tuple(item.weights.files)
    files = tuple((f.name, f.stat().st_size) for f in sets.here(folder)) if alone else ()
    files = files or tuple((file, (folder / file).stat().st_size) for file in weights)
    return ComponentInfo(
        name=name,
        kind=kind,
        library=_library(config),
        cls=cls,
        folder=item.folder,
        config=config,
        tensors={key: (info.dtype, info.shape) for key, info in sorted(tensors.items())},
        files=sets.files(folder) if alone and item.folder != "." else files,
        bytes=sets.total(tensors, groups),
        prefix=part.prefix,
        weights=weights,
        tied=groups,
        why=part.why,
        conversion=_conversion(item, part, cls),
    )


def _conversion(item: WeightSet, part: Part, cls: str) -> str:
    """Why a component of this set cannot be loaded as it lies."""
    if any(name.endswith(sets.PICKLES) for name in item.weights.files):
        return "its weights are pickled"
    if part.prefix:
        return f"its names stand under the prefix {part.prefix}"
    return "" if cls else "no config names its class"


def _kind(
    found: Found, item: WeightSet, part: Part, tensors: dict[str, TensorInfo], cls: str, library: str
) -> tuple[str, str]:
    """(kind, free name): by the prefix, else by class, folder or file name, else by what the tensors look like."""
    if part.kind:
        return part.kind, found.free(part.name)
    folder = item.folder.rpartition("/")[2]
    shapes = {name: info.shape for name, info in tensors.items()}
    word = next((w for w in (folder, item.stem) if not GENERIC.fullmatch(w)), "")
    kind, sure = kind_of(word, cls, library)
    if not sure:
        kind = kind_by_tensors(shapes)
    if part.name != "model" and kind_of(part.name)[1]:
        kind = kind_of(part.name)[0]
    if not kind:
        kind = kind_of("", cls, library)[0]
        found.concerns.append(f"{item.stem}: neither names nor shapes say what it is; taken for a {kind}")
        return kind, found.free(part.name if part.name != "model" else "model")
    if folder not in ("", ".") and not GENERIC.fullmatch(folder):
        return kind, found.free(folder)
    return kind, found.free(NAMES.get(kind, kind))


def _aside(part: Part, item: WeightSet, where: str, tensors: dict[str, TensorInfo], of: str) -> Aside:
    size = sum(tensors[name].nbytes for name in part.names)
    file = where + next((f for f, held in item.weights.files.items() if part.names[0] in held), item.stem)
    return Aside(part.role, part.prefix, file, of, len(part.names), size, part.names[0], part.why)


def _sharing(found: Found, item: WeightSet) -> None:
    views = sets.overlapping(item.weights)
    if views:
        found.concerns.append(f"{item.stem}: {len(views)} tensors are views of another one's bytes, such as {views[0]}")
    for name, kept in list(sets.left_out(item.weights).items())[:5]:
        found.concerns.append(f"{item.stem}: {name} is tied to {kept} and was left out when it was written")


# --- the whole -------------------------------------------------------------------------------------------------------


def _finish(found: Found, where: str) -> Inspection:
    held = [component for component in found.components.values() if component.tensors]
    if not found.sets and not found.components:
        what, todo = "holds no checkpoint", "A release has a model_index.json, or weight files, or component folders"
        if found.unread:
            what, todo = (
                f"holds no weights that are read here: {', '.join(found.unread[:5])}",
                "Use the safetensors release",
            )
        raise BlockedError(what, where=where, todo=todo)
    if found.sets and not held:
        raise BlockedError("holds no model: " + "; ".join(found.concerns[:3]), where=where, todo="Use another file")
    ranks = _variants(found)
    if found.unread:
        found.concerns.append(f"not read here: {', '.join(found.unread[:5])}")
    for aside in found.aside:
        if aside.role == "unowned":
            what = f"{aside.tensors} tensors belong to no component that was recognised, such as {aside.example}"
            found.concerns.append(f"{aside.file}: {what}")
    layout, reason = _layout(found, ranks)
    return Inspection(
        layout,
        reason,
        components=found.components,
        concerns=(*found.concerns, NO_INDEX),
        needs_conversion=True,
        aside=tuple(found.aside),
    )


def _variants(found: Found) -> list[str]:
    """Move components that hold the same names as another one aside; gives files that are parts of ranks instead."""
    alike: dict[tuple[str, ...], list[ComponentInfo]] = {}
    for component in found.components.values():
        if component.tensors:
            alike.setdefault(tuple(component.tensors), []).append(component)
    ranks: list[str] = []
    for group in alike.values():
        if len(group) > 1 and all(RANKS.fullmatch(Path(c.weights[0]).stem) for c in group if c.weights):
            ranks += [c.weights[0] for c in group]
        shapes = {tuple(shape for _, shape in c.tensors.values()) for c in group}
        if len(shapes) > 1 or len({c.folder for c in group}) > 1:
            continue  # the same architecture twice is two components: transformer and transformer_2
        best = min(group, key=lambda c: (bool(VARIANT.search(c.weights[0])), -c.bytes, c.name))
        for component in group:
            if component is not best:
                _set_aside(found, component, best)
    return ranks


def _set_aside(found: Found, component: ComponentInfo, best: ComponentInfo) -> None:
    file = component.weights[0] if component.folder == "." else f"{component.folder}/{component.weights[0]}"
    why = f"the same names and shapes as {best.weights[0]}"
    first = component.prefix + next(iter(component.tensors))
    count, size = len(component.tensors), component.bytes
    found.aside.append(Aside("variant", component.prefix, file, best.name, count, size, first, why))
    found.concerns.append(f"{file} and {best.weights[0]} hold the same tensors: say which one is meant")
    del found.components[component.name]


def _layout(found: Found, ranks: list[str]) -> tuple[str, str]:
    """The word for the whole, and why."""
    held = [component for component in found.components.values() if component.tensors]
    if ranks:
        return "custom", f"{', '.join(ranks[:3])} are one model's parts by rank, which must be joined first"
    if found.own_code:
        return "custom", f"it brings code of its own ({', '.join(found.own_code[:3])} has an auto_map)"
    apart = [c for c in held if c.folder != "." and sum(o.folder == c.folder for o in held) == 1]
    together = [c for c in held if c not in apart]
    if len(found.sets) == 1 and len(held) > 1:
        under = ", ".join(f"{c.name} under {c.prefix or 'no prefix'}" for c in held[:6])
        return "monolithic", f"one file without a model_index.json holds {under}"
    if found.several and len(found.sets) > 1:
        return "mixed", f"{', '.join(found.several[:3])} holds several components, and there are other weight files"
    if apart and together:
        return "mixed", "weight files and component folders, without a model_index.json"
    if len(held) == 1 and held[0].cls:
        return "separate_components", f"one component ({held[0].cls}), without a pipeline around it"
    if apart:
        return "separate_components", "component folders without a model_index.json"
    if len(found.sets) == 1:
        kind = "safetensors" if not held[0].weights[0].endswith(sets.PICKLES) else "pickled"
        return "monolithic", f"one {kind} file without a model_index.json"
    return "raw_official", "weight files in a layout of the release's own"
