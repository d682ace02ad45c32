# SPDX-License-Identifier: Apache-2.0
"""The census: FastVideo imported once, a fork for each case, workers side by side, a record of it all."""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fvport.audit.case import Case
from fvport.errors import UsageError, did_you_mean

MODULES = ("encoders", "vlm", "dits", "hunyuan", "images", "dits_joint", "vaes", "audio", "schedulers")
PRELOAD = (  # what the native side's loaders import on first use
    "fastvideo.models.loader.component_loader",
    "fastvideo.configs.pipelines.base",
    "fastvideo.forward_context",
    "fvport.models.native_audit_encoders",
    "fvport.models.native_audit_fixes",
    "fvport.audit.judge",
    "fvport.audit.official",
    "fvport.audit.findings_components",
    "fvport.audit.findings_encoders",
    "safetensors.torch",
)
TIMEOUT = 120.0  # seconds of one case
SLOW = ("vae", "transformer")  # loaders whose cases go first: the last case of a run should be a short one


def cases() -> list[Case]:
    """Every case, in the order in which they are shown."""
    return [c for name in MODULES for c in importlib.import_module(f"fvport.audit.cases_{name}").cases()]


def chosen(names: list[str]) -> list[Case]:
    """The cases that `names` select: a whole name, or what stands before the `/`. UsageError for an unknown one."""
    every = cases()
    if not names:
        return every
    known = {case.name for case in every} | {case.name.split("/")[0] for case in every}
    for name in names:
        if name not in known:
            raise UsageError(f'no case "{name}"{did_you_mean(name, known)}', todo="fvport audit --list names them")
    return [case for case in every if case.name in names or case.name.split("/")[0] in names]


def census(names: list[str], *, control: bool = False, workers: int = 0) -> dict[str, Any]:
    """Run the cases and return the record (see `record`). Raises UsageError for an unknown name."""
    wanted = chosen(names)
    started = time.monotonic()
    boot(wanted)
    booted = time.monotonic() - started
    answers = side_by_side(wanted, control, workers or min(2, os.cpu_count() or 1))
    seconds = {"boot": round(booted, 1), "total": round(time.monotonic() - started, 1), "cpu": round(cpu_seconds(), 1)}
    return record(wanted, answers, control, seconds)


def cpu_seconds() -> float:
    """Processor time of this process and of all that it waited for: what a busy machine does not change."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in spent)


def boot(wanted: list[Case]) -> None:
    """Import FastVideo and what the cases name, before any distributed state: what is forked later has it."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")  # forked children share the cores
    import torch

    from fvport import fastvideo_api
    from fvport.audit import inventory

    torch.set_num_threads(1)
    fastvideo_api.boot(inventory.root().parent.parent, "cpu", distributed=False)
    named = [side for case in wanted for side in (case.official, case.native, case.native_config) if side]
    for name in [*PRELOAD, *dict.fromkeys(side.partition(":")[0] for side in named)]:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - the case will say it
            print(f"audit: {name}: {error}", file=sys.stderr)
    for case in wanted:  # diffusers and transformers import a class's module on first use
        module, _, name = case.official.partition(":")
        getattr(sys.modules.get(module), name, None)
    warm()
    gc.collect()
    gc.freeze()  # a collection in a child would touch, and so copy, every page of the parent


def warm() -> None:
    """transformers compiles its table of old names at the first save: once here, not in every child."""
    try:
        from transformers import conversion_mapping

        conversion_mapping.get_checkpoint_conversion_mapping("llama")
    except (ImportError, AttributeError):
        pass  # another transformers: the children are slower


def side_by_side(wanted: list[Case], control: bool, workers: int) -> dict[str, dict[str, Any]]:
    """{case: answer}: worker processes take the next case from one counter and fork for it."""
    context = multiprocessing.get_context("fork")
    order = sorted(range(len(wanted)), key=lambda i: not _slow(wanted[i]))
    counter, queue = context.Value("i", 0), context.SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="fvport_audit_logs_") as logs:
        parameters = (wanted, order, control, counter, queue, Path(logs))
        processes = [context.Process(target=_work, args=parameters, daemon=False) for _ in range(workers)]
        for process in processes:
            process.start()
        answers: dict[str, dict[str, Any]] = {}
        try:
            collect(queue, processes, answers, len(wanted))
        finally:
            for process in processes:
                if len(answers) < len(wanted):
                    process.terminate()
                process.join()
    lost = {"verdict": "blocked", "problem": "the worker that ran it ended", "seconds": 0.0, "peak_mb": 0.0}
    return {case.name: answers.get(case.name, lost) for case in wanted}


def collect(queue: Any, processes: list[Any], answers: dict[str, dict[str, Any]], count: int) -> None:
    """Take answers until all are there, or no worker is left that could give one."""
    while len(answers) < count:
        alive = any(process.is_alive() for process in processes)
        if queue.empty():
            if not alive:
                return
            time.sleep(0.02)
            continue
        name, answer = queue.get()
        answers[name] = answer
        if len(answers) % 20 == 0:
            print(f"audit: {len(answers)} of {count} cases", file=sys.stderr, flush=True)


