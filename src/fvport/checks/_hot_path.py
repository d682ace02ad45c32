# SPDX-License-Identifier: Apache-2.0
"""What slows a port that is right, or hides a number in its code: rules FV330 to FV335, notes and never red.

A port is first made equal and then made fast; these are the places to look at between the two.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from fvport.checks._sources import Source, Sources

MAKERS = {"tensor", "zeros", "ones", "full", "arange", "linspace", "eye", "empty", "as_tensor"}
PLACES = {"device", "dtype", "generator", "layout", "requires_grad"}  # where a tensor lies, not what it holds
SETTERS = ("set_", "use_deterministic_algorithms", "manual_seed", "seed", "enable_", "disable_")
WAITS = {"item", "cpu", "tolist", "numpy", "synchronize", "empty_cache"}
STEPS = ("timestep", "step", "sigma")
DIGITS = 3  # significant digits from which a float is somebody's measurement


def notes(s: Sources) -> list[str]:
    """One line a finding: rule, file and line, what, what to do."""
    found = []
    for source in s.files:
        if source.runtime and source.python and not isinstance(source.tree, SyntaxError):
            found += [(source.path, *row) for row in sorted(set(_of(source))) if source.mine(row[0])]
    found += sorted(_dead(s))
    return [f"{rule} {path}:{line}: {what}" for path, line, rule, what in found]


def _of(source: Source) -> Iterator[tuple[int, str, str]]:
    functions = [node for node in source.nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    for function in functions:
        for loop in (node for node in ast.walk(function) if isinstance(node, (ast.For, ast.While))):
            yield from _in_loop(loop)
        if function.name == "forward" or "denois" in function.name:
            yield from _numbers(function)


def _in_loop(loop: ast.For | ast.While) -> Iterator[tuple[int, str, str]]:
    changing = _assigned(loop)
    steps = _over_steps(loop)
    for node in (inner for statement in loop.body for inner in ast.walk(statement)):
        if isinstance(node, ast.Call):
            name = _name(node.func)
            short = name.rpartition(".")[2]
            if name.startswith("torch.") and short in MAKERS:
                used = _names([*node.args, *(k.value for k in node.keywords if k.arg not in PLACES)])
                if not used:
                    yield node.lineno, "FV330", f"{name} of constants in a loop: make it once, before the loop"
                elif steps and not used & changing:
                    yield node.lineno, "FV331", f"{name} in every step, of what no step changes: make it once"
            if name.startswith("torch.") and short.startswith(SETTERS):
                yield node.lineno, "FV332", f"{name} in a loop sets what is global: set it once, or not at all"
            if steps and isinstance(node.func, ast.Attribute) and short in WAITS:
                yield node.lineno, "FV335", f".{short}() in every step waits for the GPU: keep it on the device"
        for target in _targets(node):
            name = _name(target.value if isinstance(target, ast.Subscript) else target)
            if name.startswith(("torch.backends.", "os.environ")):
                yield target.lineno, "FV332", f"{name} is set in a loop: set it once, or not at all"


def _numbers(function: ast.AST) -> Iterator[tuple[int, str, str]]:
    body = function.body if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)) else []
    for node in (inner for statement in body for inner in ast.walk(statement)):
        if isinstance(node, ast.Constant) and isinstance(node.value, float) and _digits(node.value) >= DIGITS:
            told = f"the number {node.value!r} in the computation: give it a name in the config, with its source"
            yield node.lineno, "FV333", told


def _digits(value: float) -> int:
    """Significant digits as a person would write them: 1e-6 has one, 0.18215 has five."""
    mantissa = f"{abs(value):.15g}".partition("e")[0].replace(".", "").strip("0")
    return len(mantissa)


def _dead(s: Sources) -> Iterator[tuple[str, int, str, str]]:
    """Keys of `batch.extra` that are written and nowhere read, in the port's files."""
    written: list[tuple[str, int, str]] = []
    read: set[str] = set()
    for source in s.files:
        if not (source.runtime and source.python) or isinstance(source.tree, SyntaxError):
            continue
        for node in ast.walk(source.tree):
            key = _extra(node)
            if key is None:
                continue
            if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
                written.append((source.path, node.lineno, key))
            else:
                read.add(key)
    for path, line, key in written:
        if key not in read:
            yield path, line, "FV334", f'batch.extra["{key}"] is written and nowhere read in the port: leave it out'


def _extra(node: ast.AST) -> str | None:
    """The key of `x.extra["key"]` or `x.extra.get("key")`, else None."""
    owner: ast.expr
    key: ast.expr | None
    if isinstance(node, ast.Subscript):
        owner, key = node.value, node.slice
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("get", "pop"):
        owner, key = node.func.value, node.args[0] if node.args else None
    else:
        return None
    if isinstance(owner, ast.Attribute) and owner.attr == "extra" and isinstance(key, ast.Constant):
        return str(key.value)
    return None


# --- small readings of a tree -----------------------------------------------------------------------------------------


def _over_steps(loop: ast.For | ast.While) -> bool:
    """A loop over timesteps, by the names that it runs over."""
    parts: list[Any] = [loop.target, loop.iter] if isinstance(loop, ast.For) else [loop.test]
    names = _names(parts) | {n.attr for part in parts for n in ast.walk(part) if isinstance(n, ast.Attribute)}
    return any(word in name.lower() for name in names for word in STEPS)


def _assigned(loop: ast.For | ast.While) -> set[str]:
    targets: list[Any] = [loop.target] if isinstance(loop, ast.For) else []
    targets += [t for statement in loop.body for node in ast.walk(statement) for t in _targets(node)]
    return _names(targets)


def _targets(node: ast.AST) -> list[Any]:
    if isinstance(node, ast.Assign):
        return node.targets
    if isinstance(node, (ast.AugAssign, ast.AnnAssign, ast.For)):
        return [node.target]
    return [node.optional_vars] if isinstance(node, ast.withitem) and node.optional_vars else []


def _names(nodes: list[Any]) -> set[str]:
    return {n.id for node in nodes for n in ast.walk(node) if isinstance(n, ast.Name)}


def _name(node: ast.AST) -> str:
    """'torch.backends.cudnn.benchmark' of an attribute chain; '' for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""
