# SPDX-License-Identifier: Apache-2.0
"""What is measured: each case makes what it needs in a scratch folder and names the commands, ours first."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure import Run, run
from benchmarks.trace import case as trace

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
FVPORT = BIN / "fvport"


@dataclass
class Case:
    """`commands["ours"]`, baselines by name, and further commands of ours (`fvport ...`), which become detail."""

    commands: dict[str, Callable[[], Run]]
    detail: Callable[[dict[str, list[Run]]], dict[str, Any]] = field(default=lambda runs: {})


def bake(scratch: Path, quick: bool) -> Case:
    """A whole bake of the demo's port, against plain cookiecutter on a trivial template of as many, as large files."""
    from examples import demo

    answers = demo.answers(official(scratch))
    first = _bake(scratch / "first", answers)
    if first.returncode:
        raise SystemExit(f"benchmarks: the bake failed:\n{first.output[-2000:]}")
    files, size = trivial_template(scratch / "first", scratch / "trivial")

    def plain() -> Run:
        target = fresh(scratch / "plain")
        return run([BIN / "cookiecutter", "--no-input", "-o", target, scratch / "trivial"])

    commands = {"ours": lambda: _bake(fresh(scratch / "ours"), answers), "cookiecutter": plain}
    return Case(commands, lambda runs: {"files": files, "bytes": size, "first_seconds": round(first.seconds, 3)})


def _bake(target: Path, answers: list[str]) -> Run:
    return run([FVPORT, "new", "--no-input", "--output-dir", target, *answers], cwd=ROOT)


def demo(scratch: Path, quick: bool) -> Case:
    """The main job from nothing, by step; there is nothing like it to compare with."""
    options = ["--only", "mapping,keys"] if quick else []

    def ours() -> Run:
        done = run([sys.executable, "-m", "examples.demo", "--build", fresh(scratch / "build"), *options], cwd=ROOT)
        if quick and done.returncode == 3:  # a part of the gate is no gate, which is what blocked says
            return Run(done.seconds, done.peak_mb, 0, done.output)
        return done

    return Case(
        {"ours": ours}, lambda runs: {"steps": steps(runs["ours"][-1].output, scratch / "build"), "quick": quick}
    )


def startup(scratch: Path, quick: bool) -> Case:
    """What it costs to ask: help, against a Python that does nothing; inspect, status and gate as the detail."""
    port = scratch / "port"
    folder = official(scratch)
    _bake(port, _answers(folder))
    port = next(path for path in port.iterdir() if path.is_dir())

    def gate() -> Run:
        done = run([FVPORT, "gate", "--port", port])
        return Run(
            done.seconds, done.peak_mb, 0 if done.returncode in (1, 3) else 1, done.output
        )  # nothing has run: red

    commands = {
        "ours": lambda: run([FVPORT, "--help"]),
        "python": lambda: run([sys.executable, "-c", "pass"]),
        "fvport inspect": lambda: run([FVPORT, "inspect", folder]),
        "fvport status": lambda: run([FVPORT, "status", "--port", port]),
        "fvport gate": gate,
    }
    return Case(commands)


def inspect(scratch: Path, quick: bool) -> Case:
    """See benchmarks/inspect.py."""
    from benchmarks.inspect import inspect as case

    return case(scratch, quick)


def keys(scratch: Path, quick: bool) -> Case:
    """See benchmarks/inspect.py."""
    from benchmarks.inspect import keys as case

    return case(scratch, quick)


def ssim(scratch: Path, quick: bool) -> Case:
    """See benchmarks/ssim.py."""
    from benchmarks.ssim import ssim as case

    return case(scratch, quick)


def convert(scratch: Path, quick: bool) -> Case:
    """See benchmarks/convert.py."""
    from benchmarks.convert import convert as case

    return case(scratch, quick)


def mapping_suggest(scratch: Path, quick: bool) -> Case:
    """Rules from names and shapes, on every native class with a mapping, against the nearest name."""
    from benchmarks.mapping_suggest import mapping_suggest as case

    return case(scratch, quick)


