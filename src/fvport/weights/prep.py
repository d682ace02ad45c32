# SPDX-License-Identifier: Apache-2.0
"""The first step of a port: official code pinned, official weights there and locked, the official side importable.

    run(port)     code and weights, `port.lock.json`, the load tree; what is right already is left as it is
    whole(port)   the same, then the import check where the oracle runs, and the port's Markdown: `fvport prep`

Nothing that exists is written over. What is missing ends as one sentence with the command that gets it (exit 3).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from fvport import evidence as ev
from fvport.errors import BlockedError, FvportError
from fvport.redact import redact
from fvport.spec import Port
from fvport.weights import fetch, lockfile, show
from fvport.weights.lockfile import difference, verify

__all__ = ["Prepared", "check_code", "difference", "exclude", "of_variants", "refuse_blocked", "run", "verify", "whole"]

VERSIONS = ("diffusers", "transformers", "torch", "safetensors", "huggingface_hub", "fastvideo")
PATTERNS = (".fvport/", "official_weights/", "converted_weights/")


@dataclass
class Prepared:
    """What was done. `changed`: locked files whose bytes are others than before; `open`: what hinders the load tree."""

    weights: str
    components: dict[str, dict[str, Any]]
    changed: list[str] = field(default_factory=list)
    load_tree: str = ""
    open: str = ""
    code: str = ""  # the official code: clone or package
    source: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    official_env: dict[str, Any] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)  # the import check, in words
    excluded: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))

    def text(self) -> str:
        rows: list[tuple[str, ...]] = [("component", "files", "bytes")]
        for name, entry in self.components.items():
            rows.append((name, str(len(entry["files"])), show.size(sum(file["size"] for file in entry["files"]))))
        lines = [*([self.code] if self.code else []), *self.notes, *self.said]
        lines += [f"locked: {self.weights}", show.table(rows)]
        lines += [f"changed since it was locked: {name}" for name in self.changed]
        lines.append(f"load tree: {self.load_tree}" if self.load_tree else f"no load tree yet: {self.open}")
        return "\n".join(lines)


def run(port: Port) -> Prepared:
    """Have the official code and weights, lock them, and make the load tree. Running it twice changes nothing.

    Raises BlockedError naming what is missing and the command that gets it, and UsageError for a pin that is none.
    """
    from fvport.weights import convert
    from fvport.workspace import oracle_env, reference

    lock = ev.lock(port)
    clone = reference.ensure(port)
    own = oracle_env.ensure(port)
    hashes = lockfile.Hashes(port)
    source = _weights(port, lock, hashes)
    before = {name: lockfile.hashes_in(entry) for name, entry in lock.get("components", {}).items()}
    locked = [component for component in port.components.values() if lockfile.locked_here(component)]
    hashes.expect(file for component in locked for _, file in lockfile.files_of(port, component))
    entries = {component.name: lockfile.entry(port, component, hashes) for component in locked}
    release = {"files": lockfile.ruling(port, hashes)}
    hashes.save()
    changed = [
        file
        for name, entry in entries.items()
        for file, value in lockfile.hashes_in(entry).items()
        if name in before and before[name].get(file, value) != value
    ]
    versions = {name: version for name in VERSIONS if (version := _version(name))}
    lock |= {"schema": lock.get("schema", lockfile.SCHEMA), "components": entries, "versions": versions}
    lock |= {"release": release, "source": source, "official": _official(port, clone)}
    port.lock_file.parent.mkdir(parents=True, exist_ok=True)
    lockfile.write(port.lock_file, lock)
    result = Prepared(port.official.weights, entries, changed, source=source, code=clone.text() if clone else "")
    result.notes += [own] if own else []
    result.excluded = exclude(port)
    try:
        result.load_tree = str(convert.build_load_tree(port, verify=False).relative_to(port.root))
    except FvportError as error:  # the weights are locked all the same; `conversion` says this as a finding
        result.open = str(error)
    return result


def whole(port: Port) -> Prepared:
    """`run`, then: can the official side be imported where it will run? The port's Markdown is brought up to date.

    Raises BlockedError where it cannot be imported, after everything else is done and written.
    """
    from fvport.models import official_import
    from fvport.report import handoff_prep

    result = run(port)
    found = official_import.remembered(port)
    if found is None or found.status != "imports_ok":  # what was missing may be installed by now
        found = official_import.check(port)
        official_import.remember(port, found)
    result.official_env, result.said = found.to_json(), found.text().splitlines()
    handoff_prep.write(port)
    return result


def of_variants(port: Port) -> dict[str, Prepared]:
    """`run` for the release of each variant: its weights locked, its load tree made."""
    from fvport import spec, variants

    found = {}
    for view in port.views:
        with spec.seen_as(view):
            variants.ready(view)
            found[view.variant] = run(view)
    return found


def refuse_blocked(result: Prepared) -> None:
    """BlockedError where the official code cannot be imported in the environment that the oracle runs in."""
    if result.official_env.get("status") == "blocked":
        print(result.text(), file=sys.stderr)
        first = next((line.strip() for line in result.said[1:] if "fails:" in line or "missing:" in line), "")
        todo = (
            "Pin an environment of the oracle's own ([official] requirements), or correct oracle.py; then: fvport prep"
        )
        raise BlockedError(f"the official code cannot be imported ({first})", todo=todo)


def check_code(port: Port) -> None:
    """BlockedError unless the official code is the commit that port.toml pins and port.lock.json was made with."""
    from fvport.workspace import reference

    if not port.official.repo:
        return
    clone = reference.check(port)
    locked = ev.lock(port).get("official", {})
    if locked.get("commit") != clone.commit:
        what = f"is at {clone.commit}, and port.lock.json was made with {locked.get('commit') or 'no commit'}"
        raise BlockedError(what, where=str(port.reference), todo="Run: fvport prep")


def _official(port: Port, clone: Any) -> dict[str, Any]:
    """What the lock says of the official code: repository and commit, or the package and its version."""
    if clone is not None:
        found = {"repo": redact(port.official.repo), "commit": clone.commit}  # as declared: no path of this machine
        return found | ({"import_root": port.official.import_root} if port.official.import_root else {})
    library = port.official.library or "diffusers"
    found = {"import": library.partition(".")[0], "version": _version(library.partition(".")[0])}
    return found | ({"requirements": port.official.requirements} if port.official.requirements else {})


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def exclude(port: Port) -> list[str]:
    """Lines for what is never committed, in the repository's own exclude file where the port lies in one already."""
    from fvport.workspace import git, tree

    lines = tree.excluded(port)
    if git.top_level(port.root) == port.root.resolve():
        git.exclude(port.root, lines)
    return lines


