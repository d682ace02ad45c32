# SPDX-License-Identifier: Apache-2.0
"""The expressions of GitHub's workflows, as far as ours use them: `${{ inputs.x || vars.Y }}`, `fromJSON`, `always()`.

Anything else is an error, never a guess.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

FUNCTIONS = {"fromJSON": json.loads, "always": lambda: True}


def fill(value: Any, context: Mapping[str, Any]) -> Any:
    """`value` with every `${{ }}` in it evaluated; a text that is one expression keeps the type of its value."""
    if isinstance(value, dict):
        return {key: fill(item, context) for key, item in value.items()}
    if not isinstance(value, str):
        return value
    whole = re.fullmatch(r"\$\{\{\s*(.+?)\s*\}\}", value)
    if whole and "${{" not in whole[1]:
        return evaluate(whole[1], context)
    return re.sub(r"\$\{\{\s*(.+?)\s*\}\}", lambda found: text(evaluate(found[1], context)), value)


def text(value: Any) -> str:
    """A value as a workflow puts it into a text or an environment variable."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def evaluate(expression: str, context: Mapping[str, Any]) -> Any:
    """One expression. ValueError names what is not understood."""
    words = re.split(r"('[^']*')", expression)  # quoted texts stay as they are
    for number in range(0, len(words), 2):
        word = words[number].replace("&&", " and ").replace("||", " or ")
        words[number] = re.sub(r"!(?!=)", " not ", word)
    try:
        tree = ast.parse("".join(words).strip(), mode="eval")
    except SyntaxError:
        raise ValueError(f"not understood: {expression}") from None
    return _value(tree.body, context, expression)


def _value(node: ast.AST, context: Mapping[str, Any], whole: str) -> Any:
    def part(inner: ast.AST) -> Any:
        return _value(inner, context, whole)

    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name) if name in context:
            return context[name]
        case ast.Attribute(value=inner, attr=name):
            found = part(inner)
            return found.get(name, "") if isinstance(found, Mapping) else ""
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            return not part(inner)
        case ast.BoolOp(op=op, values=values):
            result: Any = ""
            for inner in values:
                result = part(inner)
                if bool(result) == isinstance(op, ast.Or):
                    break
            return result
        case ast.Compare(left=left, ops=[ast.Eq() | ast.NotEq() as op], comparators=[right]):
            return (part(left) == part(right)) == isinstance(op, ast.Eq)
        case ast.Call(func=ast.Name(id=name), args=args) if name in FUNCTIONS:
            return FUNCTIONS[name](*map(part, args))
    raise ValueError(f"not understood: {whole}")
