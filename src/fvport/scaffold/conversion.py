# SPDX-License-Identifier: Apache-2.0
"""A release that is not in Diffusers layout, seen at bake time as what its declared conversion makes of it.

With the declaration, components, classes, configs and tensors are known before anything is converted (from headers),
and the bake fills in the port as for any Diffusers release. Without, the script is rendered with what was inspected.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from fvport.errors import BlockedError, UsageError
from fvport.weights import conversion as plans
from fvport.weights import declaration, manifest
from fvport.weights.conversion import Conversion
from fvport.weights.declaration import Declaration, Part
from fvport.weights.fill import config_name
from fvport.weights.kinds import kind_of
from fvport.weights.layout import ComponentInfo, Inspection

WHERE = "conversion"


def declared(found: Inspection | None, path: Path | None, answer: str, cwd: Path) -> tuple[Inspection | None, str]:
    """(the inspection with the converted components, text of the script), or what was given where nothing is declared.

    UsageError for a declaration that cannot be read, FvportError for one that leaves a key open.
    """
    if not answer.strip():
        return found, ""
    file = (cwd / Path(answer.strip()).expanduser()).absolute()
    if not file.is_file():
        raise BlockedError(f"there is no file {answer!r}", where=WHERE, todo="Give the script that declares it")
    text = file.read_text(encoding="utf-8", errors="strict")
    said = declaration.parse(text, file.name)
    if found is None or path is None:
        raise UsageError("needs the release: nothing is known of its tensors", where=WHERE, todo="Say official_weights")
    if path.suffix == ".json":  # an inspection.json, which a bake with this declaration wrote
        return found, text
    if not found.needs_conversion:
        raise UsageError("is not needed: the release is in Diffusers layout", where=WHERE, todo="Leave it out")
    with tempfile.TemporaryDirectory() as folder:
        root = path
        if path.is_file():
            root = Path(folder)
            (root / path.name).symlink_to(path)
        return _converted(found, plans.plan(root, said), said), text


def _converted(found: Inspection, plan: Conversion, said: Declaration) -> Inspection:
    parts = {name: _component(plan, part) for name, part in said.parts.items()}
    absent = [name for name, value in said.index.items() if value == [None, None]]
    return dataclasses.replace(
        found,
        pipeline_class=said.pipeline[1],
        pipeline_library=said.pipeline[0],
        pipeline_config={name: value for name, value in said.index.items() if name not in absent},
        components=parts,
        absent=tuple(absent),
        concerns=tuple(plan.notes),
        aside=(),
    )


def _component(plan: Conversion, part: Part) -> ComponentInfo:
    made = plan.tensors.get(part.name, [])
    tensors = {item.name: (item.tensor.dtype, item.tensor.shape) for item in sorted(made, key=lambda item: item.name)}
    config = {} if part.copied else plan.config(part)
    if part.copied:
        folder = plan.root / part.folder
        name = config_name(part)
        config = manifest.read_json(folder / name) if (folder / name).is_file() else {}
        files = manifest.read_weights(folder).files.items()
        held = [pair for file, table in files if not part.only or file in part.only for pair in table.items()]
        tensors = {key: (info.dtype, info.shape) for key, info in sorted(held)}
    return ComponentInfo(
        name=part.name,
        kind=kind_of(part.name, part.cls, part.library)[0],
        library=part.library,
        cls=part.cls,
        folder=part.name,
        config=config,
        tensors=tensors,
        bytes=sum(item.tensor.bits // 8 for item in made),
    )
