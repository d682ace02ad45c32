# SPDX-License-Identifier: Apache-2.0
"""`zero_edit`: of the official classes that an archetype covers, how many are ported with no edit of the bake.

For each case a tiny official checkpoint is made, put into an otherwise complete release, baked with `mode=port`, and
gated with `mapping keys config parity`. Nothing is written into the port by hand. There is nothing like it to compare
with, so there are no baselines; the detail has the share and each failure's reason.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import dit_cases, encoder_cases
from benchmarks.cases import ROOT, Case
from benchmarks.measure import Run
from fvport.models import warm

CHECKS = ("mapping", "keys", "config", "parity")
QUICK = ("qwen3", "clip_text")
PLACES = {  # component names that FastVideo has loaders for, by kind: so many of a kind go into one release
    "text_encoder": ("text_encoder", "text_encoder_2", "text_encoder_3"),
    "image_encoder": ("image_encoder", "image_encoder_2", "image_encoder_3"),
    "audio_encoder": ("audio_encoder",),
    "conditioner": ("conditioner",),
    "dit": ("transformer",),
    "vae": ("vae",),
    "scheduler": ("scheduler",),
}


@dataclass(frozen=True)
class Subject:
    """What is ported: `write(folder)` makes the official component and gives its model_index.json entry."""

    name: str
    official: str
    kind: str
    write: Callable[[Path], list[str]]


def encoders() -> list[Subject]:
    """Every encoder of the archetypes' case table."""

    def subject(case: encoder_cases.EncoderCase) -> Subject:
        def write(folder: Path) -> list[str]:
            encoder_cases.make(case, folder)
            return [case.index_library, case.cls]

        return Subject(case.name, case.official, case.kind, write)

    return [subject(case) for case in encoder_cases.CASES.values()]


def dits() -> list[Subject]:
    """Every transformer, autoencoder and scheduler of the archetypes' case table."""

    def subject(case: dit_cases.DitCase) -> Subject:
        def write(folder: Path) -> list[str]:
            shutil.rmtree(folder, ignore_errors=True)
            dit_cases.make(case, folder)
            return ["diffusers", case.cls]

        return Subject(case.name, case.official, case.kind, write)

    return [subject(case) for case in dit_cases.CASES.values()]


PARTS: dict[str, Callable[[], list[Subject]]] = {"encoders": encoders, "dits": dits}


def batches(subjects: Sequence[Subject]) -> list[dict[str, Subject]]:
    """{component name: subject} of each release: as many as FastVideo can load together.

    Most of a gate's time is importing FastVideo, which one release does once for all that is in it.
    """
    found: list[dict[str, Subject]] = []
    for subject in subjects:
        for batch in found:
            free = [place for place in PLACES[subject.kind] if place not in batch]
            if free:
                batch[free[0]] = subject
                break
        else:
            found.append({PLACES[subject.kind][0]: subject})
    return found


def release(batch: dict[str, Subject], folder: Path) -> Path:
    """The tiny Wan with these components in place of its text encoder, or beside it.

    The tokenizer stays where there is one text encoder: the official pipeline hands its tokens to no other.
    """
    from examples.tiny_wan import make_official

    make_official.make(folder)
    (folder / make_official.RECORD).unlink()
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    texts = [place for place in batch if place.startswith("text_encoder")]
    for name in ["text_encoder"] * bool(texts) + ["tokenizer"] * (len(texts) != 1 and bool(texts)):
        shutil.rmtree(folder / name)
        index.pop(name)
    for place, subject in batch.items():
        index[place] = subject.write(folder / place)
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return folder


def gate(batch: dict[str, Subject], folder: Path) -> list[dict[str, Any]]:
    """Bake and gate one release. A row a subject: `{"name", "official", "ok", "reason", "checks", "seconds"}`."""
    clock = time.monotonic()
    rows = {place: {"name": s.name, "official": s.official, "reason": "", "checks": {}} for place, s in batch.items()}
    try:
        with warm.session():  # FastVideo is imported once for a release
            port, problem = _port(batch, folder)
            for name in [] if problem else CHECKS:
                done = _fvport("check", name, *batch, "--port", port, "--json")
                print(f"zero_edit: {name}: {time.monotonic() - clock:.0f} s", file=sys.stderr, flush=True)
                for place, row in rows.items():
                    reason, row["checks"][name] = _verdict(done, place)
                    row["reason"] = row["reason"] or (reason and f"{name}: {reason}")
        for row in rows.values():
            row["reason"] = row["reason"] or problem
            row["ok"], row["seconds"] = not row["reason"], round(time.monotonic() - clock, 1)
    finally:
        if os.environ.get("FVPORT_KEEP_PORTS") != "1":
            shutil.rmtree(folder, ignore_errors=True)
    return list(rows.values())


