# SPDX-License-Identifier: Apache-2.0
"""Lines of an encoder's arch config: fields with the checkpoint's values, the rule table, the keys to leave out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fvport.scaffold.literals import pyrepr

BASE_TYPES = {  # fields of FastVideo's own arch configs that a checkpoint may set to a value of another type
    "pad_token_id": "int",
    "eos_token_id": "int",
    "hidden_state_skip_layer": "int",
    "decoder_start_token_id": "int",
}


def field_lines(config: Mapping[str, Any], names: Iterable[str], defaults: Mapping[str, Any]) -> list[str]:
    """Dataclass lines for `names`: the config's value, else the official class's default; absent where neither is."""
    found = []
    for name in names:
        if name not in config and name not in defaults:
            continue
        value = config.get(name, defaults.get(name))
        found.append(field_line(name, value))
    return found


def field_line(name: str, value: Any) -> str:
    """`head_dim: int = 64`, as FastVideo's formatter leaves it."""
    kind = annotation(value)
    text = pyrepr(value, 4, 4 + len(f"{name}: {kind} = "))
    if isinstance(value, (list, dict)):
        text = f"field(default_factory=lambda: {pyrepr(value, 4, 4 + len(f'{name}: {kind} = ') + 31)})"
    line = f"{name}: {kind} = {text}"
    if name in BASE_TYPES and kind != BASE_TYPES[name]:
        line += "  # type: ignore[assignment]"
    elif "\n" in text:  # where the formatter would break such a literal nobody can foresee
        line = f"# yapf: disable\n    {line}\n    # yapf: enable"
    return line


def annotation(value: Any) -> str:
    if value is None:
        return "Any"
    if isinstance(value, list):
        kinds = {type(item).__name__ for item in value}
        return f"list[{kinds.pop()}]" if len(kinds) == 1 else "list"
    return "dict[str, Any]" if isinstance(value, dict) else type(value).__name__


def prefix_of(tensors: Iterable[str], known: str, otherwise: str) -> str:
    """What stands before `known` in the release's names (`model.` before `embed_tokens.weight`)."""
    found = sorted((name for name in tensors if name == known or name.endswith(f".{known}")), key=len)
    return found[0][: -len(known)] if found else otherwise


Rules = list[tuple[str, "str | tuple[str, int, int]"]]


def rule_table(rules: Rules) -> str:
    """The field `param_names_mapping` of an encoder's arch config; names are matched as a whole."""
    rows = []
    for pattern, target in rules:
        text = f'r"{target}"' if isinstance(target, str) else f'(r"{target[0]}", {target[1]}, {target[2]})'
        row = f'        r"^{pattern}$": {text},'
        rows.append(row if len(row) <= 120 else f'        r"^{pattern}$":\n            {text},')
    return "\n".join(
        [
            "    # Checkpoint name -> ours, or (ours, its place, number of parts) for a part of a fused parameter.",
            "    # A name without a rule is refused.",
            "    # yapf: disable",
            "    param_names_mapping: dict[str, Any] = field(default_factory=lambda: {",
            *rows,
            "    })",
            "    # yapf: enable",
        ]
    )


def ignored_table(patterns: Iterable[str]) -> str:
    """The field `ignored_checkpoint_keys`: what is in this checkpoint and not in an encoder."""
    rows = list(patterns)
    if not rows:
        return "    ignored_checkpoint_keys: list[str] = field(default_factory=list)"
    lines = [f'        r"{row}",' for row in rows]
    head = "    ignored_checkpoint_keys: list[str] = field(default_factory=lambda: ["
    return "\n".join(["    # In the checkpoint, not in an encoder.", head, *lines, "    ])"])


def leaves(bias: bool) -> str:
    return "(weight|bias)" if bias else "(weight)"


def arch_line(arch: str, base: str) -> str:
    """The field `arch_config` of an encoder's config, broken where the formatter breaks it."""
    line = f"    arch_config: {base} = field(default_factory={arch})"
    return line if len(line) <= 120 else f"    arch_config: {base} = field(\n        default_factory={arch})"