def _slow(case: Case) -> bool:
    return case.loader in SLOW


def _work(wanted: list[Case], order: list[int], control: bool, counter: Any, queue: Any, logs: Path) -> None:
    from fvport.models import cpu_platform, forked

    forked.interrupt_on_sigterm()
    cpu_platform.end_with_parent()
    while True:
        with counter.get_lock():
            at = counter.value
            counter.value += 1
        if at >= len(order):
            return
        case = wanted[order[at]]
        queue.put((case.name, one(case, control, logs)))


def one(case: Case, control: bool, logs: Path) -> dict[str, Any]:
    """One case in a fork of its own; a crash or a hang is its verdict."""
    from fvport.audit import judge
    from fvport.models import forked

    log = logs / (case.name.replace("/", "__") + ".log")
    done = forked.run(lambda: judge.judge(case, control=control), name=case.name, log=log, timeout=TIMEOUT)
    if done.status == "done":
        return {**done.value, "seconds": done.seconds, "peak_mb": done.peak_mb}
    return {"verdict": "blocked", "problem": done.message, "seconds": done.seconds, "peak_mb": done.peak_mb}


def record(
    wanted: list[Case], answers: dict[str, dict[str, Any]], control: bool, seconds: dict[str, float]
) -> dict[str, Any]:
    """The census as data: DESIGN's form of `fvport audit --json`, and the findings, the classes left out, versions."""
    from importlib import metadata

    from fvport.audit import findings, leftout

    rows = [_row(case, answers[case.name]) for case in wanted]
    known = {finding.id: finding for finding in findings.all_findings()}
    seen = {name for row in rows for name in row["findings"]}
    return {
        "fastvideo": metadata.version("fastvideo"),
        "versions": {name: metadata.version(name) for name in ("torch", "diffusers", "transformers")},
        "cases": rows,
        "findings": [_finding(known[name], rows) for name in known if name in seen],
        "gone": _gone(known.values(), rows),
        "left_out": [{"native": name, "reason": reason} for name, reason in leftout.LEFT_OUT.items()],
        "control": _control(rows) if control else None,
        "counts": {word: sum(row["verdict"] == word for row in rows) for word in ("equal", "differs", "blocked")},
        "unexplained": [row["case"] for row in rows if row["explained"] is False],
        "seconds": seconds,
    }


def _row(case: Case, answer: dict[str, Any]) -> dict[str, Any]:
    names = answer.get("findings") or []
    row = {
        "case": case.name,
        "what": case.what,
        "official": case.official,
        "native": case.native,
        "verdict": answer["verdict"],
        "worst": answer.get("worst"),
        "floor": answer.get("floor"),
        "floor_from": answer.get("floor_from"),
        "seconds": answer["seconds"],
        "peak_mb": answer["peak_mb"],
        "problem": answer.get("problem", ""),
        "finding": ", ".join(names) or None,
        "findings": names,
        "places": answer.get("places") or {},
        "tried": answer.get("tried"),
        "control": answer.get("control"),
        "explained": None,
    }
    if row["verdict"] != "equal":
        row["explained"] = bool(names) and (
            row["tried"] is None or row["tried"]["verdict"] == "equal" or _partly(names)
        )
    return row


def _partly(names: list[str]) -> bool:
    """True where one of the findings says that no change was tried: the rest of the difference is its."""
    from fvport.audit import findings

    return any(not finding.fix for finding in findings.all_findings() if finding.id in names)


def _finding(finding: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
    hit = [row for row in rows if finding.id in row["findings"]]
    place: dict[str, str] = next((row["places"][finding.id] for row in hit if finding.id in row["places"]), {})
    return {
        "id": finding.id,
        "title": finding.title,
        "what": finding.what,
        **{side: place.get(side, "") for side in ("official", "native")},
        "cases": [row["case"] for row in hit],
        "evidence": [{"case": row["case"], "verdict": row["verdict"], "problem": row["problem"]} for row in hit],
        "reproduce": f"fvport audit {hit[0]['case']}" if hit else "",
        "change": finding.change,
        "edits": [[e.target, e.old, e.new] for e in finding.fix] if isinstance(finding.fix, tuple) else finding.fix,
        "tried": [{"case": row["case"], **(row["tried"] or {"verdict": "not tried"})} for row in hit],
    }


def _gone(known: Any, rows: list[dict[str, Any]]) -> list[str]:
    """Findings all of whose cases ran and were equal: this FastVideo no longer has them."""
    equal = {row["case"] for row in rows if row["verdict"] == "equal"}
    return [finding.id for finding in known if set(finding.cases) <= equal]


def _control(rows: list[dict[str, Any]]) -> dict[str, Any]:
    green = [row for row in rows if row["verdict"] == "equal"]
    missed = [row["case"] for row in green if not (row["control"] or {}).get("caught")]
    return {"noise": 0.02, "green": len(green), "caught": len(green) - len(missed), "missed": missed}
