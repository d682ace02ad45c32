# SPDX-License-Identifier: Apache-2.0
"""Where a hybrid wrapper's external model lies: `text_encoder/NAME`, or what a root field of model_index.json says.

Standard library only. The same declaration is read for the release and for the load tree.
"""

from __future__ import annotations

from pathlib import Path

from fvport.errors import BlockedError, FvportError
from fvport.spec import Component
from fvport.weights import manifest


def folder(tree: Path, component: Component) -> Path:
    """The external model's folder inside `tree` (a release or a load tree).

    FvportError for a field that is not there, or that leads out of the tree or to a hub id: a port that is loaded from
    its folder must not depend on what lies elsewhere. BlockedError where the folder is not there.
    """
    where = f"components.{component.name}.external"
    said = component.external
    if said.startswith("model_index:"):
        field = said.partition(":")[2]
        index = manifest.read_json(tree / "model_index.json")
        value = index.get(field)
        if not isinstance(value, str) or not value:
            todo = "Put the field into model_index.json, or name a folder"
            raise FvportError(f"model_index.json has no path in its field {field}", where=where, todo=todo)
        said = value
    if Path(said).is_absolute() or ".." in Path(said).parts:
        what = f"{component.external} leads to {said}, outside of the release"
        raise FvportError(what, where=where, todo="Put the external model into the release, by a relative path")
    place = tree / said
    if not place.is_dir():
        what = f"{said} is no folder of {tree.name}"
        raise BlockedError(what, where=where, todo="Fetch the whole release (a hub id is not resolved here)")
    if not any(place.iterdir()):
        raise BlockedError(f"{said} is empty", where=where, todo="Fetch the whole release")
    return place


def names(place: Path) -> dict[str, tuple[int, ...]]:
    """{tensor: shape} of the external model, from headers; {} for files that have none."""
    return {name: info.shape for name, info in manifest.read_weights(place).tensors.items()}
