# SPDX-License-Identifier: Apache-2.0
"""Native source for an official class that no archetype covers, from its module tree (`ask`, `write`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fvport.scaffold.skeleton import ask
from fvport.scaffold.skeleton.write import Writer, lists_of_blocks

KINDS = ("dit", "vae", "upsampler", "vocoder")  # FastVideo builds others in ways that differ from class to class
HEADS = ("num_attention_heads", "n_heads", "num_heads")
SIZES = ("hidden_size", "dim", "inner_dim", "embed_dim")
HEAD_SIZES = ("attention_head_dim", "head_dim")
OWN = tuple(f"self.{name} = " for name in ("hidden_size", "num_attention_heads", "num_channels_latents", "config"))
CHANNELS = ("in_channels", "latent_channels", "in_dim")


@dataclass(frozen=True)
class Skeleton:
    """What a template writes. `passthrough`: patterns of names that are kept, which are all of them."""

    classes: list[str]
    imports: list[str]
    body: list[str]
    forward: list[str]
    blocks: list[str]
    decisions: list[str]
    passthrough: list[str]
    sizes: dict[str, str]


def of(c: Any) -> tuple[Skeleton | None, str]:
    """(the skeleton of a component, '') or (None, why there is none). Asks the official library once a class."""
    if c.kind not in KINDS:
        return None, f"FastVideo builds a {c.kind} in a way of its own"
    tree, why = ask.tree(c.library, c.official_class, c.config)
    if not tree:
        return None, why
    writer = Writer(c.config, c.native_class)
    writer.prepare(tree)
    body = [line for line in writer.body(tree) if not line.strip().startswith(OWN)]
    forward = writer.forward(tree)
    names = sorted(tree["children"] | tree["parameters"] | tree["buffers"])
    own = sorted(tree["parameters"] | tree["buffers"])
    patterns = [rf"^{name}$" if name in own else rf"^{name}\." for name in names if _stored(c, name)]
    found = sizes(c.config) if c.kind == "dit" else {}
    left = [*writer.decisions, *(name for name, value in found.items() if not value)]
    imports, blocks = sorted(writer.imports), lists_of_blocks(tree)
    return Skeleton(writer.classes, imports, body, forward, blocks, left, patterns, found), ""


def _stored(c: Any, name: str) -> bool:
    """Whether the release has a tensor below this name (a module without parameters has none)."""
    return not c.tensors or any(key == name or key.startswith(f"{name}.") for key in c.tensors)


def sizes(config: dict[str, Any]) -> dict[str, str]:
    """{attribute that FastVideo asks of a transformer: expression}, '' where the config has no field that says it."""

    def first(names: tuple[str, ...]) -> str:
        return next((f"config.{name}" for name in names if isinstance(config.get(name), int)), "")

    heads, head, size = first(HEADS), first(HEAD_SIZES), first(SIZES)
    return {
        "hidden_size": size or (f"{heads} * {head}" if heads and head else ""),
        "num_attention_heads": heads,
        "num_channels_latents": first(CHANNELS),
    }
