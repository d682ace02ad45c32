# SPDX-License-Identifier: Apache-2.0
"""`make demo`: the main job on a tiny Wan, from nothing to a gate's verdict. A second run does only what is not valid.

official checkpoint -> bake -> prep -> workspace -> mapping signed (as `demo`, visibly) -> every check -> report
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
SLUG = "tiny_wan"
SIGNED_BY = "demo"


def answers(official: Path) -> list[str]:
    """The demo's answers: transformer and text encoder are ported on purpose although FastVideo has both."""
    return [
        "model_name=Tiny Wan",
        f"model_slug={SLUG}",
        f"official_weights={official}",
        "workload_type=t2v",
        "components=transformer=port,text_encoder=port,vae=reuse,scheduler=reuse",
        "gate_device=cpu",
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=REPO / "build", help="where everything is made (default: build/)")
    parser.add_argument("--fresh", action="store_true", help="bake again even when the port is current")
    parser.add_argument("--only", default="", help="checks to run, such as mapping,keys (default: all)")
    args = parser.parse_args(argv)
    return run(args.build.resolve(), fresh=args.fresh, only=[name for name in args.only.split(",") if name])


def run(build: Path, *, fresh: bool = False, only: Sequence[str] = ()) -> int:
    """The whole demo under `build`; returns the gate's exit code."""
    from fvport.models import warm

    environment()
    port = prepare(build, fresh=fresh)
    rows = json.loads(_output(fvport("gate", "--json", "--port", port)))["rows"]
    checks = only or list(dict.fromkeys(row["check"] for row in rows))
    with warm.session():  # FastVideo is imported once for all checks
        run_checks(port, [name for name in checks if name != "docs"], fresh=fresh)
    call(fvport("plan", "--sync", "--port", port), quiet=True)
    if "docs" in checks:
        check(port, "docs", fresh=True)
    say("")
    call(fvport("report", "--port", port), quiet=True)  # with the frames of both sides
    code = call(fvport("gate", "--port", port), check=False)
    say(f"report: {port / '.fvport' / 'report' / 'index.html'}")
    return code


# What waits for what: ssim reads the generation that pipeline made. The rest runs beside one another, dear ones first.
AFTER = {"ssim": "pipeline", "keys": "mapping"}
ORDER = ("mapping", "boundary", "pipeline", "parity", "conversion", "config", "example", "smoke", "keys", "ssim")
LANES = min(2, os.cpu_count() or 1)


def run_checks(port: Path, names: Sequence[str], *, fresh: bool) -> None:
    """Run the checks in two lanes (most of each is one core's importing); each says one line when it is done."""
    running: dict[str, Future[None]] = {}

    def lane(name: str) -> None:
        before = running.get(AFTER.get(name, ""))
        if before is not None:
            before.result()
        check(port, name, fresh=fresh)

    with ThreadPoolExecutor(LANES) as pool:
        for name in sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER)):
            running[name] = pool.submit(lane, name)
        for job in running.values():
            job.result()


def check(port: Path, name: str, *, fresh: bool) -> None:
    """Run one check where its record does not stand any more; one line when it is green, all of it when it is not."""
    if not fresh and valid(port, name):
        say(f"{name:10} ok       still valid")
        return
    say(f"{name:10} ...")
    record = json.loads(_output(fvport("check", name, "--port", port, "--json")))
    for one in (record, *record.pop("variants", [])):
        _tell(name, one)


def _tell(name: str, record: dict[str, Any]) -> None:
    if record.get("verdict") == "pass":
        of = f"  [{record['variant']}]" if record["variant"] else ""
        say(f"{name:10} ok  {record['seconds']:6.1f} s  {len(record['items'])} items hold{of}")
        return
    from fvport import evidence
    from fvport.report import terminal

    say(terminal.record(evidence.from_json(record)) if "items" in record else record["error"])


def prepare(build: Path, *, fresh: bool = False) -> Path:
    """Checkpoint, bake, prep, workspace, signature. Returns the port's root."""
    from examples.tiny_wan import make_official

    official = build / "official" / SLUG
    with step("official checkpoint"):
        make_official.make(official)
    port = build / SLUG
    stamp, mark = template_digest(), build / f".{SLUG}.stamp"
    if fresh or not port.is_dir() or not mark.is_file() or mark.read_text() != stamp:
        if port.is_dir():
            say("the template changed since the last bake: baking again")
            shutil.rmtree(port)
        mark.unlink(missing_ok=True)
        with step("bake"):
            call(fvport("new", "--no-input", "--output-dir", build, *answers(official)), quiet=True)
        with step("prep"):
            call(fvport("prep", "--port", port), quiet=True)
        with step("workspace"):
            call(fvport("workspace", "--port", port), quiet=True)
        with step(f'mapping signed by "{SIGNED_BY}"'):
            call(fvport("mapping", "review", "--sign", SIGNED_BY, "--port", port), quiet=True)
        mark.write_text(stamp)
    return port


def environment() -> None:
    """Every command of the port runs in this Python's environment."""
    os.environ.setdefault("FVPORT_ENV", str(Path(sys.prefix)))
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))


def template_digest() -> str:
    """Digest of everything that decides what a bake and its checkpoint look like."""
    total = hashlib.sha256()
    roots = [
        "{{cookiecutter.model_slug}}",
        "src/fvport/scaffold",
        "src/fvport/workspace",
        "examples",
        "cookiecutter.json",
    ]
    for root in (REPO / name for name in roots):
        files = (
            [root]
            if root.is_file()
            else sorted(p for p in root.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
        )
        for file in files:
            total.update(str(file.relative_to(REPO)).encode() + b"\0" + file.read_bytes())
    return total.hexdigest()


def valid(port: Path, name: str) -> bool:
    """True where the record of a check is green and speaks of this tree (the gate's own word for it)."""
    rows = json.loads(_output(fvport("gate", "--json", "--port", port)))["rows"]
    mine = [row["verdict"] for row in rows if row["check"] == name]  # a variant has a row of its own
    return bool(mine) and set(mine) == {"pass"}


def fvport(*args: object) -> list[str]:
    return [sys.executable, "-m", "fvport.cli", *map(str, args)]


def call(command: list[str], *, check: bool = True, quiet: bool = False) -> int:
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE if quiet else None, text=True)
    if check and done.returncode:
        print(done.stdout or "", file=sys.stderr)
        raise SystemExit(done.returncode)
    return done.returncode


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True).stdout


def say(text: str) -> None:
    print(text, flush=True)


class step:
    """`with step("bake"):` prints the name and how long it took."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        self.clock = time.monotonic()
        say(f"{self.name} ...")

    def __exit__(self, *exc: object) -> None:
        say(f"{self.name}: " + (f"{time.monotonic() - self.clock:.1f} s" if exc[0] is None else "failed"))


if __name__ == "__main__":
    sys.exit(main())
