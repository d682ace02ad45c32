# SPDX-License-Identifier: Apache-2.0
"""A port of a repository whose classes no library has, from bare folder to gate: `python -m examples.reference.demo`.

repository and weights made -> bake -> the hand-written files of `mist/port` put in -> prep (clone at the commit, import
check, lock) -> workspace -> mapping signed (as `demo`, visibly) -> every check -> gate
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from examples import demo
from examples.demo import call, fvport, say, step

HERE = Path(__file__).resolve().parent / "mist"
SLUG = "mist"
# The same files give the same commit, whoever makes it and when.
GIT = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in (
    ("NAME", "Mist"), ("EMAIL", "mist@localhost"), ("DATE", "2026-01-01T00:00:00Z"))}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.reference.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=demo.REPO / "build", help="where everything is made")
    parser.add_argument("--fresh", action="store_true", help="bake again even when the port is current")
    parser.add_argument("--only", default="", help="checks to run, such as mapping,keys (default: all)")
    args = parser.parse_args(argv)
    return run(args.build.resolve(), fresh=args.fresh, only=[name for name in args.only.split(",") if name])


def run(build: Path, *, fresh: bool = False, only: Sequence[str] = ()) -> int:
    """The whole demo under `build`; returns the gate's exit code."""
    from fvport.models import warm

    demo.environment()
    port = prepare(build, fresh=fresh)
    rows = json.loads(demo._output(fvport("gate", "--json", "--port", port)))["rows"]
    checks = only or [row["check"] for row in rows]
    with warm.session():  # FastVideo is imported once for all checks
        demo.run_checks(port, [name for name in checks if name != "docs"], fresh=fresh)
    call(fvport("plan", "--sync", "--port", port), quiet=True)
    if "docs" in checks:
        demo.check(port, "docs", fresh=True)
    say("")
    return call(fvport("gate", "--port", port), check=False)


def prepare(build: Path, *, fresh: bool = False) -> Path:
    """Repository, weights, bake, the person's files, prep, workspace, signature. Returns the port's root."""
    official = build / "official"
    commit = repository(official / "mist_repo")
    if not (official / SLUG / "model_index.json").is_file():
        with step("official weights"):
            beside = official / f".{SLUG}.part"
            call([sys.executable, str(official / "mist_repo" / "make_weights.py"), str(beside)], quiet=True)
            os.replace(beside, official / SLUG)
    port, mark = build / SLUG, build / f".{SLUG}.stamp"
    stamp = demo.template_digest() + digest(HERE)
    if fresh or not port.is_dir() or not mark.is_file() or mark.read_text() != stamp:
        shutil.rmtree(port, ignore_errors=True)
        mark.unlink(missing_ok=True)
        with step("bake"):
            call(fvport("new", "--no-input", "--output-dir", build, *answers(official / SLUG, commit)), quiet=True)
        write_by_hand(port, commit)
        with step("prep"):
            call(fvport("prep", "--port", port), quiet=True)
        with step("workspace"):
            call(fvport("workspace", "--port", port), quiet=True)
        with step('mapping signed by "demo"'):
            call(fvport("mapping", "review", "--sign", demo.SIGNED_BY, "--port", port), quiet=True)
        mark.write_text(stamp)
    return port


def answers(weights: Path, commit: str) -> list[str]:
    return [
        "model_name=Mist",
        f"model_slug={SLUG}",
        f"official_weights={weights}",
        "official_repo=../official/mist_repo",
        f"official_commit={commit}",
        "workload_type=t2v",
        "components=transformer=port,text_encoder=port,vae=reuse,scheduler=reuse",
        "gate_device=cpu",
    ]


def repository(place: Path) -> str:
    """The reference as a git repository of one commit; gives the commit. Made again where the files are others."""
    stamp = place.with_name(f".{place.name}.stamp")
    if not place.is_dir() or not stamp.is_file() or stamp.read_text() != digest(HERE / "repository"):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(HERE / "repository", place, ignore=shutil.ignore_patterns("__pycache__"))
        (place / ".gitignore").write_text("__pycache__/\n")
        for words in (("init", "-q", "--template="), ("add", "-A"), ("commit", "-q", "--no-verify", "-m", "Mist")):
            git(place, *words)
        stamp.write_text(digest(HERE / "repository"))
    return git(place, "rev-parse", "HEAD")


def git(place: Path, *words: str) -> str:
    command = ["git", "-c", "core.autocrlf=false", "-c", "commit.gpgsign=false", "-C", str(place), *words]
    return subprocess.run(command, check=True, env=os.environ | GIT, stdout=subprocess.PIPE, text=True).stdout.strip()


def write_by_hand(port: Path, commit: str) -> None:
    """Put the checked-in files in, over what the bake left open; port.toml gets the commit."""
    for source in sorted((HERE / "port").rglob("*")):
        if source.is_file() and "__pycache__" not in source.parts:
            target = port / source.relative_to(HERE / "port")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    file = port / "tests" / "local_tests" / SLUG / "port.toml"
    file.write_text(re.sub(r'(?m)^commit = ".*$', f'commit = "{commit}"', file.read_text("utf-8")), "utf-8")


def digest(folder: Path) -> str:
    total = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
        total.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    return total.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
