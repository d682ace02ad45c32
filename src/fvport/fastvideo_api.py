# SPDX-License-Identifier: Apache-2.0
"""FastVideo's internals: how it is started, on which device, from which tree. Nothing else of fvport knows them.

    boot(root)                one process: the workspace's FastVideo, settings, distributed state
    child_environment(root)   the same for a child process (an example, FastVideo's own workers)
    environment(root)         what a record says of all this

Nothing is adapted where there is a GPU; without one `models/cpu_platform.py` adapts four things.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fvport.errors import BlockedError, FvportError, UsageError
from fvport.models import cpu_platform

BACKEND_VARIABLE = "FASTVIDEO_ATTENTION_BACKEND"
BACKEND = "TORCH_SDPA"
SEEN_VARIABLE = cpu_platform.SEEN_VARIABLE
OUTSIDE = "outside the workspace"
DISTRIBUTED = {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}


@dataclass(frozen=True)
class Runtime:
    """A booted FastVideo: where it was imported from and on which device it runs."""

    root: Path
    device: str  # cpu | cuda
    device_name: str
    adapted: bool  # True where the CPU adaptation is active


def resolve_device(device: str = "auto") -> str:
    """`cpu` or `cuda`. `auto` is cuda where the driver shows a device that CUDA_VISIBLE_DEVICES does not hide."""
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f'no device "{device}" (auto, cpu or cuda)')
    if device == "auto":
        declared = os.environ.get(cpu_platform.VARIABLE, "")
        return declared if declared in ("cpu", "cuda") else ("cuda" if _driver_has_gpu() else "cpu")
    return device


def _driver_has_gpu() -> bool:
    """Asks NVML, not CUDA: a CUDA context made here would break every process that is forked later."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return False
    return _nvml_count() > 0


