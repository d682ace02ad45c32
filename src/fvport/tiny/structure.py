# SPDX-License-Identifier: Apache-2.0
"""Whether two models are built alike, whatever their sizes: a canonical form of a module's tree.

A list of layers is the set of its layers' kinds, so depth does not count and a kind that is lost does. A kind is the
class, the names and ranks of its tensors, its switches (attributes that are booleans, words or None) and its children.
"""

from __future__ import annotations

from typing import Any

Kind = tuple[Any, ...]
BOOK = ("training", "gradient_checkpointing")


def kind(module: Any) -> Kind:
    """(class, tensors, switches, children): hashable, equal for modules that are built alike."""
    tensors = [(n, p.dim()) for n, p in module.named_parameters(recurse=False)]
    aside = module._non_persistent_buffers_set
    tensors += [(n, b.dim()) for n, b in module._buffers.items() if b is not None and n not in aside]
    absent = tuple(sorted(n for n, p in module._parameters.items() if p is None))
    return (type(module).__name__, tuple(sorted(tensors)), absent, _switches(module), _children(module))


def _switches(module: Any) -> tuple[Any, ...]:
    found = []
    for name, value in vars(module).items():
        if name.startswith("_") or name in BOOK:
            continue
        if value is None or isinstance(value, bool | str):
            found.append((name, str(value)))
        elif name == "processor":
            found.append((name, type(value).__name__))
    return tuple(sorted(found))


def _children(module: Any) -> tuple[Any, ...]:
    named = {name: kind(child) for name, child in module._modules.items() if child is not None}
    if named and all(name.isdigit() for name in named):
        if type(module).__name__ == "ModuleList":
            return ("any order", frozenset(named.values()))
        return ("in order", tuple(dict.fromkeys(named.values())))
    return ("named", tuple(sorted(named.items())))


def difference(before: Kind, after: Kind, path: str = "") -> str:
    """The first thing that two kinds do not share, in words; '' where they are equal."""
    if before == after:
        return ""
    here = path or "the model"
    if before[0] != after[0]:
        return f"{here} would become a {after[0]} instead of a {before[0]}"
    said = _own_difference(before, after, here, ((1, "tensor"), (2, "absent tensor")))
    said = said or _child_difference(before[4], after[4], path)
    return said or _own_difference(before, after, here, ((3, "switch"),))


def _own_difference(before: Kind, after: Kind, here: str, parts: tuple[tuple[int, str], ...]) -> str:
    for index, what in parts:
        lost, new = sorted(set(before[index]) - set(after[index])), sorted(set(after[index]) - set(before[index]))
        if lost or new:
            first = (lost or new)[0]
            named = first if isinstance(first, str) else f"{first[0]} ({first[1]})"
            return f"{here} would {'lose' if lost else 'gain'} the {what} {named}"
    return ""


def _child_difference(before: tuple[Any, ...], after: tuple[Any, ...], path: str) -> str:
    here = path or "the model"
    if before == after:
        return ""
    if before[0] != after[0]:
        return f"{here} would hold its layers in another way"
    if before[0] == "named":
        left, right = dict(before[1]), dict(after[1])
        for name, child in left.items():
            if name not in right:
                return f"{here} would lose {name}"
            said = difference(child, right[name], f"{path}.{name}".lstrip("."))
            if said:
                return said
        return f"{here} would gain {next(n for n in right if n not in left)}"
    lost = [k for k in before[1] if k not in after[1]]
    new = [k for k in after[1] if k not in before[1]]
    if len(lost) == len(new) == 1:
        return difference(lost[0], new[0], f"{path}.*")
    if lost:
        return f"{here} would lose a kind of layer (one of {len(set(before[1]))}, a {lost[0][0]})"
    if new:
        return f"{here} would gain a kind of layer ({new[0][0]})"
    return f"{here} would hold its layers in another order"


def squares(model: Any) -> dict[str, bool]:
    """{name with its numbers folded: whether it is square}, of matrices: where a transposed one would fit unnoticed."""
    found: dict[str, bool] = {}
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            folded = ".".join("*" if word.isdigit() else word for word in name.split("."))
            found[folded] = found.get(folded, True) and parameter.shape[0] == parameter.shape[1]
    return found


def largest(model: Any, count: int = 3) -> list[tuple[str, int]]:
    """The names and element counts of the largest parameters."""
    sizes = sorted(((p.numel(), n) for n, p in model.named_parameters()), reverse=True)
    return [(name, size) for size, name in sizes[:count]]


def elements(model: Any) -> int:
    """Number of parameters, tied ones once."""
    return sum(p.numel() for p in model.parameters())