def _port(batch: dict[str, Subject], folder: Path) -> tuple[Path, str]:
    """(the port's root, why it could not be made or '')."""
    official = release(batch, folder / "official")
    slug = "zero_edit_port"
    answers = [
        "model_name=Zero Edit",
        f"model_slug={slug}",
        f"official_weights={official}",
        "workload_type=t2v",
        f"components={','.join(f'{place}=port' for place in dict.fromkeys([*batch, 'transformer']))}",
        "gate_device=cpu",
    ]
    port = folder / slug
    steps: list[Sequence[object]] = [
        ("new", "--no-input", "--output-dir", folder, *answers),
        ("prep", "--port", port),
        ("workspace", "--port", port),
        ("mapping", "review", "--sign", "zero edit", "--port", port),
    ]
    for words in steps:
        done = _fvport(*words)
        if done.returncode:
            return port, f"{words[0]}: {_last(done)}"
    return port, ""


def _fvport(*words: object) -> subprocess.CompletedProcess[str]:
    env = {"FVPORT_ENV": str(Path(sys.prefix)), "OMP_NUM_THREADS": "1", **os.environ}
    command = [sys.executable, "-m", "fvport.cli", *map(str, words)]
    # Not measured: the watcher of memory would cost as much as a small check.
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def _verdict(done: subprocess.CompletedProcess[str], component: str) -> tuple[str, str]:
    """(reason or '', what the component's items say) of a check's record."""
    try:
        record = json.loads(done.stdout[done.stdout.index("{\n") :])
    except ValueError:
        return _last(done), "no record"
    own = [item for item in record.get("items", []) if item.get("component") in (component, "", None)]
    red = [item for item in own if item["verdict"] != "pass"]
    passed = [item for item in own if item["verdict"] == "pass" and item.get("component") == component]
    if red:
        return "; ".join(f"{item['name']} {item['verdict']}: {item['reason']}"[:400] for item in red[:3]), "red"
    if not passed:
        return f"no item speaks of {component} ({_last(done)})", "nothing ran"
    return "", f"{len(passed)} items"


def _last(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return " ".join(lines[-3:])[:600] if lines else "it said nothing"


def done_before(file: str) -> list[dict[str, Any]]:
    """Rows of an earlier run that was ended, from its log (a JSON document a line); [] without one."""
    path = Path(file)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def zero_edit(scratch: Path, quick: bool) -> Case:
    """The bench: every subject once (the result is a share, not a time). FVPORT_ZERO_EDIT names some of them.

    FVPORT_ZERO_EDIT_LOG names a file to which each row is added at once; what it holds already is not run again, so a
    run that was ended goes on. A log is of one state of the code: give another a file of its own.
    """
    subjects = [subject for part in PARTS.values() for subject in part()]
    wanted = [name for name in os.environ.get("FVPORT_ZERO_EDIT", "").split(",") if name] or (QUICK if quick else [])
    subjects = [s for s in subjects if not wanted or s.name in wanted]
    log = os.environ.get("FVPORT_ZERO_EDIT_LOG", "")
    rows = done_before(log) if log else []
    known = {row["name"] for row in rows}
    subjects = [s for s in subjects if s.name not in known]
    clocks: list[float] = []

    def ours() -> Run:
        clock = time.perf_counter()
        for number, batch in enumerate([] if clocks else batches(subjects)):
            fresh = gate(batch, scratch / f"release_{number}")
            rows.extend(fresh)
            for row in fresh:
                said = "ok" if row["ok"] else row["reason"]
                print(f"zero_edit: {row['name']}: {said}", file=sys.stderr, flush=True)
            if log:
                with open(log, "a", encoding="utf-8") as stream:
                    stream.writelines(json.dumps(row) + "\n" for row in fresh)
        before = sum({row.get("seconds", 0.0) for row in rows if row["name"] in known})  # what an earlier run took
        clocks.append(time.perf_counter() - clock + before)
        return Run(clocks[-1], 0.0, 0, "")

    return Case({"ours": ours}, lambda runs: summary(rows))


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares by case and by class (a class is green when all its cases are), and each failure's reason."""
    classes: dict[str, bool] = {}
    for row in rows:
        classes[row["official"]] = classes.get(row["official"], True) and row["ok"]
    green = sum(row["ok"] for row in rows)
    return {
        "cases": len(rows),
        "green": green,
        "share": round(green / len(rows), 4) if rows else 0.0,
        "classes": len(classes),
        "class_share": round(sum(classes.values()) / len(classes), 4) if classes else 0.0,
        "failures": {row["name"]: row["reason"] for row in rows if not row["ok"]},
        "rows": rows,
    }
