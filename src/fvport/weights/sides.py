# SPDX-License-Identifier: Apache-2.0
"""One component seen from both sides: official headers, the rules, the native names. What the three weight checks
share.

The native side is asked in a child process, `fvport.models.native.ask(port, what, component_name)`, so that nothing
here
imports FastVideo or torch. Its answers:

- `rules`: `mapping.Rules.to_json()`;
- `meta`: {name: [shape, dtype]} of parameters and persistent buffers, or {"tensors": {...}, "tied": {alias: name}}
  where
  two names share one tensor;
- `state`: {"file": safetensors file of the loaded state dict, "class": "module:Class", "class_file": path,
  "missing": [...],
  "unexpected": [...]} (the last two where the loader says them).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from fvport.errors import BlockedError, FvportError
from fvport.spec import Component, Port
from fvport.weights import manifest
from fvport.weights.lint import NATIVE, Case, Finding, Shape, lint
from fvport.weights.mapping import Rules
from fvport.weights.values import dtype_name


def components(port: Port, only: tuple[str, ...] = ()) -> list[Component]:
    """Components whose weights FastVideo's own class loads, here or in FastVideo; `only` names some of them."""
    for name in only:
        port.component(name)
    chosen = [c for c in port.components.values() if c.has_weights and c.mode in ("port", "reuse")]
    return [component for component in chosen if not only or component.name in only]


@dataclass
class Side:
    """Lazily read facts on one component of a port."""

    port: Port
    component: Component
    answers: dict[str, Any] = field(default_factory=dict)

    def ask(self, what: str) -> Any:
        if what not in self.answers:
            from fvport.models import native

            self.answers[what] = native.ask(self.port, what, self.component.name)
        return self.answers[what]

    @cached_property
    def weights(self) -> manifest.Weights:
        return official(self.port, self.component)

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        return {name: info.shape for name, info in self.weights.tensors.items()}

    @cached_property
    def rules(self) -> Rules:
        return Rules.from_json(self.ask("rules"))

    @cached_property
    def native(self) -> dict[str, tuple[Shape, str]]:
        """{native name: (shape, dtype)}, each tied tensor under one name."""
        return {name: value for name, value in self._meta[0].items() if name not in self._meta[1]}

    @cached_property
    def tied(self) -> dict[str, str]:
        """{alias: name it shares its tensor with}"""
        return self._meta[1]

    @cached_property
    def _meta(self) -> tuple[dict[str, tuple[Shape, str]], dict[str, str]]:
        answer = self.ask("meta")
        tied = answer.get("tied", {}) if isinstance(answer.get("tensors"), dict) else {}
        tensors = answer["tensors"] if isinstance(answer.get("tensors"), dict) else answer
        try:
            return {name: (tuple(shape), dtype_name(dtype)) for name, (shape, dtype) in tensors.items()}, tied
        except (TypeError, ValueError) as error:
            raise FvportError(f"the native names of {self.component.name} cannot be read ({error})") from None

    @cached_property
    def case(self) -> Case:
        review = self.component.mapping
        native = {name: shape for name, (shape, _) in self.native.items()}
        return Case(self.rules, self.shapes, native, review.passthrough, review.exclude)

    def findings(self) -> list[Finding]:
        review = self.component.mapping
        native = {name: shape for name, (shape, _) in self.native.items()}
        reuse = self.component.mode == "reuse"
        return lint(self.rules, self.shapes, native, review.passthrough, review.exclude, review.accept, reuse)

    def digest(self) -> str:
        review = self.component.mapping
        return self.rules.digest(review.passthrough, review.exclude, accept=review.accept)

    def canonical(self) -> dict[str, Any]:
        review = self.component.mapping
        return self.rules.canonical(review.passthrough, review.exclude, accept=review.accept)


def folder_of(component: Component) -> str:
    """The component's folder inside the release."""
    return component.weights or component.name


def official(port: Port, component: Component) -> manifest.Weights:
    """The official weights' headers. BlockedError when they are not there."""
    folder = port.official_weights / folder_of(component)
    todo = f"Run: fvport prep --port {port.root.name}"
    if not folder.is_dir():
        raise BlockedError(f"the official weights of {component.name} are not there", where=str(folder), todo=todo)
    weights = manifest.read_weights(folder)
    if not weights.files:
        raise BlockedError(f"no safetensors file for {component.name}", where=str(folder), todo=todo)
    return weights


def inputs(port: Port, *more: str) -> list[str]:
    """What every weight check read: the declaration, the lock, the port's files, and FastVideo's own loading code."""
    names = ["package:fvport", "port:official", "tree:fastvideo/configs/models", "tree:fastvideo/models/loader", *more]
    for component in components(port):
        names += [f"port:components.{component.name}", f"weights:{component.name}", f"file:{component.native_file}"]
        names += [f"file:{component.config_file}"] if component.config else []
    return names


__all__ = ["NATIVE", "Side", "components", "folder_of", "inputs", "official"]
