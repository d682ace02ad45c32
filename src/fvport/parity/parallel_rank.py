# SPDX-License-Identifier: Apache-2.0
"""`torchrun -m fvport.parity.parallel_rank PORT_TOML COMPONENT TP SP DEVICE`: a component's parity test on one rank.

The test is the port's own; its `parity.compare` compares nothing here, but leaves what this rank's native side answered
(`rank0/outputs.json`, safetensors) for `parity.parallel` to judge. The folder is the job's `record`:

    rank0.log           all that it said
    rank0.raised.json   {"message", "at", "blocked"}, the moment it raised: the first of several ranks is the cause
    rank0.said.json     {"compared", "tests"}, as every parity test leaves it
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fvport import fastvideo_api, spec
from fvport.errors import FvportError
from fvport.models import cpu_platform, forked, native, native_parallel
from fvport.parity import compare, job, oracle, session
from fvport.spec import Port


@dataclass
class Answered:
    """What one rank did, in the form that the plugin wants."""

    component: str
    cases: list[str] = field(default_factory=list)
    collectives: dict[str, int] = field(default_factory=dict)
    passed: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def message(self) -> str:
        return f"{self.component}: this rank answered no case"


def main(argv: list[str]) -> int:
    file, name, tp, sp, device = argv
    cpu_platform.end_with_parent(signal.SIGKILL)
    rank, folder = int(os.environ["RANK"]), Path(job.current().record)
    _log_to(folder / f"rank{rank}.log")
    try:
        return _run(spec.parse(Path(file)), name, (int(tp), int(sp)), device, folder / f"rank{rank}")
    except BaseException as error:
        raised(folder, rank, error)
        raise


def _run(port: Port, name: str, sizes: tuple[int, int], device: str, place: Path) -> int:
    import pytest

    from fvport.parity import host, plugin

    print("parallel: importing FastVideo ...", flush=True)
    fastvideo_api.boot(port.root, device, distributed=False, backend=port.fastvideo.attention_backend)
    native_parallel.join(*sizes)
    os.environ[plugin.OUT_VARIABLE] = str(place.with_suffix(".said.json"))
    os.chdir(port.root)
    return int(pytest.main(["-s", *host.pytest_words(port, name)], plugins=host.plugins()))


def compare_component(port: Port, name: str, call: Callable[[Any, Any], Any]) -> Answered:
    """This rank's answers to every case of oracle.py, left on disk; the first once more with its collectives counted.

    Raises whatever the native side raises, noted with its time.
    """
    asked, rank = job.current(), int(os.environ["RANK"])
    folder = Path(asked.record)
    kept = job.Kept(folder / f"rank{rank}")
    done = Answered(name)
    try:
        official = oracle.results(port, name, device=asked.device)
        print(f"parallel: rank {rank} loads {name}", flush=True)
        module = native.load(port, name)
        for case in official.cases:
            kept.put("right", "", case, _answer(module, call, official, asked.device, case, name))
            done.cases.append(case)
        with native_parallel.counted() as done.collectives:
            again = _answer(module, call, official, asked.device, official.cases[0], name)
        kept.put("again", "", official.cases[0], again)
    except BaseException as error:
        raised(folder, rank, error)
        raise
    print(f"parallel: rank {rank} answered {len(done.cases)} cases, collectives {done.collectives}", flush=True)
    done.passed = bool(done.cases)
    return done


def _answer(module: Any, call: Any, official: oracle.Oracle, device: str, case: str, name: str) -> compare.Outputs:
    print(f"parallel: rank {os.environ['RANK']} begins case {case}", flush=True)
    given = official.inputs(case, fastvideo_api.resolve_device(device))
    return session._native_side(module, call, given, case, name)


def raised(folder: Path, rank: int, error: BaseException) -> None:
    """Note it once, the innermost: what comes after it is its consequence."""
    file = folder / f"rank{rank}.raised.json"
    if not file.exists():
        message = str(error) if isinstance(error, FvportError) else forked.describe(error)
        blocked = isinstance(error, FvportError) and error.exit_code == 3
        file.write_text(json.dumps({"message": message, "at": time.time(), "blocked": blocked}), encoding="utf-8")


def _log_to(file: Path) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a group that is taken down would wait for the other ranks
