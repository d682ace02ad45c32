# SPDX-License-Identifier: Apache-2.0
"""Random values for every parameter of a model: none stays zero or one, none makes the model deaf.

With default values a forgotten norm weight, bias or table changes nothing, and a wrong port looks right. What is added
to a residual stream that norms read is quiet, so that a norm's eps has its say.
"""

from __future__ import annotations

import math
import re
import zlib
from typing import Any

QUIET = 0.03
NUMBERED = re.compile(r"\.\d+\.\D")  # inside a numbered layer: what stands alone writes the answer
# What writes into the residual stream, by the last words of a name.
WRITERS = re.compile(
    r"(^|[._])(to_out|to_add_out|out_proj|o_proj|down_proj|proj_out|fc2|wo|o|c_proj|dense_4h_to_h|linear_2|"
    r"w2|ff_out)(\.\d+)?\.(weight|bias)$|net\.2\.(weight|bias)$"
)


def randomise(model: Any, name: str, seed: int = 0) -> Any:
    """Draw every floating parameter and running statistic of a torch module in place; returns it, in eval mode.

    Each has a generator of its own (from seed, component and its name), so that another layer changes no other one.
    """
    import torch

    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    normed = any("norm" in type(m).__name__.lower() for m in model.modules())
    done: set[int] = set()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if id(parameter) in done or not parameter.is_floating_point():  # tied, or counts
                continue
            done.add(id(parameter))
            mean, std = _scale(key, parameter, id(parameter) in embeddings, normed)
            parameter.copy_(mean + std * _draw(f"{name}.{key}", tuple(parameter.shape), seed))
        for key, buffer in model.named_buffers():
            if key.endswith("running_mean"):
                buffer.copy_(0.3 * _draw(f"{name}.{key}", tuple(buffer.shape), seed))
            elif key.endswith("running_var"):
                buffer.copy_(0.5 + _draw(f"{name}.{key}", tuple(buffer.shape), seed).abs())
    return model.eval()


def _draw(key: str, shape: tuple[int, ...], seed: int) -> Any:
    """Standard normal values; numpy's stream is the same on every machine."""
    import numpy as np
    import torch

    random = np.random.default_rng([seed, zlib.crc32(key.encode())])
    return torch.from_numpy(np.asarray(random.standard_normal(shape)))


def _scale(key: str, parameter: Any, embedding: bool, normed: bool) -> tuple[float, float]:
    """Mean and deviation: gains near one, offsets and tables not zero, matrices of about unit gain."""
    quiet = QUIET if normed and WRITERS.search(key) and NUMBERED.search(key) else 1.0
    shape = tuple(parameter.shape)
    if embedding:
        return 0.0, (QUIET if normed else 0.7)
    if key.endswith(("_g", "original0")):  # a weight norm's gain: its size is the matrix's, so it is kept
        return float(parameter.mean()), 0.2 * float(parameter.abs().mean() + 0.05)
    if len(shape) >= 2 and min(shape[0], math.prod(shape[1:])) > 1 and not key.endswith(("table", "embeddings")):
        return 0.0, quiet * 1.2 / math.sqrt(math.prod(shape[1:]))
    ones = parameter.numel() > 0 and float((parameter - 1).abs().max()) < 1e-6
    return (1.0, 0.2) if ones else (0.0, 0.2 * quiet if len(shape) == 1 else 0.3)
