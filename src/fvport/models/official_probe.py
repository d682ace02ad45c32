# SPDX-License-Identifier: Apache-2.0
"""Import what the official side imports, in a process of its own: `python -I official_probe.py JOB.json OUT.json`.

Run by its path with any Python, imports nothing of fvport. Every module that is missing is found, not only the first:
it gets a stand-in and the import is tried again. A module that the code can do without (it catches the ImportError) is
not missing.
"""

from __future__ import annotations

import ast
import importlib
import importlib.abc
import importlib.util
import json
import os
import sys
import traceback
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROUNDS = 500
if TYPE_CHECKING:
    Json = dict[str, Any]  # for hints only: an oracle of its own may have an old Python


class _Guard(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] in ("fastvideo", "fvport"):
            raise ImportError(f"the official side must not import {name}: two sides that share code prove nothing")


class Probe:
    """The targets in turn, each until it imports or until something else than a missing module stops it."""

    def __init__(self, job: Json) -> None:
        self.roots = [Path(root) for root in job["import_path"]]
        self.finder = _helper(job["stand_ins"]).install(tuple(job["stubs"]))
        self.given = set(job["stubs"])
        self.missing: dict[str, str] = {}
        self.problems: list[Json] = []
        self.used: dict[str, str] = {}

    def all(self, targets: list[list[str]]) -> None:
        for module, name, where in targets:
            self.one(module, name, where)

    def one(self, module: str, name: str, where: str) -> None:
        for _ in range(ROUNDS):
            try:
                _get(importlib.import_module(module), module, name)
                return
            except ModuleNotFoundError as error:
                lacking = _lacking(error.name or "", self.roots)
                if not lacking or lacking in self.finder.names:
                    return self.problem(module, name, where, error)
                self.missing[lacking] = self.place(error) or where
                self.finder.names.append(lacking)
                self.forget()
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                return self.problem(module, name, where, error)

    def problem(self, module: str, name: str, where: str, error: BaseException) -> None:
        words = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        target = f"{module}.{name}" if name else module
        self.problems.append({"target": target, "where": self.place(error) or where, "words": words})
        self.forget()

    def forget(self) -> None:
        """The official code's own modules are imported afresh; installed packages stay as they are."""
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None) or ""
            if file and any(root in Path(file).parents for root in self.roots):
                del sys.modules[name]

    def place(self, error: BaseException) -> str:
        """`file:line` of the innermost frame that is no import machinery and not this file."""
        skip = ("<frozen", str(Path(__file__)))
        frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(skip)]
        frames = [f for f in frames if os.sep + "importlib" + os.sep not in f.filename]
        return f"{self.shown(Path(frames[-1].filename))}:{frames[-1].lineno}" if frames else ""

    def shown(self, path: Path) -> str:
        for root in self.roots:
            if root in path.parents:
                return path.relative_to(root).as_posix()
        parts = path.parts
        return "/".join(parts[parts.index("site-packages") + 1 :]) if "site-packages" in parts else path.name

    def package_of(self, name: str) -> str:
        """`diffusers 0.30.0` where a part of an installed package is missing (another version?); or ''."""
        top = name.partition(".")[0]
        file = getattr(sys.modules.get(top), "__file__", None) or ""
        if top == name or not file or any(root in Path(file).parents for root in self.roots):
            return ""
        return " ".join([top, *versions([[top, "", ""]]).get(top, [""])[:1]]).strip()

    def late(self) -> list[Json]:
        """Modules that functions of the official code import when called, and that nobody has (not inside a `try`)."""
        found: dict[str, str] = {}
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None) or ""
            if file.endswith(".py") and any(root in Path(file).parents for root in self.roots):
                for name, line in _inside_functions(Path(file)):
                    if not _there(name.partition(".")[0]):
                        found.setdefault(name.partition(".")[0], f"{self.shown(Path(file))}:{line}")
        return [{"module": name, "where": where} for name, where in sorted(found.items())]


