# SPDX-License-Identifier: Apache-2.0
"""The pull request: a clean branch with the port's upstream files and its registration, title and text from evidence.

The branch is made with git's plumbing: working tree, index and current branch stay as they are. Nothing is pushed
unless a remote is named.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fvport import gate
from fvport.errors import BlockedError, UsageError
from fvport.spec import Port
from fvport.upstream import branch, proof, prose
from fvport.workspace import git, sources, tree


@dataclass
class PullRequest:
    """What was made. `body` is a file; `command` opens the pull request once the branch is pushed."""

    title: str
    branch: str
    base: str
    commit: str
    body: str
    gate: str
    files: list[str] = field(default_factory=list)
    edited: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    proof: dict[str, str] = field(default_factory=dict)
    pushed: str = ""
    command: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        lines = [self.title, f"  branch  {self.branch} ({self.commit[:12]} on {self.base[:12]})"]
        lines += [f"  files   {len(self.files)} new, {len(self.edited)} of FastVideo's with the registration"]
        lines += [f"  left    {path} (not upstream)" for path in self.left_out]
        lines += [f"  {name:7} {word}" for name, word in self.proof.items()]
        lines += [f"  gate    {self.gate}", f"  text    {self.body}"]
        lines += [f"  pushed  to {self.pushed}" if self.pushed else "  pushed  nothing (--push REMOTE)"]
        return "\n".join([*lines, f"Next: {self.command}"])


def make(
    port: Port, *, onto: str = "", push: str = "", draft: bool = False, check: bool = False, also: tuple[str, ...] = ()
) -> PullRequest:
    """Make the branch `<prefix>/pr-<slug>` and the text. `also`: files of FastVideo that may differ by more.

    Raises BlockedError without a workspace, with uncommitted work, or where the gate is not green and `draft` is not
    said; UsageError where the port changes files of FastVideo that are not named in `also`.
    """
    there = _at_home(port)
    verdict = gate.decide(there)
    if verdict.verdict != "pass" and not draft:
        todo = f"{verdict.next_step}; or say --draft, and the text says what is red"
        raise BlockedError(f"the gate is not green ({verdict.summary})", where=str(there.root), todo=todo)
    name = f"{there.fastvideo.branch_prefix}/pr-{there.slug}"
    if git.branch(there.root) == name:
        raise UsageError(f"{name} is checked out here", where=str(there.root), todo="Go back to the port's branch")
    made = branch.make(there, name, onto, also, prose.title(there))
    proofs = proof.run(there, made) if check else {}
    body = there.state / "report" / "pull_request.md"
    body.parent.mkdir(parents=True, exist_ok=True)
    body.write_text(prose.body(there, verdict, made, proofs), encoding="utf-8")
    if push:
        git.git(there.root, "push", "-q", "--force-with-lease", push, f"refs/heads/{name}:refs/heads/{name}")
    words = ["gh pr create", "--draft" if draft else "", f"--head {name}", f"--title '{prose.title(there)}'"]
    command = " ".join(filter(None, [*words, f"--body-file {body}"]))
    return PullRequest(
        prose.title(there),
        name,
        made.base,
        made.commit,
        str(body),
        verdict.summary,
        made.new,
        made.edited,
        made.left_out,
        proofs,
        push,
        command if push else f"read the text, then: fvport pr --push REMOTE, and {command}",
    )


def _at_home(port: Port) -> Port:
    """The port as it lies committed in its workspace."""
    root = sources.ready_root(port)
    if root is None:
        raise BlockedError("has no workspace", where=str(port.root), todo="Run: fvport workspace")
    git.exclude(root, tree.excluded(port))  # a clone has no such lines, and what checks write is no work
    dirty = git.git(root, "status", "--porcelain").splitlines()
    if dirty:
        more = f" and {len(dirty) - 1} more" if len(dirty) > 1 else ""
        raise BlockedError(f"has uncommitted work ({dirty[0][3:]}{more})", where=str(root), todo="Commit it first")
    return sources.port_at(port, Path(root))
