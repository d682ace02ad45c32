# SPDX-License-Identifier: Apache-2.0
"""The module tree of an official class, built on the meta device. Run by its path: `python -I FILE JOB OUT`.

JOB is `{"library", "cls", "config"}`; OUT gets `{"tree": {...}}` or `{"error": "one sentence"}`. No weight is read.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from pathlib import Path
from typing import Any

Json = dict[str, Any]


def build(library: str, cls: str, config: Json) -> Any:
    """The official module with the release's own config, without memory for its parameters."""
    import torch

    made = getattr(importlib.import_module(library), cls)
    config = {key: value for key, value in config.items() if not key.startswith("_")}
    with torch.device("meta"):
        if getattr(made, "config_class", None) is not None:  # transformers
            return made(made.config_class(**config))
        return made.from_config(config)


def node(module: Any) -> Json:
    """`{cls, home, repr, base, parameters, buffers, attributes, arguments, children}` of one module and those below."""
    import torch

    kind = type(module)
    bases = [
        b.__name__ for b in kind.__mro__[1:] if b.__module__.startswith("torch.nn.modules") and b.__name__ != "Module"
    ]
    kept = set(module.state_dict(keep_vars=True))
    return {
        "cls": kind.__name__,
        "home": kind.__module__,
        "repr": module.extra_repr() if kind.__module__.startswith("torch.nn") else "",
        "base": bases[0] if bases and not kind.__module__.startswith("torch.nn") else "",
        "base_repr": getattr(torch.nn, bases[0]).extra_repr(module) if bases and not _is_torch(kind) else "",
        "parameters": {k: list(v.shape) for k, v in module._parameters.items() if v is not None},
        "absent": [k for k, v in module._parameters.items() if v is None],
        "buffers": {k: list(v.shape) for k, v in module._buffers.items() if v is not None and k in kept},
        "attributes": {k: v for k, v in vars(module).items() if k[0] != "_" and _plain(v)},
        "empty": [k for k, v in module._modules.items() if v is None],
        "processor": type(getattr(module, "processor", None)).__name__,
        "arguments": _arguments(kind),
        "children": {k: node(v) for k, v in module._modules.items() if v is not None},
    }


def _is_torch(kind: type) -> bool:
    return kind.__module__.startswith("torch.nn")


def _plain(value: Any) -> bool:
    flat = (bool, int, float, str, type(None))
    return isinstance(value, flat) or (isinstance(value, (tuple, list)) and all(isinstance(v, flat) for v in value))


def _arguments(kind: Any) -> list[str]:
    """Names of what `forward` takes, those with a default marked by `=`."""
    try:
        found = inspect.signature(kind.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    named = [p for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "self"]
    return [p.name + ("=" if p.default is not p.empty else "") for p in named]


def main(argv: list[str]) -> int:
    job = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
    try:
        found: Json = {"tree": node(build(job["library"], job["cls"], job["config"]))}
    except Exception as error:  # noqa: BLE001 - a library may raise anything; the bake says it in one sentence
        found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    Path(argv[1]).write_text(json.dumps(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
