# SPDX-License-Identifier: Apache-2.0
"""What comes before the checks: a port that is not prepared, or not written yet, has one thing to do that is no check.

Reads names and text only; the gate and `fvport status` ask it on every call.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fvport.spec import Port
    from fvport.verdict import Row

DECIDE = "FVPORT-DECIDE"
REGISTRY = "fastvideo/registry.py"
LEADING = ("mapping", "keys")  # worth having green before a forward is written: they need none
TEXTS = (".py", ".toml")
OWN = (  # beside the components' files and the port's folder; {0} is the slug
    "fastvideo/configs/pipelines/{0}.py",
    "fastvideo/pipelines/basic/{0}/**/*.py",
    "scripts/checkpoint_conversion/{0}_to_diffusers.py",
    "examples/inference/basic/basic_{0}.py",
    "tests/local_tests/*/test_{0}_*.py",
)


@dataclass(frozen=True)
class Decision:
    """A line of the port that says what a person has to decide. `file` is relative to the port's root."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}" if self.text else f"{self.file}:{self.line}"


def first(port: Port, rows: list[Row]) -> str:
    """The command or the edit that comes before what the checks ask for; '' where nothing does."""
    if not prepared(port):
        return "fvport prep"
    if not in_workspace(port):
        root = _workspace_elsewhere(port)
        return f"cd {root}" if root else "fvport workspace"
    open_ = next(decisions(port), None)
    if open_ is None:
        return ""
    leading = next((row for row in rows if row.check in LEADING and row.verdict in ("fail", "blocked")), None)
    return leading.todo if leading else f"Write what {open_.file}:{open_.line} asks for: {open_.text or DECIDE}"


def prepared(port: Port) -> bool:
    """Every weight file is in port.lock.json with its digest."""
    from fvport.weights import lockfile

    return not lockfile.unlocked(port)


def in_workspace(port: Port) -> bool:
    """The port lies in a FastVideo tree."""
    return (port.root / REGISTRY).is_file()


STEPS: dict[str, Callable[[Port], bool]] = {
    "prep": prepared,
    "workspace": in_workspace,
}  # PLAN.md's markers beside checks


def decisions(port: Port) -> Iterator[Decision]:
    """Every line of the port's own Python files and of its port.toml that is marked FVPORT-DECIDE, files in order."""
    return marked(port.root, _texts(port))


def marked(root: Path, files: Iterable[Path]) -> Iterator[Decision]:
    """The marked lines of some files below `root`, files in order."""
    for file in sorted(files):
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, ValueError):
            continue
        if DECIDE not in text:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            _, mark, said = line.partition(DECIDE)
            if mark:
                yield Decision(file.relative_to(root).as_posix(), number, _plain(said))


def _texts(port: Port) -> set[Path]:
    """Files that a person writes: each component's, the pipeline's and what lies in the port's folder."""
    found = {port.file, *(path for path in port.folder.glob("*") if path.suffix in TEXTS)}
    for c in port.components.values():
        found |= {port.root / name for name in (c.native_file, c.config_file) if name}
    for pattern in OWN:
        found.update(port.root.glob(pattern.format(port.slug)))
    return {path for path in found if path.is_file() and path.suffix in TEXTS}


def texts_below(root: Path) -> list[Path]:
    """What a person may have to write in a port as it was baked: links and hidden folders are none of it."""
    found = []
    for folder, dirs, files in os.walk(root):
        dirs[:] = [name for name in dirs if not name.startswith(".")]
        found += [Path(folder, name) for name in files if name.endswith(TEXTS)]
    return found


def _plain(said: str) -> str:
    """The mark's text without the colon before it and the code that closes behind it."""
    return said.strip(": \t").removesuffix('")').removesuffix('"').strip()


def _workspace_elsewhere(port: Port) -> str:
    """The finished workspace that another folder holds, as `fvport workspace` wrote it down."""
    try:
        held = json.loads((port.root / ".fvport" / "workspace.json").read_text(encoding="utf-8"))
        item = held[port.slug]
        root = Path(item["root"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return os.fspath(root) if item.get("done") and (root / REGISTRY).is_file() else ""
