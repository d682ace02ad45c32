# SPDX-License-Identifier: Apache-2.0
"""How alike two module paths read: words, their synonyms, words that contradict each other, first and second.

Nothing here knows a model. A word is what is left of a segment after its separators, camel case and digits are taken
apart; synonyms are the vocabulary that transformer code is written in.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from functools import cache

COMPOUND = {  # whole segments (or runs of words) that say more, or less, than their parts
    "attn1": "self attn", "attn2": "cross attn", "self_attn": "self attn", "self_attention": "self attn",
    "cross_attn": "cross attn", "cross_attention": "cross attn", "crs_attn": "cross attn",
    "encdecattention": "cross attn",
    "selfattention": "self attn", "crossattn": "cross attn", "selfattn": "self attn", "xattn": "cross attn",
    "feed_forward": "mlp", "feedforward": "mlp", "layer_norm": "norm", "layernorm": "norm", "rmsnorm": "norm",
    "rms_norm": "norm", "group_norm": "norm", "adaln_modulation": "mod", "adaln": "mod", "ada_ln": "mod",
    "ada_norm": "mod norm", "adanorm": "mod norm", "scale_shift_table": "mod table", "adaln_single": "mod single",
    "time_proj": "time mod", "time_projection": "time mod", "time_modulation": "time mod",
    "y_embedder": "text embed", "x_embedder": "patch embed", "t_embedder": "time embed",
    "patch_embedding": "patch embed",
    "img_in": "patch embed", "txt_in": "text embed", "time_in": "time embed", "vector_in": "text pool embed",
    "guidance_in": "guidance embed", "proj_mlp": "mlp in", "final_layer": "final", "norm_out": "final norm",
    "proj_out": "final out", "conv_shortcut": "shortcut", "nin_shortcut": "shortcut",
    "wo": "o out", "wi": "in", "c_fc": "in", "c_proj": "out", "c_attn": "qkv", "in_proj": "in", "out_proj": "o out",
    "to_out": "o out", "o_proj": "o out", "output_proj": "o out", "double_blocks": "double", "fc1": "in", "fc2": "out",
    "fc_in": "in", "fc_out": "out", "q_norm": "q norm", "k_norm": "k norm", "pos_embed": "pos", "pos_emb": "pos",
}  # fmt: skip
SYNONYM = {
    "attention": "attn", "query": "q", "key": "k", "value": "v", "wq": "q", "wk": "k", "wv": "v", "ffn": "mlp",
    "ff": "mlp", "norms": "norm", "ln": "norm", "rms": "norm", "normalization": "norm", "layrnorm": "norm",
    "embedding": "embed", "embeddings": "embed", "embedder": "embed", "emb": "embed", "embedders": "embed",
    "timestep": "time", "timesteps": "time", "txt": "text", "context": "text", "caption": "text", "prompt": "text",
    "ctx": "text", "add": "added", "img": "image", "vision": "image", "visual": "image", "vid": "video",
    "modulation": "mod", "modulate": "mod", "output": "out", "input": "in", "projection": "proj", "linear": "proj",
    "lin": "proj", "dense": "proj", "fc": "proj", "layers": "layer", "blocks": "block", "head": "final",
    "last": "final", "position": "pos", "positional": "pos", "relative": "rel", "gamma": "scale", "beta": "shift",
    "residual": "res", "resnet": "res", "resnets": "res", "downsample": "down", "downsampler": "down", "cond": "cond",
    "downsamplers": "down", "downsamples": "down", "downs": "down", "upsample": "up", "upsampler": "up", "ups": "up",
    "upsamplers": "up", "upsamples": "up", "middle": "mid", "keyboard": "keyboard", "pooled": "pool", "pooler": "pool",
    "cam": "camera", "sigma": "sigma", "convolution": "conv", "swiglu": "mlp", "crs": "cross",
}  # fmt: skip
FAINT = frozenset(("block", "layer", "proj", "model", "module", "net", "to", "transformer", "diffusion", "encoder"))
FAMILIES = (  # words of one family exclude each other
    frozenset(["q", "k", "v", "o", "qkv", "kv"]),
    frozenset(["self", "cross"]),
    frozenset(["text", "image", "time", "guidance", "audio", "patch"]),
    frozenset(["scale", "shift", "gate"]),
    frozenset(["encoder", "decoder"]),
    frozenset(["down", "up", "mid"]),
    frozenset(["single", "double"]),
)
NEAR = {  # words of one meaning in one place and of another elsewhere: how alike
    frozenset(("added", "text")): 0.9, frozenset(("added", "image")): 0.2, frozenset(("cond", "text")): 0.5,
}  # fmt: skip
PLACES = frozenset(("norm", "attn", "mlp", "pre", "post", "in", "out", "self"))  # what says where a norm stands
FIRST = frozenset(["in", "first", "pre", "w1", "wi", "gate", "wi_0"])
SECOND = frozenset(["out", "second", "post", "wo"])


@dataclass
class Path:
    """A module path for comparison: `segments` with `#` for layer numbers, words by weight, and its place among
    siblings (`order`: 0 first to 1 last, None where nothing says).
    """

    segments: tuple[str, ...]
    words: dict[str, float] = field(default_factory=dict)
    order: float | None = None


@cache
def words_of(segment: str) -> tuple[str, ...]:
    """`img_attn_qkv` -> (image, attn, qkv); `norm2` -> (norm, 2)"""
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", segment).lower() if not segment.lower().startswith("adaln") else segment
    text = text.lower().replace("#", "").strip("_")
    parts = [part for part in text.split("_") if part]
    found: list[str] = []
    while parts:
        for size in (3, 2, 1):
            run = "_".join(parts[:size])
            if len(parts) >= size and run in COMPOUND:
                found += COMPOUND[run].split()
                parts = parts[size:]
                break
        else:
            stem, number = re.fullmatch(r"(.*?)(\d*)", parts.pop(0)).groups()  # type: ignore[union-attr]
            found += [SYNONYM.get(stem, stem)] if stem else []
            found += [number] if number else []
    return tuple(found)


def path(segments: tuple[str, ...]) -> Path:
    words: dict[str, float] = {}
    for segment in segments:
        for word in words_of(segment):
            weight = 0.3 if word in FAINT else 0.5 if word.isdigit() else 1.0
            words[word] = max(words.get(word, 0), weight)
    if {"norm", "attn", "post"} <= set(words_of(segments[-1])):
        words.pop("attn")  # the norm behind the attention is the one before what follows
    bare = "proj" in segments[-1].lower().split("_")[-1:] and not set(words_of(segments[-1])) - {"proj", "attn", "self"}
    if bare and "attn" in words and not words.keys() & {"q", "k", "v", "qkv", "kv", "o", "in", "out"}:
        words["o"] = 1.0  # the one projection of an attention that has no letter is the last
    return Path(segments, words)


@cache
def alike(one: str, other: str) -> float:
    """0 to 1: how alike two words are."""
    if one == other:
        return 1.0
    if near := NEAR.get(frozenset((one, other))):
        return near
    if one.isdigit() or other.isdigit() or min(len(one), len(other)) < 3:
        return 0.0
    if one.startswith(other) or other.startswith(one):
        return 0.8
    ratio = difflib.SequenceMatcher(None, one, other).ratio()
    return ratio if ratio > 0.79 else 0.0


Learned = dict[tuple[str, str], float]


def similarity(one: Path, other: Path, learned: Learned) -> float:
    """Points for shared words, less points for contradicting ones. `learned` {(word, word): 0..1} are this model's own
    synonyms, seen in what is already paired.
    """
    shared = _covered(one.words, other.words, learned, False) + _covered(other.words, one.words, learned, True)
    total = sum(one.words.values()) + sum(other.words.values())
    points = 4 * shared / total if total else 0.0
    points -= contradictions(one.words, other.words)
    if one.order is not None and other.order is not None:
        points += 0.8 * (1 - 2 * abs(one.order - other.order))
    return points + _in_line(one.segments, other.segments)


def _in_line(one: tuple[str, ...], other: tuple[str, ...]) -> float:
    """0 to 1: segments that are the same on both sides, in one order (a longest common subsequence)."""
    lengths = [0] * (len(other) + 1)
    for segment in one:
        before = 0
        for column, theirs in enumerate(other, 1):
            above = lengths[column]
            lengths[column] = before + 1 if segment == theirs else max(above, lengths[column - 1])
            before = above
    return lengths[-1] / max(len(one), len(other), 1)


def _covered(words: dict[str, float], others: dict[str, float], learned: Learned, turned: bool) -> float:
    total = 0.0
    for word, weight in words.items():
        if word in others:
            total += weight
            continue
        best = 0.0
        for other in others:
            value = alike(word, other)
            if learned:
                value = max(value, 0.9 * learned.get((other, word) if turned else (word, other), 0.0))
            best = max(best, value)
        total += weight * best
    return total


def contradictions(one: dict[str, float], other: dict[str, float]) -> float:
    """One point a family in which both say something and nothing of it is the same."""
    points = 0.0
    for family in FAMILIES:
        mine, theirs = family & one.keys(), family & other.keys()
        points += 1.0 * bool(mine and theirs and not mine & theirs)
    return points


def marks(segment: str) -> float | None:
    """0 for a name that says first (`fc_in`), 1 for one that says second (`out_layer`), None for others.

    Of norms, the attention's comes first and the feed-forward's second, wherever they stand in a block.
    """
    words = set(words_of(segment))
    if "norm" in words and words <= PLACES:
        words = words - {"attn", "mlp"} | ({"in"} if "attn" in words and "post" not in words else set())
        words |= {"post"} if "mlp" in words_of(segment) else set()
    first, second = bool(words & FIRST), bool(words & SECOND)
    return None if first == second else 0.0 if first else 1.0
