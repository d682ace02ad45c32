# SPDX-License-Identifier: Apache-2.0
"""One component seen from both sides: official headers, the rules, the native names. What the weight checks share.

The native side is asked through `fvport.models.native`: `rules(port, name)` gives `mapping.Rules`, `meta(port, name)`
{name: (shape, dtype)} of parameters and persistent buffers, and `ask(port, "state", name)["file"]` a safetensors
file of
the state dict after a production load. A child process answers, and answers are kept, so nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fvport.errors import BlockedError
from fvport.spec import Component, Port
from fvport.weights import first_link, manifest
from fvport.weights.case import Case, Finding, Shape
from fvport.weights.lint import lint
from fvport.weights.mapping import Rules
from fvport.weights.values import Store, dtype_name

PACKAGES = ("fvport", "torch", "diffusers", "transformers", "safetensors")


def components(port: Port, only: tuple[str, ...] = ()) -> list[Component]:
    """Components whose weights a native class loads, the port's or FastVideo's; `only` names some of them."""
    for name in only:
        port.component(name)
    chosen = [c for c in port.components.values() if c.owns_weights]
    return [component for component in chosen if not only or component.name in only]


@dataclass
class Side:
    """Facts on one component of a port, each read when it is first asked for."""

    port: Port
    component: Component

    @cached_property
    def weights(self) -> manifest.Weights:
        return official(self.port, self.component)

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        return {name: info.shape for name, info in self.weights.tensors.items()}

    @cached_property
    def rules(self) -> Rules:
        from fvport.models import native

        found: Rules = native.rules(self.port, self.component.name)
        return found

    @cached_property
    def native(self) -> dict[str, tuple[Shape, str]]:
        """{native name: (shape, dtype as safetensors spells it)}"""
        from fvport.models import native

        tensors = native.meta(self.port, self.component.name)
        return {name: (tuple(shape), dtype_name(dtype)) for name, (shape, dtype) in tensors.items()}

    def state(self) -> Store:
        """The state dict that the production loader really made."""
        from fvport.models import native

        return Store.of_file(native.ask(self.port, "state", self.component.name)["file"])

    def store(self) -> Store:
        """The official tensors, by value."""
        return Store.of_folder(self.port.official_tree / folder_of(self.component), self.weights)

    @cached_property
    def link(self) -> first_link.Link | None:
        """Official -> converted, where the release is converted."""
        return first_link.of(self.port, folder_of(self.component))

    @cached_property
    def case(self) -> Case:
        return self.case_for({name: shape for name, (shape, _) in self.native.items()})

    def case_for(self, native: dict[str, Shape]) -> Case:
        """The rules with other native names: those of a loaded state dict."""
        review = self.component.mapping
        return Case(self.rules, self.shapes, native, review.passthrough, review.exclude)

    def findings(self) -> list[Finding]:
        """On both links: the declared conversion, where there is one, and the rules of the native side."""
        review, case = self.component.mapping, self.case
        reuse = self.component.mode == "reuse"
        found = self.link.findings(review.accept) if self.link else []
        return found + lint(case.rules, case.shapes, case.native, case.passthrough, case.exclude, review.accept, reuse)

    def digest(self) -> str:
        review = self.component.mapping
        return self.rules.digest(review.passthrough, review.exclude, accept=review.accept, **self._converted())

    def canonical(self) -> dict[str, Any]:
        review = self.component.mapping
        return self.rules.canonical(review.passthrough, review.exclude, accept=review.accept, **self._converted())

    def _converted(self) -> dict[str, Any]:
        """The declared conversion is as much a part of where a tensor goes as the rules: a signature covers both."""
        if not self.port.official.needs_conversion:
            return {}
        from fvport.weights import declaration

        return {"conversion": declaration.of_port(self.port).canonical(folder_of(self.component))}


def folder_of(component: Component) -> str:
    """The component's folder inside the release."""
    return component.weights or component.name


def official(port: Port, component: Component) -> manifest.Weights:
    """The official weights' headers. BlockedError when they are not there."""
    folder = port.official_tree / folder_of(component)
    if not folder.is_dir():
        what = f"the official weights of {component.name} are not there"
        raise BlockedError(what, where=str(folder), todo="Run: fvport prep")
    weights = manifest.read_weights(folder)
    if not weights.files:
        raise BlockedError(f"no safetensors file for {component.name}", where=str(folder), todo="Run: fvport prep")
    return weights


def prefetch(port: Port, chosen: list[Component], *questions: str) -> None:
    """Ask everything of one child, so that FastVideo is imported once. A question that fails is asked again later,
    where its error can be said about its component."""
    from fvport.models import native

    native.try_many(port, [(question, component.name) for component in chosen for question in questions])


def inputs(port: Port) -> list[str]:
    """What every weight check read: the declaration, the lock, and all code that makes the native side.

    A native class is what its file, every helper that it imports, FastVideo's layers and registries, and the libraries
    below make of it, so it is the whole tree that counts and not a list of files.
    """
    names = ["port:official", "port:fastvideo", "tree:fastvideo"]
    names += [f"package:{name}" for name in PACKAGES]
    for component in components(port):
        names += [f"port:components.{component.name}", f"weights:{component.name}"]
    return names