def _helper(source: str) -> Any:
    module = types.ModuleType("_upstream")
    exec(compile(source, "<stand-ins>", "exec"), module.__dict__)  # noqa: S102 - fvport's own source text
    return module


def _get(module: Any, name: str, attribute: str) -> None:
    if attribute and attribute != "*":
        for part in attribute.split("."):
            if not hasattr(module, part):
                _submodule(module, part)
            module = getattr(module, part)


def _submodule(module: Any, part: str) -> None:
    """`from package import part` may mean a module of it; where there is none, the name is what is missing."""
    whole = f"{module.__name__}.{part}"
    try:
        importlib.import_module(whole)
    except ModuleNotFoundError as error:
        if error.name not in (whole, module.__name__):
            raise
        raise ImportError(f"cannot import name {part!r} from {module.__name__!r}") from None


def _lacking(name: str, roots: list[Path]) -> str:
    """The name to stand in for: the whole package where it is missing, the submodule where its package is there."""
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        package = ".".join(parts[:count])
        if package not in sys.modules and not _there(package):
            return package
    return name


def _there(name: str) -> bool:
    try:
        return name in sys.modules or importlib.util.find_spec(name) is not None
    except BaseException:  # noqa: BLE001 - looking for a submodule imports its package
        return False


def _inside_functions(file: Path) -> list[tuple[str, int]]:
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    found: list[tuple[str, int]] = []

    def walk(node: ast.AST, inside: bool) -> None:
        inside = inside or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        if isinstance(node, ast.Try):
            for child in [*node.handlers, *node.orelse, *node.finalbody]:
                walk(child, inside)
            return
        if inside and isinstance(node, ast.Import):
            found.extend((alias.name, node.lineno) for alias in node.names)
        if inside and isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append((node.module, node.lineno))
        for child in ast.iter_child_nodes(node):
            walk(child, inside)

    walk(tree, False)
    return found


def versions(targets: list[list[str]]) -> Json:
    """{package: [version, where it lies]} of what the targets came from; a path is cut to its end."""
    from importlib import metadata

    found: Json = {}
    for name in sorted({module.partition(".")[0] for module, _, _ in targets}):
        module = sys.modules.get(name)
        if module is None or name in getattr(sys, "stdlib_module_names", ()):
            continue
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            version = str(getattr(module, "__version__", ""))
        file = Path(getattr(module, "__file__", "") or "")
        found[name] = [version, "/".join(file.parts[-3:])]
    return found


def main(argv: list[str]) -> int:
    sys.dont_write_bytecode = True
    job = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
    _end_with_parent()
    sys.meta_path.insert(0, _Guard())
    sys.path[:0] = job["import_path"]
    probe = Probe(job)
    probe.all(job["targets"])
    answer = {
        "missing": [
            {"module": name, "where": where, "of": probe.package_of(name)}
            for name, where in sorted(probe.missing.items())
        ],
        "problems": probe.problems,
        "late": probe.late(),
        "stood_in": sorted(name for name in probe.given if not _really(name, probe.finder)),
        "versions": versions(job["targets"]),
        "python": ".".join(map(str, sys.version_info[:3])),
    }
    part = Path(argv[1]).with_suffix(".part")
    part.write_text(json.dumps(answer), encoding="utf-8")
    os.replace(part, argv[1])
    sys.stdout.flush()
    os._exit(0)  # threads that somebody's import has started must not keep the answer waiting


def _really(name: str, finder: Any) -> bool:
    """Is a module of this name installed, whatever the stand-ins say?"""
    names, finder.names = finder.names, []
    try:
        module = sys.modules.get(name)
        if module is not None:
            return type(module).__name__ != "StandInModule"
        return _there(name)
    finally:
        finder.names = names


def _end_with_parent() -> None:
    """SIGKILL when the process that asked is gone (Linux)."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
    except (OSError, AttributeError):
        pass


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
