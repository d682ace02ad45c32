# SPDX-License-Identifier: Apache-2.0
"""A release in Diffusers layout, or one component's folder, as classes and configs. No weight is read."""

from __future__ import annotations

import importlib
import inspect
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fvport.errors import BlockedError, UsageError

if TYPE_CHECKING:
    from fvport.spec import Port

LIBRARIES = ("diffusers", "transformers")
COPIED = ("Tokenizer", "Processor", "Scheduler", "FeatureExtractor", "Extractor")  # classes without parameters
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model", "vocab.txt")


@dataclass
class Part:
    """A component that has parameters: its class, and its config with every default filled in."""

    name: str
    folder: Path
    cls: Any
    config: dict[str, Any]
    tokens: int = 0  # ids that the tokenizer beside it may give; 0: none beside, -1: beside, and not readable
    processor: bool = False  # a preprocessor with a fixed picture size lies beside it
    defaults: tuple[str, ...] = ()  # of a diffusers class: the keys that it knows

    @property
    def transformers(self) -> bool:
        return getattr(self.cls, "config_class", None) is not None

    def build(self, config: dict[str, Any]) -> Any:
        """The class on a config; raises what the class raises."""
        if self.transformers:
            made = self.cls.config_class.from_dict(json.loads(json.dumps(config)))
            return self.cls(made)
        if hasattr(self.cls, "from_config"):
            return self.cls.from_config(dict(config))
        return self.cls(**config)


@dataclass
class Release:
    """`whole`: a folder with model_index.json. `copied`: folders that are taken over as they are."""

    folder: Path
    whole: bool
    parts: dict[str, Part] = field(default_factory=dict)
    copied: tuple[str, ...] = ()


def read(source: Path, port: Port | None = None) -> Release:
    """Raises UsageError where it is no such folder, BlockedError where only the release's own code could build it."""
    source = Path(source)
    if not source.is_dir():
        raise UsageError("no such folder", where=str(source), todo="Give a release in Diffusers layout")
    if (source / "model_index.json").is_file():
        return _whole(source, port)
    if (source / "config.json").is_file():
        name, siblings = source.resolve().name, source.resolve().parent
        index = siblings / "model_index.json"
        entry = _json(index).get(name) if index.is_file() else None
        declared = _official(port, name, source)
        return Release(source, False, {name: _part(name, source, entry, declared)})
    what = "neither model_index.json nor config.json is in it, so it is no release in Diffusers layout"
    raise UsageError(what, where=str(source), todo="Convert it first (fvport convert), or give a component's folder")


def _whole(source: Path, port: Port | None) -> Release:
    index, parts, copied = _json(source / "model_index.json"), {}, []
    for name, entry in index.items():
        if name.startswith("_") or not (isinstance(entry, list) and len(entry) == 2) or entry[1] is None:
            continue
        folder = source / name
        if not folder.is_dir():
            raise UsageError(f"model_index.json names {name}, and there is no such folder", where=str(source))
        if any(word in entry[1] for word in COPIED):
            copied.append(name)
            continue
        parts[name] = _part(name, folder, entry, _official(port, name, folder))
    for name, part in parts.items():
        suffix = name.removeprefix("text_encoder")
        beside = source / f"tokenizer{suffix}"
        if name.startswith("text_encoder") or len([n for n in copied if "tokenizer" in n]) == 1:
            beside = beside if beside.is_dir() else source / "tokenizer"
            part.tokens = tokens(beside) if beside.is_dir() else 0
        if part.tokens == 0 and (source / "processor").is_dir():
            part.tokens = tokens(source / "processor")
        part.processor = any(word in n.lower() for n in copied for word in ("processor", "extractor"))
    if not parts:
        raise UsageError("model_index.json names no component with parameters", where=str(source))
    return Release(source, True, parts, tuple(copied))


def _official(port: Port | None, name: str, folder: Path) -> str:
    """`module:Class` of the port's component that this is, or ''."""
    if port is None:
        return ""
    for component in port.components.values():
        if name in (component.weights, component.name) or folder.name == component.weights:
            return component.official
    return ""


def _part(name: str, folder: Path, entry: list[str] | None, declared: str) -> Part:
    file = folder / "config.json"
    if not file.is_file():
        raise UsageError("this component has no config.json", where=str(folder))
    config = _json(file)
    cls = _class(config, entry, declared, str(file))
    if getattr(cls, "config_class", None) is not None:
        try:
            full = json.loads(json.dumps(cls.config_class.from_dict(config).to_dict(), default=str))
        except Exception as error:  # noqa: BLE001 - the library's own words about a wrong config
            raise UsageError(f"{cls.__name__} refuses this config: {words(error)}", where=str(file)) from None
        return Part(name, folder, cls, full)
    known = inspect.signature(cls.__init__).parameters
    defaults = {k: p.default for k, p in known.items() if k != "self" and p.default is not p.empty}
    filled = defaults | {k: v for k, v in config.items() if not k.startswith("_")}
    return Part(name, folder, cls, filled, defaults=tuple(k for k in known if k in filled))


def _class(config: dict[str, Any], entry: list[str] | None, declared: str, where: str) -> Any:
    """The class, from an installed library (or the port's declaration): code of the release is never run."""
    library, name = entry if entry else ("", config.get("_class_name") or (config.get("architectures") or [""])[0])
    if not name:
        raise UsageError("it names no class (_class_name or architectures)", where=where)
    candidates = [f"{library}:{name}"] if library in LIBRARIES else [f"{lib}:{name}" for lib in LIBRARIES]
    candidates += [f"diffusers.pipelines.{library}:{name}"] if library and library.isidentifier() else []
    for candidate in ([declared] if declared else []) + candidates:
        module, _, attribute = candidate.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute, None)
        except ImportError:
            found = None
        if inspect.isclass(found) and hasattr(found, "save_pretrained"):
            return found
    what = f"{name} is in neither diffusers nor transformers as installed, and code of a release is never run"
    raise BlockedError(what, where=where, todo="Declare the class in a port's port.toml (official) and give --port")


def tokens(folder: Path) -> int:
    """One more than the highest id of a tokenizer's folder; -1 where no file says it, 0 where it is no tokenizer's."""
    try:
        if (folder / "tokenizer.json").is_file():
            data = _json(folder / "tokenizer.json")
            vocab = data.get("model", {}).get("vocab", {})
            ids = list(vocab.values()) if isinstance(vocab, dict) else list(range(len(vocab)))
            highest: int = max([*ids, *(t["id"] for t in data.get("added_tokens", []))])
            return highest + 1
        if (folder / "vocab.json").is_file():
            ids = list(_json(folder / "vocab.json").values())
            more = folder / "added_tokens.json"
            highest = max([*ids, *(_json(more).values() if more.is_file() else ())])
            return highest + 1
    except (ValueError, KeyError, TypeError):
        return -1
    return -1 if any((folder / name).is_file() for name in TOKENIZER_FILES) else 0


def _json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"it cannot be read as JSON: {error}", where=str(file)) from None
    if not isinstance(data, dict):
        raise UsageError("it holds no JSON object", where=str(file))
    return data


def words(error: BaseException) -> str:
    """An exception as one short line."""
    said = " ".join(str(error).split()) or type(error).__name__
    return said if len(said) <= 160 else said[:157] + "..."
