# SPDX-License-Identifier: Apache-2.0
"""The names of the gate's own calls, `p<prompt>s<seed>`: generations, items and a cluster's jobs go by them."""

from __future__ import annotations

from fvport.spec import Port


def of(port: Port) -> dict[str, tuple[str, int]]:
    """{name: (prompt, seed)}, each prompt with each seed, in the order in which they are made."""
    told = port.official.pipeline
    return {f"p{i}s{seed}": (prompt, seed) for i, prompt in enumerate(told.prompts) for seed in told.seeds}


def words(port: Port) -> dict[str, str]:
    """{name: what a reader calls it}; a long prompt is cut."""
    found = {}
    for name, (prompt, seed) in of(port).items():
        short = prompt if len(prompt) <= 60 else f"{prompt[:60].rstrip()}…"
        found[name] = f'"{short}", seed {seed}'
    return found
