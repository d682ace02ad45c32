# SPDX-License-Identifier: Apache-2.0
"""Which native classes the installed FastVideo has, from its source text: entry classes, registry, schedulers.

Standard library only: nothing is imported, so a class that cannot be imported is counted too.
"""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

from fvport.errors import BlockedError

BUCKETS = ("dits", "encoders", "vaes", "audio", "upsamplers", "schedulers")


def root() -> Path:
    """The installed `fastvideo/models`. BlockedError where FastVideo is not installed."""
    spec = importlib.util.find_spec("fastvideo")
    locations = list(spec.submodule_search_locations or []) if spec else []
    if not locations:
        raise BlockedError("FastVideo is not installed in this environment", todo="Run: make env")
    return Path(locations[0]) / "models"


def classes(models: Path | None = None) -> dict[str, str]:
    """`{"module:Class": where it is named}` of every native model class: EntryClass, registry, schedulers."""
    models = models or root()
    found: dict[str, str] = {}
    for bucket in BUCKETS:
        for file in sorted((models / bucket).rglob("*.py")):
            found |= _of_file(file, models, bucket)
    for module, name in _registered(models / "registry.py"):
        found.setdefault(f"{module}:{name}", "registry")
    for module, name in _loaded(models / "loader" / "component_loader.py"):
        found.setdefault(f"{module}:{name}", "loader")
    return found


def _of_file(file: Path, models: Path, bucket: str) -> dict[str, str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    here = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    module = ".".join(("fastvideo.models", *file.relative_to(models).with_suffix("").parts)).removesuffix(".__init__")
    imported = {
        alias.asname or alias.name: f"{node.module}:{alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module and not node.level
        for alias in node.names
    }
    relative = {
        alias.asname or alias.name: f"{module}.{node.module}:{alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module and node.level
        for alias in node.names
    }
    found = {}
    for name in _entries(tree):
        found[f"{module}:{name}" if name in here else {**imported, **relative}.get(name, f"{module}:{name}")] = (
            "EntryClass"
        )
    if bucket == "schedulers":
        for name, node in here.items():
            if name.endswith("Scheduler") and name != "BaseScheduler" and node.bases:
                found.setdefault(f"{module}:{name}", "scheduler")
    return found


def _entries(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "EntryClass" for t in node.targets):
            value = node.value
            parts = value.elts if isinstance(value, (ast.List, ast.Tuple)) else [value]
            return [part.id for part in parts if isinstance(part, ast.Name)]
    return []


def _registered(file: Path) -> list[tuple[str, str]]:
    """(module, class) of the literal tables of the registry; what discovery finds first wins and is in `classes`."""
    found = []
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
        if not isinstance(value, ast.Dict):
            continue
        for entry in value.values:
            if isinstance(entry, ast.Tuple) and len(entry.elts) == 3:
                bucket, module, name = (str(part.value) for part in entry.elts if isinstance(part, ast.Constant))
                found.append((f"fastvideo.models.{bucket}.{module}", name))
    return found


def _loaded(file: Path) -> list[tuple[str, str]]:
    """(module, class) that a component loader imports by itself, past the registry."""
    prefixes = tuple(f"fastvideo.models.{bucket}." for bucket in BUCKETS)
    return [
        (node.module, alias.name)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(prefixes)
        for alias in node.names
        if alias.name[:1].isupper()
    ]
