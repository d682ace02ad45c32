# SPDX-License-Identifier: Apache-2.0
"""What a release holds: layout, pipeline class, components with class, config and tensors. Names, shapes and bytes.

Standard library only: the bake uses it too. `to_json` is `inspection.json`; it holds no path and no time, so that the
same release gives the same bytes wherever it lies.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fvport.errors import BlockedError, UsageError
from fvport.weights import manifest
from fvport.weights.kinds import kind_of

SCHEMA = 1
WEIGHTLESS = ("scheduler", "tokenizer", "processor")
CONFIG_NAMES = tuple(f"{word}config.json" for word in ("", "scheduler_", "tokenizer_", "preprocessor_", "processor_"))
Files = tuple[tuple[str, int], ...]
PICKLES = (".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class ComponentInfo:
    """One component of a release. `files`: (name relative to its folder, bytes); `tensors`: {name: (dtype, shape)}."""

    name: str
    kind: str
    library: str = ""
    cls: str = ""
    folder: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    files: tuple[tuple[str, int], ...] = ()
    bytes: int = 0  # of the tensors

    @property
    def parameters(self) -> int:
        """Number of elements over all tensors."""
        return sum(_elements(shape) for _, shape in self.tensors.values())

    @property
    def dtypes(self) -> dict[str, int]:
        """{dtype: number of tensors}, by name."""
        names = [dtype for dtype, _ in self.tensors.values()]
        return {name: names.count(name) for name in sorted(set(names))}

    @property
    def official(self) -> str:
        """`library:Class`, the form that port.toml uses; empty where the release does not say."""
        return f"{self.library}:{self.cls}" if self.library and self.cls else ""

    @property
    def has_weights(self) -> bool:
        return self.kind not in WEIGHTLESS

    def to_json(self) -> dict[str, Any]:
        tensors = {name: [dtype, list(shape)] for name, (dtype, shape) in sorted(self.tensors.items())}
        return {
            "kind": self.kind,
            "library": self.library,
            "class": self.cls,
            "folder": self.folder,
            "parameters": self.parameters,
            "bytes": self.bytes,
            "dtypes": self.dtypes,
            "files": [list(file) for file in self.files],
            "config": self.config,
            "tensors": tensors,
        }


@dataclass(frozen=True)
class Inspection:
    """A release as read from disk, or from `inspection.json`. `reason` says why the layout was called what it is."""

    layout: str
    reason: str
    pipeline_class: str = ""
    pipeline_library: str = ""
    pipeline_config: dict[str, Any] = field(default_factory=dict)  # plain values of model_index.json
    components: dict[str, ComponentInfo] = field(default_factory=dict)
    absent: tuple[str, ...] = ()  # optional components that model_index.json sets to null
    concerns: tuple[str, ...] = ()
    needs_conversion: bool = False

    @property
    def tokenizers(self) -> dict[str, str]:
        """{tokenizer component: its folder}"""
        return {name: c.folder for name, c in self.components.items() if c.kind == "tokenizer"}

    def of_kind(self, kind: str) -> list[ComponentInfo]:
        return [component for component in self.components.values() if component.kind == kind]

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "layout": self.layout,
            "reason": self.reason,
            "needs_conversion": self.needs_conversion,
            "pipeline": {
                "class": self.pipeline_class,
                "library": self.pipeline_library,
                "config": self.pipeline_config,
            },
            "tokenizers": self.tokenizers,
            "absent": list(self.absent),
            "concerns": list(self.concerns),
            "components": {name: component.to_json() for name, component in self.components.items()},
        }

    def dumps(self) -> str:
        """The bytes of `inspection.json`: the same for the same release."""
        return json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, data: dict[str, Any], where: Path | str = "inspection.json") -> Inspection:
        """The inverse of `to_json`. UsageError when `data` is something else."""
        try:
            if data["schema"] != SCHEMA:
                raise ValueError(f"schema {data['schema']}")
            pipeline = data["pipeline"]
            return cls(
                layout=data["layout"],
                reason=data["reason"],
                pipeline_class=pipeline["class"],
                pipeline_library=pipeline["library"],
                pipeline_config=pipeline["config"],
                components={name: _component_from(name, entry) for name, entry in data["components"].items()},
                absent=tuple(data["absent"]),
                concerns=tuple(data["concerns"]),
                needs_conversion=data["needs_conversion"],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(
                f"is not an inspection ({error})", where=str(where), todo="Make it: fvport inspect"
            ) from None

    @classmethod
    def load(cls, file: Path) -> Inspection:
        return cls.from_json(manifest.read_json(file), file)

    def text(self) -> str:
        from fvport.weights import show

        return show.inspection(self)


def _component_from(name: str, entry: dict[str, Any]) -> ComponentInfo:
    return ComponentInfo(
        name=name,
        kind=entry["kind"],
        library=entry["library"],
        cls=entry["class"],
        folder=entry["folder"],
        config=entry["config"],
        tensors={key: (dtype, tuple(shape)) for key, (dtype, shape) in entry["tensors"].items()},
        files=tuple((file, size) for file, size in entry["files"]),
        bytes=entry["bytes"],
    )


def declared_class(config: dict[str, Any]) -> str:
    """The class that a component's own config names: `_class_name`, else the first of `architectures`, else ''."""
    name, architectures = config.get("_class_name"), config.get("architectures")
    if isinstance(architectures, list) and not name:
        name = architectures[0] if architectures else ""
    return name if isinstance(name, str) else ""


