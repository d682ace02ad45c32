# SPDX-License-Identifier: Apache-2.0
"""Which class names the files of a FastVideo tree register, as its registry reads them: syntax trees, no import."""

from __future__ import annotations

import ast
from pathlib import Path


def parse(path: Path) -> ast.Module | None:
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return None


def entry_class(path: Path) -> list[str] | None:
    """The names in a file's EntryClass as FastVideo's registry reads them; [] when it has none, None without a file."""
    tree = parse(path)
    if tree is None:
        return None
    for node in tree.body:
        if not isinstance(node, ast.Assign):
            continue
        target, value = node.targets[0], node.value
        if isinstance(target, ast.Name) and target.id == "EntryClass":
            parts = value.elts if isinstance(value, ast.List | ast.Tuple) else [value]
            names = [p.id if isinstance(p, ast.Name) else getattr(p, "value", "") for p in parts]
            return [name for name in names if isinstance(name, str) and name]
    return []


def registering(root: Path, folder: str, name: str) -> list[str]:
    """Files under a folder whose EntryClass holds `name`."""
    found = []
    for path in sorted((root / folder).rglob("*.py")):
        if name in path.read_text(encoding="utf-8", errors="replace") and name in (entry_class(path) or []):
            found.append(path.relative_to(root).as_posix())
    return found


def legacy(root: Path, name: str, native: str) -> str:
    """Where FastVideo's table of legacy names (dicts in models/registry.py) leads for `name`, or ''."""
    tree = parse(root / "fastvideo" / "models" / "registry.py")
    for node in ast.walk(tree) if tree else ():
        if not isinstance(node, ast.Dict):
            continue
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == name and isinstance(value, ast.Tuple):
                parts = [str(e.value) for e in value.elts if isinstance(e, ast.Constant)]
                where = ".".join(["fastvideo.models", *parts[:2]])
                if where != native.partition(":")[0]:
                    return where
    return ""


def others(root: Path, native: str, native_file: str) -> list[str]:
    """Where else in FastVideo's models the class name of `module:Name` is registered: which one loads is luck."""
    name = native.partition(":")[2]
    found = [path for path in registering(root, "fastvideo/models", name) if path != native_file]
    table = legacy(root, name, native)
    return [*found, *([table] if table else [])]
