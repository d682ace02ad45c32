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
from dataclasses import dataclass
from pathlib import Path

from fvport.checks import _hidden
from fvport.errors import BlockedError
from fvport.spec import Component, Port
from fvport.workspace import git

GATE_ONLY = ("noxfile.py", "Makefile", ".github/", "docker/", ".gitattributes", ".gitignore", ".cruft.json")
NEVER = (".fvport/", "official_weights/", "converted_weights/", ".git/", ".venv/")  # unless they are committed
LAYOUT = ("fastvideo", "tests/", "examples/", "scripts/", "docs/")  # where an untracked file can matter
OUTPUTS = {"outputs", "gate-out", "collected", "__pycache__"}


@dataclass(frozen=True)
class Source:
    """One file of the port. `lines` holds the changed lines of a file that FastVideo has too; None means all."""

    path: str
    size: int
    text: str | None  # None: not text
    lines: frozenset[int] | None = None
    gone: bool = False  # a file of FastVideo that the port deletes

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
    return Source(path, len(data), text, lines, gone=not file.exists() and lines is not None)


def _paths(port: Port) -> dict[str, frozenset[int] | None]:
    found: dict[str, frozenset[int] | None] = _changed(port) or {}
    found.update((path, None) for path in _named(port) if not path.startswith(NEVER))
    others = [s for s in _slugs(port.root) if s != port.slug and not port.slug.startswith(f"{s}_")]
    return {p: lines for p, lines in found.items() if not any(_of(p, s) for s in others)}


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
    found = {path for path in found if _of(path, slug)}  # `mist*.py` is also mistral3.py
    for c in port.components.values():
        if c.mode == "port":
            found |= {c.native_file, c.config_file} if c.config else {c.native_file}
        if c.mode == "external" and c.path:
            found.add(c.path)
    return [path for path in found if "__pycache__" not in path and (root / path).is_file()]


def _changed(port: Port) -> dict[str, frozenset[int] | None] | None:
    """{path: changed lines, or None for a new file} against the FastVideo that the port lies on; None without git.

    A file of FastVideo that is gone has no line. Raises BlockedError where git cannot say what the port changed.
    """
    base = base_commit(port)
    if base is None:
        return None
    diff = ("diff", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--relative")
    words = _git(port.root, *diff, "--name-status", "-z", base).split("\0")
    found: dict[str, frozenset[int] | None] = {}
    for status, path in zip(words[::2], words[1::2], strict=False):
        if status == "M":
            found[path] = _changed_lines(_git(port.root, *diff, "-U0", base, "--", path))
        else:
            found[path] = frozenset() if status == "D" else None
    listed = _git(port.root, "ls-files", "--others", "--exclude-standard", "-z").split("\0")
    found |= {path: None for path in listed if path and _matters(path)}
    return _hidden.changed(port.root, base) | found


def _matters(path: str) -> bool:
    """Whether an untracked file can be of the port: what FastVideo, a test or an example could read, not an output."""
    if path.startswith(NEVER):
        return False
    output = bool(OUTPUTS & set(path.split("/")[:-1]))
    if path.endswith((".py", ".so")):
        return path.startswith(LAYOUT) or not output  # the root is on the import path
    return path.startswith(LAYOUT) and not output


def base_commit(port: Port) -> str | None:
    """The commit that the port was put on; None where its files lie in no git tree.

    A history that is cut off, or that has no commit before the port, would hide every changed file of FastVideo.
    """
    if git.top_level(port.root) is None:
        return None
    declaration = port.file.relative_to(port.root).as_posix()
    brought = _git(port.root, "log", "--diff-filter=A", "--format=%H", "--", declaration).split()
    if brought:
        before = git.run(port.root, "rev-parse", "--verify", "-q", f"{brought[-1]}^")
        if before.returncode == 0:
            return before.stdout.decode().strip()
        if _git(port.root, "rev-parse", "--is-shallow-repository").strip() == "true":
            what = "the history is cut off (a shallow clone), so nobody can tell what the port changes in FastVideo"
            raise BlockedError(what, where=str(port.root), todo="Run: git fetch --unshallow (in CI: fetch-depth: 0)")
        what = f"no commit comes before the one that brought {declaration}, so FastVideo's files and the port's are one"
        raise BlockedError(
            what,
            where=str(port.root),
            todo="Put FastVideo's files into a commit of their own below it (docs/gate/boundary.md)",
        )
    if git.run(port.root, "check-ignore", "-q", declaration).returncode == 0:
        return None  # a folder that another project ignores: not a tree of FastVideo
    head = git.run(port.root, "rev-parse", "--verify", "-q", "HEAD")
    return head.stdout.decode().strip() if head.returncode == 0 else None


def in_git(port: Port) -> bool:
    """Whether git told what the files of the port are; else they are found by name alone."""
    return base_commit(port) is not None


def _changed_lines(diff: str) -> frozenset[int]:
    lines: set[int] = set()
    for start, count in re.findall(r"^@@ -\S+ \+(\d+)(?:,(\d+))? @@", diff, flags=re.MULTILINE):
        lines |= set(range(int(start), int(start) + int(count or 1)))
    return frozenset(lines)


def _git(root: Path, *args: str) -> str:
    """Standard output; bytes that are no UTF-8 are replaced, for they may stand in any file that was changed."""
    done = git.run(root, *args)
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise BlockedError(f"git {args[0]} failed: {words[-1]}", where=str(root))
    return done.stdout.decode("utf-8", errors="replace")
