# SPDX-License-Identifier: Apache-2.0
"""One rank of several: FastVideo's groups over all of them, and what the ranks said to one another.

Needs a booted FastVideo (`fastvideo_api.boot(..., distributed=False)`) and the environment that torchrun sets.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any


def join(tp: int, sp: int) -> None:
    """Make this rank's groups as FastVideo's own worker makes them: gloo on a CPU, nccl on GPUs."""
    from fastvideo.distributed.parallel_state import maybe_init_distributed_environment_and_model_parallel

    maybe_init_distributed_environment_and_model_parallel(tp_size=tp, sp_size=sp)


def sizes() -> dict[str, int]:
    """FastVideoArgs' `num_gpus`, `tp_size` and `sp_size` for the groups of this process; one device without any."""
    state: Any = sys.modules.get("fastvideo.distributed.parallel_state")
    if state is None or not state.model_parallel_is_initialized() or state.get_world_size() == 1:
        return {"num_gpus": 1}
    tp, sp = state.get_tp_world_size(), state.get_sp_world_size()
    return {"num_gpus": state.get_world_size(), "tp_size": tp, "sp_size": sp}


@contextlib.contextmanager
def counted() -> Iterator[dict[str, int]]:
    """How often each collective ran in the block: `{"allreduce_": 6}`, whoever called it, by torch's own names.

    A component that says nothing to the other ranks computed all of it on each: nothing of it was split.
    """
    from torch.utils._python_dispatch import TorchDispatchMode

    found: dict[str, int] = {}

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if op.namespace in ("c10d", "_c10d_functional"):
                name = op.overloadpacket.__name__
                found[name] = found.get(name, 0) + 1
            return op(*args, **(kwargs or {}))

    with Count():
        yield found
