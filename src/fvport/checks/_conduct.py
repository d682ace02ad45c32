# SPDX-License-Identifier: Apache-2.0
"""Two rules of `boundary` on conduct: a port does not look for its judge, and leaves FastVideo's own files alone."""

from __future__ import annotations

import ast
import fnmatch
import re
from collections.abc import Iterator

from fvport.checks import _hidden
from fvport.checks._imports import _dotted, _Names
from fvport.checks._rules import Finding
from fvport.checks._sources import Sources, base_commit
from fvport.workspace import fieldedit, git

JUDGE = re.compile(
    r"_?(FVP|PYTEST)\w*|(fvport|_?pytest|pluggy)([.:]\S*)?|(.*[\s/\\])?\.fvport([\s/\\].*)?"
    r"|/proc/[^/]+/(environ|cmdline)",
    re.DOTALL,
)
ASKS = (  # the call stack, the command line, and switches that the gate sets
    *("posix.environ", "nt.environ"),  # os.environ under another name
    *("inspect.stack", "inspect.currentframe", "sys._getframe", "traceback.extract_stack", "sys.argv", "sys.orig_argv"),
    *("torch.are_deterministic_algorithms_enabled", "torch.get_deterministic_debug_mode"),
)
READS = ("get", "setdefault", "pop")  # ways to read one variable of os.environ, by a name that must be a constant
APART = {"noxfile", "examples", "scripts", "docs", "docker", "official_weights", "converted_weights", "outputs"}
REGISTRATION = (  # what `fvport workspace` edits
    "fastvideo/registry.py",
    "fastvideo/configs/models/*/__init__.py",
    "fastvideo/configs/pipelines/__init__.py",
    "docs/*",
    "mkdocs.yml",
)


def judge_not_looked_for(s: Sources) -> Iterator[Finding]:
    """Nothing that runs for a user looks whether it is being judged: no FVPORT or PYTEST variable, no call stack."""
    for source in s.files:
        if not (source.runtime and source.python) or isinstance(source.tree, SyntaxError):
            continue
        for line, what in sorted(set(_looks(source.tree))):
            if source.mine(line):
                todo = "A port must run alike wherever it runs"
                yield Finding(f"{source.path}:{line}", what, todo, s.component_of(source.path))


def _looks(module: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, what) of every place where code asks who runs it."""
    names = _Names(module, set())
    parents = {id(child): node for node in ast.walk(module) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(module):
        line = getattr(node, "lineno", 0)
        if (text := _text(node)) is not None and JUDGE.fullmatch(text):
            yield line, f"names {text[:60]!r}"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from _imports(node)
        elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
            dotted = names.resolve(_dotted(node))
            if dotted in ASKS:
                yield line, f"uses {dotted}"
            elif dotted in ("os.environ", "os.environb", "sys.modules") and not _one_key(node, parents):
                yield line, f"looks through {dotted}, or asks it for a name that is put together while it runs"
            elif dotted in ("os.getenv", "os.getenvb") and not _constant_argument(node, parents):
                yield line, f"uses {dotted} with a name that is put together while it runs"


def _text(node: ast.AST) -> str | None:
    """A string constant, or constants that are added to one."""
    if isinstance(node, ast.Constant):
        value = node.value
        return value.decode(errors="replace") if isinstance(value, bytes) else value if isinstance(value, str) else None
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _text(node.left), _text(node.right)
        return None if left is None or right is None else left + right
    return None


def _imports(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[int, str]]:
    listed = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
    for name in listed if not getattr(node, "level", 0) else ():
        top = name.partition(".")[0]
        if top in APART or top in ("_pytest", "pluggy"):
            yield node.lineno, f"imports {name}"


def _one_key(node: ast.AST, parents: dict[int, ast.AST]) -> bool:
    """Whether a mapping is asked for one name that stands there: m["A"], m.get("A"), "A" in m, m[__name__]."""
    above = parents.get(id(node))
    if isinstance(above, ast.Subscript) and above.value is node:
        own = isinstance(above.slice, ast.Name) and above.slice.id == "__name__"
        return own or _text(above.slice) is not None
    if isinstance(above, ast.Compare):
        return node in above.comparators and _text(above.left) is not None
    if isinstance(above, ast.Attribute) and above.attr in READS:
        return _constant_argument(above, parents)
    return isinstance(above, ast.Attribute) and above.attr == "update"  # sets, and shows nothing


def _constant_argument(node: ast.AST, parents: dict[int, ast.AST]) -> bool:
    call = parents.get(id(node))
    return isinstance(call, ast.Call) and call.func is node and bool(call.args) and _text(call.args[0]) is not None


def fastvideo_left_alone(s: Sources) -> Iterator[Finding]:
    """A file of FastVideo that the port changes is one that registration edits, or is declared with a reason."""
    base = base_commit(s.port)
    for source in s.files:
        if source.lines is None or any(fnmatch.fnmatch(source.path, pattern) for pattern in REGISTRATION):
            continue
        if source.path in fieldedit.HOLDERS and base and _only_fields(s, source.path, base):
            continue
        if not s.port.fastvideo.edits.get(source.path, "").strip():
            todo = f'Undo it, or declare it in port.toml: [fastvideo] edits = {{ "{source.path}" = "reason" }}'
            yield Finding(source.path, "is FastVideo's own and is changed: every other model depends on it", todo)
    if base is not None:
        yield from _hidden.findings(s.port, base, (*REGISTRATION, *fieldedit.HOLDERS))


def _only_fields(s: Sources, path: str, base: str) -> bool:
    """Whether a file differs from the commit before the port in nothing but fields that ports of the tree declare."""
    root, owner = s.port.root, fieldedit.HOLDERS[path]
    there = git.run(root, "cat-file", "blob", f"{base}:./{path}")
    declared = s.port.fastvideo.fields | fieldedit.of_others(root, s.port)
    old, new = there.stdout, (root / path).read_bytes()
    for name, kind in declared.items() if there.returncode == 0 else ():
        edit = fieldedit.of(owner, name, kind)
        if edit.present(new, path) and not edit.present(old, path):
            taken = edit.remove(new, path)
            if edit.line.encode() not in new.splitlines() or edit.line.encode() in taken.splitlines():
                return False  # a field of that name which does more than be there
            new = taken
    return there.returncode == 0 and old == new
