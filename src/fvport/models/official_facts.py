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
import importlib.util
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
    job["errors"] = answer["errors"]
    end_with_parent()
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
            answer["errors"][name] = words(error)
    part_file = Path(argv[1]).with_suffix(".part")
    part_file.write_text(json.dumps(answer), encoding="utf-8")
    os.replace(part_file, argv[1])
    return 0


def end_with_parent() -> None:
    """SIGKILL when the process that asked is gone (Linux)."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
    except (OSError, AttributeError):
        pass


def words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def load(name: str, job: Json | None = None) -> Any:
    """`module:attribute`; module "oracle" is the port's oracle.py."""
    module, _, attribute = name.partition(":")
    return getattr(oracle(job or {}) if module == "oracle" else importlib.import_module(module), attribute)


def oracle(job: Json) -> Any:
    """The port's oracle.py, by its path, once."""
    if "_fvport_oracle" not in sys.modules:
        spec = importlib.util.spec_from_file_location("_fvport_oracle", job.get("oracle", ""))
        if spec is None or spec.loader is None:
            raise ImportError("there is no oracle.py to ask")
        module = importlib.util.module_from_spec(spec)
        sys.modules["_fvport_oracle"] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules["_fvport_oracle"]
            raise
    return sys.modules["_fvport_oracle"]


def official_class(c: Json, job: Json) -> Any:
    """The class that a component names; of a function of oracle.py, the class of what it builds."""
    found = load(c["official"], job)
    if inspect.isclass(found):
        return found
    import torch

    return type(found(c["folder"], torch.float32))


def of_each(job: Json, kind: str, answer: Callable[[Json], Any]) -> Json:
    """An answer for each component of a kind; what one component raises is that component's error and no other's."""
    found = {}
    for c in job[kind]:
        try:
            found[c["name"]] = answer(c)
        except Exception as error:  # noqa: BLE001 - any library may raise anything; the check says it in one sentence
            job["errors"][c["name"]] = words(error)
    return found


def defaults(job: Json) -> Json:
    """{component: {field: default}} of the class's constructor, or of its configuration class in transformers."""

    def of(c: Json) -> Json:
        cls: Any = official_class(c, job)
        config_class = getattr(cls, "config_class", None)
        if config_class is not None and cls.__module__.startswith("transformers"):
            values = config_class().to_dict()
        else:
            parameters = inspect.signature(cls.__init__).parameters.values()
            values = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
        return {key: plain(value) for key, value in values.items()}

    return of_each(job, "components", of)


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

    def of(c: Json) -> Json:
        named: Any = load(c["official"], job)
        built = not isinstance(named, type)  # a function of oracle.py
        tables, config = {}, {}
        for case in job["steps"]:
            scheduler = named(c["folder"], None) if built else named.from_pretrained(c["folder"])
            config = {key: plain(value) for key, value in dict(getattr(scheduler, "config", {})).items()}
            tables[str(case)] = table(scheduler, case)
        return {"config": config, "tables": tables}

    return of_each(job, "schedulers", of)


def table(scheduler: Any, steps: int) -> Json:
    """One schedule as lists of numbers. A scheduler that shifts by resolution gets the same `mu` on both sides."""
    kwargs = {}
    if getattr(getattr(scheduler, "config", None), "use_dynamic_shifting", False):
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
    projected = any(str(name).endswith("WithProjection") for name in config.get("architectures") or ())
    layers = next((config[k] for k in ("num_layers", "num_hidden_layers") if config.get(k)), 2)

    class Encoder(torch.nn.Module):
        dtype, device = torch.float32, torch.device("cpu")

        def forward(self, input_ids: Any = None, attention_mask: Any = None, **kwargs: Any) -> Any:
            mask = attention_mask.tolist() if attention_mask is not None else None
            seen.append({"ids": input_ids.tolist(), "mask": mask})
            hidden = torch.zeros(*input_ids.shape, width)
            return _Output(hidden, [hidden] * (layers + 1), hidden[:, 0], projected)

    encoder = Encoder()
    encoder.config = type("Config", (), config)()
    return encoder


