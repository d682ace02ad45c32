# SPDX-License-Identifier: Apache-2.0
"""What a run of a component's parity test is asked for besides comparing: told by one JSON file, whoever starts pytest.

A test that is run by hand has no such file, and compares only.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

VARIABLE = "FVPORT_PARITY_JOB"


@dataclass(frozen=True)
class Job:
    """`record`: folder for what the native side answered, for the judge. `strength`: components to measure."""

    what: str = "parity"  # parity | trace
    record: str = ""
    strength: tuple[str, ...] = ()
    shipped: bool = False  # compare the blocks in bf16 too
    late: bool = False  # answer the late inputs too, of which no official output exists yet
    traced: bool = False  # strength: let the trace name the module of each caught fault
    faults: tuple[str, ...] = ()  # strength: only these
    case: str = ""  # trace: this case, not the first that differs
    out: str = ""  # trace: folder for its files
    device: str = "auto"

    def write(self, file: Path) -> Path:
        file.write_text(json.dumps(asdict(self)), encoding="utf-8")
        return file


def current() -> Job:
    file = os.environ.get(VARIABLE, "")
    if not file:
        return Job()
    data: Any = json.loads(Path(file).read_text(encoding="utf-8"))
    found: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    return Job(**found)


@dataclass
class Kept:
    """What the native side answered, written as it comes: safetensors, and one JSON of containers and fault kinds."""

    folder: Path | None
    entries: list[dict[str, object]] = field(default_factory=list)

    def put(self, kind: str, words: str, case: str, outputs: object) -> None:
        """`kind`: right | again | late | swap | row | schedule | step."""
        if self.folder is None:
            return
        from safetensors.torch import save_file

        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{len(self.entries):04d}.safetensors"
        tensors = {k: t.detach().cpu().contiguous().clone() for k, t in outputs.tensors.items()}  # type: ignore[attr-defined]
        save_file(tensors, str(self.folder / name))
        containers = outputs.containers  # type: ignore[attr-defined]
        self.entries.append({"kind": kind, "words": words, "case": case, "file": name, "containers": containers})
        part = self.folder / "outputs.part"
        part.write_text(json.dumps(self.entries), encoding="utf-8")
        os.replace(part, self.folder / "outputs.json")
