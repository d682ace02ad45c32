# SPDX-License-Identifier: Apache-2.0
"""Ask about the native side without importing FastVideo here: a child answers, and answers are kept by digest.

rules   what FastVideo declares about names (`native.rules` makes `weights.mapping.Rules` of it)
meta    the native state dict's names, shapes and dtypes, built on the meta device
schema  native class, its file, pipeline config, and the arch config's fields after FastVideo's own update
prototype  class, names and shapes without weights, built on the meta device and with random values
state   the loaded state dict, written as safetensors (never kept: it is the proof of what a load really did)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fvport import evidence as ev
from fvport import fastvideo_api
from fvport.errors import BlockedError, FvportError, UsageError, did_you_mean
from fvport.models import kept, warm
from fvport.models.forked import signal_words, tail
from fvport.spec import Port

QUESTIONS = ("rules", "meta", "schema", "state", "prototype")
TIME_LIMIT = 1800.0  # seconds for one child, whatever it is asked

Question = tuple[str, str]  # what, component


def ask(port: Port, what: str, component: str, device: str = "auto") -> Any:
    """The answer to one question as parsed JSON. Raises FvportError naming the component where there is none."""
    return ask_many(port, [(what, component)], device)[what, component]


def ask_many(port: Port, questions: Iterable[Question], device: str = "auto") -> dict[Question, Any]:
    """Answers to all questions from at most one child. Raises FvportError for the first that has none."""
    answers = try_many(port, questions, device)
    for (what, component), answer in answers.items():
        if "error" in answer:
            kind = BlockedError if answer.get("status") == "blocked" else FvportError
            raise kind(answer["error"], where=f"{component} ({what})", todo=answer.get("todo", ""))
    return {question: answer["value"] for question, answer in answers.items()}


def try_many(port: Port, questions: Iterable[Question], device: str = "auto") -> dict[Question, dict[str, Any]]:
    """Like `ask_many`, but each answer is `{"value"}` or `{"error": sentence, "status", "todo"}`."""
    questions = list(dict.fromkeys(questions))
    for what, component in questions:
        port.component(component)
        if what not in QUESTIONS:
            raise UsageError(f'no question "{what}" ({", ".join(QUESTIONS)}).{did_you_mean(what, QUESTIONS)}')
    fastvideo_api.check_workspace(port.root)
    base = _common_digest(port, device)
    answers: dict[Question, dict[str, Any]] = {}
    for question in questions:
        old = _read(_cache_file(port, base, question))
        if old is not None:
            answers[question] = {"value": old}
    missing = [question for question in questions if question not in answers]
    if missing:
        fresh = _child(port, missing, device)
        for question, answer in fresh.items():
            answers[question] = answer
            if "value" in answer and question[0] != "state":
                _write(_cache_file(port, base, question), answer["value"])
    return {question: answers[question] for question in questions}


# --- the child --------------------------------------------------------------------------------


def _child(port: Port, questions: list[Question], device: str) -> dict[Question, dict[str, Any]]:
    folder = port.state / "cache" / "native"
    folder.mkdir(parents=True, exist_ok=True)
    out, log = folder / f"answer.{os.getpid()}.json", folder / f"ask.{os.getpid()}.log"
    words = [f"{what}:{component}" for what, component in questions]
    argv = [str(port.file), str(out), device, *words]
    env = fastvideo_api.child_environment(port.root, device, backend=port.fastvideo.attention_backend)
    try:
        code = warm.run(port, "fvport.models.native_answers", argv, env=env, log=log, timeout=TIME_LIMIT)
        data = _read(out)
        if data is None:
            raise FvportError(_death(code) + tail(log), where=", ".join(words))
        return {question: data[f"{question[0]}:{question[1]}"] for question in questions}
    except subprocess.TimeoutExpired:
        raise FvportError(f"no answer after {TIME_LIMIT:.0f} s{tail(log)}", where=", ".join(words)) from None
    finally:
        out.unlink(missing_ok=True)
        log.unlink(missing_ok=True)


def _death(code: int) -> str:
    return f"the child that loads FastVideo {signal_words(-code) if code < 0 else f'ended with code {code}'}"


# --- what an answer depends on --------------------------------------------------------------------


def _common_digest(port: Port, device: str) -> dict[str, str]:
    names = ["tree:fastvideo", "package:fvport", "package:torch", "package:transformers", "package:diffusers"]
    names += ["package:safetensors", "port:port", "port:fastvideo"]
    index = port.load_tree / "model_index.json"
    return {
        **ev.digests(port, names),
        "device": fastvideo_api.resolve_device(device),
        "backend": port.fastvideo.attention_backend,
        "python": sys.version,
        "index": ev.blake3(index.read_bytes()) if index.is_file() else "absent",
    }


def _cache_file(port: Port, base: dict[str, str], question: Question) -> Path:
    what, name = question
    component = port.component(name)
    section = {k: v for k, v in port.raw["components"][name].items() if k not in ("mapping", "tolerance", "tiny")}
    folder = port.load_tree / (component.weights or name)
    files = {file.name: ev.blake3(file.read_bytes()) for file in sorted(folder.glob("*.json"))}
    whole = {**base, "what": what, "section": section, "weights": ev.digest(port, f"weights:{name}"), "files": files}
    weights = sorted(folder.glob("*.safetensors"))  # `rules` of a reused encoder are watched on a real load
    whole["sizes"] = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in weights]
    key = ev.blake3(ev.canonical(whole)).partition(":")[2][:32]
    return port.state / "cache" / "native" / f"{name}.{what}.{key}.json"


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write(file: Path, value: Any) -> None:
    """Beside and rename; the newest answer to a question replaces the older ones.

    A file of another process that is at work has no digest in its name, and is let alone.
    """
    name, what, *_ = file.name.split(".")
    part = file.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(value), encoding="utf-8")
    os.replace(part, file)
    kept.prune_files(file, f"{name}.{what}")
