# SPDX-License-Identifier: Apache-2.0
"""Submit the jobs, watch them, and leave nothing behind. `slurm` and `local` differ in submitit's executor only.

A job that its machine lost is queued again by Slurm (`--requeue`); a check that failed is not run again. A job that
ended without an answer leaves a blocked record that says why.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fvport import evidence as ev
from fvport import gate, spec, variants
from fvport.cluster import job, states, tree
from fvport.cluster.plan import GENERATION, Job, Needs, jobs, table
from fvport.errors import BlockedError, FvportError, UsageError
from fvport.origin import Demand
from fvport.spec import Port
from fvport.verdict import Verdict

PLACES = ("slurm", "local")
SRUN = re.compile(r"srun: error: .*Exited with exit code")
EVERY = 2.0  # seconds between two looks
LOCAL_MEMORY_GB = 8  # what one check may need here, for how many run at once


def run(
    port: Port,
    on: str,
    *,
    shared: Path | None = None,
    at_once: int = 0,
    demand: Demand | None = None,
    say: Callable[[str], None] | None = None,
) -> Verdict:
    """Run what is missing or stale as jobs `on` slurm or local, bring the evidence back, and decide.

    `shared` is a folder that all nodes see (default: the port's own folder is). `at_once` limits the jobs in flight.
    Raises UsageError for another place, BlockedError where Slurm or submitit is not there. Ctrl-C cancels every job.
    """
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    executor = _executor(port, on)
    todo = {view.variant: gate.to_run(view) for view in (port, *port.views)}
    if any(todo.values()):
        used = tree.place(port, shared)
        plan: list[Job] = []
        for view in (used, *used.views):
            _prepare(view)
            plan += jobs(view, todo[view.variant], port.gate.require_device)
        device = "cuda" if port.gate.require_device == "cuda" else "auto"
        watch = _Watch(executor, on, used, plan, device, at_once, say)
        try:
            watch.all()
        finally:
            watch.cancel()
        tree.bring_back(port, used)
    return gate.decide(spec.parse(port.file), demand)


def _prepare(port: Port) -> None:
    """What every job reads and none should make at the same time as another: the load tree."""
    from fvport.weights import convert

    with contextlib.suppress(FvportError):  # each check that needs it says what is wrong with it
        convert.build_load_tree(port)


def _executor(port: Port, on: str) -> Any:
    if on not in PLACES:
        raise UsageError(f'no place "{on}" to run on (there are: {", ".join(PLACES)})')
    try:
        import submitit
    except ImportError:
        raise BlockedError("submitit is not installed", todo="Run: make env, or pip install submitit") from None
    folder = port.state / "jobs"
    if on == "local":
        return submitit.AutoExecutor(folder=folder, cluster="local")
    if not shutil.which("sbatch"):
        raise BlockedError("sbatch is not on this machine", todo="Run on a login node, or use --on local")
    known = dict(table(port).slurm)
    python = known.pop("python", None)  # such as: apptainer exec gate.sif python
    more = {"slurm_python": python} if python else {}
    executor = submitit.AutoExecutor(folder=folder, cluster="slurm", **more)
    extra = known.pop("additional_parameters", {})
    named = {f"slurm_{key}": value for key, value in known.items()}
    executor.update_parameters(slurm_additional_parameters={"requeue": True, **extra}, **named)
    return executor


class _Watch:
    """The jobs of one run: waiting, in flight, ended."""

    def __init__(
        self, executor: Any, on: str, port: Port, plan: list[Job], device: str, at_once: int, say: Callable[[str], None]
    ) -> None:
        self.executor, self.on, self.port, self.device, self.say = executor, on, port, device, say
        self.waiting, self.total = list(plan), len(plan)
        self.flying: dict[Job, Any] = {}
        self.at_once = at_once or (_room() if on == "local" else len(plan))
        self.seen: dict[str, str] = {}
        self.started = time.monotonic()

    def all(self) -> None:
        while self.waiting or self.flying:
            self.submit()
            time.sleep(EVERY if self.on == "slurm" else EVERY / 4)
            self.collect()

    def submit(self) -> None:
        """Everything that waits for nothing and has room. What is alike goes as one array."""
        open_ = {(one.variant, one.check) for one in [*self.waiting, *self.flying]}
        ready = [one for one in self.waiting if (one.variant, one.after) not in open_]
        ready = ready[: max(0, self.at_once - len(self.flying))]
        for needs in dict.fromkeys(one.needs for one in ready):
            alike = [one for one in ready if one.needs == needs]
            self.executor.update_parameters(name=f"fvport-{self.port.slug}", **_parameters(needs, self.on))
            with self.executor.batch():
                sent = [
                    self.executor.submit(job.run, str(self.port.root), self.port.slug, *what)
                    for what in ((one.check, one.components, self.device, one.variant) for one in alike)
                ]
            for one, handle in zip(alike, sent, strict=True):
                self.flying[one] = handle
                self.waiting.remove(one)
                self.say(f"{one.name}: job {handle.job_id} ({needs.memory_gb:g} GB, {needs.minutes} min)")

    def collect(self) -> None:
        """Answers of jobs that ended, and what became of those that will give none."""
        lost = self.lost()
        for one, handle in list(self.flying.items()):
            if handle.paths.result_pickle.exists():
                self.end(one, *_answer(handle))
            elif handle.job_id in lost:
                said = lost[handle.job_id].format(**vars(one.needs))
                self.end(one, "blocked", f"job {handle.job_id} {said}{_last_words(handle)}")

    def lost(self) -> dict[str, str]:
        """{job id: what became of it} of jobs that ended and left nothing."""
        if self.on == "local":
            gone = (h for h in self.flying.values() if h.done() and not h.paths.result_pickle.exists())
            return {handle.job_id: states.MEANS["FAILED"] for handle in gone}
        found = {}
        for name, state in states.states(h.job_id for h in self.flying.values()).items():
            if state != self.seen.get(name):
                self.seen[name] = state
                self.say(f"job {name}: {state.lower()}")
            if state not in states.WAITING:
                found[name] = states.MEANS.get(state, states.MEANS["FAILED"])
        return {name: said for name, said in found.items() if self.twice(name)}

    def twice(self, name: str) -> bool:
        """Whether it looked lost before, too: a shared folder shows a result a moment later than Slurm its end."""
        key = f"{name}?"
        self.seen[key] = str(int(self.seen.get(key, "0")) + 1)
        return int(self.seen[key]) > 3

    def end(self, one: Job, verdict: str, reason: str) -> None:
        del self.flying[one]
        done = self.total - len(self.waiting) - len(self.flying)
        spent = time.monotonic() - self.started
        self.say(f"[{done}/{self.total}] {one.name}: {verdict}{f': {reason}' if reason else ''} ({spent:.0f} s)")
        if reason:
            _leave(self.port, one, reason)

    def cancel(self) -> None:
        """Nothing is left running, whatever ended this run."""
        for handle in self.flying.values():
            handle.cancel(check=False)
        for handle in self.flying.values():
            _ended(handle)


def _ended(handle: Any) -> None:
    """See to it that a local job is gone: an interrupt is nothing to a process that was started in the background."""
    process = getattr(handle, "_process", None)
    if process is None:
        return
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
        return
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
    process.kill()
    process.wait()


def _last_words(handle: Any) -> str:
    """The last line of what the job, or Slurm for it, wrote on standard error, before srun's word on the exit code."""
    with contextlib.suppress(OSError):
        lines = [line for line in handle.paths.stderr.read_text(errors="replace").splitlines() if line.strip()]
        said = [line for line in lines if not SRUN.match(line)] or lines
        return f"; its last words: {said[-1].strip()[:200]} (.fvport/jobs/{handle.paths.stderr.name})" if said else ""
    return ""


def _answer(handle: Any) -> tuple[str, str]:
    """(verdict, why it is no answer). What a job raised is its traceback's last line."""
    with handle.paths.result_pickle.open("rb") as stream:
        outcome, result = pickle.load(stream)  # written by our own job, into our own folder
    if outcome == "success":
        return result["verdict"], result["reason"]
    return "blocked", f"job {handle.job_id} raised {str(result).strip().splitlines()[-1]}"


def _leave(port: Port, one: Job, reason: str) -> None:
    """A record that says why there is no answer; one that the check itself left is worth more and stays."""
    from fvport import checks

    if one.check == GENERATION:  # the check that waits for it makes what is not there
        return
    port = port.of(one.variant) if one.variant else port
    item = ev.Item(one.name, "blocked", reason, component=one.components[0] if one.components else "")
    record = ev.Evidence(one.check, port.slug, items=[item], started=ev.now(), variant=one.variant)
    record.inputs = ev.digests(port, variants.inputs(port, checks.module(one.check), one.check))
    record.commit, record.dirty = ev.git_state(port.root)
    with checks.writing(port, one.check):
        checks.keep(port, record, one.components)


def _parameters(needs: Needs, on: str) -> dict[str, Any]:
    found: dict[str, Any] = {"timeout_min": needs.minutes}
    if on == "slurm":
        found |= {"mem_gb": needs.memory_gb, "cpus_per_task": needs.cpus, "gpus_per_node": int(needs.gpu)}
    return found


def _room() -> int:
    """How many checks this machine can hold at once, by memory and cores."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return max(1, min((os.cpu_count() or 1) // 2, int(memory // LOCAL_MEMORY_GB)))
