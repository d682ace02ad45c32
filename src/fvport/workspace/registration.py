# SPDX-License-Identifier: Apache-2.0
"""Register a port in a FastVideo tree, take that back to the byte, and say what of it is missing (parse only).

FastVideo takes the first detector that matches, and most are substrings ("wanpipeline" is in "tinywanpipeline"): a
port's block goes first, and its detectors are exact.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import tomllib

from fvport import spec
from fvport.errors import BlockedError, FvportError, UsageError
from fvport.spec import Port
from fvport.workspace import fieldedit, names, pyedit
from fvport.workspace.detect import judge


@dataclass(frozen=True)
class Problem:
    """What is wrong with a registration: in which file, what, and what to do."""

    file: str
    what: str
    todo: str = "Run: fvport workspace"

    def __str__(self) -> str:
        return f"{self.file}: {self.what}. {self.todo}"


@dataclass
class Changes:
    """What `apply` or `undo` did: files written, and sentences about what was left alone."""

    files: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def record_file(root: Path) -> Path:
    return root / ".fvport" / "registration.json"


def apply(root: Path, port: Port) -> Changes:
    """Make every registration edit that is missing; all are computed before the first is written.

    Raises UsageError for a slug that FastVideo would resolve to another model, FvportError where an anchor is missing.
    """
    for view in (port, *port.views):
        _refuse_stolen_name(root, view)
    changes, new = Changes(), dict[str, bytes]()
    for target in names.of_all(port, root):
        path = root / target.path
        if not path.is_file():
            if not target.optional:
                raise BlockedError(
                    "is not there, so nothing can be registered in it", where=str(path), todo=_tree(root)
                )
            continue
        data = new.get(target.path, path.read_bytes())
        try:
            for edit in target.edits:
                data = pyedit.apply(edit, data, target.path)
        except FvportError as error:
            if not target.optional:
                raise
            changes.notes.append(str(error))
            continue
        if data != path.read_bytes():
            new[target.path] = data
    for view in (port, *port.views):
        hub = names.hub_id(view)
        if hub and hub in names.registered_ids(root, but=names.pipeline_config(view.key)):
            what = "is registered by FastVideo already and keeps that meaning; the port's folders are its own"
            changes.notes.append(f"{hub} {what}")
    _write(root, port, new)
    changes.files = list(new)
    return changes


def undo(root: Path, port: Port) -> Changes:
    """Take every registration edit back; where the record knows the bytes before, equality is proven first."""
    changes, new = Changes(), dict[str, bytes]()
    record = _read_record(root).get(port.slug, {})
    shared = fieldedit.of_others(root, port)
    for target in names.of_all(port, root):
        path = root / target.path
        if not path.is_file():
            continue
        data = new.get(target.path, path.read_bytes())
        for edit in reversed(target.edits):
            if isinstance(edit, fieldedit.Field) and edit.name in shared:
                continue
            data = edit.remove(data, target.path)
        new[target.path] = data
    for name, data in list(new.items()):
        old, known = (root / name).read_bytes(), record.get(name, {})
        if data == old:
            del new[name]
        elif known.get("after") == _sha(old) and known.get("before") != _sha(data):
            raise FvportError(
                "taking the registration back does not give the bytes from before",
                where=name,
                todo=f"Nothing was changed; use: git checkout HEAD~1 -- {name}",
            )
    _write(root, port, new, keep=False)
    changes.files = list(new)
    return changes


def check(root: Path, port: Port) -> list[Problem]:
    """Everything that is wrong with the port's registration on the tree at `root`; nothing is imported."""
    problems: list[Problem] = []
    try:
        targets = names.targets(port, root)
    except FvportError as error:  # a file that is no Python, or official.weights without a folder of its own
        return [Problem(error.where.removeprefix(f"{root}/"), error.what, error.todo)]
    for target in targets:
        path = root / target.path
        if not path.is_file():
            if not target.optional:
                problems.append(Problem(target.path, "is missing", _tree(root)))
            continue
        problems += _missing(target, path.read_bytes())
    try:
        _refuse_stolen_name(root, port)
    except UsageError as error:
        problems.append(Problem(names.REGISTRY, error.what, error.todo))
    return problems + judge_block(root, port)


