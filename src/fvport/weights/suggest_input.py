# SPDX-License-Identifier: Apache-2.0
"""Where `mapping suggest` gets its two tables of names and shapes: a port's components, or any two files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fvport.errors import UsageError
from fvport.spec import Port
from fvport.weights import manifest, sides
from fvport.weights.suggest import Suggestion, suggest

FORM = 'a folder or file of safetensors, or a JSON file {"name": [shape]}'


@dataclass
class Suggestions:
    components: list[Suggestion] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {"components": [item.to_json() for item in self.components]}

    def text(self) -> str:
        return "\n\n".join(item.text() for item in self.components) or "no component has weights that a class loads"


def for_port(port: Port, component: str | None = None) -> Suggestions:
    """For one component of a port or all whose weights a native class loads. What port.toml excludes is left out."""
    chosen = sides.components(port, (component,) if component else ())
    from fvport.weights import convert

    convert.build_load_tree(port)
    sides.prefetch(port, chosen, "rules", "meta")
    found = Suggestions()
    for item in chosen:
        case = sides.Side(port, item).case
        official = {name: case.shapes[name] for name in case.names}
        free = set(case.native_free)
        native = {name: shape for name, shape in (case.native or {}).items() if name not in free}
        found.components.append(suggest(official, native, item.name))
    return found


def for_files(official: Path, native: Path) -> Suggestions:
    """Without a port: headers or tables of names on both sides."""
    return Suggestions([suggest(table(official), table(native))])


def table(path: Path) -> dict[str, tuple[int, ...]]:
    """{name: shape}. UsageError, with the form, for anything else."""
    if not path.exists():
        raise UsageError("there is nothing here", where=str(path), todo=f"Give {FORM}")
    if path.suffix == ".json" and not path.name.endswith(".index.json"):
        return _from_json(path)
    if path.is_file() and path.suffix == ".safetensors":
        headers = manifest.read_header(path)
    elif path.is_dir():
        headers = manifest.read_weights(path).tensors
    else:
        raise UsageError("this is no checkpoint that can be read by its headers", where=str(path), todo=f"Give {FORM}")
    if not headers:
        raise UsageError("no tensor here", where=str(path), todo=f"Give {FORM}")
    return {name: info.shape for name, info in headers.items()}


def _from_json(path: Path) -> dict[str, tuple[int, ...]]:
    data = manifest.read_json(path)
    if isinstance(data, dict) and isinstance(data.get("tensors"), dict):
        data = data["tensors"]
    if not isinstance(data, dict) or not data:
        raise UsageError("this JSON is no table of names", where=str(path), todo=f"Give {FORM}")
    return {name: _shape(path, name, value) for name, value in data.items()}


def _shape(path: Path, name: str, value: Any) -> tuple[int, ...]:
    """`[3, 4]`, `[[3, 4], "float32"]` or `{"shape": [3, 4]}`"""
    if isinstance(value, dict):
        value = value.get("shape")
    if isinstance(value, list) and value and isinstance(value[0], list):
        value = value[0]
    if not isinstance(value, list) or not _sizes(value):
        what = f"{name}: {json.dumps(value)[:60]} is no shape"
        raise UsageError(what, where=str(path), todo=f"Give {FORM}")
    return tuple(value)


def _sizes(value: Iterable[Any]) -> bool:
    return all(isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in value)