class _Output:
    """What encoders answer with, by name and by position; one with a projection answers with the pooled state first."""

    def __init__(self, hidden: Any, states: list[Any], pooled: Any, projected: bool = False) -> None:
        self.projected = projected
        self.last_hidden_state, self.hidden_states = hidden, tuple(states)
        self.pooler_output = self.text_embeds = pooled

    def __getitem__(self, index: int) -> Any:
        both = (self.last_hidden_state, self.pooler_output)
        return (both[::-1] if self.projected else both)[index]


def tokens(job: Json) -> Json:
    """{encoder: {case: {"ids": [...], "mask": [...]}}} as the official pipeline tokenizes each case of prompts."""
    own = of_each(
        {**job, "encoders": [c for c in job["encoders"] if job.get("oracle") and own_tokens(c, job)]},
        "encoders",
        lambda c: {case: own_tokens(c, job)(c["tokenizer"], prompts) for case, prompts in job["prompts"].items()},
    )
    if not job["pipeline"] or len(own) == len(job["encoders"]):
        return own
    return {**seen_tokens(job), **own}


def own_tokens(c: Json, job: Json) -> Any:
    """`tokens_<encoder>(tokenizer folder, prompts) -> {"ids", "mask"}` of oracle.py, for a pipeline without
    `encode_prompt`; None where it has none.
    """
    return getattr(oracle(job), f"tokens_{c['name']}", None)


class _Config(dict[str, Any]):
    """A component's configuration, by key and by attribute, as the libraries' own are."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def stand_in_part(c: Json) -> Any:
    """An object in a component's place that has its configuration and nothing else."""
    import torch

    files = (Path(c["folder"], name) for name in ("config.json", "scheduler_config.json"))
    config: Json = next((json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()), {})
    members = {"config": _Config(config), "dtype": torch.float32, "device": torch.device("cpu")}
    return type(c["official"].rpartition(":")[2] or "Part", (), members)()


def stand_in_pipeline(cls: Any, parts: Json, job: Json) -> Any:
    """The pipeline without weights, made by its own constructor: what it derives from its components is then there.

    `parts` are its encoders' stand-ins and its tokenizers. The others are stand-ins with a configuration, else None;
    where the constructor takes no components, or cannot do with these, the object is bare.
    """
    import torch

    device = torch.device("cpu")
    members = {"_execution_device": device, "device": device, "dtype": torch.float32}
    stand_in: Any = type(cls.__name__, (cls,), members)
    accepted = {name: p for name, p in inspect.signature(cls.__init__).parameters.items() if name != "self"}
    others = {c["name"]: stand_in_part(c) for c in [*job.get("components", ()), *job.get("schedulers", ())]}
    pipe = None
    for around in (others, {}) if set(parts) <= set(accepted) else ():
        required = {name: None for name, p in accepted.items() if p.default is p.empty and p.kind not in (2, 4)}
        given = required | {name: part for name, part in (around | parts).items() if name in accepted}
        pipe = stand_in.__new__(stand_in)
        try:
            pipe.__init__(**given)
            break
        except Exception:  # noqa: BLE001 - a constructor may want anything of a component
            pipe = None
    pipe = stand_in.__new__(stand_in) if pipe is None else pipe
    for name, part in parts.items():
        object.__setattr__(pipe, name, part)
    return pipe


def seen_tokens(job: Json) -> Json:
    """Ids and masks as `encode_prompt` of the official pipeline hands them to a stand-in for each encoder."""
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
    pipe = stand_in_pipeline(cls, parts, job)
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
        except Exception as error:
            if not any(seen.values()):
                raise
            for name in (name for name, records in seen.items() if not records):
                job["errors"].setdefault(name, words(error))  # it stopped before this encoder was asked
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