def _elements(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def inspect(path: Path | str) -> Inspection:
    """Read a release from a folder or one safetensors file. BlockedError (exit 3) when it is not there or is broken."""
    path = Path(path)
    if not path.exists():
        todo = "Give a local folder or file; `fvport prep` fetches a hub id"
        raise BlockedError("no such checkpoint", where=str(path), todo=todo)
    if path.is_file():
        return _single_file(path)
    if (path / "model_index.json").is_file():
        return _diffusers(path)
    return _without_index(path)


# --- Diffusers layout ------------------------------------------------------------------------------------------------


def _diffusers(root: Path) -> Inspection:
    index = manifest.read_json(root / "model_index.json")
    pipeline = index.get("_class_name", "")
    pipeline = pipeline if isinstance(pipeline, list) else ["diffusers", pipeline]  # [module, class] for remote code
    concerns: list[str] = [] if pipeline[-1] else ["model_index.json names no pipeline class (_class_name)"]
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
    loose = sorted(file.name for file in root.glob("*.safetensors"))
    if loose:
        concerns.append(f"weight files beside model_index.json belong to no component: {', '.join(loose)}")
    if not components:
        raise BlockedError("names no component", where=str(root / "model_index.json"), todo="Is it a whole release?")
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
        needs_conversion=any(_pickled(component) for component in components.values()),
    )


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
    if not sure:
        concerns.append(f"{name}: {cls} is of no known kind; taken for a {kind}")
        kind = kind if weights.files else "processor"
    component = ComponentInfo(
        name=name,
        kind=kind,
        library=library,
        cls=cls,
        folder=name,
        config=_config(folder),
        tensors={key: (info.dtype, info.shape) for key, info in sorted(weights.tensors.items())},
        files=_files(folder),
        bytes=sum(info.nbytes for info in weights.tensors.values()),
    )
    concerns += [f"{name}: {text}" for text in weights.concerns]
    concerns += [f"{name}: {text}" for text in _odd(component, weights)]
    return component


def _odd(component: ComponentInfo, weights: manifest.Weights) -> list[str]:
    """Sentences on what is unusual in one component."""
    found = []
    if component.has_weights and not weights.files:
        held = (
            "its weights are in pickle form, which is not read here" if _pickled(component) else "it has no weight file"
        )
        found.append(f"{held}; safetensors are needed")
    if not component.config and component.kind != "tokenizer" and not _multi_config(component):
        found.append("it has no config file")
    said = declared_class(component.config)
    if said and component.kind not in ("tokenizer", "processor") and said != component.cls:
        found.append(f"model_index.json says {component.cls}, its own config says {said}")
    return found


