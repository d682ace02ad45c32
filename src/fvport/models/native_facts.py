# SPDX-License-Identifier: Apache-2.0
"""Facts of the native side that belong to no one module: what FastVideo resolves, registers, schedules, tokenizes.

Asked through a child (`facts`), answered with FastVideo's own registry functions and loaders on the load tree.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fvport.errors import BlockedError, FvportError
from fvport.spec import Port

Json = dict[str, Any]
HUB = "hub id"
STEPS = (1, 2, 7, 20, 50)
PROMPTS = {
    "empty": [""],
    "plain": ["a fox runs through deep snow at dawn"],
    "long": ["a fox, then a river and a mountain under low clouds; " * 120],
    "unicode": ["  Füchse \u2014 \u72d0\u72f8 \U0001f98a na\u00efve\u00a0caf\u00e9 &amp;amp; 'quotes' <3\n\ttabs  "],
    "batch": ["one", "a rather longer second prompt, with commas, and more words", ""],
}


def questions(port: Port) -> Json:
    """What `config` and `smoke` want to know: schedules, tokens, and what each name of the model resolves to."""
    parts = port.components.items()
    paths = {"load tree": str(port.load_tree)}
    if not port.official.needs_conversion:  # else nothing loads the release, nor what lies between it and the load tree
        paths["official folder"] = str(port.official_tree)
    if hub := hub_id(port):
        paths[HUB] = hub
    return {
        "schedulers": [name for name, c in parts if c.kind == "scheduler"],
        "encoders": [name for name, c in parts if c.kind == "text_encoder" and c.tokenizer and c.mode != "passthrough"],
        "steps": sorted({*STEPS, int(port.official.pipeline.call.get("num_inference_steps", 4))}),
        "prompts": PROMPTS,
        "paths": paths,
    }


def hub_id(port: Port) -> str:
    from fvport.workspace import names

    return names.hub_id(port)


def facts(port: Port, device: str = "auto") -> Json:
    """What FastVideo makes of the port, kept by digest: `{"resolutions", "classes", "presets", "pipeline_config",
    "schedules", "tokens", "errors", "environment"}`.

    Raises BlockedError without a workspace or a load tree, FvportError when FastVideo cannot be started.
    """
    from fvport import evidence as ev
    from fvport import fastvideo_api
    from fvport.models import ask, kept

    fastvideo_api.check_workspace(port.root)
    if not (port.load_tree / "model_index.json").is_file():
        raise BlockedError("there is no load tree", where=str(port.load_tree), todo="Run: fvport check conversion")
    asked = questions(port)
    tree = sorted(port.load_tree.rglob("*"))
    texts = {str(f.relative_to(port.load_tree)): ev.blake3(f.read_bytes()) for f in tree if f.suffix == ".json"}
    sizes = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in tree if f.is_file() and f.suffix != ".json"]
    whole = [ask._common_digest(port, device), asked, texts, sizes, ev.digest(port, "port:components")]
    key = ev.blake3(ev.canonical(whole)).partition(":")[2][:32]
    file = port.state / "cache" / "native" / f"facts.{key}.json"
    with kept.alone(file):
        old: Json | None = ask._read(file)
        if old is not None:
            return old
        answer = _child(port, asked, device)
        if not answer["errors"]:
            part = file.with_suffix(f".{os.getpid()}.part")
            part.write_text(json.dumps(answer), encoding="utf-8")
            os.replace(part, file)
            kept.prune_files(file, "facts")
    return answer


def _child(port: Port, asked: Json, device: str) -> Json:
    from fvport import fastvideo_api
    from fvport.models import warm
    from fvport.models.forked import signal_words, tail

    folder = port.state / "cache" / "native"
    folder.mkdir(parents=True, exist_ok=True)
    job, out, log = (folder / f"asked.{os.getpid()}.{kind}" for kind in ("job", "answer", "log"))
    job.write_text(json.dumps(asked), encoding="utf-8")
    argv = [str(port.file), str(job), str(out), device]
    env = fastvideo_api.child_environment(port.root, device, backend=port.fastvideo.attention_backend)
    try:
        code = warm.run(port, "fvport.models.native_facts", argv, env=env, log=log, timeout=1200)
        if not out.is_file():
            death = signal_words(-code) if code < 0 else f"ended with code {code}"
            raise FvportError(f"the child that asks FastVideo {death}{tail(log)}")
        answer: Json = json.loads(out.read_text(encoding="utf-8"))
        return answer
    except subprocess.TimeoutExpired:
        raise FvportError(f"FastVideo gave no answer after 1200 s{tail(log)}") from None
    finally:
        for path in (job, out, log):
            path.unlink(missing_ok=True)


def main(argv: list[str]) -> int:
    from fvport import fastvideo_api, spec

    file, job, out, device = argv
    port = spec.parse(Path(file))
    asked = json.loads(Path(job).read_text(encoding="utf-8"))
    fastvideo_api.boot(port.root, device, distributed=False, backend=port.fastvideo.attention_backend)
    answer: Json = {"errors": {}}
    parts: dict[str, Callable[[Port, Json], Any]] = {
        "resolutions": resolutions,
        "classes": classes,
        "presets": presets,
        "pipeline_config": pipeline_config,
        "schedules": schedules,
        "tokens": tokens,
    }
    for name, part in parts.items():
        try:
            answer[name] = part(port, asked)
        except Exception as error:  # noqa: BLE001 - FastVideo may raise anything; the check says it in one sentence
            answer[name] = {}
            answer["errors"][name] = words(error)
    answer["environment"] = fastvideo_api.seen(port.root)
    part_file = Path(f"{out}.part")
    part_file.write_text(json.dumps(answer), encoding="utf-8")
    os.replace(part_file, out)
    return 0


def words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def shown(cls: Any) -> Json:
    """A class as data: `{"class": "module:Name", "file": absolute path}`."""
    return {"class": f"{cls.__module__}:{cls.__qualname__}", "file": str(Path(inspect.getfile(cls)).resolve())}


def resolutions(port: Port, asked: Json) -> Json:
    """{label: {"config", "pipeline", "family", "preset"} or {"error"}} for each path, as FastVideo resolves it."""
    from fastvideo import registry

    file = port.official_tree / "model_index.json"
    index = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    found = {}
    for label, path in asked["paths"].items():
        real = registry.maybe_download_model_index
        if label == HUB and index is not None:  # the release's own index, without the network; a folder has its own
            registry.maybe_download_model_index = lambda *args, **kwargs: dict(index)
        try:
            info = registry.get_model_info(path)
            preset, family = registry.get_preset_selection(path)
            config, pipeline = shown(info.pipeline_config_cls), shown(info.pipeline_cls)
            found[label] = {"path": path, "config": config, "pipeline": pipeline, "family": family, "preset": preset}
        except Exception as error:  # noqa: BLE001 - said per path
            found[label] = {"path": path, "error": words(error)}
        finally:
            registry.maybe_download_model_index = real
    return found


def classes(port: Port, asked: Json) -> Json:
    """{component: what the load tree's config names, and what the production ModelRegistry makes of it}."""
    from fastvideo.models.registry import ModelRegistry

    found = {}
    for name, component in port.components.items():
        if component.mode not in ("port", "reuse"):
            continue
        wanted = named_class(port.load_tree / (component.weights or name))
        entry: Json = {"asked": wanted}
        try:
            entry |= shown(ModelRegistry.resolve_model_cls(wanted)[0])
        except Exception as error:  # noqa: BLE001 - said per component
            entry["error"] = words(error)
        found[name] = entry
    return found


def named_class(folder: Path) -> str:
    """The class name in a component's config, as FastVideo's loaders read it: `_class_name`, else `architectures`."""
    for file in ("config.json", "scheduler_config.json"):
        if (folder / file).is_file():
            config = json.loads((folder / file).read_text(encoding="utf-8"))
            name: str = config.get("_class_name") or (config.get("architectures") or [""])[0]
            return name
    return ""


def presets(port: Port, asked: Json) -> Json:
    """{"registered": {name: {...}}, "fields": names of SamplingParam, "selected": its values on the load tree}."""
    from fastvideo.api.presets import get_presets_for_family
    from fastvideo.api.sampling_param import SamplingParam

    registered = {
        preset.name: {"defaults": plain(preset.defaults), "workload": preset.workload_type, "version": preset.version}
        for preset in get_presets_for_family(port.slug)
    }
    chosen = SamplingParam.from_pretrained(str(port.load_tree))
    fields = [f.name for f in dataclasses.fields(SamplingParam)]
    return {"registered": registered, "fields": fields, "selected": {f: plain(getattr(chosen, f)) for f in fields}}


def pipeline_config(port: Port, asked: Json) -> Json:
    """Its fields as they ship, precisions included."""
    from fvport.models import native

    config = native.arguments(port, "").pipeline_config
    return {f.name: plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def schedules(port: Port, asked: Json) -> Json:
    """Each scheduler through the production loader on the load tree, with the pipeline config's flow shift."""
    from fastvideo.models.loader.component_loader import SchedulerLoader

    from fvport.models import native
    from fvport.models.official_facts import table

    args = native.arguments(port)
    found: Json = {}
    for name in asked["schedulers"]:
        folder = str(port.load_tree / (port.component(name).weights or name))
        try:
            tables = {}
            for steps in asked["steps"]:
                scheduler = SchedulerLoader().load(folder, args)
                tables[str(steps)] = table(scheduler, steps)
            found[name] = {**shown(type(scheduler)), "config": plain(dict(scheduler.config)), "tables": tables}
            found[name]["flow_shift"] = getattr(args.pipeline_config, "flow_shift", None)
        except Exception as error:  # noqa: BLE001 - said per scheduler
            found[name] = {"error": words(error)}
    return found


def tokens(port: Port, asked: Json) -> Json:
    """{encoder: {"cases": {case: {"ids", "mask"}}, "kwargs"}} as FastVideo's text stage tokenizes for this port."""
    from fastvideo.models.loader.component_loader import TokenizerLoader

    from fvport.models import native

    config = native.arguments(port).pipeline_config
    names = [n for n, c in port.components.items() if c.kind == "text_encoder" and c.mode != "passthrough"]
    found: Json = {}
    for index, name in enumerate(names):
        if name not in asked["encoders"]:
            continue
        try:
            component = port.component(name)
            args = native.arguments(port)
            encoder = args.pipeline_config.text_encoder_configs[index]
            encoder.update_model_arch(_loader_config(port.load_tree / (component.weights or name)))
            tokenizer = TokenizerLoader().load(str(port.load_tree / component.tokenizer), args)
            tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
            kwargs = dict(encoder.tokenizer_kwargs)
            if getattr(config, "text_encoder_max_lengths", None):
                kwargs["max_length"] = config.text_encoder_max_lengths[index]
            clean = config.preprocess_text_funcs[index]
            cases = {}
            for case, prompts in asked["prompts"].items():
                texts = [clean(prompt) for prompt in prompts]
                if getattr(encoder, "treat_empty_as_dot", False):
                    texts = [text if text.strip() else "." for text in texts]
                out = tokenizer(texts, **kwargs)
                cases[case] = {"ids": out["input_ids"].tolist(), "mask": out["attention_mask"].tolist()}
            found[name] = {"cases": cases, "kwargs": plain(kwargs)}
        except Exception as error:  # noqa: BLE001 - said per encoder
            found[name] = {"error": words(error)}
    return found


def _loader_config(folder: Path) -> Json:
    """The encoder's JSON as TextEncoderLoader hands it to the config."""
    config: Json = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for key in ("_name_or_path", "transformers_version", "model_type", "tokenizer_class", "torch_dtype"):
        config.pop(key, None)
    return config


def plain(value: Any) -> Any:
    """JSON of a value: dataclasses become dicts, what JSON does not know becomes its name or repr."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    from fvport.models import official_facts

    return official_facts.plain(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
