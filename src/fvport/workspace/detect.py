# SPDX-License-Identifier: Apache-2.0
"""Judge a registry detector by trying it, without importing the registry.

A detector is a small lambda over one string. Only string work is allowed in it (a closed list of syntax and
methods), so it can be evaluated apart from the file it stands in.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence

ALLOWED = (
    ast.Lambda, ast.arguments, ast.arg, ast.Compare, ast.Eq, ast.NotEq, ast.In, ast.NotIn, ast.BoolOp, ast.And,
    ast.Or,
    ast.UnaryOp, ast.Not, ast.USub, ast.Constant, ast.JoinedStr, ast.FormattedValue, ast.Name, ast.Load, ast.Store,
    ast.Attribute, ast.Call, ast.Subscript, ast.Slice, ast.Tuple, ast.List, ast.GeneratorExp, ast.comprehension,
    ast.Set,
)  # fmt: skip
METHODS = {
    "lower",
    "strip",
    "rstrip",
    "lstrip",
    "startswith",
    "endswith",
    "split",
    "rsplit",
    "removesuffix",
    "removeprefix",
}
FUNCTIONS = {"any": any, "all": all, "len": len}


def compile_detector(node: ast.expr) -> Callable[[str], object] | None:
    """The detector as a function, or None when it does anything but look at its one string."""
    if not isinstance(node, ast.Lambda) or len(node.args.args) != 1:
        return None
    for part in ast.walk(node):
        if not isinstance(part, ALLOWED):
            return None
        if isinstance(part, ast.Attribute) and part.attr not in METHODS:
            return None
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id not in FUNCTIONS:
            return None
    code = compile(ast.fix_missing_locations(ast.Expression(node)), "detector", "eval")
    detector: Callable[[str], object] = eval(code, {"__builtins__": {}, **FUNCTIONS})
    return detector


def judge(detectors: ast.expr | None, must: Sequence[str], must_not: Sequence[str]) -> list[str]:
    """Sentences about what a list of detectors misses (`must`) or takes from others (`must_not`)."""
    if not isinstance(detectors, ast.List | ast.Tuple) or not detectors.elts:
        return ["model_detectors is missing"]
    functions = []
    for node in detectors.elts:
        function = compile_detector(node)
        if function is None:
            return [f"the detector `{ast.unparse(node)}` is not a plain comparison of one string"]
        functions.append((ast.unparse(node), function))
    found = []
    for text in must:
        if not any(_call(function, text) for _, function in functions):
            found.append(f'no detector matches "{text}"')
            break
    for source, function in functions:
        taken = next((text for text in must_not if _call(function, text)), None)
        if taken is not None:
            found.append(f'the detector `{source}` is not exact: it also matches "{taken}"')
    return found


def _call(function: Callable[[str], object], text: str) -> bool:
    try:
        return bool(function(text))
    except (TypeError, ValueError, AttributeError, LookupError):  # a detector that raises matches nothing
        return False
