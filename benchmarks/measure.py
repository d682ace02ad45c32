# SPDX-License-Identifier: Apache-2.0
"""Wall time and peak memory of a command and everything it starts, from the operating system (Linux's /proc)."""

from __future__ import annotations

import os
import platform
import resource
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

INTERVAL = 0.02  # seconds between looks at the tree; shorter peaks of the first process are still seen, through wait4
SHARE = (
    40  # a look at large processes walks their page tables: in a long run it costs at most this part of a core's time
)


@dataclass(frozen=True)
class Run:
    """One run: `seconds` of wall time, `peak_mb` of the whole process tree, and what it said."""

    seconds: float
    peak_mb: float
    returncode: int
    output: str


def run(command: Sequence[object], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Run:
    """Run a command to its end. Output goes to a file in memory's place, so that a full pipe never slows it."""
    words = [str(word) for word in command]
    read = os.memfd_create("out")
    write = os.dup(read)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    process = subprocess.Popen(
        words, cwd=cwd, env={**os.environ, **(env or {})}, stdout=write, stderr=write, start_new_session=True
    )
    peak, done = [0.0], threading.Event()
    watcher = threading.Thread(target=_watch, args=(process.pid, peak, done), daemon=True)
    watcher.start()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    done.set()
    watcher.join()
    os.lseek(read, 0, os.SEEK_SET)
    with os.fdopen(read, "rb") as file:
        output = file.read().decode(errors="replace")
    os.close(write)
    # A child starts with the mark of the process it was forked from, so only a higher one is its own.
    highest = usage.ru_maxrss if usage.ru_maxrss > own or not peak[0] else 0
    return Run(seconds, max(peak[0], highest / 1024), process.returncode, output)


def here(call: Callable[[], object]) -> Run:
    """The same figures for a function of this process: `peak_mb` is the process's whole tree while it runs."""
    peak, done = [0.0], threading.Event()
    watcher = threading.Thread(target=_watch, args=(os.getpid(), peak, done), daemon=True)
    watcher.start()
    start = time.perf_counter()
    call()
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    last = sum(_proportional_mb(pid) for pid in tree(os.getpid()))  # a call shorter than a look is still seen
    return Run(seconds, max(peak[0], last), 0, "")


def _watch(root: int, peak: list[float], done: threading.Event) -> None:
    pause, began = INTERVAL, time.perf_counter()
    while not done.wait(pause):
        start = time.perf_counter()
        peak[0] = max(peak[0], sum(_proportional_mb(pid) for pid in tree(root)))
        now = time.perf_counter()
        pause = max(INTERVAL, min(SHARE * (now - start), (now - began) / 10))


def tree(root: int) -> set[int]:
    """The process, its descendants, and orphans of its session."""
    parents: dict[int, int] = {}
    sessions: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # gone since the listing
            parents[int(name)], sessions[int(name)] = int(fields[1]), int(fields[3])
    found = {pid for pid, session in sessions.items() if session == root} | {root}
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return found
        found |= more


def _proportional_mb(pid: int) -> float:
    """Memory of one process where what several share counts once in all (Pss)."""
    try:
        for line in Path("/proc", str(pid), "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def in_turn(commands: Mapping[str, Callable[[], Run]], runs: int) -> dict[str, list[Run]]:
    """Each command once, then each again ...: what drifts on the machine reaches all alike. A failure stops it."""
    results: dict[str, list[Run]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, call in commands.items():
            result = call()
            if result.returncode:
                raise SystemExit(f"benchmarks: {name} ended with {result.returncode}:\n{result.output[-2000:]}")
            results[name].append(result)
    return results


def medians(runs: Sequence[Run]) -> dict[str, float]:
    return {
        "seconds": round(statistics.median(run.seconds for run in runs), 4),
        "peak_mb": round(statistics.median(run.peak_mb for run in runs), 1),
    }


def machine() -> dict[str, object]:
    """What the figures were measured on, without its name."""
    info = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    model = next((line.partition(":")[2].strip() for line in info if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gb": round(memory),
        "system": platform.system(),
        "python": platform.python_version(),
    }