def gpus() -> int:
    """How many GPUs this process may use, asked of NVML; as many as CUDA_VISIBLE_DEVICES names where it is set."""
    named = [part for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
    if not _driver_has_gpu():
        return 0
    return min(len(named), _nvml_count()) if named else _nvml_count()


@functools.cache
def _nvml_count() -> int:
    import ctypes

    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        if nvml.nvmlInit_v2() != 0:
            return 0
        count = ctypes.c_uint(0)
        found = nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0
        nvml.nvmlShutdown()
        return count.value if found else 0
    except (OSError, AttributeError):
        return 0


def check_workspace(root: Path) -> None:
    """Raises BlockedError where `root` holds no FastVideo tree of its own."""
    if not (root / "fastvideo" / "__init__.py").is_file():
        raise BlockedError("no FastVideo tree here", where=str(root), todo="Run: nox -s workspace")


def child_environment(
    root: Path | str, device: str = "auto", base: dict[str, str] | None = None, *, backend: str = BACKEND
) -> dict[str, str]:
    """Environment of a child that imports FastVideo from the workspace at `root` (a whole environment, for `env=`).

    `backend` is port.toml's `[fastvideo] attention_backend`; what the shell says of it does not count. The child ends
    when the process that started it does.
    """
    root = Path(root).resolve()
    check_workspace(root)
    env = dict(os.environ if base is None else base)
    device = resolve_device(device)
    boot_path = str(Path(cpu_platform.__file__).with_name("boot_path"))
    old = [part for part in env.get("PYTHONPATH", "").split(os.pathsep) if part and part not in (boot_path, str(root))]
    env["PYTHONPATH"] = os.pathsep.join([boot_path, str(root), *old])
    env[cpu_platform.VARIABLE] = device
    env[BACKEND_VARIABLE] = backend
    env[cpu_platform.END_VARIABLE] = "1"
    env.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    env.setdefault("TOKENIZERS_PARALLELISM", "false")
    env.setdefault("HF_HUB_OFFLINE", "1")  # what FastVideo finds must not depend on the network: `prep` fetched it
    if device == "cpu":
        env["CUDA_VISIBLE_DEVICES"] = ""
    return env


def boot(root: Path | str, device: str = "auto", *, distributed: bool = True, backend: str = BACKEND) -> Runtime:
    """Import FastVideo from the workspace at `root`, once per process, ready to build native layers.

    Raises BlockedError where the workspace has no FastVideo or the device is not there, FvportError where another
    FastVideo was imported before.
    """
    root = Path(root).resolve()
    env = child_environment(root, device, backend=backend)
    device = env[cpu_platform.VARIABLE]
    os.environ.update(env)
    boot_path = env["PYTHONPATH"].split(os.pathsep)[0]
    sys.path[:] = [str(root), *(p for p in sys.path if p not in (str(root), boot_path))]
    if "fastvideo" in sys.modules:
        _assert_inside(root)
        if device == "cpu" and not cpu_platform.installed():
            raise FvportError("fastvideo was imported before fvport could prepare it for a machine without a GPU")
    elif device == "cpu":
        cpu_platform.install()
    apply_settings()
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise BlockedError("torch sees no CUDA device", todo="Run on a machine with a GPU, or say --device cpu")
    import fastvideo  # noqa: F401

    _assert_inside(root)
    _assert_backend(backend)
    if distributed:
        init_distributed()
    name = torch.cuda.get_device_name(0) if device == "cuda" else _cpu_name()
    return Runtime(root, device, name, adapted=device == "cpu")


def _assert_inside(root: Path) -> None:
    file = Path(sys.modules["fastvideo"].__file__ or "").resolve()
    if not file.is_relative_to(root):
        raise BlockedError(
            f"FastVideo was imported from {file.parent}, not from the workspace {root}", todo="Run: nox -s workspace"
        )


def _assert_backend(backend: str) -> None:
    """FastVideo takes a name that it does not know for none at all, and chooses by itself."""
    from fastvideo.platforms import AttentionBackendEnum

    if backend not in AttentionBackendEnum.__members__:
        known = ", ".join(sorted(AttentionBackendEnum.__members__))
        what = f'FastVideo has no attention backend "{backend}" (it has {known})'
        raise UsageError(what, where="port.toml [fastvideo] attention_backend")


def video_generator() -> Any:
    """FastVideo's `VideoGenerator` class, as this process's path finds it."""
    from fastvideo import VideoGenerator

    return VideoGenerator


def pipeline_base() -> Any:
    """The class that every FastVideo pipeline runs through (`forward`)."""
    from fastvideo.pipelines.composed_pipeline_base import ComposedPipelineBase

    return ComposedPipelineBase


def apply_settings() -> None:
    """Determinism and full fp32: equal to what `parity/oracle_runner.py` sets on the official side."""
    import torch

    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")


def init_distributed() -> None:
    """Distributed state for one process (gloo on a CPU, nccl on a GPU) on a free port: native layers need it."""
    from fastvideo.distributed.parallel_state import (
        maybe_init_distributed_environment_and_model_parallel,
        model_parallel_is_initialized,
    )

    if model_parallel_is_initialized():
        return
    for key, value in DISTRIBUTED.items():
        os.environ.setdefault(key, value)
    os.environ["MASTER_PORT"] = str(_free_port())
    maybe_init_distributed_environment_and_model_parallel(tp_size=1, sp_size=1)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def seen(root: Path | str) -> dict[str, Any]:
    """What this process really has: where FastVideo came from, its backend, and torch's own answers about its settings.

    `{}` where FastVideo was never imported. Written by the process that computes; a record repeats it.
    """
    root, module, torch = Path(root).resolve(), sys.modules.get("fastvideo"), sys.modules.get("torch")
    if module is None or torch is None:
        return {}
    return {
        "fastvideo_path": _relative(Path(module.__file__ or ""), root),
        "attention_backend": os.environ.get(BACKEND_VARIABLE, "FastVideo's own choice"),
        "deterministic": bool(torch.are_deterministic_algorithms_enabled()),
        "tf32": bool(torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32),
    }


def agree(answers: Iterable[dict[str, Any]], what: str) -> dict[str, Any]:
    """What all processes of a run saw, as one. Raises FvportError where they differ or FastVideo was not the tree's."""
    found = [answer for answer in answers if answer]
    if not found:
        raise FvportError(f"{what}: no process says where it imported FastVideo from", todo="Run the check again")
    for answer in found:
        if answer["fastvideo_path"].startswith(OUTSIDE):
            place = answer["fastvideo_path"].removeprefix(OUTSIDE)
            raise FvportError(
                f"{what}: FastVideo was imported from outside the workspace ({place.strip(': ')})",
                todo="Take the other FastVideo off the path; then: nox -s workspace",
            )
        differing = [key for key in found[0] if answer.get(key) != found[0][key]]
        if differing:
            raise FvportError(f"{what}: processes of one run differ in {', '.join(differing)}")
    return found[0]


def imported(folder: Path, root: Path | str) -> list[dict[str, Any]]:
    """What a child's processes noted in `folder` (SEEN_VARIABLE in their environment) when they imported FastVideo."""
    root = Path(root).resolve()
    files = [file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.txt"))]
    return [{"fastvideo_path": _relative(Path(file), root)} for file in files]


def environment(root: Path | str) -> dict[str, Any]:
    """What a record says of versions and place, and what this process has where it imported FastVideo itself.

    Cheap: imports nothing heavy. What a child saw (`seen`) is added by the check that started it.
    """
    from importlib import metadata

    root = Path(root).resolve()
    versions = {"python": platform.python_version()}
    for name in ("torch", "diffusers", "transformers"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    versions["fastvideo"] = _tree_version(root)
    device = resolve_device()
    return {
        "versions": versions,
        **seen(root),
        "device": device_of(root),
        "cpu_adaptation": list(cpu_platform.ADAPTED) if device == "cpu" else [],
        "image": os.environ.get("FVPORT_IMAGE_DIGEST", ""),
    }


def device_of(_: Path | str = ".", device: str = "auto") -> dict[str, str]:
    """`{"kind": "cpu" | "cuda", "name": ...}` for a record's `device`."""
    kind = resolve_device(device)
    if kind == "cuda":
        torch = sys.modules.get("torch")
        name = torch.cuda.get_device_name(0) if torch and torch.cuda.is_initialized() else _nvml_name()
        return {"kind": kind, "name": name}
    return {"kind": kind, "name": _cpu_name()}


def _relative(path: Path, root: Path) -> str:
    path = path.resolve()
    return str(path.relative_to(root)) if path.is_relative_to(root) else f"{OUTSIDE}: {path.parent}"


def _tree_version(root: Path) -> str:
    try:
        text = (root / "fastvideo" / "version.py").read_text(encoding="utf-8")
    except OSError:
        return "absent"
    found = re.search(r"__version__\s*=\s*[\"']([^\"']+)", text)
    return found.group(1) if found else "unknown"


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@functools.cache
def _nvml_name() -> str:
    import ctypes

    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        nvml.nvmlInit_v2()
        handle, name = ctypes.c_void_p(), ctypes.create_string_buffer(96)
        nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle))
        nvml.nvmlDeviceGetName(handle, name, 96)
        nvml.nvmlShutdown()
        return name.value.decode() or "cuda"
    except (OSError, AttributeError):
        return "cuda"
