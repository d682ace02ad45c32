# SPDX-License-Identifier: Apache-2.0
"""The contract of an encoder, point by point, and the walk that names the first stage where two sides part.

root       what goes into and comes out of the model itself, and how it behaves; loaded by path in the oracle's process
tokens     tokenizer against tokenizer, and preprocessor against preprocessor, as data
masks, states, places, numbers, packing   one stage each: is it here that a red component differs?
walk       the stages in order; the first that answers is the answer
points     what is compared although every output agrees
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

STAGES = (  # the order in which a person looks, before any layer is touched
    "tokenization",
    "masks",
    "hidden-state selection",
    "positional ids",
    "dtype/autocast",
    "output packing",
    "layers",
)


@dataclass
class Point:
    """Something of the contract that differs: the stage, a short name, and one sentence. `proof`: what was tried."""

    stage: str
    name: str
    sentence: str
    proof: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
