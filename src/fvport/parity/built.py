# SPDX-License-Identifier: Apache-2.0
"""Where a port's own file builds a module: for one whose class is a shared layer, that line is the one to correct."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from fvport.spec import Component


def correct(component: Component, trace: dict[str, Any], root: Path) -> str:
    """What a trace found, as the first thing to do; '' where it named no module of the model.

    A layer of FastVideo's own is not the port's to correct: then it is the line of the port's file that builds it.
    """
    if trace.get("native") in (None, "(call)"):
        return ""
    name, place = trace["native"] or "(the model itself)", trace["native_line"]
    module, _, cls = component.native.partition(":")
    file = module.replace(".", "/") + ".py"
    if component.mode == "port" and file not in place and (root / file).is_file():
        text = (root / file).read_text(encoding="utf-8", errors="replace")
        if found := line(text, cls, name):
            return f"Correct {file}:{found}, which builds {name} ({place}), named by the trace"
    if trace.get("causes"):  # what makes it equal says more than any size
        return f"Correct {name} ({place}), which the trace names: {trace['causes'][0]['words']}"
    if trace.get("resized"):
        return f"Look first at sizes ({trace['resized']}), then at {name} ({place}), which the trace names"
    return f"Correct {name} ({place}), which the trace names"


def line(text: str, cls: str, path: str) -> int | None:
    """The line in `text` that assigns the deepest part of `path` that this file builds; None where it builds none.

    `cls` is the model's class there, `path` a module's name such as `blocks.0.ffn.fc_in`: the walk goes from class to
    class as the assignments in each say, and stops where a class is another file's.
    """
    try:
        classes = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)}
    except SyntaxError:
        return None
    found, here = None, classes.get(cls)
    for part in path.split("."):
        if part.isdigit():  # of a ModuleList or a Sequential: its assignment was the last one
            continue
        value = _assigned(here, part) if here is not None else None
        if value is None:
            return found
        found = value.lineno
        here = next((classes[name] for name in _names(value) if name in classes), None)
    return found


def _assigned(cls: ast.ClassDef | None, name: str) -> ast.expr | None:
    """The value of `self.NAME = ...` in a class, the last one that is not None."""
    found = None
    for node in ast.walk(cls) if cls else ():
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            named = isinstance(target, ast.Attribute) and target.attr == name
            value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
            if named and value is not None and not (isinstance(value, ast.Constant) and value.value is None):
                found = value
    return found


def _names(value: ast.expr) -> list[str]:
    """Names that are called in an expression, outermost first."""
    calls = [node.func for node in ast.walk(value) if isinstance(node, ast.Call)]
    return [func.id for func in calls if isinstance(func, ast.Name)]
