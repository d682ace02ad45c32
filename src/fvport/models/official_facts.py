# SPDX-License-Identifier: Apache-2.0
"""Facts of the official side that need its library but no weights, from a process of its own.

defaults    what the official class takes where a config file is silent
signature   the official pipeline's call, with its defaults
schedules   timesteps and sigmas of the official scheduler for several step counts
tokens      token ids and masks as the official pipeline hands them to its encoder, seen by a stand-in for the encoder

Run by its path (`python -I official_facts.py JOB OUT`). Importing `fastvideo` or `fvport` in that process raises.
"""

from __future__ import annotations

import importlib
import importlib.abc
import inspect
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Json = dict[str, Any]


class _Guard(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] in ("fastvideo", "fvport"):
            raise ImportError(f"the official side must not import {name}")


def main(argv: list[str]) -> int:
    sys.meta_path.insert(0, _Guard())
    job = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
    sys.path[:0] = job.get("import_roots", [])
    answer: Json = {"errors": {}}
    parts: dict[str, Callable[[Json], Any]] = {
        "defaults": defaults,
        "signature": signature,
        "schedules": schedules,
        "tokens": tokens,
    }
    for name, part in parts.items():
        try:
            answer[name] = part(job)
        except Exception as error:  # noqa: BLE001 - any library may raise anything; the check says it in one sentence
            answer[name] = {}
            answer["errors"][name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    part_file = Path(argv[1]).with_suffix(".part")
    part_file.write_text(json.dumps(answer), encoding="utf-8")
    os.replace(part_file, argv[1])
    return 0


def load(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def defaults(job: Json) -> Json:
    """{component: {field: default}} of the class's constructor, or of its configuration class in transformers."""
    found = {}
    for c in job["components"]:
        cls = load(c["official"])
        config_class = getattr(cls, "config_class", None)
        if config_class is not None and c["official"].startswith("transformers"):
            values = config_class().to_dict()
        else:
            parameters = inspect.signature(cls.__init__).parameters.values()
            values = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
        found[c["name"]] = {key: plain(value) for key, value in values.items()}
    return found


def signature(job: Json) -> Json:
    if not job["pipeline"]:
        return {}
    call = load(job["pipeline"]).__call__
    return {
        p.name: plain(p.default) if p.default is not inspect.Parameter.empty else "<required>"
        for p in inspect.signature(call).parameters.values()
    }


def schedules(job: Json) -> Json:
    """{scheduler: {"config": {...}, "tables": {steps: {"timesteps": [...], "sigmas": [...]}}}}."""
    found = {}
    for c in job["schedulers"]:
        cls = load(c["official"])
        tables, config = {}, {}
        for case in job["steps"]:
            scheduler = cls.from_pretrained(c["folder"])
            config = {key: plain(value) for key, value in dict(scheduler.config).items()}
            tables[str(case)] = table(scheduler, case)
        found[c["name"]] = {"config": config, "tables": tables}
    return found


def table(scheduler: Any, steps: int) -> Json:
    """One schedule as lists of numbers. A scheduler that shifts by resolution gets the same `mu` on both sides."""
    kwargs = {}
    if getattr(scheduler.config, "use_dynamic_shifting", False):
        kwargs["mu"] = 0.83
    scheduler.set_timesteps(steps, **kwargs)
    sigmas = getattr(scheduler, "sigmas", None)
    return {
        "timesteps": [float(t) for t in scheduler.timesteps],
        "sigmas": [] if sigmas is None else [float(s) for s in sigmas],
    }


# --- tokens ----------------------------------------------------------------------------------------------------------


def stand_in_encoder(config: Json, seen: list[Json]) -> Any:
    """A module in a text encoder's place: keeps the ids and masks that it is called with, and answers zeros."""
    import torch

    width = next((config[k] for k in ("d_model", "hidden_size", "projection_dim") if config.get(k)), 8)
    layers = next((config[k] for k in ("num_layers", "num_hidden_layers") if config.get(k)), 2)

    class Encoder(torch.nn.Module):
        dtype, device = torch.float32, torch.device("cpu")

        def forward(self, input_ids: Any = None, attention_mask: Any = None, **kwargs: Any) -> Any:
            mask = attention_mask.tolist() if attention_mask is not None else None
            seen.append({"ids": input_ids.tolist(), "mask": mask})
            hidden = torch.zeros(*input_ids.shape, width)
            return _Output(hidden, [hidden] * (layers + 1), hidden[:, 0])

    encoder = Encoder()
    encoder.config = type("Config", (), config)()
    return encoder


class _Output:
    """What encoders answer with, by name and by position."""

    def __init__(self, hidden: Any, states: list[Any], pooled: Any) -> None:
        self.last_hidden_state, self.hidden_states = hidden, tuple(states)
        self.pooler_output = self.text_embeds = pooled

    def __getitem__(self, index: int) -> Any:
        return (self.last_hidden_state, self.pooler_output)[index]


def tokens(job: Json) -> Json:
    """{encoder: {case: {"ids": [...], "mask": [...]}}} as the official pipeline tokenizes each case of prompts."""
    if not job["pipeline"] or not job["encoders"]:
        return {}
    import torch
    from transformers import AutoTokenizer

    cls = load(job["pipeline"])
    seen: dict[str, list[Json]] = {}
    parts: Json = {}
    for c in job["encoders"]:
        seen[c["name"]] = []
        parts[c["name"]] = stand_in_encoder(json.loads(Path(c["config"]).read_text(encoding="utf-8")), seen[c["name"]])
        parts[c["tokenizer_name"]] = AutoTokenizer.from_pretrained(c["tokenizer"])
    device = torch.device("cpu")
    stand_in: Any = type(cls.__name__, (cls,), {"_execution_device": device, "device": device, "dtype": torch.float32})
    pipe = stand_in.__new__(stand_in)
    for name, part in parts.items():
        object.__setattr__(pipe, name, part)
    parameters = inspect.signature(pipe.encode_prompt).parameters
    call_defaults = signature(job)
    found: Json = {name: {} for name in seen}
    for case, prompts in job["prompts"].items():
        kwargs: Json = {"prompt": prompts}
        for name in ("max_sequence_length", "max_length", "tokenizer_max_length"):
            value = job["call"].get(name, call_defaults.get(name))
            if name in parameters and value not in (None, "<required>"):
                kwargs[name] = value
        for name, value in {"prompt_2": None, "prompt_3": None, "device": device, "num_images_per_prompt": 1}.items():
            if name in parameters and parameters[name].default is inspect.Parameter.empty:
                kwargs[name] = value
        if "do_classifier_free_guidance" in parameters:
            kwargs["do_classifier_free_guidance"] = False
        for records in seen.values():
            records.clear()
        try:
            pipe.encode_prompt(**kwargs)
        except Exception:
            if not any(seen.values()):
                raise
        for name, records in seen.items():
            if records:
                found[name][case] = records[0]
    return found


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return getattr(value, "name", None) or getattr(value, "__name__", None) or repr(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
