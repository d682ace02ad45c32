# SPDX-License-Identifier: Apache-2.0
"""What the modules of a model are, without its weights: names and shapes, norms and activations by how they behave,
scalars, what `forward` returns. For both sides of a reuse proof.

Run by its path for the official side (`python -I official_modules.py JOB OUT`, JOB `{"official", "folder", "oracle",
"import_roots", "name"}`); importing `fastvideo` or `fvport` in that process raises. The native side calls `facts`.
Norms and activations are run on fixed numbers with a gain of one and no bias: a name says less than an output.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import importlib.abc
import importlib.util
import inspect
import json
import math
import os
import re
import sys
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    Json = dict[str, Any]  # for hints only: an oracle of its own may have an old Python
ACTIVATION = re.compile(r"gelu|silu|swish|relu|sigmoid|tanh|mish|softplus|snake|activation|andmul", re.IGNORECASE)
NORM = re.compile(r"norm", re.IGNORECASE)
NOT_COMPARED = {"training", "call_super_init", "gradient_checkpointing", "p", "inplace", "dropout", "attention_dropout"}
WIDEST = 8192  # elements of the longest norm that is run


def facts(module: Any) -> Json:
    """`{"class", "tensors": {name: shape}, "modules": {path: {"class", "scalars", "norm"?, "activation"?}}, "output"}`.

    `norm` and `activation` hold numbers that the module answered with, or the words of why it could not be run.
    """
    found: Json = {"class": type(module).__module__ + ":" + type(module).__qualname__, "modules": {}}
    seen: set[int] = set()
    found["tensors"] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if hasattr(tensor, "shape") and id(tensor) not in seen:
            seen.add(id(tensor))
            found["tensors"][name] = list(tensor.shape)
    for path, part in module.named_modules():
        found["modules"][path] = of_module(part)
    found["output"] = output(module)
    return found


def of_module(part: Any) -> Json:
    """One module: its class, its plain attributes, and what it answers where it is a norm or an activation."""
    name = type(part).__name__
    entry: Json = {"class": name, "scalars": scalars(part)}
    own = list(part.parameters(recurse=False))
    if NORM.search(name) and not list(part.children()):
        entry["norm"] = answered(lambda: norm_probe(part))
    elif not own and not list(part.children()) and ACTIVATION.search(name):
        entry["activation"] = answered(lambda: activation_probe(part, name))
    functions = {
        key: value for key, value in vars(part).items() if inspect.isroutine(value) and not key.startswith("_")
    }
    for key, value in functions.items():
        if ACTIVATION.search(key + getattr(value, "__name__", "")) or re.search(r"\bact", key):
            entry["activation"] = answered(lambda value=value: activation_probe(value, ""))
    return entry


def scalars(part: Any) -> Json:
    """Numbers, booleans and short strings among a module's own attributes."""
    found: Json = {}
    for key, value in vars(part).items():
        if key.startswith("_") or key in NOT_COMPARED:
            continue
        if isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
            found[key] = value if not isinstance(value, str) else value[:80]
        elif isinstance(value, (tuple, list)) and len(value) <= 8 and all(isinstance(v, (int, float)) for v in value):
            found[key] = list(value)
    return found


def answered(probe: Any) -> Any:
    """The probe's numbers, or the words of what it raised."""
    try:
        return [round(float(value), 6) for value in probe()]
    except Exception as error:  # noqa: BLE001 - a module may want other inputs; that is said, not guessed
        return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"


def norm_probe(part: Any) -> list[float]:
    """The first eight numbers of a norm with gain one and bias zero, on small numbers with a mean: eps, mean and an
    offset of the gain all show.
    """
    import torch

    weights = dict(part.named_parameters(recurse=False))
    width = max([t.numel() for t in weights.values()] or [_width(part)])
    if width > WIDEST:
        raise ValueError("too wide to be run here")
    with torch.device("cpu"), torch.no_grad():
        own = _on_cpu(part).float().eval()
        for name, tensor in own.named_parameters(recurse=False):
            tensor.fill_(0.0 if name.endswith("bias") else 1.0)
        for name, tensor in own.named_buffers(recurse=False):
            tensor.fill_(1.0 if name.endswith("var") else 0.0)
        row = 0.004 * torch.sin(1.7 * torch.arange(width, dtype=torch.float32)) + 0.002
        if hasattr(own, "num_groups") or type(own).__name__.startswith("BatchNorm"):
            given = torch.stack([row, -2 * row, row + 0.01], -1)[None]
        else:
            given = row[None, None]
        answer = own(given)
        answer = answer[0] if isinstance(answer, tuple) else answer
        numbers: list[float] = answer.flatten()[:8].tolist()
        return numbers


