# SPDX-License-Identifier: Apache-2.0
"""References of a port: frames kept without loss, by device, and for each who made it, from what, and who approved it.

`<store>/<device>/<call>.safetensors` holds uint8 frames (time, height, width, 3); beside it `<call>.json` its
provenance. A reference that is missing, a draft, or not what its digest says is no reference.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fvport import evidence as ev
from fvport.errors import BlockedError
from fvport.spec import Port


@dataclass(frozen=True)
class Provenance:
    """Where a reference comes from. `approved_by` is empty for a draft, which counts for nothing."""

    producer: str  # official | port
    call: dict[str, Any]
    versions: dict[str, str]
    device: str
    digest: str
    made: str
    approved_by: str = ""
    commit: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


def folder(port: Port, device_name: str) -> Path:
    return port.root / port.quality.store / re.sub(r"[^A-Za-z0-9.-]+", "_", device_name).strip("_")


def draft(port: Port, device_name: str, name: str, frames: Any, provenance: dict[str, Any]) -> Path:
    """Write a reference that is not approved yet. An approved one is never replaced."""
    import torch
    from safetensors.torch import save_file

    file = folder(port, device_name) / f"{name}.safetensors"
    if file.is_file() and _provenance(file).approved_by:
        raise BlockedError(
            "an approved reference is here already", where=_shown(port, file), todo="Remove it yourself first"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    parts = [file.with_name(f".{name}.{os.getpid()}.{kind}") for kind in ("frames", "json")]
    try:
        save_file({"frames": torch.as_tensor(frames).contiguous()}, parts[0])
        whole = Provenance(device=device_name, digest=ev.blake3(parts[0].read_bytes()), made=ev.now(), **provenance)
        parts[1].write_text(json.dumps(dataclasses.asdict(whole), indent=1, default=str) + "\n", encoding="utf-8")
        for part, place in zip(parts, (file, file.with_suffix(".json")), strict=True):
            os.replace(part, place)  # between the two the old digest refuses the new frames
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    return file


def inputs(port: Port) -> list[str]:
    """The approved references of all devices, as names of a record's inputs; drafts count for nothing."""
    base = port.root / port.quality.store
    files = [file for file in sorted(base.glob("*/*.safetensors")) if _approved(file)]
    shown = [os.path.relpath(file, port.root) for file in files]
    return [f"file:{name}" for name in shown] + [f"file:{Path(name).with_suffix('.json')}" for name in shown]


def _approved(file: Path) -> bool:
    try:
        return bool(_provenance(file).approved_by)
    except BlockedError:
        return False


def load(port: Port, device_name: str, name: str, call: dict[str, Any]) -> tuple[Any, Provenance]:
    """(uint8 frames, provenance) of an approved reference for this call. BlockedError says what is wrong with it."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = folder(port, device_name) / f"{name}.safetensors"
    where = _shown(port, file)
    if not file.is_file():
        raise BlockedError(
            "no reference for this device", where=where, todo="Make a draft: fvport check ssim --bootstrap"
        )
    provenance = _provenance(file)
    if not provenance.approved_by:
        todo = "Look at it, then put your name into approved_by of its .json"
        raise BlockedError("the reference is a draft that nobody approved", where=where, todo=todo)
    if ev.blake3(file.read_bytes()) != provenance.digest:
        raise BlockedError(
            "the reference is not what its digest says", where=where, todo="Restore it, or make it again"
        )
    if ev.canonical(provenance.call) != ev.canonical(call):
        raise BlockedError("the reference was made by another call", where=where, todo="Make it again: --bootstrap")
    try:
        return load_file(file)["frames"].numpy(), provenance
    except (SafetensorError, KeyError) as error:
        raise BlockedError(f"the reference cannot be read ({error})", where=where) from None


def _provenance(file: Path) -> Provenance:
    try:
        return Provenance(**json.loads(file.with_suffix(".json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise BlockedError(
            f"has no readable provenance ({error})", where=file.name, todo="Make it again: --bootstrap"
        ) from None


def _shown(port: Port, file: Path) -> str:
    return str(file.relative_to(port.root)) if file.is_relative_to(port.root) else str(file)
