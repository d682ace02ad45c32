# SPDX-License-Identifier: Apache-2.0
"""What is measured on a tensor: the four measures, a summary in FastVideo's words, and a sketch of constant size.

The oracle's process loads this file by its path: standard library and torch only.

A sketch is 256 numbers whatever the tensor's size: the flattened tensor in rows of 256, each row with a random sign,
summed. The norm of the difference of two sketches estimates the norm of the difference of the tensors without bias
(relative deviation about sqrt(2/256) = 9 %), so two processes can compare activations that neither of them keeps.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BUCKETS = 256
CHUNK = 1 << 22  # elements that are held in float64 at a time
MEASURES = ("rel_l2", "worst", "angle", "drift")
_signs: dict[str, Any] = {}


def measures(a: Any, b: Any) -> dict[str, float]:
    """The four measures of `a` against the reference `b`, computed in float64 (complex: as pairs of reals)."""
    a, b = real(a), real(b)
    d = a - b
    norm_a, norm_b = float(a.norm()), float(b.norm())
    rms = norm_b / math.sqrt(max(b.numel(), 1)) or 1.0
    angle = float((a / (norm_a or 1.0) - b / (norm_b or 1.0)).norm())
    return {
        "rel_l2": float(d.norm()) / (norm_b or 1.0),
        "worst": float(d.abs().max()) / rms,
        "angle": angle,
        "drift": abs(float(d.mean())) / rms,
    }


def real(tensor: Any) -> Any:
    """Flat float64 on the CPU."""
    import torch

    tensor = tensor.detach().cpu()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.to(torch.complex128))
    return tensor.double().flatten()


def summary(tensor: Any) -> dict[str, Any]:
    """`shape`, `dtype`, and for numbers `abs_mean`, `mean`, `std`, `min`, `max`: the words of FastVideo's trace."""
    import torch

    found: dict[str, Any] = {"shape": list(tensor.shape), "dtype": str(tensor.dtype)}
    flat = tensor.detach().flatten()
    if not tensor.numel() or tensor.is_complex():
        return found
    flat = flat if flat.is_floating_point() else flat.float()
    low, high = torch.aminmax(flat)
    kind = torch.float64 if flat.dtype == torch.float64 else torch.float32
    n = flat.numel()
    mean = float(flat.sum(dtype=kind)) / n
    square = float(torch.linalg.vector_norm(flat, dtype=kind)) ** 2 / n
    found |= {"abs_mean": float(torch.linalg.vector_norm(flat, 1, dtype=kind)) / n, "mean": mean}
    found |= {"std": math.sqrt(max(square - mean * mean, 0.0)), "min": float(low), "max": float(high)}
    return found


def sketch(tensor: Any) -> Any:
    """256 float64 numbers. Two tensors with the same elements in the same order have the same sketch."""
    import torch

    flat = tensor.detach().flatten()
    if flat.is_complex():
        flat = torch.view_as_real(flat).flatten()
    total = torch.zeros(BUCKETS, dtype=torch.float64, device=flat.device)
    for at in range(0, flat.numel(), CHUNK):
        part = flat[at : at + CHUNK].double()
        rest = -part.numel() % BUCKETS
        part = torch.nn.functional.pad(part, (0, rest)) if rest else part
        rows = part.numel() // BUCKETS
        first = at // BUCKETS
        total += _sign(first + rows, flat.device)[first : first + rows] @ part.view(rows, BUCKETS)
    return total.cpu()


def _sign(rows: int, device: Any) -> Any:
    """±1 for each row, the same in every process."""
    import torch

    have = _signs.get(str(device))
    if have is None or have.numel() < rows:
        size = max(rows, 1 << 14) if have is None else max(rows, 2 * have.numel())
        generator = torch.Generator().manual_seed(20_240_229)
        have = torch.randint(0, 2, (size,), generator=generator).double().mul_(2).sub_(1).to(device)
        _signs[str(device)] = have
    return have


def apart(a: Any, b: Any) -> float:
    """Estimated relative L2 difference of two tensors from their sketches."""
    norm = float(b.norm())
    return float((a - b).norm()) / norm if norm else float((a - b).norm())