def _width(part: Any) -> int:
    shape = getattr(part, "normalized_shape", None)
    if shape:
        return math.prod(shape) if isinstance(shape, (tuple, list)) else int(shape)
    return int(next((getattr(part, k) for k in ("hidden_size", "num_channels", "dim") if getattr(part, k, 0)), 64))


def _on_cpu(part: Any) -> Any:
    """A copy with memory of its own; what a copy cannot carry raises, and is said."""
    import torch

    own = copy.deepcopy(part)
    tensors = [*own.parameters(), *own.buffers()]
    return own.to_empty(device="cpu") if any(t.device == torch.device("meta") for t in tensors) else own.to("cpu")


def activation_probe(function: Any, name: str) -> list[float]:
    """Its values at 13 points from -3 to 3; a gated one is given ones for the other half."""
    import torch

    with torch.device("cpu"), torch.no_grad():
        points = torch.linspace(-3.0, 3.0, 13)
        given = torch.cat([points, torch.ones(13)]) if "AndMul" in name else points
        answer = function(given[None])
        if answer.numel() != 13:
            raise ValueError("it gives another number of values")
        return [round(value, 4) for value in answer.flatten().tolist()]


def output(module: Any) -> Json:
    """What `forward` says it returns: `{"annotation", "fields": names of the first dataclass in it}`."""
    forward = type(module).forward
    annotation = inspect.signature(forward).return_annotation
    text = "" if annotation is inspect.Signature.empty else str(getattr(annotation, "__name__", annotation))
    try:
        hint = typing.get_type_hints(forward).get("return")
    except Exception:  # noqa: BLE001 - a name that cannot be resolved: the words are kept
        hint = None
    for candidate in (hint, *typing.get_args(hint)):
        if inspect.isclass(candidate) and dataclasses.is_dataclass(candidate):
            fields = [field.name for field in dataclasses.fields(candidate)]
            return {"annotation": candidate.__name__, "fields": fields}
    home = vars(sys.modules.get(type(module).__module__, object()))
    for word in re.findall(r"\w+", text):
        candidate = home.get(word)
        if inspect.isclass(candidate) and dataclasses.is_dataclass(candidate):
            return {"annotation": word, "fields": [field.name for field in dataclasses.fields(candidate)]}
    return {"annotation": text, "fields": []}


# --- the official side -----------------------------------------------------------------------------------------------


class _Guard(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] in ("fastvideo", "fvport"):
            raise ImportError(f"the official side must not import {name}")


def main(argv: list[str]) -> int:
    sys.meta_path.insert(0, _Guard())
    job = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
    sys.path[:0] = job["import_roots"]
    try:
        answer = facts(build(job))
    except Exception as error:  # noqa: BLE001 - said in one sentence by whoever asked
        answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    part = Path(argv[1] + ".part")
    part.write_text(json.dumps(answer), encoding="utf-8")
    os.replace(part, argv[1])
    return 0


def build(job: Json) -> Any:
    """The official object on its config: on the meta device where it can be, else with memory, else by oracle.py."""
    import torch

    module, _, name = job["official"].partition(":")
    if module == "oracle":
        return built_by_oracle(job)
    cls = getattr(importlib.import_module(module), name)
    for device in ("meta", "cpu"):
        try:
            with torch.device(device):
                return on_config(cls, job["folder"])
        except Exception:
            if device == "cpu":
                if Path(job["oracle"]).is_file():
                    return built_by_oracle(job)
                raise
    raise AssertionError("unreachable")


def on_config(cls: Any, folder: str) -> Any:
    """A transformers class on its configuration class, else a diffusers class on its config."""
    if getattr(cls, "config_class", None) is not None:
        return cls(cls.config_class.from_pretrained(folder))
    return cls.from_config(cls.load_config(folder))


def built_by_oracle(job: Json) -> Any:
    import torch

    spec = importlib.util.spec_from_file_location("_fvport_oracle", job["oracle"])
    if spec is None or spec.loader is None:
        raise ImportError("there is no oracle.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, f"build_{job['name']}")(job["folder"], torch.float32)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
