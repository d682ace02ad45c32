# SPDX-License-Identifier: Apache-2.0
"""What the native object is made of, looked at while it runs: whose classes, and whether a test changed them.

Reading source text can be talked round; the objects that computed cannot.
"""

from __future__ import annotations

import math
from typing import Any

OWN = ("fastvideo", "torch")
PLAIN = (bool, int, float, str, bytes, type(None))


def foreign(module: Any) -> list[str]:
    """Submodules whose class is neither FastVideo's (the port's among them) nor torch's: 'norm2 (diffusers....)'."""
    if not hasattr(module, "named_modules"):
        return [] if _home(module) in OWN else [f"the object itself ({_class(module)})"]
    return [f"{name or 'the object itself'} ({_class(m)})" for name, m in module.named_modules() if _home(m) not in OWN]


def state(module: Any) -> dict[str, Any]:
    """Public plain attributes of every submodule (eps, scales, flags), and the version of every parameter.

    Private attributes are left out: caches and counters of the model's own are kept there.
    """
    if not hasattr(module, "named_modules"):
        return {}
    found: dict[str, Any] = {}
    for path, part in module.named_modules():
        for key, value in vars(part).items():
            if isinstance(value, PLAIN) and not key.startswith("_"):
                found[f"{path}.{key}".lstrip(".")] = value
    for path, tensor in module.named_parameters():
        found[f"{path} (values)"] = tensor._version
    return found


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Names that a call changed. What appears for the first time is a cache of the model's own, and may."""
    return [key for key, value in before.items() if key not in after or not _same(value, after[key])]


def _same(a: Any, b: Any) -> bool:
    nan = isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b)
    return nan or a == b


def _home(thing: Any) -> str:
    return type(thing).__module__.partition(".")[0]


def _class(thing: Any) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"
