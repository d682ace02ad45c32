# SPDX-License-Identifier: Apache-2.0
"""`image`: building the gate's image again after one line of code changed, against building it from nothing.

From nothing is what every change costs where code is copied before packages are installed (uv keeps its downloads). The
image is gate-cpu of docker/Dockerfile; BASE_IMAGE and the engine flags come from the environment, as in `ci.container`:

    FVPORT_BENCH_ENGINE=podman FVPORT_BENCH_BASE=debootstrap python -m benchmarks image

Peak memory is this machine's processes under the command; an engine that works in a daemon hides its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.cases import ROOT, Case
from benchmarks.measure import Run, run
from ci import base, container


def image(scratch: Path, quick: bool) -> Case:
    """The bench. `--quick` measures no build from nothing; its baseline is a build of which nothing changed."""
    chosen = os.environ.get("FVPORT_BENCH_ENGINE", "docker")
    if not shutil.which(chosen):
        raise SystemExit(f"benchmarks: {chosen} is not on this machine (FVPORT_BENCH_ENGINE names another)")
    options = argparse.Namespace(engine=chosen, device="cpu", base=os.environ.get("FVPORT_BENCH_BASE", ""))
    root = base.make(container.engine(options)) if options.base == "debootstrap" else options.base
    tree, tag = scratch / "tree", "localhost/fvport-bench:image"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", ".venv", ".nox", "build", "__pycache__"))
    given = {"DEVICE": "cpu", **({"BASE_IMAGE": root} if root else {})}
    flags = [*container.extra("FVPORT_BUILD_FLAGS"), *(f"--build-arg={key}={value}" for key, value in given.items())]
    flags += [f"--build-arg={name}" for name in container.HANDED_ON if os.environ.get(name)]

    def build(*more: str) -> Run:
        words = container.engine(options, "build", *flags, *more, "-f", "docker/Dockerfile", "-t", tag, ".")
        done = run(words, cwd=tree)
        if done.returncode:
            raise SystemExit(f"benchmarks: the build failed:\n{done.output[-2000:]}")
        return done

    def changed() -> Run:
        with (tree / "src" / "fvport" / "words.py").open("a", encoding="utf-8") as file:
            file.write("# one line more\n")
        return build()

    def detail(runs: dict[str, list[Run]]) -> dict[str, Any]:
        size = _said(container.engine(options, "image", "inspect", "--format", "{{.Size}}", tag))
        layers = _said(container.engine(options, "history", "--format", "{{.Size}}", tag)).split("\n")
        subprocess.run(container.engine(options, "rmi", "-f", tag), check=False, capture_output=True)
        return {"size_gb": round(int(size) / 1e9, 2), "layers": len(layers), "engine": chosen}

    build()  # the environment's layer is there, as on a machine that built the image before
    other = {"unchanged": build} if quick else {"from_nothing": lambda: build("--no-cache")}
    return Case({"ours": changed, **other}, detail)


def _said(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