def reuse_find(scratch: Path, quick: bool) -> Case:
    """See benchmarks/reuse_find.py."""
    from benchmarks.reuse_find import reuse_find as case

    return case(scratch, quick)


def zero_edit(scratch: Path, quick: bool) -> Case:
    """See benchmarks/zero_edit.py."""
    from benchmarks.zero_edit import zero_edit as case

    return case(scratch, quick)


def strength(scratch: Path, quick: bool) -> Case:
    """See benchmarks/strength.py."""
    from benchmarks.strength import strength as case

    return case(scratch, quick)


def audit(scratch: Path, quick: bool) -> Case:
    """See benchmarks/audit.py."""
    from benchmarks.audit import audit as case

    return case(scratch, quick)


def skeletons(scratch: Path, quick: bool) -> Case:
    """See benchmarks/skeletons.py."""
    from benchmarks.skeletons import skeletons as case

    return case(scratch, quick)


def parity(scratch: Path, quick: bool) -> Case:
    """See benchmarks/parity.py."""
    from benchmarks.parity import parity as case

    return case(scratch, quick)


def gate_incremental(scratch: Path, quick: bool) -> Case:
    """See benchmarks/gate_incremental.py."""
    from benchmarks.gate_incremental import gate_incremental as case

    return case(scratch, quick)


def image(scratch: Path, quick: bool) -> Case:
    """See benchmarks/image.py."""
    from benchmarks.image import image as case

    return case(scratch, quick)


def slurm(scratch: Path, quick: bool) -> Case:
    """See benchmarks/slurm.py."""
    from benchmarks.slurm import slurm as case

    return case(scratch, quick)


CASES: dict[str, Callable[[Path, bool], Case]] = {
    "audit": audit,
    "bake": bake,
    "convert": convert,
    "demo": demo,
    "gate_incremental": gate_incremental,
    "image": image,
    "inspect": inspect,
    "keys": keys,
    "mapping_suggest": mapping_suggest,
    "parity": parity,
    "slurm": slurm,
    "ssim": ssim,
    "startup": startup,
    "strength": strength,
    "trace": trace,
    "skeletons": skeletons,
    "zero_edit": zero_edit,
    "reuse_find": reuse_find,
}


def official(scratch: Path) -> Path:
    """The tiny official Wan, made by code."""
    folder = scratch / "official" / "tiny_wan"
    subprocess.run(
        [sys.executable, ROOT / "examples" / "tiny_wan" / "make_official.py", folder],
        check=True,
        cwd=ROOT,
        capture_output=True,
    )
    return folder


def _answers(folder: Path) -> list[str]:
    from examples import demo as example

    return example.answers(folder)


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def trivial_template(baked: Path, template: Path) -> tuple[int, int]:
    """A template with the same paths and sizes as a baked port and one variable a file. Returns files and bytes."""
    port = next(path for path in baked.iterdir() if path.is_dir())
    top = template / "{{cookiecutter.slug}}"
    files = size = 0
    for path in sorted(port.rglob("*")):
        if path.is_file() and ".git" not in path.relative_to(port).parts:
            target = top / path.relative_to(port)
            target.parent.mkdir(parents=True, exist_ok=True)
            length = path.stat().st_size
            line = "a line of plain text that nothing has to be done with\n"
            target.write_text("{{cookiecutter.slug}}\n" + (line * (length // len(line) + 1))[:length])
            files, size = files + 1, size + length
    (template / "cookiecutter.json").write_text('{"slug": "trivial"}\n')
    return files, size


def steps(output: str, build: Path) -> dict[str, float]:
    """Seconds by step: what the demo prints of its own, and what each check's record says."""
    import json

    found = {name: float(seconds) for name, seconds in re.findall(r"^([^:\n]+): ([0-9.]+) s$", output, re.MULTILINE)}
    for path in sorted(build.glob("*/.fvport/evidence/*/*.json")):
        found[f"check {path.stem}"] = json.loads(path.read_text(encoding="utf-8"))["seconds"]
    return found
