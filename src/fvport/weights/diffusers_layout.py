# SPDX-License-Identifier: Apache-2.0
"""A release with a `model_index.json`: a pipeline, and one folder a component."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fvport.errors import BlockedError
from fvport.weights import manifest, sets
from fvport.weights.kinds import kind_of
from fvport.weights.layout import WEIGHTLESS, Aside, ComponentInfo, Inspection, declared_class

PICKLED = "its weights are pickled, and native loaders read safetensors"
LIBRARIES = ("diffusers", "transformers")


def read(root: Path) -> Inspection:
    """The release in `root`. BlockedError where the index names what is not there."""
    index = manifest.read_json(root / "model_index.json")
    pipeline = index.get("_class_name", "")
    pipeline = pipeline if isinstance(pipeline, list) else ["diffusers", pipeline]  # [module, class] for remote code
    concerns: list[str] = [] if pipeline[-1:] not in ([], [""]) else ["model_index.json names no pipeline class"]
    components: dict[str, ComponentInfo] = {}
    absent, plain = [], {}
    for name, value in index.items():
        if name.startswith("_"):
            continue
        if not _is_component(value):
            plain[name] = value
        elif value[1] is None:
            absent.append(name)
        else:
            components[name] = _component(root, name, value[0] or "", value[1], concerns)
    if not components:
        raise BlockedError("names no component", where=str(root / "model_index.json"), todo="Is it a whole release?")
    loose = sets.weight_files(root)
    if loose:
        concerns.append(f"weight files beside model_index.json belong to no component: {', '.join(loose)}")
    if pipeline[0] not in LIBRARIES:
        concerns.append(f"the pipeline {pipeline[-1]} is code of the release's own ({pipeline[0]})")
    return Inspection(
        layout="mixed" if loose else "diffusers",
        reason="model_index.json names a pipeline and its components"
        + (", and there are weight files outside of them" if loose else ""),
        pipeline_class=str(pipeline[-1]),
        pipeline_library=str(pipeline[0]),
        pipeline_config=plain,
        components=components,
        absent=tuple(absent),
        concerns=tuple(concerns),
        needs_conversion=any(component.conversion for component in components.values()),
        aside=tuple(_loose(root, name) for name in loose),
    )


def _loose(root: Path, name: str) -> Aside:
    """A file beside the components: its header is not read, since nothing of the release loads it."""
    return Aside("unowned", "", name, bytes=(root / name).stat().st_size, why="beside model_index.json")


def _is_component(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(item is None or isinstance(item, str) for item in value)


def _component(root: Path, name: str, library: str, cls: str, concerns: list[str]) -> ComponentInfo:
    folder = root / name
    if Path(name).name != name or name in (".", ".."):
        raise BlockedError(
            f"names a component {name[:120]!r}, which is no folder name", where=str(root / "model_index.json")
        )
    kind, sure = kind_of(name, cls, library)
    if not folder.is_dir():
        todo = "Fetch the whole release"
        raise BlockedError(f'component "{name}" has no folder', where=str(root / "model_index.json"), todo=todo)
    weights = manifest.read_weights(folder)
    pickled = not weights.files and kind not in WEIGHTLESS
    if pickled:
        weights = sets.read_pickles(folder)
    if not sure:
        concerns.append(f"{name}: {cls} is of no known kind; taken for a {kind}")
        kind = kind if weights.files else "processor"
    tied = sets.tied(weights)
    component = ComponentInfo(
        name=name,
        kind=kind,
        library=library,
        cls=cls,
        folder=name,
        config=sets.config(folder),
        tensors={key: (info.dtype, info.shape) for key, info in sorted(weights.tensors.items())},
        files=sets.files(folder),
        bytes=sets.total(weights.tensors, tied),
        tied=tied,
        weights=tuple(weights.files) if pickled else (),
        conversion=PICKLED if pickled and weights.files else "",
    )
    concerns += [f"{name}: {text}" for text in (*weights.concerns, *_odd(component))]
    return component


def _odd(component: ComponentInfo) -> list[str]:
    """Sentences on what is unusual in one component."""
    found = []
    if component.conversion:
        found.append("its weights are in pickle form; safetensors are needed")
    elif component.has_weights and not component.tensors:
        found.append("it has no weight file; safetensors are needed")
    if not component.config and component.kind != "tokenizer" and not _multi_config(component):
        found.append("it has no config file")
    said = declared_class(component.config)
    if said and component.kind not in ("tokenizer", "processor") and said != component.cls:
        found.append(f"model_index.json says {component.cls}, its own config says {said}")
    if component.library not in (*LIBRARIES, "") and any(name.endswith(".py") for name, _ in component.files):
        found.append(f"{component.cls} is code of the release's own ({component.library})")
    return found


def _multi_config(component: ComponentInfo) -> bool:
    return any(name.endswith("_config.json") for name, _ in component.files)
