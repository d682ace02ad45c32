# SPDX-License-Identifier: Apache-2.0
"""A port's parity tests run in a process of their own, for whoever asks: the check, `fvport strength`, `fvport trace`.

What the host answers is judged again here (`judge`), where no test reaches.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from fvport import fastvideo_api, threads
from fvport.errors import BlockedError, FvportError
from fvport.models import warm
from fvport.models.forked import signal_words, tail
from fvport.parity import judge, late, oracle
from fvport.parity.job import VARIABLE, Job
from fvport.spec import Component, Port

LIMIT = 1800.0  # seconds for one component


def host(port: Port, chosen: list[Component], job: Job, *, limit: float = LIMIT, quiet: bool = False) -> dict[str, Any]:
    """`{component: answer}` and `""`: the environment. Each comparison in it is as the judge sees it."""
    with threads.sized(port):
        return _host(port, chosen, job, limit, quiet)


def _host(port: Port, chosen: list[Component], job: Job, limit: float, quiet: bool) -> dict[str, Any]:
    fastvideo_api.check_workspace(port.root)
    folder = port.state / "cache" / "parity"
    folder.mkdir(parents=True, exist_ok=True)
    sealed = official_first(port, chosen, job.device)
    late.sweep(port)
    env = fastvideo_api.child_environment(port.root, job.device, backend=port.fastvideo.attention_backend)
    with tempfile.TemporaryDirectory(prefix="run.", dir=folder) as scratch:
        out, log, left = (Path(scratch) / name for name in ("answers.json", "host.log", "native"))
        asked = replace(job, record=str(left))
        env = {**env, VARIABLE: str(asked.write(Path(scratch) / "job.json"))}
        argv = [str(port.file), str(out), job.device, str(limit), *(component.name for component in chosen)]
        code = _stream(port, argv, env, log, quiet)
        try:
            answers: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            words = signal_words(-code) if code < 0 else f"ended with code {code}"
            last = tail(log)
            kind = BlockedError if "BlockedError" in last else FvportError
            raise kind(f"the process that hosts the parity tests {words}{last}", todo="Run: nox -s workspace") from None
        for component in chosen:
            _judged(port, component.name, answers[component.name], left, job.device, sealed)
        if job.late:
            _judged_late(port, answers, left, job.device, quiet)
    return answers


def official_first(port: Port, chosen: list[Component], device: str) -> dict[str, dict[str, str]]:
    """The official side of every component before any test runs, from one process; and the digests of its results.

    What cannot be made here is made, and told, when the component's own turn comes.
    """
    names = [component.name for component in chosen]
    oracle.prepare(port, names, device=device)
    sealed = {}
    for name in names:
        try:
            sealed[name] = judge.seal(oracle.results(port, name, device=device))
        except FvportError:
            continue
    return sealed


def _judged(
    port: Port, name: str, answer: dict[str, Any], left: Path, device: str, sealed: dict[str, dict[str, str]]
) -> None:
    for index, found in enumerate(answer.get("compared", [])):
        if found.get("component") != name:
            continue
        try:
            answer["compared"][index] = judge.judge(port, name, found, left / name, device, sealed.get(name, {}))
        except FvportError as error:
            answer["compared"][index] = {**found, "passed": False, "problem": str(error)}


def _judged_late(port: Port, answers: dict[str, Any], left: Path, device: str, quiet: bool) -> None:
    """What agrees so far must agree on the late inputs, too; the native process, which answered them, has ended."""
    green = {
        (name, index): found
        for name, answer in answers.items()
        for index, found in enumerate(answer.get("compared", []))
        if name and found.get("passed") and found.get("component") == name
    }
    names = list(dict.fromkeys(name for name, _ in green))
    known = {name: oracle.results(port, name, device=device) for name in names}
    with_late = [name for name in names if known[name].meta.get("late")]
    if with_late and not quiet:
        print(f"parity: inputs of another seed: {', '.join(with_late)} ...", file=sys.stderr, flush=True)
    problem, made = "", {}
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(late.answers(port, with_late, device=device))
        except FvportError as error:
            problem = str(error)
        for (name, index), found in green.items():
            row = found
            if name in made:
                row = judge.judge_late(port.component(name), found, made[name], left / name)
            elif name in with_late:
                row = {**found, "passed": False, "problem": f"inputs of another seed: {problem}"}
            answers[name]["compared"][index] = row


def _stream(port: Port, argv: list[str], env: dict[str, str], log: Path, quiet: bool) -> int:
    """Run the host; its own progress lines are shown, everything else goes to the log. The exit code."""
    reading, writing = os.pipe()
    with log.open("wb") as stream, os.fdopen(reading, "rb") as lines:
        try:
            child = warm.start(port, "fvport.parity.host", argv, env=env, stdout=writing, stderr=stream)
        finally:
            os.close(writing)
        try:
            for line in lines:
                stream.write(line)
                stream.flush()
                if line.startswith(b"parity: ") and not quiet:
                    print(line.decode(errors="replace").rstrip(), file=sys.stderr, flush=True)
            return child.wait()
        except BaseException:
            child.end()
            raise
