# SPDX-License-Identifier: Apache-2.0
"""FastVideo on a machine without a GPU: the one place that adapts it, and only there.

Four things of FastVideo stand in the way, and all must be changed before other modules import them by value, so an
import hook does it: nothing costs anything until `fastvideo` is imported.

- the CPU platform names no attention backend (the torch SDPA backend works on a CPU),
- `get_local_torch_device()` answers `mps` wherever there is no CUDA,
- stages open `torch.autocast(device_type="cuda")`, which a machine without CUDA disables with a warning,
- RMSNorm makes its gain in the default dtype where there is CUDA, and in float32 elsewhere: in a model of bf16 weights
  that turns what it multiplies to float32, and the next linear layer raises.

`install()` acts in this process. Child processes (FastVideo's workers, an example run by hand) are reached by
`boot_path/sitecustomize.py`, which `fastvideo_api.child_environment` puts on PYTHONPATH. Standard library only.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

VARIABLE = "FVPORT_DEVICE"  # "cpu": adapt; anything else: leave FastVideo as it is
SEEN_VARIABLE = "FVPORT_SEEN"  # a folder: each process that imports FastVideo notes there from where
END_VARIABLE = "FVPORT_END_WITH_PARENT"  # set: the process gets SIGTERM when the one that started it is gone
ADAPTED = (
    "attention backend of CpuPlatform is torch SDPA",
    "get_local_torch_device answers cpu",
    "autocast of device cuda is autocast of device cpu",
    "gain of RMSNorm has the default dtype",
)
PR_SET_PDEATHSIG = 1
SDPA = "fastvideo.attention.backends.sdpa.SDPABackend"


def installed() -> bool:
    return any(getattr(finder, "fvport_cpu_platform", False) for finder in sys.meta_path)


def install() -> None:
    """Adapt FastVideo in this process from its next import on. Raises RuntimeError when it is imported already."""
    if installed():
        return
    if "fastvideo" in sys.modules:
        raise RuntimeError("fastvideo was imported before its CPU adaptation; its modules hold the wrong device")
    sys.meta_path.insert(0, _Finder())


def install_from_environment() -> None:
    if os.environ.get(END_VARIABLE):
        end_with_parent()
    if "fastvideo" in sys.modules:
        return
    if os.environ.get(VARIABLE) == "cpu":
        install()
    if os.environ.get(SEEN_VARIABLE):
        sys.meta_path.insert(0, _Noted(os.environ[SEEN_VARIABLE]))


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Have the kernel send `number` to this process when its parent ends, however that ends (Linux; else nothing)."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    except (OSError, AttributeError, ImportError, TypeError):
        pass


class _Noted(importlib.abc.MetaPathFinder):
    """Notes the file that `fastvideo` is found at, with whatever finder comes after this one."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        if name != "fastvideo":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin:
            with open(os.path.join(self.folder, f"{os.getpid()}.txt"), "w", encoding="utf-8") as stream:
                stream.write(spec.origin)
        return spec


class _Finder(importlib.abc.MetaPathFinder):
    """Runs an adaptation right after the module that it concerns, before anything else can import from it."""

    fvport_cpu_platform = True

    def __init__(self) -> None:
        self.actions: dict[str, Callable[[ModuleType], None]] = {
            "fastvideo": _adapt_autocast,
            "fastvideo.platforms": _adapt_choice,
            "fastvideo.platforms.cpu": _adapt_attention,
            "fastvideo.distributed.parallel_state": _adapt_device,
            "fastvideo.layers.layernorm": _adapt_gain,
        }

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        action = self.actions.get(name)
        if action is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, action, first=name == "fastvideo")
        return spec


class _Loader(importlib.abc.Loader):
    """The module's own loader, with the adaptation after it (for the package itself before it: it imports the rest)."""

    def __init__(self, inner: Any, action: Callable[[ModuleType], None], *, first: bool) -> None:
        self.inner, self.action, self.first = inner, action, first

    def create_module(self, spec: Any) -> ModuleType | None:
        made: ModuleType | None = self.inner.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        if self.first:
            self.action(module)
        self.inner.exec_module(module)
        if not self.first:
            self.action(module)

    def __getattr__(self, name: str) -> Any:  # get_source, is_package ... for inspect and pickle
        return getattr(self.inner, name)


def _adapt_choice(platforms: Any) -> None:
    """The CPU platform also where a driver is there but the CPU was asked for."""
    platforms.resolve_current_platform_cls_qualname = lambda: "fastvideo.platforms.cpu.CpuPlatform"


def _adapt_attention(cpu: ModuleType) -> None:
    cpu.CpuPlatform.get_attn_backend_cls = classmethod(lambda cls, selected_backend, head_size, dtype: SDPA)


def _adapt_device(parallel_state: Any) -> None:
    def get_local_torch_device() -> Any:
        """The CPU: this process runs without a GPU."""
        import torch

        return torch.device("cpu")

    parallel_state.get_local_torch_device = get_local_torch_device


def _adapt_autocast(_: ModuleType) -> None:
    import torch

    original = torch.autocast.__init__
    if getattr(original, "fvport_cpu_platform", False):
        return

    def __init__(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        original(self, "cpu" if device_type == "cuda" else device_type, *args, **kwargs)

    __init__.fvport_cpu_platform = True  # type: ignore[attr-defined]
    torch.autocast.__init__ = __init__


def _adapt_gain(layernorm: Any) -> None:
    original = layernorm.RMSNorm.__init__

    def __init__(self: Any, hidden_size: int, eps: float = 1e-6, dtype: Any = None, *args: Any, **kwargs: Any) -> None:
        import torch

        original(self, hidden_size, eps, torch.get_default_dtype(), *args, **kwargs)

    layernorm.RMSNorm.__init__ = __init__
