# SPDX-License-Identifier: Apache-2.0
"""Where an official class is written: file and line in an installed package or in the clone, found in source text.

Nothing is imported: a library takes seconds to import and may want a GPU.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from fvport.report.handoff_facts import Block, unknown
from fvport.spec import Component, Port

LIMIT = 4 << 20  # bytes of one source file


def definition(port: Port, c: Component, reference: str) -> Block:
    """`{path, symbols, notes}` of the official class, its path `unknown (looked at: ...)` where no file defines it."""
    module, _, symbol = c.official.partition(":")
    if not symbol:
        said = f"components.{c.name}.official"
        return {
            "path": unknown(said) if c.mode in ("port", "reuse") else f"none ({c.mode})",
            "symbols": [],
            "notes": "",
        }
    place = of_oracle(port, symbol) if module == "oracle" else locate(module, symbol, _roots(port))
    return {
        "path": place or unknown(f"source of {module}"),
        "symbols": [symbol],
        "notes": _version(module) or reference,
    }


def _version(module: str) -> str:
    from fvport import evidence as ev

    return "" if module == "oracle" else ev.package_digest(module.partition(".")[0])


def _roots(port: Port) -> tuple[Path, ...]:
    return tuple(root for root in (port.import_root, port.reference) if root is not None and root.is_dir())


def of_oracle(port: Port, function: str) -> str:
    """The function of oracle.py with its line, '' where there is none."""
    file = port.folder / "oracle.py"
    line = _line(file, function)
    return f"{file.relative_to(port.root).as_posix()}:{line}" if line else ""


@lru_cache(maxsize=64)
def locate(module: str, symbol: str, roots: tuple[Path, ...] = ()) -> str:
    """`transformers/models/umt5/modeling_umt5.py:905` of a class, '' where no file of the package defines it."""
    name = symbol.partition(".")[0]
    for folder, base in _places(module, roots):
        for file in _files(folder, module):
            if line := _line(file, name):
                return f"{file.relative_to(base).as_posix()}:{line}"
    return ""


def _places(module: str, roots: tuple[Path, ...]) -> Iterator[tuple[Path, Path]]:
    """(folder or file of the package, what its path is shown from): the official clone first, then installed ones."""
    top = module.partition(".")[0]
    for root in roots:
        if (root / top).exists() or (root / f"{top}.py").exists():
            yield (root / top if (root / top).exists() else root / f"{top}.py"), root.parent
    try:
        spec = importlib.util.find_spec(top) if top not in sys.modules else sys.modules[top].__spec__
    except (ImportError, ValueError):
        spec = None
    if spec is not None and spec.origin and spec.origin.endswith(".py"):
        file = Path(spec.origin)
        yield (file.parent, file.parent.parent) if file.name == "__init__.py" else (file, file.parent)


def _files(place: Path, module: str) -> Iterator[Path]:
    """The module's own file first, then files that hold models, then the rest."""
    if place.is_file():
        yield place
        return
    own = place.joinpath(*module.split(".")[1:])
    yield from (file for file in (own.with_suffix(".py"), own / "__init__.py") if file.is_file())
    every = sorted(place.rglob("*.py"))
    yield from sorted(every, key=lambda f: (not f.name.startswith(("modeling_", "autoencoder", "transformer")), f))


def _line(file: Path, name: str) -> int:
    """Line of `class name` or `def name` at the top of a file; 0."""
    try:
        data = file.read_bytes() if file.stat().st_size <= LIMIT else b""
    except OSError:
        return 0
    if not re.search(rb"^(class|def) " + re.escape(name).encode() + rb"\b", data, re.MULTILINE):
        return 0
    try:
        nodes = ast.parse(data).body
    except (SyntaxError, ValueError):
        return 0
    kinds = (ast.ClassDef, ast.FunctionDef)
    return next((node.lineno for node in nodes if isinstance(node, kinds) and node.name == name), 0)
