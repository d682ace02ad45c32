# SPDX-License-Identifier: Apache-2.0
"""Classes, exports and tests as the syntax tree shows them: base classes across files, skips."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from fvport.workspace.entries import parse

CONFIG_BASES = {
    "dit": {"DiTConfig"},
    "vae": {"VAEConfig"},
    "text_encoder": {"TextEncoderConfig"},
    "image_encoder": {"ImageEncoderConfig"},
    "audio_encoder": {"EncoderConfig", "ModelConfig"},
    "conditioner": {"EncoderConfig", "ModelConfig"},
    "upsampler": {"UpsamplerConfig"},
    "vocoder": {"ModelConfig"},
}
MODEL_BASES = {"dit": {"BaseDiT"}, "text_encoder": {"TextEncoder"}, "image_encoder": {"ImageEncoder"}}


def ancestors(root: Path, module: str, name: str, seen: frozenset[str] = frozenset()) -> set[str] | None:
    """Names of every class that `module:name` derives from, through imports in the tree; None: no such class."""
    path = _file(root, module)
    tree = parse(path) if path else None
    if tree is None or f"{module}:{name}" in seen:
        return None
    seen |= {f"{module}:{name}"}
    imported = _from_imports(tree, module, path is not None and path.name == "__init__.py")
    defined = next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None)
    if defined is None:
        return ancestors(root, *imported[name], seen) if name in imported else None
    found: set[str] = set()
    for base in defined.bases:
        word = ast.unparse(base.value if isinstance(base, ast.Subscript) else base).rpartition(".")[2]
        source = imported.get(word, (module, word))
        found |= {source[1]} | (ancestors(root, *source, seen) or set())
    return found


def _file(root: Path, module: str) -> Path | None:
    base = root.joinpath(*module.split("."))
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


def _from_imports(tree: ast.Module, module: str, package: bool = False) -> dict[str, tuple[str, str]]:
    """{local name: (module, name there)} of the from-imports, relative ones resolved."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                parts = module.split(".")
                cut = len(parts) - node.level + (1 if package else 0)
                source = ".".join([*parts[:cut], *([source] if source else [])])
            found.update({alias.asname or alias.name: (source, alias.name) for alias in node.names})
    return found


def exports(path: Path) -> tuple[dict[str, str], set[str] | None]:
    """({name: module it comes from}, names in __all__ or None) of an `__init__.py`."""
    tree = parse(path)
    if tree is None:
        return {}, None
    package = (
        ".".join(("fastvideo", *path.parts[path.parts.index("fastvideo") + 1 : -1]))
        if "fastvideo" in path.parts
        else ""
    )
    imported = {name: source for name, (source, _) in _from_imports(tree, package, True).items()}
    listed: set[str] | None = None
    for node in tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            continue
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if isinstance(target, ast.Name) and target.id == "__all__":
            values = [getattr(element, "value", None) for element in getattr(node.value, "elts", [])]
            listed = (listed or set()) | {value for value in values if isinstance(value, str)}
    return imported, listed


# --- tests -----------------------------------------------------------------------------------------------------------


SKIPS = ("skip", "skipif", "xfail", "importorskip", "skipUnless", "skipIf", "SkipTest", "exit", "skipTest")


def skips(tree: ast.AST | SyntaxError) -> Iterator[tuple[int, str]]:
    """(line, sentence) for each way of a test file not to run: skip, xfail, importorskip, a collection hook."""
    if isinstance(tree, SyntaxError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in SKIPS:
            if ast.unparse(node).split(".")[0] in ("pytest", "unittest", "self", "mark", "sys", "os", "request"):
                yield node.lineno, f"{ast.unparse(node)}: a skip is no pass"
        elif isinstance(node, ast.ImportFrom) and node.module in ("pytest", "unittest", "_pytest.outcomes"):
            for alias in node.names:
                if alias.name in ("skip", "xfail", "importorskip", "mark", "SkipTest", "skipIf", "skipUnless", "exit"):
                    yield node.lineno, f"imports {alias.name} from {node.module}: a skip is no pass"
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(
                ast.unparse(t) in ("__test__", "collect_ignore", "collect_ignore_glob", "pytestmark") for t in targets
            ):
                yield node.lineno, f"sets {ast.unparse(targets[0])}: a test that is not collected is no pass"


def test_problems(tree: ast.Module, component: str) -> Iterator[tuple[int, str]]:
    """What is wrong with a component's parity test: it must call parity.compare(NAME, ...) in plain sight."""
    yield from skips(tree)
    found = False
    for function in tree.body:
        if not isinstance(function, ast.FunctionDef) or not function.name.startswith("test_"):
            continue
        for statement in function.body:
            call = getattr(statement, "value", None)
            if not isinstance(call, ast.Call) or ast.unparse(call.func) != "parity.compare":
                if isinstance(statement, ast.Return):
                    yield statement.lineno, "returns before it compares" if not found else "returns early"
                continue
            name = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
            found = found or name == component
            for keyword in call.keywords:
                if keyword.arg in ("atol", "rtol", "tolerance", "factor", "strict"):
                    yield call.lineno, f"sets {keyword.arg} in the test: tolerances are declared in port.toml"
    if not found:
        yield 1, f'no test calls parity.compare("{component}", ...) as a statement of its own'
