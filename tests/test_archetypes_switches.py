# SPDX-License-Identifier: Apache-2.0
"""What an encoder's bake writes holds what this model needs and nothing else: no dead switch, argument or helper."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import archetypes_support as support
import pytest

from benchmarks.encoder_cases import CASES

INTERFACE = {
    "position_ids",
    "inputs_embeds",
    "attention_mask",
    "kwargs",
    "module",
    "output_hidden_states",
}  # FastVideo's


def rendered(name: str) -> tuple[str, str]:
    """(native.py, config.py) of a case, as a bake writes them."""
    case = CASES[name]
    config = dict(case.config)
    p, c = support.context(case.archetype, case.official, config, name=case.kind)
    return tuple(support.text(case.archetype, f"{part}.py.jinja", p, c) for part in ("native", "config"))  # type: ignore[return-value]


def dead(native: str, config: str) -> list[str]:
    """Each thing that this model cannot need, with its line."""
    tree = ast.parse(native)
    return [*_switches(tree, _fixed(ast.parse(config))), *_arguments(tree), *_helpers(tree), *_merges(tree, config)]


def _fixed(config: ast.Module) -> set[str]:
    """Fields and properties of the arch config whose value is a switch: a bool, a word or nothing."""
    found = set()
    for node in ast.walk(config):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            value = node.value
            if isinstance(value, ast.Constant) and (value.value is None or isinstance(value.value, (bool, str))):
                found.add(node.target.id)
        if isinstance(node, ast.FunctionDef) and isinstance(node.returns, ast.Name) and node.returns.id == "bool":
            found.add(node.name)
    return found


def _switches(tree: ast.Module, fixed: set[str]) -> Iterator[str]:
    """A branch on what the release has decided, read from the config or kept from it on self."""
    kept = set(fixed)
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute)):
            continue
        if isinstance(node.value, ast.Attribute) and node.value.attr in fixed:
            kept.add(node.targets[0].attr)
    for node in ast.walk(tree):
        if isinstance(node, (ast.If, ast.IfExp)):
            test = node.test.operand if isinstance(node.test, ast.UnaryOp) else node.test
            parts = [test, *(test.values if isinstance(test, ast.BoolOp) else ())]
            parts += [test.left] if isinstance(test, ast.Compare) else []
            for part in parts:
                if isinstance(part, ast.Constant) or (isinstance(part, ast.Attribute) and part.attr in kept):
                    yield f"line {node.lineno}: a branch on {ast.unparse(part)}, which is decided for this model"


def _arguments(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef):
            continue
        names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        used = {n.id for statement in node.body for n in ast.walk(statement) if isinstance(n, ast.Name)}
        for name in set(names) - used - INTERFACE - {"self", "cls"}:
            yield f"line {node.lineno}: {node.name} does not use its argument {name}"


def _helpers(tree: ast.Module) -> Iterator[str]:
    read = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    read |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    for node in ast.walk(tree):
        own = isinstance(node, ast.ClassDef) or (isinstance(node, ast.FunctionDef) and re.match("_[^_]", node.name))
        if own and node.name not in read:  # type: ignore[attr-defined]
            yield f"line {node.lineno}: nothing uses {node.name}"  # type: ignore[attr-defined]


def _merges(tree: ast.Module, config: str) -> Iterator[str]:
    """Code for layers and merges that this model has none of."""
    built = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            kind = ast.unparse(node.args[1])
            if kind.endswith("Linear") and kind not in built:
                yield f"line {node.lineno}: asks for {kind}, and the model has none"
    if "parts > 1" in ast.unparse(tree) and ", 0, " not in config:
        yield "load_weights joins parts, and no rule has any"


@pytest.mark.parametrize("name", CASES)
def test_nothing_dead_is_written(name: str) -> None:
    """For every class and variant of the encoder archetypes."""
    assert dead(*rendered(name)) == []


PLANTED = {
    "a switch on the config": ("        return self.wo(", "        if self.config.is_gated_act:\n            pass\n"),
    "an argument": ("    def bias(self, length: int,", "    def bias(self, length: int, causal: bool,"),
    "a helper": ("class SelfAttention(", "def _unused(x: int) -> int:\n    return x\n\n\nclass SelfAttention("),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_one_is_found(fault: str) -> None:
    """The same look at a T5 with something dead in it."""
    native, config = rendered("t5")
    old, new = PLANTED[fault]
    assert native.count(old) == 1
    planted = native.replace(old, new + old if new.endswith("\n") else new)
    config = config.replace("    pad_token_id", "    is_gated_act: bool = False\n    pad_token_id", 1)
    assert len(dead(planted, config)) == 1
