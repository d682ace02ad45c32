# SPDX-License-Identifier: Apache-2.0
"""Names and shapes of FastVideo's native classes on the meta device, by default and on official configs, in a child.

`python -m fvport.models.native_structures JOB OUT`: JOB is `{"root", "device", "classes": [module:Class],
"configs": {label: official config}, "wanted": {module:Class: [label]}}`. FastVideo is imported once, and each class is
built in a fork of its own, where it can fail, crash or hang. OUT is `{module:Class: {label: {"tensors", "config"} or
{"error"}, "rules"}}`, where the label "" is the class on its own defaults. No weights are read.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import json
import os
import resource
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fvport.models import forked
from fvport.models.native import own_tensors

Json = dict[str, Any]
SHARED = 3  # fields that an official config and a native one have at least in common, where one is for the other
EVERYWHERE = {"architectures", "output_hidden_states", "use_return_dict"}
EVERYWHERE |= {"pad_token_id", "bos_token_id", "eos_token_id"}
MEMORY = 6 << 30  # bytes that building one class may take: a structure needs none
LIMIT = 120.0  # seconds of one class with all its configs
# How deep a class is on its own defaults: its structure repeats, and what a config class leaves open must be filled.
DEPTHS = (
    "num_layers",
    "num_hidden_layers",
    "num_single_layers",
    "depth",
    "num_refiner_layers",
    "num_blocks",
    "n_layers",
)
DEPTH = 3
OPEN: Json = {
    "num_key_value_heads": 8,
    "head_dim": 128,
    "rope_scaling": {"rope_type": "default", "mrope_section": [16, 24, 24]},
}


def main(argv: list[str]) -> int:
    from fvport import fastvideo_api

    forked.interrupt_on_sigterm()
    job = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    fastvideo_api.boot(Path(job["root"]), job["device"], distributed=False)
    found: Json = {}
    with tempfile.TemporaryDirectory(prefix="fvport-structures-") as logs:
        for number, name in enumerate(job["classes"]):
            labels = job["wanted"].get(name, list(job["configs"]))
            if problem := _imported(name):
                found[name] = {"": {"error": problem}}
                continue

            def answer(name: str = name, labels: list[str] = labels) -> Json:
                resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
                fastvideo_api.init_distributed()
                return of_class(name, {label: job["configs"][label] for label in labels}, job["defaults"])

            done = forked.run(answer, name=name, log=Path(logs, f"{number}.log"), timeout=LIMIT)
            found[name] = done.value if done.status == "done" else {"": {"error": done.message}}
    part = Path(f"{argv[1]}.part")
    part.write_text(json.dumps(found), encoding="utf-8")
    os.replace(part, argv[1])
    return 0


def _imported(name: str) -> str:
    """'' where the class could be imported, here so that every later fork has its module too."""
    try:
        located(name)
    except Exception as error:  # noqa: BLE001 - said of this class
        return f"cannot be imported ({_words(error)})"
    return ""


def located(name: str) -> Any:
    """The class that `module:Class` names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def of_class(name: str, configs: dict[str, Json], defaults: bool) -> Json:
    """One class: `{label: {"tensors": {name: shape}, "config": module:Class} or {"error"}, "rules": [[], []]}`."""
    cls = located(name)
    found: Json = {"rules": [[], []], "bases": [base.__name__ for base in cls.__mro__[1:]]}
    for label, given in {**({"": None} if defaults else {}), **configs}.items():
        try:
            module, config = built(cls, given)
            found[label] = {"tensors": {k: list(v.shape) for k, v in own_tensors(module).items()}, "config": config}
            found["rules"] = rules(module)
        except Exception as error:  # noqa: BLE001 - the next config is tried
            found[label] = {"error": _words(error)}
    return found


def rules(module: Any) -> list[list[Any]]:
    """[param_names_mapping as pairs, stacked_params_mapping as rows] as the class or its config declares them."""
    arch = getattr(getattr(module, "config", None), "arch_config", None)
    names = getattr(module, "param_names_mapping", None) or getattr(arch, "param_names_mapping", None) or {}
    pairs = names.items() if isinstance(names, dict) else ()
    stacked = getattr(arch, "stacked_params_mapping", None) or []
    return [
        [[p, list(t) if isinstance(t, (tuple, list)) else t] for p, t in pairs if isinstance(t, (str, tuple, list))],
        [[str(part) if index < 2 else part for index, part in enumerate(row)] for row in stacked],
    ]


