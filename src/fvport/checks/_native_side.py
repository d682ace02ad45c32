# SPDX-License-Identifier: Apache-2.0
"""What would let a parity test agree with the official side without the native one: read from its syntax tree.

`call(native, case)` is given the native object and returns its outputs. A test that imports the official library, reads
a file, or never uses `native` can return the official outputs, and every comparison passes.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from fvport.checks._imports import LIBRARIES, _dotted

PLAIN = {
    *("__future__", "collections", "contextlib", "dataclasses", "enum", "functools", "itertools", "math", "operator"),
    *("random", "typing", "typing_extensions", "einops", "numpy", "pytest", "torch", "fastvideo"),
}
NATIVE_MODULES = ("fvport.models.native",)  # of fvport: how to stand in FastVideo's forward context
MADE_HERE = ("fastvideo.models", "fastvideo.pipelines")  # the native object is given, so nothing makes another one
READERS = {
    *("open", "exec", "eval", "compile", "__import__", "globals", "torch.load", "torch.jit.load", "torch.hub.load"),
    *("numpy.load", "np.load", "torch.from_file", "numpy.fromfile", "np.fromfile"),
}
HOOKS = ("pytest_runtest", "pytest_pyfunc", "pytest_collection", "pytest_fixture")
HIDDEN = {"__globals__", "__subclasses__", "__builtins__", "__loader__", "__spec__"}
TODO = "call(native, case) computes with the native object that it is given, and with nothing else"


def problems(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, sentence) for each way around the native object in a parity test."""
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(tree):
        yield from _imports(node)
        yield from _replaces_parity(node)
        if isinstance(node, ast.Call) and _dotted(node.func) in READERS:
            yield node.lineno, f"calls {_dotted(node.func)}: what is compared must be computed, not read"
        elif isinstance(node, ast.Attribute) and node.attr in HIDDEN:
            yield node.lineno, f"reaches for {node.attr}"
        elif isinstance(node, ast.arg) and node.arg in ("monkeypatch", "mocker"):
            yield node.lineno, f"takes {node.arg}: a parity test changes nothing of what it compares"
        elif isinstance(node, ast.Call) and _dotted(node.func) == "parity.compare":
            yield from _uses_native(node, functions)


def conftest_problems(tree: ast.Module | SyntaxError) -> Iterator[tuple[int, str]]:
    """The same of a conftest.py: it stands before every test."""
    if isinstance(tree, SyntaxError):
        return
    for node in ast.walk(tree):
        yield from _replaces_parity(node)
        for line, module in _modules(node):
            if module.partition(".")[0] in LIBRARIES or module.startswith("fvport"):
                yield line, f"imports {module}, which every test here would get"
        if isinstance(node, ast.FunctionDef) and node.name.startswith(HOOKS):
            yield node.lineno, f"defines {node.name}, which can change what a test says"


def _imports(node: ast.AST) -> Iterator[tuple[int, str]]:
    for line, module in _modules(node):
        top = module.partition(".")[0]
        if module in NATIVE_MODULES:
            continue
        if top not in PLAIN:
            yield line, f"imports {module}: {TODO}"
        elif any(module == part or module.startswith(f"{part}.") for part in MADE_HERE):
            yield line, f"imports {module}, which can make another object than the one under test"


def _modules(node: ast.AST) -> list[tuple[int, str]]:
    """(line, module) of an import statement; `from a import b` counts as a.b where b may be a module of it."""
    if isinstance(node, ast.Import):
        return [(node.lineno, alias.name) for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    module = "." * node.level + (node.module or "")
    if module in ("fastvideo", "fvport", "fvport.models"):
        return [(node.lineno, f"{module}.{alias.name}") for alias in node.names]
    return [(node.lineno, module)]


def _replaces_parity(node: ast.AST) -> Iterator[tuple[int, str]]:
    """A `parity` of the port's own in place of fvport's fixture."""
    said = "puts another parity in place of the gate's"
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        names = {node.name} if node.name == "parity" else set()
        for decorator in node.decorator_list:
            keywords = decorator.keywords if isinstance(decorator, ast.Call) else []
            names |= {str(k.value.value) for k in keywords if k.arg == "name" and isinstance(k.value, ast.Constant)}
        if "parity" in names:
            yield node.lineno, said
    elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(_dotted(t).partition(".")[0] == "parity" for target in targets for t in _flat(target)):
            yield node.lineno, said
    elif isinstance(node, ast.Call) and _dotted(node.func) == "setattr" and node.args[:1]:
        yield from [(node.lineno, said)] if _dotted(node.args[0]).partition(".")[0] == "parity" else []


def _flat(target: ast.expr) -> list[ast.expr]:
    return [t for e in target.elts for t in _flat(e)] if isinstance(target, ast.Tuple | ast.List) else [target]


def _uses_native(compare: ast.Call, functions: dict[str, ast.FunctionDef]) -> Iterator[tuple[int, str]]:
    """The function given to parity.compare must compute with its first parameter and never rebind it."""
    given = [*compare.args[1:2], *(k.value for k in compare.keywords if k.arg == "call")]
    call = given[0] if given else None
    function = call if isinstance(call, ast.Lambda) else functions.get(call.id) if isinstance(call, ast.Name) else None
    if function is None:
        yield compare.lineno, "parity.compare is given no function of this file, so nobody sees that it uses native"
        return
    parameters = [*function.args.posonlyargs, *function.args.args]
    if not parameters:
        yield function.lineno, "takes no native object"
        return
    name = parameters[0].arg
    body = function.body if isinstance(function.body, list) else [function.body]
    nodes = [node for statement in body for node in ast.walk(statement)]
    if any(isinstance(n, ast.Name) and n.id == name and not isinstance(n.ctx, ast.Load) for n in nodes):
        yield function.lineno, f"puts something else in place of {name}"
    if not any(isinstance(n, ast.Call) and _speaks_of(n, name) for n in nodes):
        yield function.lineno, f"never computes with {name}"


def _speaks_of(call: ast.Call, name: str) -> bool:
    parts = [call.func, *call.args, *(keyword.value for keyword in call.keywords)]
    return any(isinstance(node, ast.Name) and node.id == name for part in parts for node in ast.walk(part))