def _missing(target: names.Target, data: bytes) -> list[Problem]:
    found = []
    for edit in target.edits:
        try:
            if edit.present(data, target.path):
                continue
            if target.optional:
                edit.add(data, target.path)  # a page without an anchor is not asked for the row
        except FvportError as error:
            if not target.optional:
                found.append(Problem(target.path, error.what, error.todo or "Repair the file"))
            continue
        found.append(Problem(target.path, _describe(edit)))
    return found


def _describe(edit: pyedit.Edit) -> str:
    if isinstance(edit, pyedit.Import):
        return f"does not import {edit.name} from {edit.module}"
    if isinstance(edit, pyedit.Element):
        return f"{edit.element} is not in {edit.variable}"
    if isinstance(edit, fieldedit.Field):
        return f"{edit.owner} has no field {edit.name}, so FastVideo refuses a call with it"
    if isinstance(edit, pyedit.Block):
        return f"{edit.function}() has no register_configs block with {edit.key}={edit.value}"
    return f"has no entry for this port ({edit})"


def judge_block(root: Path, port: Port) -> list[Problem]:
    """The port's block against what it must say: first, exact, and with the port's names."""
    config = names.pipeline_config(port.key)
    calls = names.register_calls(root)
    owners = [ast.unparse(node) if (node := names.keyword(call, "pipeline_config_cls")) else "" for call in calls]
    if config not in owners:
        return []  # said already: the block is missing
    where, found = names.REGISTRY, []
    others = {names.pipeline_config(file.parent.name) for file in root.glob("tests/local_tests/*/port.toml")}
    base = spec.base(port)
    own = {names.pipeline_config(view.key) for view in (base, *base.views)}
    others |= own | _declared_by_others(root, port)
    before = [owner for owner in owners[: owners.index(config)] if owner not in others]
    again = "Take the block out (fvport workspace --undo) and run: fvport workspace"
    if before:
        what = f"the block of {config} is not first: {before[0]} stands before it and FastVideo takes the first match"
        found.append(Problem(where, what, again))
    for owner, call in zip(owners, calls, strict=True):
        if names.literal(names.keyword(call, "model_family")) == port.slug and owner not in own:
            what = f"the block of {owner} registers model_family {port.slug}, and port.toml declares no such variant"
            found.append(Problem(where, what, "Declare it under [[variants]], or take the block out"))
    if owners.count(config) > 1:
        found.append(Problem(where, f"{config} has {owners.count(config)} blocks", "Keep one"))
    call = calls[owners.index(config)]
    expected = {
        "model_family": port.slug,
        "default_preset": port.preset_name,
        "pipeline_cls_name": names.pipeline_class(port.key),
    }
    for key, value in expected.items():
        if (node := names.keyword(call, key)) is None or names.literal(node) != value:
            said = "missing" if node is None else ast.unparse(node)
            found.append(Problem(where, f'the block of {config}: {key} must be "{value}", is {said}', again))
    found += [Problem(where, f"the block of {config}: {what}", again) for what in _judge_rest(root, port, call)]
    return found


def _declared_by_others(root: Path, port: Port) -> set[str]:
    """Pipeline configs of the variants that other ports of this tree declare."""
    found: set[str] = set()
    for file in root.glob("tests/local_tests/*/port.toml"):
        slug = file.parent.name
        if slug != port.slug:
            with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
                told = tomllib.loads(file.read_text(encoding="utf-8")).get("variants", [])
                found |= {names.pipeline_config(f"{slug}_{one['name']}") for one in told if "name" in one}
    return found