def built(cls: Any, given: Json | None) -> tuple[Any, str]:
    """(the class on the meta device, the config class it was built on); `given` is the official config or None.

    Raises what the first, nearest way of building raised.
    """
    import torch

    problems: list[Exception] = []
    for make, name in ways(cls, given):
        for device in ("meta", "cpu"):
            if device == "cpu" and not (_small(given) and "meta" in str(problems[-1])):
                break  # what the meta device cannot build is built with memory at tiny size only
            try:
                with torch.device(device):
                    return make(), name
            except Exception as error:  # noqa: BLE001 - the next way is tried
                problems.append(error)
    words = "the official config says nothing that it reads" if given else "no way to build it without a config"
    raise (problems or [LookupError(words)])[0]


def _shared(config_class: Any, given: Json) -> int:
    """How many fields of the official config the arch config has, those that every config has apart."""
    arch = config_class().arch_config
    own = {f for f in given if f in getattr(arch, "__dataclass_fields__", {}) or f in vars(arch)}
    return len(own - EVERYWHERE)


def _small(given: Json | None) -> bool:
    widths = [v for k, v in (given or {}).items() if isinstance(v, int) and ("dim" in k or "size" in k or "width" in k)]
    return bool(given) and max(widths, default=10**9) <= 512


def ways(cls: Any, given: Json | None) -> Iterator[tuple[Any, str]]:
    """Each (function that builds it, name of its config): on FastVideo's config classes, a dict, or arguments."""
    parameters = inspect.signature(cls.__init__).parameters
    clean = {key: value for key, value in (given or {}).items() if not key.startswith("_")}
    annotation = str(getattr(parameters.get("config"), "annotation", ""))
    more = ("hf_config",) if "hf_config" in parameters else ()
    if "config" in parameters and "dict" not in annotation:
        for config_class in config_classes(cls, annotation):
            if given is not None and _shared(config_class, clean) < SHARED:
                continue
            for filled in (False, True):

                def make(config_class: Any = config_class, filled: bool = filled) -> Any:
                    config = updated(config_class, clean, filled)
                    return cls(config, **dict.fromkeys(more, copy.deepcopy(clean)))

                yield make, f"{config_class.__module__}:{config_class.__qualname__}"
    if given is None:
        return
    if "dict" in annotation:
        yield (lambda: cls(copy.deepcopy(clean))), "dict"
        return
    known = {key: value for key, value in clean.items() if key in parameters}
    if known or not set(parameters) - {"self"}:
        yield (lambda: cls(**copy.deepcopy(known))), "arguments"


def updated(config_class: Any, given: Json, filled: bool = False) -> Any:
    """The config with the official fields on it, as FastVideo's loaders put them there; `filled`: open ones filled."""
    config = config_class()
    arch = config.arch_config
    for key, value in OPEN.items() if filled else ():
        if getattr(arch, key, None) in (None, 0):
            setattr(arch, key, value)
    for key in DEPTHS:
        depth = getattr(arch, key, None)
        if hasattr(arch, key) and (depth is None or (type(depth) is int and depth > DEPTH)):
            setattr(arch, key, DEPTH)
    if given:
        config.update_model_arch(copy.deepcopy(given))
        for key in ("num_hidden_layers_override",):  # how a pipeline of FastVideo's cuts the tower, not its structure
            if getattr(config, key, None) is not None:
                setattr(config, key, None)
    return config


def config_classes(cls: Any, annotation: str) -> list[Any]:
    """Config classes that the constructor may mean: the annotated one, those of the module, of the config file of its
    name, and of its bases' modules; the nearest first.
    """
    words = set(annotation.replace("'", " ").replace(".", " ").replace('"', " ").replace("|", " ").split())
    found: dict[Any, int] = {}
    for depth, base in enumerate(c for c in cls.__mro__ if c.__module__.startswith("fastvideo.")):
        home = sys.modules[base.__module__]
        parts = base.__module__.split(".")
        twins = [home]
        for stem in (parts[3:], parts[3:-1]):
            try:
                twins.append(importlib.import_module(".".join(["fastvideo.configs.models", *parts[2:3], *stem])))
            except ImportError:
                continue
        for order, module in enumerate(twins):
            for name, item in vars(module).items():
                if inspect.isclass(item) and name.endswith("Config") and _has_arch(item):
                    rank = (name not in words) * 100 + depth * 10 + order
                    rank += 5 * (cls.__name__[:6].lower() not in name.lower()) + 3 * (
                        "Text" in name != "Text" in cls.__name__
                    )
                    found[item] = min(found.get(item, 10**6), rank)
    ranked = sorted(found, key=lambda item: found[item])
    plain = [item for item in ranked if item.__name__ not in _BASES]
    return (plain or ranked)[:4]


_BASES = (
    "DiTConfig",
    "EncoderConfig",
    "TextEncoderConfig",
    "ImageEncoderConfig",
    "VAEConfig",
    "ModelConfig",
    "AudioEncoderConfig",
)


def _has_arch(item: Any) -> bool:
    fields = getattr(item, "__dataclass_fields__", {})
    return "arch_config" in fields


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
