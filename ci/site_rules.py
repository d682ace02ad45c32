# SPDX-License-Identifier: Apache-2.0
"""Pages of the numbered rules, from the code's own tables: number and sentence from the rule, examples from the tests.

Everything is read from source text; nothing of fvport is imported, so the pages are made in a second.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from ci import site_examples

ROOT = Path(__file__).resolve().parent.parent
CHECKS = ROOT / "src" / "fvport" / "checks"
TABLES = {"boundary": "tests/test_boundary.py", "docs": "tests/test_gate_docs.py"}
SHORT = 110  # characters of an example in a table


def sentences(file: Path) -> dict[str, str]:
    """{number: first sentence} of the rules that a file declares with `rule("FVnnn")`, as decorator or as a call."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                if number := _number(decorator):
                    found[number] = first(node)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and _number(node.value.func):
            found[_number(node.value.func)] = _elsewhere(node.value.args[0], file.parent)
    return dict(sorted(found.items()))


def _number(node: ast.expr) -> str:
    """FVnnn of `rule("FVnnn")`, or ''."""
    if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
        return ""
    value = str(node.args[0].value)
    return value if value.startswith("FV") else ""


def _elsewhere(node: ast.expr, folder: Path) -> str:
    """The first sentence of `conduct.name`, a function of the private module beside."""
    assert isinstance(node, ast.Attribute)
    assert isinstance(node.value, ast.Name)
    tree = ast.parse((folder / f"_{node.value.id}.py").read_text(encoding="utf-8"))
    return first(next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == node.attr))


def first(node: ast.FunctionDef) -> str:
    return (ast.get_docstring(node) or "").split("\n")[0]


def all_rules() -> dict[str, dict[str, str]]:
    """{page: {number: sentence}} of every family."""
    return {
        "mapping": sentences(ROOT / "src" / "fvport" / "weights" / "lint.py"),
        **{name: sentences(CHECKS / f"{name}.py") for name in ("boundary", "docs", "smoke")},
    }


def edits(file: Path) -> dict[str, tuple[str, str, str]]:
    """{number: (file, text of a clean port, what the test puts there)}: the first plain row of the test's table."""
    found: dict[str, tuple[str, str, str]] = {}
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = {
        node.targets[0].id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
    }
    for row in ast.walk(tree):
        if not isinstance(row, ast.Tuple) or len(row.elts) < 4:
            continue
        words = [names.get(e.id) if isinstance(e, ast.Name) else getattr(e, "value", None) for e in row.elts]
        if not all(isinstance(word, str) for word in words[:4]) or not str(words[0]).startswith("FV"):
            continue
        path, old, new = words[1:4] if len(words) == 5 else (names["PAGE"], words[1], words[2])
        found.setdefault(str(words[0]), (str(path), str(old), str(new)))
    return found


def pages() -> dict[str, str]:
    """{file under docs/: text}."""
    families = all_rules()
    made = {"rules/index.md": index(families)}
    heads = {
        "mapping": ("FV1xx: the weight mapping", "`fvport check mapping`, `fvport mapping review`", "weights/lint.py"),
        "boundary": ("FV3xx: what the port's files may hold", "`fvport check boundary`", "checks/boundary.py"),
        "docs": ("FV4xx: the port's page", "`fvport check docs`", "checks/docs.py"),
        "smoke": ("FV6xx: what FastVideo resolves and loads", "`fvport check smoke`", "checks/smoke.py"),
    }
    for name, (title, command, source) in heads.items():
        lines = [f"# {title}", "", f"Raised by {command}; the rules stand in `src/fvport/{source}`.", ""]
        for number, sentence in families[name].items():
            lines += [f"## {number}", "", sentence, "", *_example(name, number), ""]
        made[f"rules/{name}.md"] = "\n".join(lines).rstrip() + "\n"
    return made


def index(families: dict[str, dict[str, str]]) -> str:
    lines = [
        "# Numbered rules",
        "",
        "A number never changes its meaning and is never used again. Each rule has an example that fails and one that",
        "passes. Those of the mapping are run by a test of this repository; those of `boundary` and `docs` are the",
        "edits that the rule's own test makes in a clean port; those of `smoke` are the answers that its test puts",
        "before the rule.",
        "",
        "| rule | says |",
        "| --- | --- |",
    ]
    for name, rules in families.items():
        lines += [f"| [{n}]({name}.md#{n.lower()}) | {cell(s)} |" for n, s in rules.items()]
    return "\n".join(lines) + "\n"


def _example(family: str, number: str) -> Iterator[str]:
    if number in site_examples.MAPPING:
        for word, case in zip(("Fails", "Passes"), site_examples.MAPPING[number], strict=True):
            yield from (f"{word}:", "", "```python", *written(case), "```", "")
        return
    by_hand = {**site_examples.DECLARED, **site_examples.SMOKE, **site_examples.BY_HAND}
    if number in by_hand:
        bad, good = by_hand[number]
        yield from ("| | |", "| --- | --- |", f"| fails | {cell(bad)} |", f"| passes | {cell(good)} |")
        return
    path, old, new = edits(ROOT / TABLES[family])[number]
    yield from (f"In `{path}`. Fails:", "", "```text", *new.splitlines(), "```", "")
    yield from ("Passes:", "", "```text", *old.splitlines(), "```")


def written(case: dict[str, object]) -> Iterator[str]:
    """A mapping example as the declaration that a person writes, with the names that it meets."""
    for key, value in case.items():
        if key == "mapping":
            rules = dict(value)  # type: ignore[call-overload]
            yield from (["param_names_mapping = {", *(f"    {_raw(p)}: {_raw(t)}," for p, t in rules.items()), "}"])
        elif key in ("shapes", "native"):
            word = {"shapes": "official", "native": "native"}[key]
            yield f"# {word}: " + ", ".join(f"{n} {list(s)}" for n, s in (value or {}).items())  # type: ignore[attr-defined]
        else:
            yield f"# port.toml: mapping.{key} = {value!r}"


def _raw(value: object) -> str:
    if isinstance(value, str):
        return f'r"{value}"' if "\\" in value else f'"{value}"'
    assert isinstance(value, tuple)
    return f"({', '.join(_raw(v) if isinstance(v, str) else str(v) for v in value)})"


def cell(text: str) -> str:
    """Text for a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")
