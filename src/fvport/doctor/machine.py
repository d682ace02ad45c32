# SPDX-License-Identifier: Apache-2.0
"""Rows on the machine: processor, memory, GPU and driver, Python, FastVideo and its kernels, attention, disk."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from fvport.doctor import Row
from fvport.spec import Port

GIB = 1 << 30
FASTVIDEO_TREE = 8 * GIB  # an environment of the gate: torch and its CUDA libraries
PROBE_SECONDS = 90


def host(port: Port | None) -> list[Row]:
    cores, memory = os.cpu_count() or 1, _memory()
    found = f"{platform.system()} {platform.machine()}, {cores} cores, {memory / GIB:.0f} GiB memory"
    low = 0 < memory < 6 * GIB
    todo = "FastVideo and its official twin need about 6 GiB; use a larger machine"
    return [Row("machine", "problem" if low else "ok", found, todo if low else "")]


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def python(port: Port | None) -> list[Row]:
    version = platform.python_version()
    fits = sys.version_info[:2] in ((3, 11), (3, 12))
    todo = "FastVideo's environment needs Python 3.11 or 3.12 (baking works with 3.10 to 3.13)"
    return [Row("python", "ok" if fits else "problem", f"{version} ({sys.prefix})", "" if fits else todo)]


def gpu(port: Port | None) -> list[Row]:
    """Driver, CUDA version and devices as nvidia-smi says them; required where the port's gate asks for CUDA."""
    required = port is not None and port.gate.require_device == "cuda"
    tool = shutil.which("nvidia-smi")
    state = "problem" if required else "absent"
    todo = "The gate of this port wants evidence from CUDA: run it on a GPU machine" if required else ""
    if not tool:
        return [Row("gpu", state, "no NVIDIA driver on this machine", todo)]
    query = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    done = _run([tool, *query])
    if done is None or done.returncode or not done.stdout.strip():
        said = " ".join((done.stdout + done.stderr).split())[:160] if done else "no answer in time"
        return [Row("gpu", state, f"nvidia-smi fails: {said}", todo or "Mend the driver, or unset the GPU")]
    rows = [line.strip() for line in done.stdout.strip().splitlines()]
    return [Row(f"gpu {n}", "ok", row) for n, row in enumerate(rows)]


def fastvideo(port: Port | None) -> list[Row]:
    """FastVideo's version and where it comes from, from its metadata: nothing is imported."""
    wanted = port.fastvideo.version if port and port.fastvideo.source == "wheel" else ""
    try:
        version = metadata.version("fastvideo")
    except metadata.PackageNotFoundError:
        todo = "Run: make env (this repository) or nox -s env (a port)"
        return [Row("fastvideo", "problem", "not in this environment", todo)]
    spec = importlib.util.find_spec("fastvideo")
    where = Path(spec.origin).parent if spec and spec.origin else Path("?")
    rows = []
    if wanted and wanted != version:
        todo = f"Install it, or say [fastvideo] version = {version!r} in port.toml"
        rows.append(Row("fastvideo", "problem", f"{version} is here, port.toml wants {wanted}", todo))
    else:
        rows.append(Row("fastvideo", "ok", f"{version} ({where})"))
    if port is not None:
        tree = port.root / "fastvideo" / "__init__.py"
        todo = "" if tree.is_file() else "Run: fvport workspace"
        found = f"{port.root}" if tree.is_file() else "this port lies on no FastVideo tree yet"
        rows.append(Row("workspace", "ok" if tree.is_file() else "problem", found, todo))
    return rows


def kernels(port: Port | None) -> list[Row]:
    names = ("fastvideo-kernel", "flashinfer-python", "flash-attn", "sageattention")
    found = {name: _version(name) for name in names}
    here = [f"{name} {version}" for name, version in found.items() if version]
    if here:
        return [Row("kernels", "ok", ", ".join(here))]
    required = port is not None and port.gate.require_device == "cuda"
    todo = "Install docker/gate-cuda.lock (CPython 3.12, glibc 2.34 or later), or use the CUDA image: make gate-docker"
    return [Row("kernels", "problem" if required else "absent", "none of " + ", ".join(names), todo)]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def attention(port: Port | None) -> list[Row]:
    """Each attention backend is really called, in a child, on the device that is there."""
    if importlib.util.find_spec("torch") is None:
        return [Row("attention", "problem", "no torch in this environment", "Run: make env, or nox -s env")]
    done = _run([sys.executable, "-m", "fvport.doctor.attention"], PROBE_SECONDS)
    if done is None or done.returncode:
        said = done.stderr.strip().splitlines()[-1][:200] if done and done.stderr.strip() else "no answer in time"
        return [Row("attention", "problem", f"torch does not run: {said}", "Mend the environment: make env")]
    answer = json.loads(done.stdout)
    rows = []
    wanted = port.fastvideo.attention_backend if port else "TORCH_SDPA"
    for name, said in answer["backends"].items():
        state = "ok" if said == "works" else ("problem" if name == wanted else "absent")
        todo = f"[fastvideo] attention_backend is {name}: choose one that works" if state == "problem" else ""
        rows.append(Row(f"attention {name}", state, f"{said} on {answer['device']}", todo))
    return rows


def disk(port: Port | None) -> list[Row]:
    """Free space against what the port's weights need: themselves, and a converted copy where one is made."""
    root = port.root if port else Path.cwd()
    free, need = shutil.disk_usage(root).free, FASTVIDEO_TREE if port is None else _need(port)
    found = f"{free / GIB:.0f} GiB free, {need / GIB:.1f} GiB needed ({root})"
    if free > need:
        return [Row("disk", "ok", found)]
    return [Row("disk", "problem", found, f"Free {(need - free) / GIB:.1f} GiB, or put the port on another disk")]


def _need(port: Port) -> int:
    try:
        lock = json.loads(port.lock_file.read_text(encoding="utf-8"))
        total = sum(file["size"] for entry in lock["components"].values() for file in entry["files"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return FASTVIDEO_TREE
    return int(total * (2 if port.official.needs_conversion else 1) * 1.1) + GIB


def _run(command: list[str], seconds: int = 15) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None


LOOKS = (host, python, gpu, fastvideo, kernels, attention, disk)
