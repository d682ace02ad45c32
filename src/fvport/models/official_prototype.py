# SPDX-License-Identifier: Apache-2.0
"""Instantiate an official class with the release's own arguments: `python -I official_prototype.py JOB OUT`.

First on the meta device, for names and shapes; then, where it fits, with random weights on the CPU. No weight of the
release is read, and no code of it is run. Run by its path in the oracle's environment; importing `fastvideo` or
`fvport` raises there.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import sys
from pathlib import Path
from typing import Any

LIMIT = 2 << 30  # bytes of parameters that are made with random values


def facts_module() -> Any:
    spec = importlib.util.spec_from_file_location("_fvport_facts", Path(__file__).with_name("official_facts.py"))
    if spec is None or spec.loader is None:
        raise ImportError("official_facts.py is not beside this file")
    module = importlib.util.module_from_spec(spec)
    sys.modules["_fvport_facts"] = module
    spec.loader.exec_module(module)
    return module


def prototype(job: dict[str, Any], facts: Any) -> dict[str, Any]:
    """`{"class", "tensors", "built_on", "arguments", "unknown", "concerns"}`; raises what the class raises."""
    import torch

    cls = facts.load(job["official"], job)
    if not inspect.isclass(cls):
        return of_function(cls, job)
    config, concerns = job["config"], []
    make, arguments, unknown = maker(cls, config)
    if unknown:
        concerns.append(f"config.json has keys that {cls.__name__} does not know: {', '.join(unknown)}")
    with torch.device("meta"):
        model = make()
    tensors = table(model)
    size = sum(p.numel() * 4 for p in model.parameters())
    answer = {"class": f"{cls.__module__}:{cls.__qualname__}", "tensors": tensors, "built_on": "meta"}
    answer |= {"arguments": facts.plain(arguments), "unknown": unknown, "concerns": concerns, "bytes": size}
    if size > LIMIT:
        concerns.append(f"not made with random weights: {size / 2**30:.1f} GiB in float32 is over the limit")
        return answer
    torch.manual_seed(0)
    made = make().float().eval()
    answer["random"] = filled(made)
    if table(made).keys() != tensors.keys():
        concerns.append("names with random weights are others than on the meta device")
    return answer


def maker(cls: Any, config: dict[str, Any]) -> tuple[Any, Any, list[str]]:
    """(function that builds it, its arguments, keys of the config that the class does not know)."""
    given = {key: value for key, value in config.items() if not key.startswith("_")}
    config_class = getattr(cls, "config_class", None)
    if config_class is not None and hasattr(config_class, "from_dict"):
        known = {*config_class().to_dict(), *inspect.signature(config_class.__init__).parameters}
        book = ("architectures", "model_type", "torch_dtype", "dtype", "transformers_version", "auto_map")
        unknown = sorted(key for key in given if key not in known and key not in book)
        made = config_class.from_dict(dict(config))
        made._attn_implementation = "eager"
        return (lambda: cls(made)), made.to_dict(), unknown
    if hasattr(cls, "from_config"):
        parameters = inspect.signature(cls.__init__).parameters
        open_ = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        unknown = [] if open_ else sorted(key for key in given if key not in parameters)
        known_only = {key: value for key, value in given.items() if open_ or key in parameters}
        return (lambda: cls.from_config(dict(known_only))), known_only, unknown
    return (lambda: cls(**given)), given, []


def of_function(function: Any, job: dict[str, Any]) -> dict[str, Any]:
    """A function of oracle.py builds from the release's folder, and so reads its weights: names and shapes of that."""
    import torch

    built = function(job["folder"], torch.float32)
    held = built if isinstance(built, torch.nn.Module) else None
    for value in () if held is not None else vars(built).values():
        held = held or (value if isinstance(value, torch.nn.Module) else None)
    if held is None:
        raise TypeError(f"{job['official']} returned a {type(built).__name__} without a model")
    words = "built by oracle.py's function, which reads the release's weights: not on the meta device"
    plain = {"class": f"{type(held).__module__}:{type(held).__qualname__}", "tensors": table(held)}
    return {**plain, "built_on": "weights", "arguments": {"folder": "the release"}, "unknown": [], "concerns": [words]}


def table(model: Any) -> dict[str, Any]:
    """Each tensor once: one that is tied stands under its first name only, which says so."""
    found: dict[str, Any] = {}
    first: dict[int, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not hasattr(tensor, "shape"):
            continue
        if id(tensor) in first:
            found[first[id(tensor)]].setdefault("tied", []).append(name)
            continue
        first[id(tensor)] = name
        found[name] = {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
    return found


def filled(model: Any) -> dict[str, Any]:
    """Random values in every parameter, and whether all of them are finite numbers."""
    import torch

    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return {"parameters": sum(p.numel() for p in model.parameters()), "modules": sum(1 for _ in model.modules())}


def main(argv: list[str]) -> int:
    facts = facts_module()
    sys.meta_path.insert(0, facts._Guard())
    job = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
    sys.path[:0] = job.get("import_roots", [])
    facts.end_with_parent()
    try:
        answer: dict[str, Any] = prototype(job, facts)
    except Exception as error:  # noqa: BLE001 - the parent tells the user
        answer = {"error": facts.words(error)}
    part = Path(argv[1]).with_suffix(".part")
    part.write_text(json.dumps(answer, default=str), encoding="utf-8")
    os.replace(part, argv[1])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
