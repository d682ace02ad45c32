# SPDX-License-Identifier: Apache-2.0
"""What the user wants otherwise: `tiny` of port.toml, then `--set COMPONENT.KEY=VALUE`."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fvport.errors import UsageError

if TYPE_CHECKING:
    from fvport.spec import Port


def collect(source: Path, settings: Sequence[str], port: Port | None) -> dict[str, dict[str, Any]]:
    """{component, as the release's folder is called: {dotted key: value}}. UsageError for what has not that form."""
    found: dict[str, dict[str, Any]] = {}
    for name, component in (port.components if port else {}).items():
        if component.tiny and component.tokenizer != name:
            found.setdefault(component.weights or name, {}).update(_dotted(component.tiny))
    if port and not (Path(source) / "model_index.json").is_file():  # one component's folder: only what is about it
        found = {k: v for k, v in found.items() if k == Path(source).resolve().name}
    for text in settings:
        way, equals, value = text.partition("=")
        component_name, dot, key = way.partition(".")
        if not (equals and dot and key and component_name):
            todo = "For example: --set transformer.num_layers=3"
            raise UsageError(f"--set {text} has not the form COMPONENT.KEY=VALUE", todo=todo)
        try:
            found.setdefault(component_name, {})[key] = json.loads(value)
        except ValueError:
            found.setdefault(component_name, {})[key] = value
    return found


def _dotted(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found.update(_dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return found


@contextlib.contextmanager
def official_path(port: Port | None) -> Iterator[None]:
    """The port's official code on the path, for a class that no installed library has."""
    root = str(port.import_root) if port and port.import_root else ""
    if root:
        sys.path.append(root)
    try:
        yield
    finally:
        if root in sys.path:
            sys.path.remove(root)
