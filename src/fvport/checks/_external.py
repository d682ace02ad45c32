# SPDX-License-Identifier: Apache-2.0
"""Hybrid wrappers in `keys`: the external model stays outside, and production finds the one that the pipeline means.

One item a wrapper, `<component>: external`. The owned connector's weights are an ordinary component of `mapping`,
`keys` and `conversion`; here stands what is special: the written reason, the folder in the release and in the load
tree, the folder that FastVideo's own loader puts on the arch config, and that no external tensor is an owned one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fvport.errors import FvportError
from fvport.evidence import Item
from fvport.spec import Component, Port
from fvport.weights import case, external
from fvport.weights.patterns import concerns_any

UNDECIDED = "FVPORT-DECIDE"
TOWER = 3  # tensors: a norm's two or a projection's can be a connector's by chance


def chosen(port: Port, only: tuple[str, ...] = ()) -> list[Component]:
    """The hybrid wrappers of a port, or those that `only` names."""
    return [c for c in port.components.values() if c.hybrid and (not only or c.name in only)]


def items(port: Port, component: Component) -> list[Item]:
    """The item of one wrapper, red with the first reason of each kind."""
    name = f"{component.name}: external"
    try:
        found = problems(port, component)
    except FvportError as error:
        verdict = "blocked" if error.exit_code == 3 else "fail"
        return [Item(name, verdict, str(error), component=component.name, todo=error.todo)]
    if found:
        return [Item(f"{name}: {kind}", "fail", what, component=component.name) for kind, what in found]
    count = len(external.names(external.folder(port.official_tree, component)))
    reason = f"{component.external} is outside of the owned state, and production resolves it; why: {component.reason}"
    return [Item(name, "pass", reason, {"external_tensors": count}, component=component.name)]


def problems(port: Port, component: Component) -> list[tuple[str, str]]:
    """(kind, sentence) of all that is wrong. Raises FvportError where it cannot be told."""
    from fvport.models import native

    found = [("reason", "the reason in port.toml is not written yet")] if UNDECIDED in component.reason else []
    release, tree = (external.folder(root, component) for root in (port.official_tree, port.load_tree))
    found += _other_files(release, tree)
    schema = native.ask(port, "schema", component.name)
    found += _resolved(port, component, schema.get("arch") or {}, tree)
    owned = native.meta(port, component.name)
    found += _inside(owned, external.names(release), component.mapping.exclude)
    return found


def _other_files(release: Path, tree: Path) -> list[tuple[str, str]]:
    """The load tree's files are the release's."""
    wanted = {file.relative_to(release): file.resolve() for file in release.rglob("*") if file.is_file()}
    has = {file.relative_to(tree): file.resolve() for file in tree.rglob("*") if file.is_file()}
    other = [path.as_posix() for path in wanted if has.get(path) != wanted[path]]
    if not other:
        return []
    return [("load tree", f"{len(other)} files of the load tree's copy are others: {', '.join(sorted(other)[:3])}")]


def _resolved(port: Port, component: Component, arch: dict[str, Any], tree: Path) -> list[tuple[str, str]]:
    """What the production loader put on the arch config is the folder that the pipeline means."""
    field = component.external_field
    if field not in arch:
        return [("path", f"the arch config has no field {field} after FastVideo's loader updated it")]
    value = arch[field]
    if not isinstance(value, str) or not value:
        return [("path", f"FastVideo's loader leaves {field} empty, the pipeline means {component.external}")]
    place = Path(value) if Path(value).is_absolute() else port.load_tree / value
    if place.is_dir() and place.resolve() == tree.resolve():
        return []
    shown = _shown(port, Path(value)) if Path(value).is_absolute() else value
    said = f"{field} is {shown} after FastVideo's loader, the pipeline means {component.external}"
    return [("path", said if place.is_dir() else f"{said}; that is no folder (a hub id is fetched when it runs)")]


def _shown(port: Port, path: Path) -> str:
    """Relative to the port where it lies inside, else its last two parts: records hold no machine's paths."""
    for base in (port.root, port.root.resolve()):
        if path.is_relative_to(base):
            return path.relative_to(base).as_posix()
    return f".../{'/'.join(path.parts[-2:])}, outside of the port"


def _inside(
    owned: Mapping[str, tuple[Any, Any]], outside: Mapping[str, tuple[int, ...]], excluded: Iterable[str]
) -> list[tuple[str, str]]:
    """Native tensors that are the external model's: of its names and shapes, under whatever prefix on either side.

    A connector may have a few names in common with the other model where they come from weights of its own, which
    `keys` asks of each; one that a `native:` exclude lets off has none, so there a single one is too many.
    """
    tails: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for name, shape in outside.items():
        for tail in _headless(name):
            tails.setdefault((tail, tuple(shape)), []).append(name)
    patterns = [p.removeprefix(case.NATIVE) for p in excluded if p.startswith(case.NATIVE)]
    found: dict[str, set[str]] = {}
    for name, (shape, _) in owned.items():
        parts = name.split(".")
        held = (tails.get((".".join(parts[i:]), tuple(shape)), ()) for i in range(len(parts)))
        if same := {other for names in held for other in names}:
            found[name] = same
    free = [name for name in found if concerns_any(patterns, name)]
    if not free and not _whole(set().union(*found.values()) if found else set(), outside):
        return []
    shown = free or list(found)
    let_off = " that a native: exclude lets off" if free else ""
    what = f"{len(shown)} tensors of the external model{let_off} are in the native state dict: {', '.join(shown[:3])}"
    return [("owned state", f"{what}. Keep it out: load it when it is first called, not as a submodule")]


def _headless(name: str) -> list[str]:
    """The name, and what is left of it without leading words (`model.`), as a head or a base model names itself.

    Words up to the first number only, and two at least are left: `0.mlp.up.weight` and `weight` are anybody's.
    """
    parts = name.split(".")
    first = next((i for i, part in enumerate(parts) if part.isdigit()), len(parts))
    return [".".join(parts[i:]) for i in range(min(max(first, 1), max(len(parts) - 1, 1)))]


def _whole(held: set[str], outside: Mapping[str, Any]) -> bool:
    """Whether these are half of the external model, or one of its parts in the whole (a tower of at least three)."""
    if held and len(held) >= len(outside) / 2:
        return True
    towers: dict[str, list[str]] = {}
    for name in outside:
        parts = name.split(".")
        first = next((i for i, part in enumerate(parts) if part.isdigit()), len(parts) - 1)
        for depth in range(1, first + 1):
            towers.setdefault(".".join(parts[:depth]), []).append(name)
    return any(len(names) >= TOWER and held.issuperset(names) for names in towers.values())
