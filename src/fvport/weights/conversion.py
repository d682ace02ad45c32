# SPDX-License-Identifier: Apache-2.0
"""What a declared conversion makes of a release, worked out from headers alone: every tensor, where it comes from, how.

Ownership is explicit. Each key of each weight file belongs to the component whose prefix it begins with (the longest
where several do), or is skipped with a reason; a key that nobody owns is an error, and so are two sources of one
target, a rule that fits nothing, and a group of sources of which one is missing.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fvport.errors import BlockedError, FvportError, UsageError, did_you_mean
from fvport.weights import manifest
from fvport.weights.declaration import FILE, Declaration, Part
from fvport.weights.manifest import TensorInfo
from fvport.weights.mapping import Placed, Rules, produced
from fvport.weights.operations import Operation, Tensor, moves_bytes
from fvport.weights.patterns import concerns, concerns_any

PICKLES = (".bin", ".pt", ".pth", ".ckpt")
SHOWN = 8
Headers = dict[str, dict[str, TensorInfo]]  # {file, relative to the release: {name: where it lies}}


@dataclass(frozen=True)
class Source:
    """One tensor of the release: `file` is relative to it, `key` its name there."""

    file: str
    key: str
    info: TensorInfo

    @property
    def tensor(self) -> Tensor:
        return Tensor(self.info.dtype, self.info.shape)


@dataclass(frozen=True)
class Made:
    """One tensor of the converted tree: the `output`-th of what `operations` make of `sources`."""

    name: str
    tensor: Tensor
    sources: tuple[Source, ...]
    operations: tuple[Operation, ...] = ()
    output: int = 0

    @property
    def moves_bytes(self) -> bool:
        return moves_bytes(self.operations, [source.tensor for source in self.sources])

    @property
    def said(self) -> str:
        """`a + b, split(0, 3)`: where it comes from, for messages."""
        names = " + ".join(source.key for source in self.sources)
        return ", ".join([names, *map(str, self.operations)])


@dataclass
class Conversion:
    """The whole plan. `tensors[component]` in the order of the source bytes; `skipped` {key: reason}.

    `placed[component]`: where the declared rules put each key, by its name without the prefix.
    """

    root: Path
    declaration: Declaration
    headers: Headers
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    tensors: dict[str, list[Made]] = field(default_factory=dict)
    placed: dict[str, list[tuple[Placed, Source]]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Bytes of all tensors that will be written."""
        return sum(made.tensor.bits // 8 for part in self.tensors.values() for made in part)

    @property
    def sources(self) -> list[str]:
        """The weight files that are read, relative to the release."""
        found = {source.file for part in self.tensors.values() for made in part for source in made.sources}
        return sorted(found)

    def config(self, part: Part) -> dict[str, Any]:
        """The component's config as the declaration gives it, with its official class named as its library does."""
        config = part.config if isinstance(part.config, dict) else _from_release(self, part)
        if part.library == "transformers":
            return {"architectures": [part.cls], **config}
        return {"_class_name": part.cls, **{key: value for key, value in config.items() if key != "_class_name"}}


def _from_release(plan: Conversion, part: Part) -> dict[str, Any]:
    if not part.config:
        return {}
    file, *keys = part.config
    value: Any = manifest.read_json(plan.root / file)
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            near = did_you_mean(key, value) if isinstance(value, dict) else ""
            raise UsageError(f"the config of {part.name} has no {key!r} in {file}.{near}", where=plan.declaration.where)
        value = value[key]
    if not isinstance(value, dict):
        raise UsageError(f"the config of {part.name} in {file} is not a table", where=plan.declaration.where)
    return value


def plan(root: Path, declaration: Declaration) -> Conversion:
    """Work out the conversion of the release at `root`. Reads headers only.

    Raises BlockedError for a file that is missing or broken, FvportError for what the declaration leaves open.
    """
    if not root.is_dir():
        raise BlockedError("the official weights are not there", where=str(root), todo="Run: fvport prep")
    headers, notes = read_headers(root, declaration)
    metadata = {file: manifest.read_metadata(root / file) for file in headers if file.endswith(".safetensors")}
    made = Conversion(root, declaration, headers, metadata, notes=notes)
    owned, problems = _ownership(made)
    for name, part in declaration.parts.items():
        if part.copied:
            if not (root / part.folder).is_dir():
                problems.append(f"{name} is the folder {part.folder}, which the release does not have")
        elif part.prefixes:
            made.tensors[name] = _component(made, part, owned.get(name, []), problems)
    problems += _unused_skips(made)
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise FvportError("; ".join(problems[:SHOWN]) + more, where=declaration.where)
    return made


def read_headers(root: Path, declaration: Declaration) -> tuple[Headers, list[str]]:
    """(every weight file that the declaration does not skip or copy, notes). Indexes beside shards are held to."""
    found: Headers = {}
    notes = []
    for file in sorted(root.rglob("*")):
        relative = file.relative_to(root)
        if any(part.startswith(".") for part in relative.parts) or not file.is_file():
            continue
        if any(_is_copied(part, relative) for part in declaration.parts.values() if part.copied):
            continue
        name = relative.as_posix()
        if name.endswith(".index.json"):
            manifest.read_index(file)  # a shard that is missing, or does not hold what it should, ends here
        if file.suffix not in (".safetensors", *PICKLES):
            continue
        if reason := _file_skip(declaration, name):
            notes.append(f"{name} is left out: {reason}")
        elif file.suffix == ".safetensors":
            found[name] = manifest.read_header(file)
        else:
            found[name] = _pickle(file)
    if not found and any(part.prefixes for part in declaration.parts.values()):
        raise BlockedError("holds no weight file that the declaration does not skip", where=str(root))
    return found, notes


def _is_copied(part: Part, file: Path) -> bool:
    """The file lies in the folder that is copied, and is one of those that are, where only some are."""
    folder = Path(part.folder)
    if folder not in file.parents:
        return False
    return not part.only or file.relative_to(folder).as_posix() in part.only


def _file_skip(declaration: Declaration, name: str) -> str:
    for pattern, reason in declaration.skip.items():
        if pattern.startswith(FILE) and fnmatch.fnmatch(name, pattern.removeprefix(FILE)):
            return reason
    return ""


def _pickle(file: Path) -> dict[str, TensorInfo]:
    """A torch.save file: its tensors' bytes lie in it as they are, unless a view of another tensor was saved."""
    found = manifest.read_file(file).tensors
    strided = next((name for name, info in found.items() if getattr(info, "stride", ())), "")
    if strided:
        todo = f'Save it as safetensors, or leave it out: SKIP = {{"file:{file.name}": "why"}}'
        raise BlockedError(
            f"holds {strided} as a view with strides, which is no range of bytes", where=str(file), todo=todo
        )
    return found


# --- who owns a key --------------------------------------------------------------------------------------------------


def _ownership(made: Conversion) -> tuple[dict[str, list[tuple[str, Source]]], list[str]]:
    """({component: [(name without prefix, source)]}, problems)"""
    owned: dict[str, list[tuple[str, Source]]] = {}
    unowned, problems = [], []
    declaration = made.declaration
    keys = {pattern: reason for pattern, reason in declaration.skip.items() if not pattern.startswith(FILE)}
    for file, table in made.headers.items():
        parts = [part for part in declaration.parts.values() if _has(part, file)]
        for key, info in table.items():
            if reason := _skipped(keys, key):
                made.skipped[key] = reason
                continue
            claims = [(part, prefix) for part in parts for prefix in part.prefixes if key.startswith(prefix)]
            if not claims:
                unowned.append(key)
                continue
            longest = max(len(prefix) for _, prefix in claims)
            best = [(part, prefix) for part, prefix in claims if len(prefix) == longest]
            if len(best) > 1:
                problems.append(f"{key} belongs to {' and to '.join(part.name for part, _ in best)}")
                continue
            part, prefix = best[0]
            owned.setdefault(part.name, []).append((key[len(prefix) :], Source(file, key, info)))
    if unowned:
        problems.insert(0, _nobody(unowned, declaration))
    return owned, problems


def _has(part: Part, file: str) -> bool:
    return any(fnmatch.fnmatch(file, pattern) for pattern in part.files)


def _skipped(skips: Mapping[str, str], key: str) -> str:
    return next((reason for pattern, reason in skips.items() if concerns(pattern, key)), "")


def _nobody(keys: list[str], declaration: Declaration) -> str:
    prefixes = [prefix for part in declaration.parts.values() for prefix in part.prefixes]
    near = nearest_prefix(keys[0], prefixes)
    owner = next((part.name for part in declaration.parts.values() if near in part.prefixes), "")
    hint = f'; the nearest prefix is "{near}" of {owner}' if near else ""
    more = f" and {len(keys) - 4} more" if len(keys) > 4 else ""
    count = f"{len(keys)} keys belong" if len(keys) > 1 else "1 key belongs"
    return f"{count} to no component and to no SKIP: {', '.join(keys[:4])}{more}{hint}"


def nearest_prefix(key: str, prefixes: Iterable[str]) -> str:
    """The declared prefix that is most like the beginning of a key; '' where none is."""
    import difflib

    def likeness(prefix: str) -> float:
        return difflib.SequenceMatcher(None, prefix, key[: len(prefix)]).ratio()

    best = max((prefix for prefix in prefixes if prefix), key=likeness, default="")
    return best if best and likeness(best) > 0.3 else ""


# --- one component ---------------------------------------------------------------------------------------------------


def _component(made: Conversion, part: Part, keys: list[tuple[str, Source]], problems: list[str]) -> list[Made]:
    where, found = part.name, []
    placed = made.placed.setdefault(part.name, [])
    groups: dict[tuple[str, int | None, str], dict[int, tuple[Placed, Source]]] = {}
    if not keys:
        prefixes = ", ".join(f'"{prefix}"' for prefix in part.prefixes)
        problems.append(f"{where}: no key of {', '.join(part.files)} begins with {prefixes}")
    for short, source in keys:
        if reason := _skipped(part.skip, short):
            made.skipped[source.key] = reason
            continue
        for item in part.names.places(short):
            placed.append((item, source))
            declared = _entry(part.names, item)
            if not declared.startswith("rules"):
                found.append(Made(item.target, source.tensor, (source,)))
                continue
            group = groups.setdefault((declared, item.output, item.target), {})
            if (item.index or 0) in group:
                both = f"{group[item.index or 0][1].key} and {source.key}"
                problems.append(f"{where}: {both} are both the source of {item.target}")
            group[item.index or 0] = item, source
    for (declared, _, _), group in groups.items():
        found += _group(made, part, declared, group, problems)
    problems += _unused(part, placed) if keys else []
    problems += _collisions(where, found)
    problems[:] = dict.fromkeys(problems)  # what is wrong with a group is so for each of its targets
    return sorted(found, key=_order)


def _entry(names: Rules, item: Placed) -> str:
    """The declaration's entry that decided where a key goes; '' for one that keeps its name."""
    return names.rules[item.rules[-1]].declared if item.rules else ""


def _unused(part: Part, placed: list[tuple[Placed, Source]]) -> list[str]:
    used = {position for item, _ in placed for position in item.rules}
    entries: dict[str, list[int]] = {}
    for position, rule in enumerate(part.names.rules):
        entries.setdefault(rule.declared, []).append(position)
    problems = []
    for declared, positions in entries.items():
        if not used.intersection(positions):
            rules = [part.names.rules[position] for position in positions]
            sources, targets = dict.fromkeys(r.pattern for r in rules), dict.fromkeys(r.target for r in rules)
            said = f"{' + '.join(sources)} -> {' + '.join(targets)}"
            problems.append(f"{part.name}.{declared} fits no key: {said}")
    return problems


def _order(item: Made) -> tuple[Any, ...]:
    """Wide elements first, which keeps every tensor aligned; within that as the bytes lie in the release."""
    first = item.sources[0]
    return -manifest.BITS[item.tensor.dtype], first.file, first.info.start, item.output


def _group(
    made: Conversion, part: Part, declared: str, group: dict[int, tuple[Placed, Source]], problems: list[str]
) -> list[Made]:
    """What one target is made of; nothing where it is left out, or something is wrong."""
    item = next(iter(group.values()))[0]
    missing = [slot for slot in range(item.count or 1) if slot not in group]
    if missing:
        there = ", ".join(source.key for _, source in group.values())
        rules = part.names.rules
        lacks = next(rule.pattern for rule in rules if rule.declared == declared and rule.index == missing[0])
        problems.append(f"{part.name}: {item.target} is made of {there} and {lacks}, and no key fits that")
        return []
    places, sources = zip(*(group[slot] for slot in sorted(group)), strict=True)
    reason = next((str(step.arguments[0]) for step in item.operations if step.name == "skip"), "")
    steps = tuple(step for step in item.operations if step.name != "skip")
    if reason and not item.outputs:
        made.skipped |= {source.key: reason for source in sources}
        return []
    try:
        tensor = produced(places, [source.tensor for source in sources])
    except UsageError as error:
        problems.append(f"{part.name}: {sources[0].key}: {error}")
        return []
    if reason:
        made.skipped[f"{sources[0].key} [part {item.output}]"] = reason
        return []
    return [Made(item.target, tensor, sources, steps, item.output or 0)]


def _collisions(where: str, found: list[Made]) -> list[str]:
    seen: dict[str, Made] = {}
    problems = []
    for item in found:
        if item.name in seen:
            first = seen[item.name]
            same = first.sources[0].key == item.sources[0].key
            files = f" (in {first.sources[0].file} and in {item.sources[0].file})" if same else ""
            problems.append(f"{where}: {first.said} and {item.said} both become {item.name}{files}")
        seen[item.name] = item
    return problems


def _unused_skips(made: Conversion) -> list[str]:
    """A skip that fits nothing is only worth knowing: releases of one family differ in what they carry."""
    keys = [key for table in made.headers.values() for key in table]
    for pattern in made.declaration.skip:
        if not pattern.startswith(FILE) and not any(concerns_any([pattern], key) for key in keys):
            made.notes.append(f"SKIP {pattern!r} fits no key")
    return []