def _multi_config(component: ComponentInfo) -> bool:
    return any(name.endswith("_config.json") for name, _ in component.files)


def _pickled(component: ComponentInfo) -> bool:
    return (
        component.has_weights and not component.tensors and any(name.endswith(PICKLES) for name, _ in component.files)
    )


def _config(folder: Path) -> dict[str, Any]:
    found = next((folder / name for name in CONFIG_NAMES if (folder / name).is_file()), None)
    return manifest.read_json(found) if found else {}


def _files(folder: Path) -> Files:
    """(path relative to `folder`, bytes) of every file in it, links followed; caches and hidden files are left out."""
    found = []
    for file in folder.rglob("*"):
        relative = file.relative_to(folder)
        if file.is_file() and not any(part.startswith(".") for part in relative.parts):
            found.append((relative.as_posix(), file.stat().st_size))
    return tuple(sorted(found))


# --- other layouts ---------------------------------------------------------------------------------------------------


def _single_file(file: Path) -> Inspection:
    if file.suffix == ".gguf":
        raise BlockedError(
            "GGUF holds quantised weights, which no native class loads", where=str(file), todo="Use safetensors"
        )
    if file.suffix != ".safetensors":
        raise BlockedError("is not a safetensors file", where=str(file), todo="Give a folder or a .safetensors file")
    tensors = manifest.read_header(file)
    return Inspection(
        layout="monolithic",
        reason="one safetensors file without a model_index.json",
        components=_loose("model", "", tensors, ((file.name, file.stat().st_size),), {}),
        concerns=("which keys belong to which component is not known; it must be declared",),
        needs_conversion=True,
    )


def _loose(
    name: str,
    folder: str,
    tensors: dict[str, manifest.TensorInfo],
    files: tuple[tuple[str, int], ...],
    config: dict[str, Any],
) -> dict[str, ComponentInfo]:
    cls = declared_class(config)
    library = "" if not cls else "diffusers" if config.get("_class_name") else "transformers"
    shapes = {key: (info.dtype, info.shape) for key, info in sorted(tensors.items())}
    size = sum(info.nbytes for info in tensors.values())
    kind, _ = kind_of(name, cls, library)
    return {name: ComponentInfo(name, kind, library, cls, folder, config, shapes, files, size)}


def _without_index(root: Path) -> Inspection:
    """A folder without model_index.json: component folders, or weight files of the release's own making."""
    folders = sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))
    components: dict[str, ComponentInfo] = {}
    for folder in folders:
        weights = manifest.read_weights(folder)
        config = _config(folder)
        if weights.files or config:
            components |= _loose(folder.name, folder.name, weights.tensors, _files(folder), config)
    own = manifest.read_weights(root)
    pickles = sorted(f.name for f in root.iterdir() if f.suffix in PICKLES)
    if own.files:
        config = _config(root)
        components |= _loose("model", ".", own.tensors, _files_here(root), config)
    if not components and not pickles:
        todo = "A release has a model_index.json, or .safetensors files, or component folders"
        raise BlockedError("holds no checkpoint", where=str(root), todo=todo)
    layout, reason = _class_of(bool(own.files or pickles), any(folder.name in components for folder in folders), own)
    concerns = [*own.concerns, "there is no model_index.json: the pipeline's class and parts must be declared"]
    if pickles:
        concerns.append(f"weights in pickle form are not read here: {', '.join(pickles)}")
    return Inspection(layout, reason, components=components, concerns=tuple(concerns), needs_conversion=True)


def _class_of(loose: bool, folders: bool, own: manifest.Weights) -> tuple[str, str]:
    if loose and folders:
        return "mixed", "weight files and component folders, without a model_index.json"
    if folders:
        return "separate_components", "component folders without a model_index.json"
    if len(own.files) == 1:
        return "monolithic", "one safetensors file without a model_index.json"
    return "raw_official", "weight files in a layout of the release's own"


def _files_here(root: Path) -> Files:
    return tuple(
        sorted((f.name, f.stat().st_size) for f in root.iterdir() if f.is_file() and not f.name.startswith("."))
    )
