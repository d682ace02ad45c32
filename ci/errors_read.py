# SPDX-License-Identifier: Apache-2.0
"""Every place in src/fvport that makes an error for a user, read from the source: what it says, as a template with {}.

A place is a call of UsageError, BlockedError, FvportError or a class derived from them, or of a method that only
raises one (`reader.fail(key, what)`). Text put together before, in the same function, is followed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "fvport"
ROOTS = ("FvportError", "UsageError", "BlockedError")
RAISERS = {"fail": ("UsageError", 1)}  # method -> (what it raises, which argument stands after "KEY: " in its sentence)
HOLE = "{}"


@dataclass(frozen=True)
class Place:
    """One sentence that a user may meet. `line` is for people; it is not a part of the catalogue."""

    module: str
    kind: str
    sentence: str
    todo: str
    line: int

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.module, self.kind, self.sentence)


def places(package: Path = PACKAGE) -> list[Place]:
    """Every place, in the order of files and lines."""
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in sorted(package.rglob("*.py"))}
    kinds = _kinds(trees.values())
    found = []
    for file, tree in trees.items():
        if "_template" in file.parts:
            continue
        module = ".".join(file.relative_to(package).with_suffix("").parts).removesuffix(".__init__")
        found += list(_of_module(module, tree, kinds))
    return found


def _kinds(trees: object) -> dict[str, str]:
    """{name of an error class: the root that it derives from, whose exit code it has}."""
    kinds = {name: name for name in ROOTS}
    classes = [n for tree in trees for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]  # type: ignore[attr-defined]
    for _ in range(3):  # a class may derive from one that stands later
        for node in classes:
            for base in node.bases:
                name = base.id if isinstance(base, ast.Name) else getattr(base, "attr", "")
                if name in kinds and node.name not in kinds:
                    kinds[node.name] = kinds[name]
    return kinds


def _of_module(module: str, tree: ast.Module, kinds: dict[str, str]) -> Iterator[Place]:
    for scope in [tree, *(n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)))]:
        known = _assigned(scope)
        for node in _own(scope):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name in kinds:
                kind, argument, before = kinds[name], 0, ""
            elif name in RAISERS and isinstance(node.func, ast.Attribute) and len(node.args) == 2:
                (kind, argument), before = RAISERS[name], f"{HOLE}: "
            else:
                continue
            said = node.args[argument] if len(node.args) > argument else _keyword(node, "what")
            if said is None:
                continue  # a subclass that makes its own sentence; that one is a place of its own
            todo = _keyword(node, "todo")
            todos = _texts(todo, known) if todo is not None else [""]
            for text in _texts(said, known):
                yield Place(module, kind, _tidy(before + text), _tidy(todos[0]), node.lineno)


def _keyword(node: ast.Call, name: str) -> ast.expr | None:
    return next((k.value for k in node.keywords if k.arg == name), None)


def _own(scope: ast.AST) -> Iterator[ast.AST]:
    """Nodes of a function, without those of functions inside it."""
    todo = list(ast.iter_child_nodes(scope))
    while todo:
        node = todo.pop(0)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        yield node
        todo[:0] = ast.iter_child_nodes(node)


def _assigned(scope: ast.AST) -> dict[str, list[ast.expr]]:
    """{name: what is assigned to it in this function}, also by `a, b = x, y` and `:=`."""
    found: dict[str, list[ast.expr]] = {}
    for node in _own(scope):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                pairs = [(target, node.value)]
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = list(zip(target.elts, node.value.elts, strict=False))
                for name, value in pairs:
                    if isinstance(name, ast.Name):
                        found.setdefault(name.id, []).append(value)
    return found


def _texts(node: ast.expr, known: dict[str, list[ast.expr]], depth: int = 0) -> list[str]:
    """The templates that an expression may become; one hole for what cannot be read."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        return ["".join(str(v.value) if isinstance(v, ast.Constant) else HOLE for v in node.values)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _texts(node.left, known, depth), _texts(node.right, known, depth)
        return [a + b for a in left for b in right]
    if isinstance(node, ast.IfExp):
        return [*_texts(node.body, known, depth), *_texts(node.orelse, known, depth)]
    if isinstance(node, ast.Name) and node.id in known and depth < 3:
        return list(dict.fromkeys(text for value in known[node.id] for text in _texts(value, known, depth + 1)))
    return [HOLE]


def _tidy(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
