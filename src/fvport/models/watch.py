# SPDX-License-Identifier: Apache-2.0
"""Watch a production load: which official tensor was copied into which rows of which native one.

For an encoder that FastVideo already has (mode "reuse") no declaration of its names exists: its `load_weights` is
code. The load itself is watched: each copy into a parameter's storage is noted with the tensor being handed out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from fvport.models import native
from fvport.spec import Component, Port


def load(port: Port, component: Component) -> tuple[Any, list[list[Any]]]:
    """(module, [[source, target, first row, rows], ...]) of a load; a source used nowhere has target ""."""
    cls = native.native_class(port, component)
    original = cls.load_weights  # type: ignore[attr-defined]
    own = "load_weights" in vars(cls)
    seen: list[list[Any]] = []

    def watched(self: Any, weights: Iterable[tuple[str, Any]]) -> Any:
        watcher = _watcher(self, seen)
        with watcher:
            return original(self, watcher.hand_out(weights))

    cls.load_weights = watched  # type: ignore[attr-defined]
    try:
        module = native.load(port, component.name)
    finally:
        if own:
            cls.load_weights = original  # type: ignore[attr-defined]
        else:
            del cls.load_weights  # type: ignore[attr-defined]
    return module, seen


def _watcher(model: Any, seen: list[list[Any]]) -> Any:
    """A dispatch mode that notes copies into the model's own storages."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    owners: dict[int, tuple[str, Any]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        owners.setdefault(tensor.untyped_storage().data_ptr(), (name, tensor))

    class Watcher(TorchDispatchMode):
        source = ""

        def hand_out(self, weights: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
            for name, tensor in weights:
                self.source, before = name, len(seen)
                yield name, tensor
                if len(seen) == before:
                    seen.append([name, "", 0, 0])
            self.source = ""

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten.copy_.default and self.source:
                target = args[0]
                owner = owners.get(target.untyped_storage().data_ptr())
                if owner is not None:
                    name, whole = owner
                    row = target.storage_offset() // max(whole.stride(0), 1) if whole.dim() else 0
                    seen.append([self.source, name, row, target.shape[0] if target.dim() else 1])
            return func(*args, **(kwargs or {}))

    return Watcher()
