# SPDX-License-Identifier: Apache-2.0
"""One case: an official class, the native one, a tiny config, inputs, and how each side is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

Inputs = dict[str, Any]
Make = Callable[[Any], Inputs]  # a torch.Generator -> inputs of both sides
Call = Callable[[Any, Inputs], Any]  # (built, inputs) -> outputs by name


@dataclass(frozen=True)
class Case:
    """`official` and `native` are `module:Class`; `config` goes to the official constructor.

    `loader` names the way of `models/native_audit.py` that builds the native side, the production loader where
    FastVideo has one. `record` is merged into the config.json that this loader reads (None takes a field away), `names`
    renames checkpoint tensors as the release has them, `settings` is set on the native config before the loader
    updates it. `randomise` may adjust the official weights after they were drawn.
    """

    name: str
    official: str
    native: str
    loader: str
    inputs: Make
    ours: Call
    theirs: Call
    config: dict[str, Any] = field(default_factory=dict)
    native_config: str = ""
    record: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    names: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    build: Callable[[type, dict[str, Any]], Any] | None = None
    adjust: Callable[[Any], None] | None = None
    what: str = ""
    seed: int = 0

    def variant(self, suffix: str, what: str, **changes: Any) -> Case:
        """The same pair under `name/suffix`; `config` and `record` are merged over this one's."""
        for key in ("config", "record", "settings"):
            if key in changes:
                changes[key] = {**getattr(self, key), **changes[key]}
        return replace(self, name=f"{self.name.split('/')[0]}/{suffix}", what=what, **changes)


def normal(generator: Any, *shape: int, scale: float = 1.0) -> Any:
    """float32 noise of `shape`."""
    import torch

    return torch.randn(*shape, generator=generator) * scale


def integers(generator: Any, high: int, *shape: int, low: int = 0) -> Any:
    """int64 in [low, high)."""
    import torch

    return torch.randint(low, high, shape, generator=generator)
