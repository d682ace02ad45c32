# SPDX-License-Identifier: Apache-2.0
"""`tests/local_tests/helpers/<slug>_upstream.py`: stand-ins for modules that the official code imports and nobody has.

The file explains itself and needs nothing of fvport. It is written when the import check finds a module missing; lines
are added to the one that is there, and nothing in it is ever taken away or changed.
"""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

from fvport.errors import UsageError
from fvport.spec import Port

SOURCE = '''# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for modules that the official code of @MODEL@ imports and that are not installed.

While something is being imported a stand-in gives whatever is asked of it, so decorators and base classes pass. When
the model runs, using one raises: no number ever comes from a stand-in. An installed module always wins over its line.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from typing import Any

STUBS = (
)


def importing() -> bool:
    """Is a module being imported right now, somewhere up the stack?"""
    frame: Any = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


class StandIn:
    """What a missing module's name stands for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _refuse(self) -> Any:
        raise RuntimeError(f"{self._name} is not installed: its stand-in was used by code that runs")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not importing():
            return self._refuse()
        plain = len(args) == 1 and not kwargs and callable(args[0]) and not isinstance(args[0], StandIn)
        return args[0] if plain else StandIn(f"{self._name}()")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return StandIn(f"{self._name}.{name}") if importing() else self._refuse()

    def __mro_entries__(self, bases: Any) -> tuple[type, ...]:
        return (types.new_class(self._name.rpartition(".")[2], (_Base, )), )

    def __bool__(self) -> bool:
        return False if importing() else self._refuse()

    def __getitem__(self, key: Any) -> Any:
        return self if importing() else self._refuse()

    def __or__(self, other: Any) -> Any:
        return Any

    __ror__ = __or__


class _Base:
    """Base class of a class whose real one is missing: it can be defined, and not be made."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError(f"{type(self).__name__} has a base class that is not installed")


class StandInModule(types.ModuleType):

    def __getattr__(self, name: str) -> Any:
        if name == "__version__":
            return "0"
        if name.startswith("__"):
            raise AttributeError(name)
        if not importing():
            raise RuntimeError(f"{self.__name__} is not installed: {name} of its stand-in was used by code that runs")
        return StandIn(f"{self.__name__}.{name}")


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Asked last, so that only what nobody else finds is stood in for."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = list(names)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if any(name == stub or name.startswith(stub + ".") for stub in self.names):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> Any:
        return StandInModule(spec.name)

    def exec_module(self, module: Any) -> None:
        pass


def install(names: tuple[str, ...] = STUBS) -> Finder:
    """Put the stand-ins at the end of the import path, once for a process."""
    finder = Finder(names)
    sys.meta_path.append(finder)
    return finder
'''
_TABLE = re.compile(r"^STUBS(?:\s*:[^=\n]+)?\s*=\s*\(\n(.*?)^\)", re.MULTILINE | re.DOTALL)


def file_of(port: Port) -> Path:
    return port.root / "tests" / "local_tests" / "helpers" / f"{port.slug}_upstream.py"


def names(file: Path) -> list[str]:
    """The modules that a helper file stands in for; [] where there is no file. UsageError where it is none of ours."""
    if not file.is_file():
        return []
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        found = next(value for node in tree.body if (value := _value(node)) is not None)
        return [str(name) for name in ast.literal_eval(found)]
    except (SyntaxError, ValueError, StopIteration):
        todo = "Give it STUBS = (...) with one module a line, or delete it and run: fvport prep"
        raise UsageError("has no readable table STUBS of module names", where=str(file), todo=todo) from None


def _value(node: ast.stmt) -> ast.expr | None:
    """The value of an assignment to STUBS, with or without an annotation."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    named = any(isinstance(target, ast.Name) and target.id == "STUBS" for target in targets)
    return node.value if named and isinstance(node, ast.Assign | ast.AnnAssign) else None


def add(port: Port, missing: dict[str, str]) -> list[str]:
    """Write a line for each missing module ({name: where it is imported}) that has none yet; gives the names added."""
    file = file_of(port)
    known = set(names(file))
    new = {name: where for name, where in missing.items() if name not in known}
    if not new:
        return []
    text = file.read_text(encoding="utf-8") if file.is_file() else SOURCE.replace("@MODEL@", _plain(port.port.model))
    table = _TABLE.search(text)
    if table is None:
        todo = f"Add to STUBS: {', '.join(new)}"
        raise UsageError("STUBS is not one module a line, so nothing was added", where=str(file), todo=todo)
    lines = "".join(f'    "{name}",  # {_short(where)}\n' for name, where in sorted(new.items()))
    text = text[: table.end(1)] + lines + text[table.end(1) :]
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8", newline="\n")
    os.replace(part, file)
    return sorted(new)


def _plain(words: str) -> str:
    return re.sub(r'[\\"\n\r]', " ", words)[:60].strip()


def _short(where: str) -> str:
    return re.sub(r"[\n\r]", " ", where)[-70:] or "official code"
