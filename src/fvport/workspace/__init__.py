# SPDX-License-Identifier: Apache-2.0
"""The workspace: a FastVideo tree on a branch of its own that holds a port, and the port's registration in it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fvport.errors import BlockedError
from fvport.spec import Port
from fvport.workspace import git, names, registration, sources, tree


@dataclass
class Result:
    """What was done. `root` is where to work from now on."""

    did: str  # created | finished | ready | registered | undone
    root: str
    branch: str = ""
    source: str = ""
    base: str = ""
    commits: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)  # registration edits written
    notes: list[str] = field(default_factory=list)
    next: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        words = {
            "created": f"workspace made from {self.source}",
            "finished": "an interrupted workspace was finished",
            "ready": "the workspace is ready, nothing was changed",
            "registered": "the workspace was ready; missing registrations were made",
            "undone": "registration edits were taken back" if self.files else "no registration edit was found",
        }
        lines = [words[self.did], f"  root    {self.root}"]
        lines += [f"  branch  {self.branch}"] if self.branch else []
        lines += [f"  base    {self.base}"] if self.base else []
        lines += [f"  commit  {name}" for name in self.commits]
        lines += [f"  edited  {name}" for name in self.files]
        lines += [f"  note    {note}" for note in self.notes]
        lines += [f"Next: {self.next}"] if self.next else []
        return "\n".join(lines)


def make(port: Port, checkout: Path | None = None) -> Result:
    """Put `port` on a FastVideo tree: in place (wheel), or beside a checkout (worktree), or as a clone.

    A second run on a ready workspace makes only registrations that are missing; a run after an interruption finishes.
    Raises UsageError with the list of collisions before anything is written, BlockedError when FastVideo is not there.
    """
    place = sources.locate(port, checkout)
    did = "ready" if place.ready else "finished" if place.started else "created"
    commits = [] if place.ready else sources.build(port, place)
    git.exclude(place.root, tree.excluded(port))
    there = sources.port_at(port, place.root)
    changes = registration.apply(place.root, there)
    if not place.ready:
        edited = [target.path for target in names.of_all(there, place.root)]
        edited = [path for path in edited if (place.root / path).is_file()]
        made = git.commit(place.root, edited, f"Register {port.port.model} with FastVideo")
        commits += [f"{made[:12]} registration"] if made else []
        sources.finish(port, place)
    elif changes.files:
        did = "registered"
    result = Result(did, str(place.root), git.branch(place.root), place.source, place.base, commits, changes.files)
    result.notes = place.notes + changes.notes
    if place.root != port.root.resolve():
        result.next = f"work in the new root: cd {place.root}"
    return result


def undo(port: Port) -> Result:
    """Take the registration edits back, byte for byte, in the working tree; commits stay, other ports' edits too."""
    root = sources.ready_root(port)
    if root is None:
        raise BlockedError("there is no workspace to undo", where=str(port.root), todo="Run: fvport workspace")
    changes = registration.undo(root, sources.port_at(port, root))
    result = Result("undone", str(root), git.branch(root), files=changes.files, notes=changes.notes)
    if changes.files:
        result.next = "git diff shows the edits taken back; nothing was committed. fvport workspace makes them again"
    return result