def flatten(value: Any, label: str) -> list[tuple[str, Any]]:
    """[(label, tensor)] of nested values, labelled as FastVideo's trace does: out, out[0], out.sample."""
    import torch

    if torch.is_tensor(value):
        return [(label, value)]
    if isinstance(value, (tuple, list)):
        return [found for i, item in enumerate(value) for found in flatten(item, f"{label}[{i}]")]
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in flatten(item, f"{label}.{key}")]
    if not isinstance(value, (str, int, float, bool, type(None), type)) and hasattr(value, "__dict__"):
        found = []
        for key, item in vars(value).items():
            if torch.is_tensor(item) and not key.startswith("_"):
                found.append((f"{label}.{key}", item))
        return found
    return []


def replace(value: Any, by_id: dict[int, Any]) -> Any:
    """The same nesting with some tensors (named by `id`) exchanged; a value without one is itself."""
    import torch

    if torch.is_tensor(value):
        return by_id.get(id(value), value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(replace(item, by_id) for item in value))
    if type(value) in (tuple, list):
        return type(value)(replace(item, by_id) for item in value)
    if isinstance(value, dict):
        for key in list(value):
            new = replace(value[key], by_id)
            if new is not value[key]:
                value[key] = new
        return value
    if not isinstance(value, (str, int, float, bool, type(None), type)) and hasattr(value, "__dict__"):
        new = {k: by_id[id(t)] for k, t in vars(value).items() if torch.is_tensor(t) and id(t) in by_id}
        if new and getattr(type(value), "__dataclass_params__", None) and type(value).__dataclass_params__.frozen:
            value = copy.copy(value)
            vars(value).update(new)
            return value
        for key, item in new.items():
            setattr(value, key, item)
    return value


class Store:
    """Tensors in one raw file that is written as they come; an index beside it. Nothing is held in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.index: dict[str, list[Any]] = {}
        self.size = 0
        self._stream: Any = None

    def put(self, key: str, tensor: Any) -> None:
        import torch

        self._stream = self._stream or self.path.open("wb")
        tensor = tensor.detach().cpu().contiguous()
        raw = tensor.reshape(-1).view(torch.uint8).numpy() if tensor.numel() else b""
        self.index[key] = [str(tensor.dtype).removeprefix("torch."), list(tensor.shape), self.size]
        self.size += self._stream.write(memoryview(raw))

    def close(self) -> dict[str, list[Any]]:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        self.path.with_suffix(".index.json").write_text(json.dumps(self.index), encoding="utf-8")
        return self.index

    @classmethod
    def open(cls, path: Path) -> Store:
        store = cls(path)
        store.index = json.loads(path.with_suffix(".index.json").read_text(encoding="utf-8"))
        return store

    def __contains__(self, key: str) -> bool:
        return key in self.index

    def shape(self, key: str) -> list[int]:
        shape: list[int] = self.index[key][1]
        return shape

    def get(self, key: str) -> Any:
        """One tensor, a copy of its own."""
        import torch

        kind, shape, offset = self.index[key]
        dtype = getattr(torch, kind)
        count = math.prod(shape)
        if not count:
            return torch.empty(shape, dtype=dtype)
        size = count * torch.empty((), dtype=dtype).element_size()
        with self.path.open("rb") as stream:
            stream.seek(offset)
            raw = bytearray(stream.read(size))
        return torch.frombuffer(raw, dtype=dtype).reshape(shape)


class Marks:
    """Sketches by boundary, in slabs of a few MB.

    One small allocation a sketch, made between activations that come and go, would keep the memory of those from being
    given back: a trace would grow with a model's depth by far more than it keeps.
    """

    SLAB = 1024  # sketches

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self._slabs: list[Any] = []
        self._count = 0

    def add(self, sketch: Any) -> int:
        """The row in which a copy of it lies."""
        import torch

        row, self._count = self._count, self._count + 1
        if row // self.SLAB == len(self._slabs):
            self._slabs.append(torch.empty(self.SLAB, *sketch.shape, dtype=sketch.dtype))
        self._slabs[row // self.SLAB][row % self.SLAB] = sketch
        return row

    def items(self) -> Iterator[tuple[str, Any]]:
        for key, row in self.rows.items():
            yield key, self._slabs[row // self.SLAB][row % self.SLAB]
