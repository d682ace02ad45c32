# SPDX-License-Identifier: Apache-2.0
"""How each side generates, and what its calls depend on: a folder of records is kept by the digest of all of that."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fvport import evidence as ev
from fvport import fastvideo_api
from fvport.errors import BlockedError
from fvport.models import kept, native_pipeline
from fvport.parity import clips, oracle, pictures, shares
from fvport.spec import Port

PACKAGES = ("fvport", "torch", "diffusers", "transformers", "numpy", "safetensors")


@dataclass(frozen=True)
class Side:
    """How one side generates: `key` is what its calls depend on beside themselves, `make` makes some below a folder."""

    name: str
    store: Path
    key: dict[str, Any]
    make: shares.Made

    def folder(self, wanted: list[dict[str, Any]]) -> Path:
        return self._named(self.name, wanted)

    def share(self, wanted: list[dict[str, Any]]) -> Path:
        return self._named(f"share-{self.name}", wanted)

    def _named(self, start: str, wanted: list[dict[str, Any]]) -> Path:
        digest = ev.blake3(ev.canonical({**self.key, "calls": wanted})).partition(":")[2][:24]
        return self.store / f"{start}.{digest}"


def side_of(port: Port, name: str, device: str, key: dict[str, Any], make: shares.Made) -> Side:
    packages = ev.digests(port, [f"package:{name}" for name in PACKAGES])
    place = [device, fastvideo_api.device_of(port.root, device)["name"]]
    store = port.state / "cache" / "generation"
    return Side(name, store, {**key, "media": _media(port), "packages": packages, "device": place}, make)


def official(port: Port, device: str, name: str = "official") -> Side:
    whole = port.official_weights if port.official.needs_conversion else port.official_weights / "model_index.json"
    if not whole.exists():
        raise BlockedError("no official weights", where=port.official.weights, todo="Run: nox -s prep")
    if not (port.folder / "oracle.py").is_file():
        raise BlockedError("no oracle.py", where=str(port.folder), todo="Bake the port again: fvport new")
    key = {
        "oracle": ev.blake3((port.folder / "oracle.py").read_bytes()),
        "weights": listing(port.official_weights),
        "lock": ev.digests(port, [f"weights:{name}" for name in port.components]),
        "code": oracle.code(port),
    }

    def make(wanted: list[dict[str, Any]], part: Path) -> None:
        oracle.call(port, "run_pipelines", [str(port.official_weights), wanted, str(part)])

    return side_of(port, name, device, key, make)


def native(port: Port, device: str, precision: str = "fp32") -> Side:
    """`precision`: what every component computes in; '' for what the port's pipeline config ships."""
    environment = {k: v for k, v in os.environ.items() if k.startswith("FASTVIDEO_")}
    environment[fastvideo_api.BACKEND_VARIABLE] = port.fastvideo.attention_backend
    key = {
        "tree": ev.digest(port, "tree:fastvideo"),
        "weights": listing(port.load_tree),
        "environment": environment,
        "workloads": list(port.port.workload_types),
        "kinds": {name: [c.kind, bool(c.config)] for name, c in port.components.items()},
        **({} if precision == "fp32" else {"precision": precision}),
    }
    log = port.state / "logs" / "generation.log"

    def make(wanted: list[dict[str, Any]], part: Path) -> None:
        native_pipeline.run(port, wanted, part, log, device, precision)

    return side_of(port, "native" if precision == "fp32" else "shipped-native", device, key, make)


def _media(port: Port) -> dict[str, str]:
    """The content of the declared pictures and videos: a call holds only their paths."""
    return ev.digests(port, pictures.inputs(port) + clips.inputs(port))


def listing(folder: Path) -> list[list[Any]]:
    """Names, sizes and times of all files (links followed), and the content of the small JSON ones."""
    rows: list[list[Any]] = []
    for root, dirs, names in os.walk(folder, followlinks=True):
        dirs.sort()
        for name in sorted(names):
            file = Path(root, name)
            stat = file.stat()
            row: list[Any] = [str(file.relative_to(folder)), stat.st_size]
            row.append(ev.blake3(file.read_bytes()) if name.endswith(".json") else stat.st_mtime_ns)
            rows.append(row)
    return rows


def kept_folder(port: Port, side: Side, wanted: list[dict[str, Any]]) -> Path:
    """The folder of these calls, made where there is none; a half-made one never gets the name."""
    folder = side.folder(wanted)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with kept.alone(folder):
        if kept.hold(folder):
            return folder
        part = folder.with_name(f".{side.name}.part.{os.getpid()}")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        try:
            if left := shares.taken(side.share, wanted, part):
                side.make(left, part)
            kept.settle(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        for start in (side.name, f"share-{side.name}"):
            kept.prune_folders(folder, start)
    return folder