def _judge_rest(root: Path, port: Port, call: ast.Call) -> list[str]:
    found = []
    types = names.keyword(call, "workload_types")
    said = {ast.unparse(node).rpartition(".")[2].lower() for node in getattr(types, "elts", ())}
    wanted = {kind for kind in port.port.workload_types if kind in names.FASTVIDEO_WORKLOADS}
    if said != wanted:
        found.append(f"workload_types must be {sorted(wanted)}, is {sorted(said)}")
    mine = names.literal(names.keyword(call, "hf_model_paths")) or []
    taken = names.registered_ids(root, but=names.pipeline_config(port.key))
    for name in mine if isinstance(mine, list) else ():
        if name in taken:
            found.append(f'"{name}" is registered by another block too, and the later one wins')
    hub = names.hub_id(port)
    if hub and hub not in taken and hub not in (mine if isinstance(mine, list) else ()):
        found.append(f'hf_model_paths must name "{hub}"')
    must = [names.pipeline_class(port.key).lower()]
    must += [path for name in names.folders(port) for path in (name, f"/any/where/{name}", f"/any/where/{name}/")]
    if hub:
        must.append(f"/any/hub/models--{hub.lower().replace('/', '--')}/snapshots/0123abcd")
    return found + judge(names.keyword(call, "model_detectors"), must, _must_not(port, taken))


def _must_not(port: Port, taken: set[str]) -> list[str]:
    """Names near to the port's, and every id of other models: none may be taken."""
    name = names.pipeline_class(port.key).lower()
    near = [f"x{name}", f"{name}x", name.removesuffix("pipeline"), "pipeline", "", "/", f"/models/{name}"]
    near += [f"/models/{port.slug}", f"/models/{port.slug}-v2", f"/{port.slug}/other", f"/{port.slug}"]
    near += [f"/x/{folder}_v2" for folder in names.folders(port)]
    near += [f"/x/not_{folder}" for folder in names.folders(port)]
    official = port.official.pipeline.cls.rpartition(":")[2].lower()
    if official and official != name:
        near.append(official)
    return near + sorted(other.lower() for other in taken)


def _refuse_stolen_name(root: Path, port: Port) -> None:
    """FastVideo looks a path's last part up among all hub ids before it asks a detector: such a name is another's."""
    last = {folder.rpartition("/")[2] for folder in names.folders(port)}
    for other in sorted(names.registered_ids(root, but=names.pipeline_config(port.key))):
        short = other.rpartition("/")[2].lower()
        if short in last:
            raise UsageError(
                f'FastVideo resolves a folder named "{short}" to {other}, before any detector',
                where=str(port.file),
                todo="Bake the port with another model_slug",
            )


# --- bytes and the record ---------------------------------------------------------------------------------------------


def _write(root: Path, port: Port, new: dict[str, bytes], keep: bool = True) -> None:
    """Write the files one by one, each whole or not at all, and bring the record up to date."""
    record = _read_record(root)
    mine = record.setdefault(port.slug, {})
    for name, data in new.items():
        if keep:
            old, known = _sha((root / name).read_bytes()), mine.get(name, {})
            before = known["before"] if known.get("after") == old else old  # a variant came later
            mine[name] = {"before": before, "after": _sha(data)}
    if not keep:
        record.pop(port.slug)
    if new:
        _replace(record_file(root), json.dumps(record, indent=1, sort_keys=True).encode() + b"\n", root)
    for name, data in new.items():
        _replace(root / name, data, root)


def _replace(path: Path, data: bytes, root: Path) -> None:
    spare = root / ".fvport" / "tmp" / f"{os.getpid()}-{path.name}"
    spare.parent.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    spare.write_bytes(data)
    if path.exists():
        spare.chmod(path.stat().st_mode & 0o777)
    os.replace(spare, path)


def _read_record(root: Path) -> dict[str, dict[str, dict[str, str]]]:
    try:
        found = json.loads(record_file(root).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # the record only adds a proof; the edits are found in the files themselves
    return found if isinstance(found, dict) else {}


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _tree(root: Path) -> str:
    return f"{root} is no FastVideo tree yet. Run: fvport workspace"