def _weights(port: Port, lock: dict[str, Any], hashes: lockfile.Hashes) -> dict[str, Any]:
    """See that the release is there; gives where it comes from, without a path of this machine."""
    folder = port.official_weights
    shown = folder.relative_to(port.root).as_posix()
    if not port.hub_id:
        if not folder.exists():
            todo = f"Put the release there, or link it: ln -s RELEASE {port.official.weights}"
            raise BlockedError("the official weights are not there", where=str(folder), todo=todo)
        return {"kind": "local", "folder": shown}
    release = _release(port, lock)
    found = {"kind": "hub", "id": release.hub_id, "revision": release.revision}
    found |= {"allow": list(release.allow), "ignore": list(release.ignore)}  # type: ignore[dict-item]
    if folder.exists() and fetch.is_whole(release, folder):
        commit = fetch.commit_of(folder) or release.commit
        return found | ({"commit": commit} if commit else {})
    if folder.is_symlink() and not folder.exists():
        todo = "Link the release again, or remove the link; then: fvport prep"
        raise BlockedError("is a link to a folder that is not there", where=str(folder), todo=todo)
    folder.parent.mkdir(parents=True, exist_ok=True)
    got = fetch.fetch(release, folder, shown)
    for name, value in got.hashes.items():
        hashes.put(Path(folder, name), value)
    hashes.save()
    return found | {"commit": got.commit}


def _release(port: Port, lock: dict[str, Any]) -> fetch.Release:
    """What port.toml asks for, at the commit that the lock has for it."""
    official, kept = port.official, lock.get("source")
    same = isinstance(kept, dict) and (kept.get("id"), kept.get("revision")) == (port.hub_id, official.revision)
    commit = str(kept.get("commit") or "") if same and isinstance(kept, dict) else ""
    return fetch.Release(port.hub_id, official.revision, official.allow, official.ignore, commit)
