# SPDX-License-Identifier: Apache-2.0
"""Does a component fit on this machine's GPU? Said from its headers before anything is loaded, with what would fit.

Only what is certain is refused: the weights alone, in float32, are more than the GPU's whole memory. Activations, and
float64 (which falls back to the rounding noise where it finds no room), come on top.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from fvport import fastvideo_api
from fvport.errors import FvportError
from fvport.spec import Component, Port
from fvport.weights import show, sides

FLOAT32 = 4  # bytes
TWIN = 1_100_000 * FLOAT32  # what a tiny twin has at most, of every class that tests/test_tiny_classes.py shrinks
BLOCK = re.compile(r"^(.*?)\.(\d+)\.")


@dataclass(frozen=True)
class Need:
    """Bytes of weights in float32: of the whole, and of the blocks 0, 1 and -1 of its largest stack."""

    whole: int
    some_blocks: int


def need(shapes: Mapping[str, tuple[int, ...]]) -> Need:
    """From the names and shapes of a component's weights."""
    total, stacks = 0, defaultdict[str, dict[int, int]](lambda: defaultdict(int))
    for name, shape in shapes.items():
        size = FLOAT32 * math.prod(shape)
        total += size
        if found := BLOCK.match(name):
            stacks[found[1]][int(found[2])] += size
    largest = max(stacks.values(), key=lambda stack: sum(stack.values()), default={0: total})
    order = sorted(largest)
    return Need(total, sum(largest[index] for index in {*order[:2], order[-1]}))


def too_small(port: Port, component: Component, device: str) -> tuple[str, str]:
    """(what, what to do) where the component cannot fit on the GPU; ('', '') where it can, or nobody can tell."""
    memory = gpu_bytes() if component.has_weights and fastvideo_api.resolve_device(device) == "cuda" else 0
    wanted = _need_of(port, component) if memory else None
    if wanted is None or wanted.whole <= memory:
        return "", ""
    what = f"its weights need {show.size(wanted.whole)} of GPU memory in float32, and the GPU has {show.size(memory)}"
    return what, f"Take a larger GPU. On this one: {_instead(component, wanted)}"


def out_of_memory(port: Port, component: Component, said: str) -> str:
    """What to do where a run ended because the GPU had no memory left; '' where it ended otherwise."""
    if "OutOfMemoryError" not in said and "CUDA out of memory" not in said:
        return ""
    wanted = _need_of(port, component)
    need = f" (its weights alone need {show.size(wanted.whole)} in float32)" if wanted else ""
    return (
        f"The GPU has no memory left{need}. Free it, or take a larger one; on this one: {_instead(component, wanted)}"
    )


def _need_of(port: Port, component: Component) -> Need | None:
    try:
        return need({name: info.shape for name, info in sides.official(port, component).tensors.items()})
    except FvportError:  # no headers to read: whoever needs the weights says so
        return None


def _instead(component: Component, wanted: Need | None) -> str:
    about = f" (about {show.size(wanted.some_blocks)})" if wanted else ""
    blocks = f"fvport check parity {component.name} --blocks 0,1,-1{about}"
    return f"{blocks}, or a tiny twin made by fvport tiny (about {show.size(TWIN)})"


def gpu_bytes() -> int:
    """Memory of the first visible GPU as the driver says it, without a CUDA context; 0 where it does not say."""
    index = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip() or "-1"
    if not index.isdigit():  # a device by its id, or none
        return 0
    try:
        nvml, handle = ctypes.CDLL("libnvidia-ml.so.1"), ctypes.c_void_p()
        found = (ctypes.c_ulonglong * 3)()  # total, free, used
        nvml.nvmlInit_v2()
        failed = nvml.nvmlDeviceGetHandleByIndex_v2(int(index), ctypes.byref(handle))
        failed = failed or nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(found))
        nvml.nvmlShutdown()
    except (OSError, AttributeError):
        return 0
    return 0 if failed else int(found[0])
