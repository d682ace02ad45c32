# SPDX-License-Identifier: Apache-2.0
"""The precision that is shipped: blocks in bf16, each given the official bf16 inputs, against the official answers.

A whole model in bf16 hides a faulty block in its own noise, so none is judged by its output alone: every paired module
runs under official values (`record.Forced`). Its floor is what the official module errs in bf16 against itself in
float64 on the same inputs. A module that answers in another dtype than the official one is told too: an fp32 island
that was lost, or one that the official model does not have.

Modules of one name need not be cut at one place: Gemma's embedding scales its rows, a native one may leave that to the
model around it. Such a pair differs in float32 too, where the whole agrees; it is told, and not judged here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from fvport.parity import lockstep, trace
from fvport.parity.lockstep import Boundary

DTYPE = "bfloat16"
KINDS = ("dit", "text_encoder", "image_encoder", "audio_encoder", "conditioner")  # what is shipped in it


@dataclass
class Shipped:
    """What became of the blocks. `problem`: why it could not be run."""

    case: str
    problem: str = ""
    modules: int = 0
    wrong: list[str] = field(default_factory=list)
    worst: str = ""
    use: float = 0.0  # of its budget, the worst module
    dtypes: list[str] = field(default_factory=list)  # "blocks.0.norm1: float32 officially, bfloat16 natively"
    cut: list[str] = field(default_factory=list)  # pairs that differ in float32 too, where the whole agrees: not judged
    sentence: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def examine(sides: trace.Sides, plain: frozenset[str] = frozenset()) -> Shipped:
    """Every paired module of one case in bf16; `sides` holds a record made in bf16 and a native model loaded in it.

    `plain`: marks of what differs in float32 (`in_float32`), to be left out.
    """
    result = Shipped(sides.case)
    boundaries, _ = lockstep.forced(sides.root, sides.pairs, sides.found, sides.store, sides.run)
    judged = [b for b in boundaries if b.local is not None and f"{b.native}>" not in plain]
    result.modules = len({b.native for b in judged})
    if not judged:
        result.problem = "no pair of modules could be compared"
        return result
    worst = max(judged, key=use)
    result.worst, result.use = worst.native, round(use(worst), 4)
    result.dtypes = other_dtypes(sides, boundaries)
    result.cut = sorted(mark.rstrip(">") for mark in plain)
    found = lockstep.findings(boundaries, plain)
    if found:
        first = trace.located(sides, found[0], boundaries)
        result.wrong = list(dict.fromkeys(f.native or "(the model itself)" for f in [first, *found[1:]]))
        at = f", seen at {first.at}" if first.at else ""
        result.sentence = f"first to differ by itself in bf16 is {result.wrong[0]}{at}: {first.size:.2e} off"
    return result


def in_float32(sides: trace.Sides) -> frozenset[str]:
    """Marks of the pairs that differ by themselves in float32; asked for where the outputs agree in float32."""
    boundaries, _ = lockstep.forced(sides.root, sides.pairs, sides.found, sides.store, sides.run)
    return lockstep.marks(lockstep.findings(boundaries))


def use(boundary: Boundary) -> float:
    """How much of its budget a module used."""
    return (boundary.local or 0.0) / boundary.budget if boundary.budget else 0.0


def other_dtypes(sides: trace.Sides, boundaries: list[Boundary]) -> list[str]:
    """Paired modules whose answer has another dtype than the official one's."""
    rows = []
    for b in boundaries:
        other = lockstep.dtype_of(sides.found, b.official[0])
        if b.call == 0 and b.dtype and other and b.dtype != other:
            words = f"{other.removeprefix('torch.')} officially, {b.dtype.removeprefix('torch.')} natively"
            rows.append(f"{b.native or '(the model itself)'}: {words}")
    return rows
