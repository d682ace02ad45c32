# SPDX-License-Identifier: Apache-2.0
"""Lines of the arch config of a transformer or an autoencoder, as FastVideo's formatter leaves them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fvport.scaffold.literals import WIDTH, pyrepr

Target = str | tuple[str, int, int]


def config_field(value: Any, name: str, kind: str, why: str = "") -> str:
    """`    name: kind = value`, a list through a default factory; `why` is a comment behind it."""
    head = f"    {name}: {kind} = "
    if isinstance(value, (list, tuple, dict)):
        opening = "field(default_factory=lambda: "
        text = f"{opening}{pyrepr(_plain(value), 4, len(head) + len(opening) + 1)})"
    else:
        text = pyrepr(value)
    line = f"{head}{text}" + (f"  # {why}" if why else "")
    if "\n" in line or len(line) > WIDTH:  # where the formatter would break such a literal nobody can foresee
        line = f"    # yapf: disable\n{line}\n    # yapf: enable"
    return line


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def dit_rules(rules: Mapping[str, Target]) -> str:
    """The field `param_names_mapping` of a transformer's arch config; a name that no rule matches keeps its name."""
    rows = []
    for pattern, target in rules.items():
        text = f'r"{target}"' if isinstance(target, str) else f'(r"{target[0]}", {target[1]}, {target[2]})'
        row = f'        r"^{pattern}$": {text},'
        rows.append(row if len(row) <= WIDTH else f'        r"^{pattern}$":\n            {text},')
    return "\n".join(
        [
            "    # Checkpoint name -> ours. A name that no rule matches keeps its name.",
            "    # yapf: disable",
            "    param_names_mapping: dict = field(default_factory=lambda: {",
            *rows,
            "    })",
            "    # yapf: enable",
        ]
    )
