# SPDX-License-Identifier: Apache-2.0
"""`fvport parallel`: a component split over several ranks answers what the official model answers on one device.

    tp   tensor parallel: encoders, whose linear layers hold a part of each matrix
    sp   sequence parallel: transformers, whose attention trades tokens for heads

torchrun starts the ranks (`parallel_rank`): gloo on a CPU, nccl where there are as many GPUs. Each loads the native
component through FastVideo's production loader in groups of that size and runs the port's own parity test; what each
left is judged here, against the official results and with the tolerance of `fvport check parity`. A run in which the
ranks exchanged nothing proves nothing, and is blocked.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fvport import fastvideo_api, threads
from fvport.errors import BlockedError, UsageError
from fvport.evidence import Evidence, Item, now
from fvport.models import warm
from fvport.models.forked import signal_words, tail
from fvport.parity import compare, job, judge, oracle, session
from fvport.spec import Component, Port

LIMIT = 900.0  # seconds for all ranks together
RANK = "fvport.parity.parallel_rank"
DEATH = re.compile(r"failed \(exitcode: (-?\d+)\) local_rank: (\d+)")
# What a backend or a size does not allow is no fault of the port, and no proof of it: blocked.
LACKING = re.compile(
    r"NotImplementedError|(gloo|nccl|backend|process ?group)[^.|]{0,80}(not support|unsupported|not implemented)"
    r"|(not support|unsupported)[^.|]{0,80}(gloo|nccl)|(no|any) backend type associated with device",
    re.IGNORECASE,
)
INDIVISIBLE = re.compile(r"(not|n't|be) (be )?(evenly )?(divisible|divided|split)", re.IGNORECASE)


@dataclass(frozen=True)
class Split:
    """How many ranks, and what is split over them."""

    tp: int = 1
    sp: int = 1

    @property
    def ranks(self) -> int:
        return max(self.tp, self.sp)

    @property
    def word(self) -> str:
        return f"tp{self.tp}" if self.tp > 1 else f"sp{self.sp}"


def run(port: Port, name: str, *, tp: int = 0, sp: int = 0, device: str = "auto", limit: float = LIMIT) -> Evidence:
    """Run the component on several ranks and judge each rank's answers. Logs stay under `.fvport/parallel/`.

    Raises UsageError for a component or sizes that cannot be meant, BlockedError without GPUs, weights or a test.
    """
    component = port.component(name)
    split = wanted(component, tp, sp)
    if not (port.root / port.test_file(component)).is_file():
        raise BlockedError(
            f"the parity test of {name} is not there", where=port.test_file(component), todo="Bake it again: fvport new"
        )
    fastvideo_api.check_workspace(port.root)
    device = device_for(split, device)
    folder = port.state / "parallel" / f"{name}.{split.word}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    record = Evidence("parallel", port.slug, started=now(), device=fastvideo_api.device_of(port.root, device))
    clock = time.monotonic()
    with threads.sized(port):
        official = oracle.results(port, name, device=device)
        code = _launch(port, component, split, device, limit, folder)
    record.items, record.notes = judged(component, split, official, folder, code, limit)
    for rank in range(split.ranks):
        shutil.rmtree(folder / f"rank{rank}", ignore_errors=True)  # tensors; the logs stay
    record.seconds = round(time.monotonic() - clock, 2)
    record.artifacts = [os.path.relpath(file, port.root) for file in sorted(folder.glob("*.log"))]
    return record


def wanted(component: Component, tp: int, sp: int) -> Split:
    """The sizes that were asked for, or those that FastVideo uses for this kind: tp 2 for encoders, sp 2 for DiTs."""
    if not component.needs_parity or not component.has_weights:
        raise UsageError(f"{component.name} is a {component.mode} {component.kind}: there is nothing to split")
    if tp and sp:
        raise UsageError("--tp and --sp exclude each other: FastVideo splits a component in one way")
    if not tp and not sp:
        kinds = {"encoders": Split(tp=2), "dits": Split(sp=2)}
        if component.bucket not in kinds:
            raise UsageError(f"{component.name} is a {component.kind}: say what is split, --tp 2 or --sp 2")
        return kinds[component.bucket]
    if max(tp, sp) < 2:
        raise UsageError("one rank is the run of `fvport check parity`; say 2 or more")
    return Split(tp=tp) if tp else Split(sp=sp)


def device_for(split: Split, device: str) -> str:
    """`cuda` where there is a GPU for each rank, else `cpu`. Raises BlockedError where cuda was asked for in vain."""
    count = fastvideo_api.gpus()
    if device == "auto":
        found = fastvideo_api.resolve_device(device)
        return found if found == "cpu" or count >= split.ranks else "cpu"
    if device == "cuda" and count < split.ranks:
        todo = "Say --device cpu (gloo), or run on a machine with more"
        raise BlockedError(f"{split.word} on CUDA needs {split.ranks} GPUs, there are {count}", todo=todo)
    return fastvideo_api.resolve_device(device)


def _launch(port: Port, component: Component, split: Split, device: str, limit: float, folder: Path) -> int | None:
    """torchrun's exit code; None where the time limit ended it."""
    env = fastvideo_api.child_environment(port.root, device, backend=port.fastvideo.attention_backend)
    env.pop(warm.VARIABLE, None)  # ranks are processes of their own
    env.setdefault(threads.VARIABLE, str(max(1, (os.cpu_count() or 1) // split.ranks)))  # torchrun would say 1
    asked = job.Job("parallel", record=str(folder.resolve()), device=device)
    env[job.VARIABLE] = str(asked.write(folder / "job.json").resolve())
    words = ["--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", str(split.ranks), "--max-restarts", "0"]
    words += ["-m", RANK, str(port.file), component.name, str(split.tp), str(split.sp), device]
    try:
        return warm.run(
            port, "torch.distributed.run", words, env=env, log=folder / "torchrun.log", timeout=limit, cwd=port.root
        )
    except subprocess.TimeoutExpired:
        return None


# --- what the ranks left --------------------------------------------------------------------------


def judged(
    component: Component, split: Split, official: oracle.Oracle, folder: Path, code: int | None, limit: float
) -> tuple[list[Item], list[str]]:
    """One item a rank, or the one item that says why there are none; and notes."""
    mishap = _mishap(component, split, folder, code, limit)
    if mishap is not None:
        return [mishap], []
    items = [_rank_item(component, split, official, folder, rank) for rank in range(split.ranks)]
    talk = {rank: _collectives(folder, rank) for rank in range(split.ranks)}
    if all(item.verdict == "pass" for item in items) and not all(talk.values()):
        silent = ", ".join(f"rank {rank}" for rank, found in talk.items() if not found)
        reason = f"{silent} exchanged nothing with the others: each computed the whole, and {split.word} splits nothing"
        todo = f"Build it of FastVideo's {_layers(split)}, or say that it is not split"
        return [_item(component, split, "blocked", reason, todo)], []
    said = ", ".join(f"{count} {word}" for word, count in sorted(talk[0].items()))
    return items, [f"{component.name} {split.word}: the ranks exchanged, in one forward: {said}"]


def _layers(split: Split) -> str:
    return "parallel linear layers" if split.tp > 1 else "DistributedAttention, with the tokens sharded before it"


def _mishap(component: Component, split: Split, folder: Path, code: int | None, limit: float) -> Item | None:
    """The item of a run in which a rank gave no answer: the first that raised, or died; a run that did not end."""
    raised = {rank: found for rank in range(split.ranks) if (found := _json(folder / f"rank{rank}.raised.json"))}
    if raised:
        rank = min(raised, key=lambda rank: float(raised[rank]["at"]))
        message = str(raised[rank]["message"])
        refused = (
            raised[rank].get("blocked")
            or LACKING.search(message)
            or (INDIVISIBLE.search(message) and len(raised) == split.ranks)
        )
        reason = f"rank {rank}: {message}"
        return _item(component, split, "blocked" if refused else "fail", reason, _todo(component, folder))
    if code is None:
        at = "; ".join(f"rank {rank}{tail(folder / f'rank{rank}.log', 2)}" for rank in range(split.ranks))
        reason = f"it was still running after {limit:.0f} s and was ended: {at}"
        return _item(component, split, "fail", reason, _todo(component, folder))
    silent = [rank for rank in range(split.ranks) if not _json(folder / f"rank{rank}.said.json")]
    if silent:
        rank, words = _died(folder, silent)
        last = tail(folder / f"rank{rank}.log") or tail(folder / "torchrun.log")
        return _item(component, split, "fail", f"rank {rank} {words}{last}", _todo(component, folder))
    for rank in range(split.ranks):
        said = _json(folder / f"rank{rank}.said.json")
        bad = [test for test in said["tests"] if test["outcome"] != "passed"]
        if bad or not said["compared"]:
            words = " ".join(bad[0]["text"].split())[-400:] if bad else "its test compared nothing"
            reason = f"rank {rank}: {words}"
            return _item(component, split, "fail", reason, _todo(component, folder))
    if code:
        reason = f"torchrun ended with code {code}{tail(folder / 'torchrun.log')}"
        return _item(component, split, "fail", reason, _todo(component, folder))
    return None


def _died(folder: Path, silent: list[int]) -> tuple[int, str]:
    """(rank, how it ended): the first failure that torchrun saw, which ended the others."""
    try:
        found = DEATH.search((folder / "torchrun.log").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        found = None
    if found is None:
        return silent[0], "ended without an answer"
    code, rank = int(found[1]), int(found[2])
    return rank, signal_words(-code) if code < 0 else f"ended with code {code} and no answer"


def _rank_item(component: Component, split: Split, official: oracle.Oracle, folder: Path, rank: int) -> Item:
    """This rank's answers against the official ones: the first output that differs, and by how much."""
    place = folder / f"rank{rank}"
    rows = judge.results(component, official, _json(place / "outputs.json", []), place)
    bad = [row for row in rows if not row["ok"]]
    worst = max((row["metrics"].get("budget_use", 0.0) for row in rows), default=0.0)
    metrics = {"outputs": len(rows), "different": len(bad), "budget_use": worst}
    name = f"{component.name} {split.word}: rank {rank}"
    if rows and not bad:
        return Item(name, "pass", "", metrics, asdict(component.tolerance), component.name)
    reason = f"{len(bad)} of {len(rows)} outputs differ"
    if bad:
        first = bad[0]
        reason += f"; in case {first['case']}, {first['output']} {first['problem']}"
        results = [(row["case"], compare.Result(**{k: v for k, v in row.items() if k != "case"})) for row in bad]
        reason += f". {found[0].upper()}{found[1:]}" if (found := session.locate(results)) else ""
    return Item(name, "fail", reason, metrics, asdict(component.tolerance), component.name, _todo(component, folder))


def _collectives(folder: Path, rank: int) -> dict[str, int]:
    compared = _json(folder / f"rank{rank}.said.json").get("compared", [])
    return dict(compared[0].get("collectives", {})) if compared else {}


def _item(component: Component, split: Split, verdict: str, reason: str, todo: str) -> Item:
    return Item(f"{component.name} {split.word}", verdict, reason, component=component.name, todo=todo)


def _todo(component: Component, folder: Path) -> str:
    logs = f".fvport/parallel/{folder.name}/"
    return f"Where `fvport check parity {component.name}` is green, look at what is split; all that was said: {logs}"


def _json(file: Path, otherwise: Any = None) -> Any:
    """What the file holds; `otherwise`, or {}, where it is not there or was cut off."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {} if otherwise is None else otherwise
