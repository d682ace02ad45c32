# SPDX-License-Identifier: Apache-2.0
"""What a release holds: layout, pipeline class, components with class, config and tensors. Names, shapes and bytes.

Standard library only: the bake uses it too. `to_json` is `inspection.json`; it holds no path and no time, so that the
same release gives the same bytes wherever it lies.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fvport.errors import BlockedError, UsageError
from fvport.weights import manifest

SCHEMA = 1
WEIGHTLESS = ("scheduler", "tokenizer", "processor")
Files = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class ComponentInfo:
    """One component of a release. `files`: (name relative to its folder, bytes); `tensors`: {name: (dtype, shape)}.

    A component that shares its file with others has a `prefix`: in the file, each of its `tensors` is called prefix
    plus name. `weights` names the files that hold them, where it is not the library's rule that says so.
    """

    name: str
    kind: str
    library: str = ""
    cls: str = ""
    folder: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    files: tuple[tuple[str, int], ...] = ()
    bytes: int = 0  # of the tensors, what is shared counted once
    prefix: str = ""
    weights: tuple[str, ...] = ()
    tied: tuple[tuple[str, ...], ...] = ()  # names that stand for the same values; each group's first is the one kept
    why: str = ""  # how it was recognised, where the release does not declare it
    conversion: str = ""  # why it cannot be loaded as it is; "" where it can

    @property
    def parameters(self) -> int:
        """Number of elements over all tensors, tied ones counted once."""
        again = {name for group in self.tied for name in group[1:]}
        return sum(_elements(shape) for name, (_, shape) in self.tensors.items() if name not in again)

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
        more = {
            "prefix": self.prefix,
            "weights": list(self.weights),
            "tied": [list(group) for group in self.tied],
            "why": self.why,
            "conversion": self.conversion,
        }
        return {
            "kind": self.kind,
            "library": self.library,
            "class": self.cls,
            "folder": self.folder,
            "parameters": self.parameters,
            "bytes": self.bytes,
            "dtypes": self.dtypes,
            "files": [list(file) for file in self.files],
            **{key: value for key, value in more.items() if value},
            "config": self.config,
            "tensors": tensors,
        }


@dataclass(frozen=True)
class Aside:
    """Tensors that are no component's: a running average, training state, a variant, or what no prefix explains.

    `role`: ema | training | variant | unowned. Their names begin with `prefix` in `file` (relative to the release).
    """

    role: str
    prefix: str
    file: str
    of: str = ""  # the component that an average or variant belongs to
    tensors: int = 0
    bytes: int = 0
    example: str = ""
    why: str = ""


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
    aside: tuple[Aside, ...] = ()
    source: str = ""  # the hub id and commit, where headers were read from there

    @property
    def tokenizers(self) -> dict[str, str]:
        """{tokenizer component: its folder}"""
        return {name: c.folder for name, c in self.components.items() if c.kind == "tokenizer"}

    def of_kind(self, kind: str) -> list[ComponentInfo]:
        return [component for component in self.components.values() if component.kind == kind]

    def to_json(self) -> dict[str, Any]:
        more = {"source": self.source, "aside": [asdict(aside) for aside in self.aside]}
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
            **{key: value for key, value in more.items() if value},
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
                aside=tuple(Aside(**entry) for entry in data.get("aside", ())),
                source=data.get("source", ""),
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

    def shown(self, as_json: bool, given: str, foreseen: str = "") -> str:
        """What `fvport inspect` prints of what it was `given`: JSON in one line, or a table and what to do with it.

        `foreseen`: what a bake would make of the components, as text; inspection.json is about the release alone.
        """
        if as_json:
            return json.dumps(self.to_json())
        parts = [self.text(), foreseen, f'Next: fvport new model_name="NAME" official_weights={shlex.quote(given)}']
        return "\n".join(part for part in parts if part)


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
        prefix=entry.get("prefix", ""),
        weights=tuple(entry.get("weights", ())),
        tied=tuple(tuple(group) for group in entry.get("tied", ())),
        why=entry.get("why", ""),
        conversion=entry.get("conversion", ""),
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
    """Read a release from a folder or one weight file. BlockedError (exit 3) when it is not there or is broken."""
    path = Path(path)
    if not path.exists():
        todo = "Give a local folder or file, or a hub id to `fvport inspect`; `fvport prep` fetches one"
        raise BlockedError("no such checkpoint", where=str(path), todo=todo)
    if (path / "model_index.json").is_file():
        from fvport.weights import diffusers_layout

        return diffusers_layout.read(path)
    from fvport.weights import raw_layout

    return raw_layout.single_file(path) if path.is_file() else raw_layout.read(path)
