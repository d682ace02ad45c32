# SPDX-License-Identifier: Apache-2.0
"""Official answers that are on no disk while the native side is asked: inputs of another seed, run afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fvport import fastvideo_api
from fvport.parity import oracle
from fvport.parity.oracle import SEED, Oracle
from fvport.spec import Port

PREFIX = ".late."
AT_WORK = "at-work"  # locked as long as the process that made the folder lives


@contextlib.contextmanager
def answers(port: Port, names: list[str], *, device: str = "auto", seed: int = SEED) -> Iterator[dict[str, Oracle]]:
    """The official side on each component's late inputs, from one process; nothing of it stays on disk.

    Raises FvportError for the first component whose official side did not come to its end.
    """
    device = fastvideo_api.resolve_device(device)
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=PREFIX, dir=_home(port))))
        fcntl.flock(stack.enter_context((scratch / AT_WORK).open("w")), fcntl.LOCK_EX)
        jobs = []
        for name in names:
            known = oracle.results(port, name, device=device)
            given = {"file": str(known.folder.resolve() / "late.safetensors"), "inputs": known.meta["late"]}
            jobs.append({**oracle._job(port, name, device, seed), "contract": False, "late": given})
            jobs[-1]["out"] = str((scratch / name).resolve())
            (scratch / name).mkdir()
        if jobs:
            oracle._run(port, {"what": "components", "jobs": jobs}, scratch, ", ".join(names))
        for name in names:
            oracle._checked(json.loads((scratch / name / "meta.json").read_text(encoding="utf-8")), name)
        yield {name: oracle._read(name, scratch / name, cached=False) for name in names}


def sweep(port: Port) -> None:
    """Remove what a killed process left: before a native side is asked, none of these answers may lie about."""
    for folder in _home(port).glob(f"{PREFIX}*"):
        try:
            with (folder / AT_WORK).open("r+") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except (BlockingIOError, FileNotFoundError):
            continue  # of a run that is at work, or that begins: nothing is in it yet


def _home(port: Port) -> Path:
    return port.state / "cache" / "oracle"
