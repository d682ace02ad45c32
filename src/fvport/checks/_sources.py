# SPDX-License-Identifier: Apache-2.0
"""The files of a port, read and parsed once and never imported, for the checks that look at text.

Where the root is a git tree, the port's files are what differs from the commit before the one that brought port.toml,
so a helper file under any name counts, and a changed FastVideo file counts with its changed lines. Elsewhere they are
found by the slug in their names.
"""

from __future__ import annotations

import ast
import functools
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from fvport.spec import Component, Port

GATE_ONLY = ("noxfile.py", "Makefile", ".github/", "docker/", ".gitattributes", ".gitignore", ".cruft.json")
NEVER = (".fvport/", "official_weights/", "converted_weights/", ".git/", ".venv/")


@dataclass(frozen=True)
class Source:
    """One file of the port. `lines` holds the changed lines of a file that FastVideo has too; None means all."""

    path: str
    size: int
    text: str | None  # None: not text
    lines: frozenset[int] | None = None

    @property
    def runtime(self) -> bool:
        """Part of what FastVideo runs for a user: `fastvideo/` without its tests."""
        return self.path.startswith("fastvideo/") and not self.path.startswith("fastvideo/tests/")

    @property
    def python(self) -> bool:
        return self.path.endswith(".py")

    @functools.cached_property
    def tree(self) -> ast.Module | SyntaxError:
        try:
            return ast.parse(self.text or "", filename=self.path)
        except (SyntaxError, ValueError) as error:
            return error if isinstance(error, SyntaxError) else SyntaxError(str(error))

    @property
    def nodes(self) -> list[ast.AST]:
        """Every node of a Python file that parses and lies on a line of the port."""
        if not self.python or isinstance(self.tree, SyntaxError):
            return []
        return [node for node in ast.walk(self.tree) if self.mine(getattr(node, "lineno", 0))]

    def mine(self, line: int) -> bool:
        return self.lines is None or not line or line in self.lines

    def numbered(self) -> list[tuple[int, str]]:
        return [(n, line) for n, line in enumerate((self.text or "").splitlines(), 1) if self.mine(n)]


@dataclass(frozen=True)
class Sources:
    """What `boundary` looks at: the port's declaration and its files."""

    port: Port
    files: tuple[Source, ...]

    def get(self, path: str) -> Source | None:
        return next((source for source in self.files if source.path == path), None)

    def component_of(self, path: str) -> str:
        """The component that a file belongs to, or ''."""
        for name, c in self.port.components.items():
            if c.mode in ("port", "external") and path in (
                c.native_file,
                c.config_file,
                c.path,
                self.port.test_file(c),
            ):
                return name
        return ""

    @property
    def ported(self) -> list[Component]:
        return [c for c in self.port.components.values() if c.mode == "port"]


def read(port: Port) -> Sources:
    """Every file of the port with its text."""
    return Sources(port, tuple(_source(port.root, path, lines) for path, lines in sorted(_paths(port).items())))


def paths(port: Port) -> list[str]:
    """Paths of the port's files relative to its root, in order."""
    return sorted(_paths(port))


def _source(root: Path, path: str, lines: frozenset[int] | None) -> Source:
    file = root / path
    data = file.read_bytes() if file.is_file() else b""
    try:
        text = None if b"\0" in data[:8192] else data.decode("utf-8")
    except UnicodeDecodeError:
        text = None
    return Source(path, len(data), text, lines)


def _paths(port: Port) -> dict[str, frozenset[int] | None]:
    found: dict[str, frozenset[int] | None] = _changed(port) or {}
    found.update(dict.fromkeys(_named(port)))
    others = [s for s in _slugs(port.root) if s != port.slug and not port.slug.startswith(f"{s}_")]
    return {p: lines for p, lines in found.items() if not p.startswith(NEVER) and not any(_of(p, s) for s in others)}


def _slugs(root: Path) -> list[str]:
    return [file.parent.name for file in root.glob("tests/local_tests/*/port.toml")]


def _of(path: str, slug: str) -> bool:
    """Whether a path's name says that it belongs to the port `slug`."""
    return bool(re.search(rf"(^|[/_]){re.escape(slug)}([_./]|$)", path))


def _named(port: Port) -> list[str]:
    """The port's files by DESIGN's layout, and the ones that port.toml names."""
    slug, root = port.slug, port.root
    globs = (
        f"fastvideo/models/**/{slug}*.py",
        f"fastvideo/models/*/{slug}/**/*",
        f"fastvideo/configs/**/{slug}*.py",
        f"fastvideo/pipelines/basic/{slug}/**/*",
        f"fastvideo/tests/ssim/*{slug}*",
        f"scripts/checkpoint_conversion/*{slug}*",
        f"tests/local_tests/*/test_{slug}_*.py",
        f"tests/local_tests/{slug}/**/*",
        f"examples/inference/basic/*{slug}*",
        f"docs/inference/{slug}.md",
    )
    found = {file.relative_to(root).as_posix() for pattern in globs for file in root.glob(pattern) if file.is_file()}
    for c in port.components.values():
        if c.mode == "port":
            found |= {c.native_file, c.config_file} if c.config else {c.native_file}
        if c.mode == "external" and c.path:
            found.add(c.path)
    return [path for path in found if "__pycache__" not in path and (root / path).is_file()]


def _changed(port: Port) -> dict[str, frozenset[int] | None] | None:
    """{path: changed lines, or None for a new file} against the FastVideo that the port lies on; None without git."""
    declaration = port.file.relative_to(port.root).as_posix()
    brought = _git(port.root, "log", "--diff-filter=A", "--format=%H", "--", declaration)
    base = (
        _git(port.root, "rev-parse", "--verify", "-q", f"{brought.split()[-1]}^")
        if brought and brought.split()
        else None
    )
    if not base:
        return None
    found: dict[str, frozenset[int] | None] = {}
    for line in (_git(port.root, "diff", "--name-status", "--no-renames", base.strip()) or "").splitlines():
        status, _, path = line.partition("\t")
        if status == "A":
            found[path] = None
        elif status == "M":
            found[path] = _changed_lines(_git(port.root, "diff", "-U0", base.strip(), "--", path) or "")
    for path in (_git(port.root, "ls-files", "--others", "--exclude-standard") or "").splitlines():
        found[path] = None
    return found


def _changed_lines(diff: str) -> frozenset[int]:
    lines: set[int] = set()
    for start, count in re.findall(r"^@@ -\S+ \+(\d+)(?:,(\d+))? @@", diff, flags=re.MULTILINE):
        lines |= set(range(int(start), int(start) + int(count or 1)))
    return frozenset(lines)


def _git(root: Path, *args: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-c", "core.quotepath=off", "-C", str(root), *args], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
