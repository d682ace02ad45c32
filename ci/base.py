# SPDX-License-Identifier: Apache-2.0
"""A base image for machines that cannot pull one: a plain Debian root made by debootstrap, kept under build/."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TAG = "localhost/fvport-base:bookworm"
PACKAGES = "ca-certificates,git,python3,python3-venv"


def make(engine: Sequence[str], folder: Path = ROOT / "build" / "base") -> str:
    """The base image's tag; `engine` is the command that images are imported with. Needs root and debootstrap."""
    inspect = [*engine, "image", "inspect", TAG]
    if subprocess.run(inspect, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
        return TAG
    archive = folder / "bookworm.tar"
    if not archive.is_file():
        root = folder / "root"
        shutil.rmtree(root, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        print("Making a Debian root with debootstrap (about half a minute)", flush=True)
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(root)]
        with (folder / "debootstrap.log").open("w") as log:
            subprocess.run(command, check=True, stdout=log, stderr=log)
        part = archive.with_suffix(".part")
        subprocess.run(["tar", "-C", str(root), "-cf", str(part), "."], check=True)
        part.rename(archive)
        shutil.rmtree(root)
    subprocess.run([*engine, "import", str(archive), TAG], check=True, stdout=subprocess.DEVNULL)
    return TAG
