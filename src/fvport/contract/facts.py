# SPDX-License-Identifier: Apache-2.0
"""The official tokenizers and preprocessors of a port, from a child of the oracle's environment, kept by digest."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from fvport import evidence as ev
from fvport.errors import FvportError
from fvport.spec import Component, Port

LIMIT = 900  # seconds
PACKAGES = ("transformers", "diffusers", "torch", "tokenizers", "sentencepiece", "ftfy", "pillow")  # what makes ids
Json = dict[str, Any]
_wrong: dict[Path, Json] = {}  # answers with an error: true of this process, and asked again by the next one


def has_tokens(component: Component) -> bool:
    return component.kind == "text_encoder" and bool(component.tokenizer) and component.mode != "passthrough"


def processor_of(port: Port, component: Component) -> Component | None:
    """The preprocessor whose output an image or audio encoder is given: the port's only one, else by its name."""
    if component.kind not in ("image_encoder", "audio_encoder"):
        return None
    found = {name: c for name, c in port.components.items() if c.kind == "processor"}
    if len(found) == 1:
        return next(iter(found.values()))
    end = component.name.rpartition("encoder")[2]  # image_encoder_2 -> _2
    names = (f"image_processor{end}", f"feature_extractor{end}", f"processor{end}")
    return next((found[name] for name in names if name in found), None)


def own_text_stage(port: Port) -> bool:
    """Whether the port's pipeline makes its prompt with a stage of its own: it adds its stages itself, and
    `TextEncodingStage` is none of them.
    """
    folder = port.root / "fastvideo" / "pipelines" / "basic" / port.slug
    trees = []
    for file in sorted(folder.rglob("*.py")):
        with contextlib.suppress(OSError, ValueError, SyntaxError):
            trees.append(ast.parse(file.read_text(encoding="utf-8")))
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {"TextEncodingStage"}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            names |= {a.asname for a in node.names if a.name == "TextEncodingStage" and a.asname}
    called = {getattr(n.func, "id", getattr(n.func, "attr", "")) for n in nodes if isinstance(n, ast.Call)}
    return "add_stage" in called and "create_pipeline_stages" not in called and not called & names


def official(port: Port) -> Json:
    """`{"tokens": {encoder: ...}, "processors": {encoder: ...}}` of every encoder of the port.

    Raises FvportError where the official library gives no answer at all.
    """
    from fvport.models import kept

    job = _job(port)
    if not job["encoders"] and not job["processors"]:
        return {"tokens": {}, "processors": {}}
    file = port.state / "cache" / "contract" / f"official.{_key(port, job)}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    with kept.alone(file):
        if file in _wrong:
            return _wrong[file]
        if file.is_file():
            answer = dict(json.loads(file.read_text(encoding="utf-8")))
        else:
            answer = _child(port, job, file)
            kept.prune_files(file, "official")
        if failed(answer):  # a missing library, a disk that was full: nothing that a digest could say
            file.unlink(missing_ok=True)
            _wrong[file] = answer
    return answer


def failed(answer: Json) -> bool:
    """Whether an answer says an error of any encoder."""
    found = [entry for group in answer.values() for entry in group.values()]
    return any(entry.get("error") or entry.get("cases_error") for entry in found)


def _child(port: Port, job: Json, file: Path) -> Json:
    from fvport.models import official_contract
    from fvport.models.forked import tail
    from fvport.parity import oracle

    asked, log = file.with_suffix(f".{os.getpid()}.job"), file.with_suffix(f".{os.getpid()}.log")
    asked.write_text(json.dumps(job), encoding="utf-8")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "FASTVIDEO_", "FVPORT_"))}
    env["HF_HUB_OFFLINE"] = "1"
    command = [oracle._python(port), "-I", official_contract.__file__, str(asked), str(file)]
    try:
        with log.open("wb") as stream:
            subprocess.run(
                command, check=False, env=env, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, timeout=LIMIT
            )
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except subprocess.TimeoutExpired:
        raise FvportError(f"the official tokenizers gave no answer within {LIMIT} s{tail(log)}") from None
    except (OSError, ValueError):
        raise FvportError(f"the official tokenizers gave no answer{tail(log)}") from None
    finally:
        asked.unlink(missing_ok=True)
        log.unlink(missing_ok=True)


def _job(port: Port) -> Json:
    from fvport.models import native_facts

    base, parts = port.official_tree.resolve(), port.components
    texts = [c for c in parts.values() if has_tokens(c) and (base / c.tokenizer).is_dir()]
    images = {c.name: p for c in parts.values() if (p := processor_of(port, c)) is not None}
    index = _index(base)
    pipeline = port.official.pipeline.cls

    def text(c: Component) -> Json:
        folder = base / (c.weights or c.name)
        return {
            "name": c.name,
            "config": str(folder / "config.json"),
            "tokenizer": str(base / c.tokenizer),
            "tokenizer_name": c.tokenizer,
        }

    def image(name: str, p: Component) -> Json:
        entry = index.get(p.weights or p.name)
        cls = p.official.partition(":")[2] or (entry[1] if isinstance(entry, list) else "")
        sound = parts[name].kind == "audio_encoder"
        return {"name": name, "class": cls or "", "folder": str(base / (p.weights or p.name)), "sound": sound}

    return {
        "encoders": [text(c) for c in texts],
        "processors": [image(name, p) for name, p in images.items()],
        "prompts": native_facts.PROMPTS,
        "pipeline": "" if pipeline.startswith("oracle:") else pipeline,
        "call": port.official.pipeline.call,
        "oracle": str(port.folder / "oracle.py"),
        "import_roots": [str(port.import_root)] if port.import_root else [],
    }


def _index(base: Path) -> Json:
    try:
        found = json.loads((base / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _key(port: Port, job: Json) -> str:
    from fvport.models import official_contract, official_facts
    from fvport.parity import oracle

    folders = [one["tokenizer"] for one in job["encoders"]] + [one["folder"] for one in job["processors"]]
    files = [f for folder in folders for f in sorted(Path(folder).rglob("*")) if f.is_file()]
    own = [Path(m.__file__ or "") for m in (official_contract, official_facts)]
    own += [Path(__file__).with_name("tokenizer.py"), port.folder / "oracle.py"]
    whole = {
        "job": job,
        "files": [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files],
        "code": [ev.blake3(f.read_bytes()) for f in own if f.is_file()] + [oracle.code(port)],
        "configs": [ev.blake3(f.read_bytes()) for c in job["encoders"] if (f := Path(c["config"])).is_file()],
        "packages": ev.digests(port, [f"package:{name}" for name in PACKAGES]),
    }
    return ev.blake3(ev.canonical(whole)).partition(":")[2][:32]
