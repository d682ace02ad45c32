# SPDX-License-Identifier: Apache-2.0
"""Nested values (tensors, lists, dicts, plain values) as one JSON tree and one flat dict of tensors, and back.

The oracle's process loads this file by its path: standard library and torch only.
"""

from __future__ import annotations

from typing import Any


def pack(value: Any, name: str, tensors: dict[str, Any]) -> Any:
    """JSON tree of `value`; its tensors are put into `tensors` under names that start with `name`. TypeError else."""
    import torch

    if torch.is_tensor(value):
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"$tensor": name}
    if isinstance(value, torch.dtype):
        return {"$dtype": str(value).removeprefix("torch.")}
    if isinstance(value, dict):
        return {"$dict": [[str(k), pack(v, f"{name}/{k}", tensors)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        kind = "$tuple" if isinstance(value, tuple) else "$list"
        return {kind: [pack(v, f"{name}/{i:03d}", tensors) for i, v in enumerate(value)]}
    if hasattr(value, "__array__") and not isinstance(value, (bool, int, float, str)):
        return pack(torch.as_tensor(value), name, tensors)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}; inputs are tensors, lists, dicts and plain values")


def unpack(tree: Any, tensors: dict[str, Any], convert: Any = None) -> Any:
    """The nested value again. `convert` is applied to every tensor (a dtype, a device, a clone)."""
    import torch

    if not isinstance(tree, dict):
        return tree
    (kind, inner), *_ = tree.items()
    if kind == "$tensor":
        tensor = tensors[inner]
        return convert(tensor) if convert else tensor
    if kind == "$dtype":
        return getattr(torch, inner)
    if kind == "$dict":
        return {k: unpack(v, tensors, convert) for k, v in inner}
    values = [unpack(v, tensors, convert) for v in inner]
    return tuple(values) if kind == "$tuple" else values


def outputs(value: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """({name: tensor}, {name: container}) of what a `call` returned: a dict, or a bare tensor as `output`.

    A list's items are `name/000` ...; numbers become float64 or int64 tensors and text its bytes, so that they compare
    exactly; None says that there is no such output. TypeError for anything else.
    """
    if not isinstance(value, dict):
        value = {"output": value}
    tensors: dict[str, Any] = {}
    containers: dict[str, str] = {}
    for name, item in value.items():
        _flatten(str(name), item, "", tensors, containers)
    return tensors, containers


def _flatten(name: str, item: Any, inside: str, tensors: dict[str, Any], containers: dict[str, str]) -> None:
    import torch

    if torch.is_tensor(item):
        tensors[name] = item.detach().cpu().contiguous()
        containers[name] = f"a tensor{inside}"
    elif isinstance(item, (bool, int, float)):
        kind = torch.float64 if isinstance(item, float) else torch.int64
        tensors[name], containers[name] = torch.tensor(item, dtype=kind), f"a number{inside}"
    elif isinstance(item, str):
        tensors[name] = torch.tensor(list(item.encode()) or [0], dtype=torch.uint8)
        containers[name] = f"text{inside}"
    elif isinstance(item, (list, tuple)):
        for i, part in enumerate(item):
            _flatten(f"{name}/{i:03d}", part, f" in a sequence of {len(item)}", tensors, containers)
    elif isinstance(item, dict):
        for key, part in item.items():
            _flatten(f"{name}/{key}", part, inside, tensors, containers)
    elif item is not None:
        if not hasattr(item, "__array__"):
            raise TypeError(f"output {name} is a {type(item).__name__}; return tensors by name")
        _flatten(name, torch.as_tensor(item), inside, tensors, containers)
