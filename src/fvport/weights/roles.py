# SPDX-License-Identifier: Apache-2.0
"""What a tensor's name says of its part (query or key, gate or up, scale or shift ...), to see a swap that no shape
shows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from itertools import pairwise


@dataclass(frozen=True)
class Family:
    """Parts that often share a shape. `words`: {part: words}; `strict`: names that contradict each other are enough."""

    name: str
    words: dict[str, frozenset[str]]
    strict: bool = True


def _family(name: str, strict: bool = True, **parts: str) -> Family:
    return Family(name, {part: frozenset(words.split()) for part, words in parts.items()}, strict)


FAMILIES = (
    _family("q/k/v", q="q query wq", k="k key wk", v="v value wv"),
    _family("gate/up", gate="gate wi_0", up="up wi_1"),
    _family("scale/shift", scale="scale gamma", shift="shift beta"),
    _family(
        "self/cross", self="attn1 self_attn self_attention selfattn", cross="attn2 cross_attn cross_attention crossattn"
    ),
    _family("text/image", strict=False, text="txt text", image="img image"),
    _family(
        "first/second",
        strict=False,
        first="linear_1 linear1 fc_in fc1 lin1 net.0 mlp.0 ffn.0",
        second="linear_2 linear2 fc_out fc2 lin2 net.2 mlp.2 ffn.2",
    ),
)


@cache
def roles(name: str) -> dict[str, str]:
    """{family: part} as the name says it. A name that says two parts of one family (`gate_up_proj`) says none."""
    words = _words(name)
    found = {}
    for family in FAMILIES:
        parts = [part for part, known in family.words.items() if known & words]
        if len(parts) == 1:
            found[family.name] = parts[0]
    return found


def _words(name: str) -> set[str]:
    """Segments, their underscore words and pairs of words, and `net.0` pairs, in lower case."""
    segments = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split(".")
    words = set(segments) | {f"{a}.{b}" for a, b in pairwise(segments)}
    for segment in segments:
        parts = [part for part in segment.split("_") if part]
        words |= set(parts) | {f"{a}_{b}" for a, b in pairwise(parts)}
    return words


def family(name: str) -> Family:
    return next(item for item in FAMILIES if item.name == name)


def order_in(target: str, parts: list[str]) -> list[str]:
    """The order in which a fused name says its parts: `to_qkv` -> q, k, v; `up_gate` -> up, gate; silent -> as given.

    `parts` come in their usual order, such as ["q", "k", "v"] or ["gate", "up"].
    """
    lowered = target.lower()
    if all(len(part) == 1 for part in parts):
        runs = [run for run in re.findall(r"[qkv]{2,3}", lowered) if set(parts) <= set(run)]
        return [letter for letter in runs[-1] if letter in parts] if runs else parts
    places = {part: lowered.rfind(part) for part in parts}
    return sorted(parts, key=lambda part: places[part]) if min(places.values()) >= 0 else parts


def says_order(target: str, parts: list[str]) -> bool:
    """The fused name itself says in which order its parts lie."""
    lowered = target.lower()
    if all(len(part) == 1 for part in parts):
        return bool(re.search(r"[qkv]{2,3}", lowered))
    return all(part in lowered for part in parts)


def template(name: str) -> tuple[str, tuple[int, ...]]:
    """`blocks.3.attn.0.q` -> (`blocks.#.attn.#.q`, (3, 0))"""
    numbers = tuple(int(number) for number in re.findall(r"(?:(?<=\.)|^)(\d+)(?=\.|$)", name))
    return re.sub(r"(?:(?<=\.)|^)\d+(?=\.|$)", "#", name), numbers
