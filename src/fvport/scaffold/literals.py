# SPDX-License-Identifier: Apache-2.0
"""Values as source text: Python literals that FastVideo's formatter leaves alone, and TOML values."""

from __future__ import annotations

import json
import math
import re
from typing import Any

WIDTH = 120


def pyrepr(value: Any, indent: int = 0, used: int = 0) -> str:
    """A Python literal for a place `used` columns into a line of a block that is indented by `indent`.

    On one line where it fits in 120 columns (with one column to spare for a comma or bracket), else one item a line
    with a trailing comma, which is what yapf keeps.
    """
    flat = _flat(value)
    if len(flat) + max(used, indent) + 1 <= WIDTH or not isinstance(value, (list, tuple, dict)) or not value:
        return flat
    pad = " " * (indent + 4)
    if isinstance(value, dict):
        rows = [f"{_flat(k)}: {pyrepr(v, indent + 4, indent + 4 + len(_flat(k)) + 2)}" for k, v in value.items()]
        opening, closing = "{", "}"
    else:
        rows = [pyrepr(item, indent + 4, indent + 4) for item in value]
        opening, closing = ("(", ")") if isinstance(value, tuple) else ("[", "]")
    body = "".join(f"{pad}{row},\n" for row in rows)
    return f"{opening}\n{body}{' ' * indent}{closing}"


def _flat(value: Any) -> str:
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flat(k)}: {_flat(v)}" for k, v in value.items()) + "}"
    if isinstance(value, tuple):
        # yapf puts a space behind the comma of a tuple of one
        return "(" + ", ".join(map(_flat, value)) + (", )" if len(value) == 1 else ")")
    if isinstance(value, list):
        return "[" + ", ".join(map(_flat, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return repr(value)


def tomlrepr(value: Any) -> str:
    """A TOML value on one line (strings basic and escaped; None is not TOML and is refused)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
        return re.sub(r"[\x7f-\x9f\u2028\u2029\ufeff]", lambda m: f"\\u{ord(m[0]):04x}", text)
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(tomlrepr, value)) + "]"
    if isinstance(value, dict):
        if not value:
            return "{}"
        return "{ " + ", ".join(f"{tomlkey(k)} = {tomlrepr(v)}" for k, v in value.items()) + " }"
    raise TypeError(f"no TOML value for {value!r}")


def tomlkey(key: str) -> str:
    """A bare key where TOML allows it, else a quoted one."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else tomlrepr(key)


def oneline(text: str) -> str:
    """Free text made safe for a comment, a docstring or a heading: one line, no backslash, double quote or markup."""
    text = "".join(c if c.isprintable() else " " for c in text)
    text = text.replace("\\", "/").replace('"', "'").replace("`", "'").replace("<", "(").replace(">", ")")
    return " ".join(re.sub(r"[{}|]", " ", text).split()) or "model"
