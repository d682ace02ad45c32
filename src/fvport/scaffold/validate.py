# SPDX-License-Identifier: Apache-2.0
"""Answers to the template's questions: what is refused, in one sentence each, before anything is written."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fvport.errors import BlockedError, UsageError, did_you_mean
from fvport.scaffold import facts
from fvport.words import MODES, WORKLOADS

KEYS = (
    "model_name",
    "model_slug",
    "official_weights",
    "official_revision",
    "official_repo",
    "official_commit",
    "workload_type",
    "components",
    "fastvideo",
    "gate_device",
)
GIVEN = {"conversion": "__conversion"}  # answers that nobody is asked for, and their names in cookiecutter.json
DEVICES = ("cuda", "cpu")
SLUG = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def answers(given: Mapping[str, Any]) -> dict[str, str]:
    """The public answers, checked one by one. UsageError names the key and the value."""
    found = {key: given.get(key, "") for key in (*KEYS, *GIVEN)}
    for key, value in found.items():
        if not isinstance(value, str):
            raise UsageError(f"must be text, is {value!r}", where=key)
    if not found["model_name"].strip():
        raise UsageError("is empty", where="model_name", todo='Give the name that people use, such as "Tiny Wan"')
    slug(found["model_slug"])
    choice("workload_type", found["workload_type"], ("auto", *WORKLOADS))
    choice("gate_device", found["gate_device"], DEVICES)
    overrides(found["components"])
    fastvideo(found["fastvideo"])
    _commit(found["official_repo"], found["official_commit"])
    _word("official_revision", found["official_revision"] or "main")
    return found


def slug(text: str) -> str:
    """A name for files and modules that neither Python nor FastVideo has taken."""
    if not SLUG.fullmatch(text) or not 2 <= len(text) <= 40:
        todo = "Use 2 to 40 small letters, digits and single underscores, a letter first"
        near = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_0123456789")[:40].strip("_")
        raise UsageError(
            f"{text!r} is no slug", where="model_slug", todo=todo + (f', such as "{near}"' if len(near) > 1 else "")
        )
    if keyword.iskeyword(text) or keyword.issoftkeyword(text):
        raise UsageError(f'"{text}" is a Python keyword', where="model_slug", todo="Choose another slug")
    known = facts.fastvideo()
    if text in known["families"] or text in known["modules"]:
        kind = "model family" if text in known["families"] else "module"
        todo = f'Choose another slug, such as "{text}_port"'
        raise UsageError(f'FastVideo has a {kind} "{text}" already', where="model_slug", todo=todo)
    return text


def choice(key: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f'"{value}" is none of {", ".join(known)}.{did_you_mean(value, known)}', where=key)


def overrides(text: str) -> dict[str, str]:
    """`auto` -> {}; `transformer=port,vae=reuse` -> a mode by component name."""
    found: dict[str, str] = {}
    for part in (piece.strip() for piece in text.split(",")):
        if part in ("", "auto"):
            continue
        name, sign, mode = (piece.strip() for piece in part.partition("="))
        if not sign or not re.fullmatch(r"[A-Za-z]\w*", name):
            todo = "Say auto, or a list such as transformer=port,vae=reuse"
            raise UsageError(f'"{part}" is not name=mode', where="components", todo=todo)
        if mode not in MODES:
            what = f'"{name}={mode}": a mode is one of {", ".join(MODES)}.{did_you_mean(mode, MODES)}'
            raise UsageError(what, where="components")
        if found.get(name, mode) != mode:
            raise UsageError(f'"{name}" is given two modes ({found[name]}, {mode})', where="components")
        found[name] = mode
    return found


def known_components(wanted: Mapping[str, str], names: list[str]) -> None:
    """Overrides must speak of components that the release has."""
    for name in wanted:
        if name not in names:
            what = f'the release has no component "{name}" (it has: {", ".join(names)}).{did_you_mean(name, names)}'
            raise UsageError(what, where="components")


def fastvideo(text: str) -> dict[str, str]:
    """A version -> the wheel; a URL (with @ref) -> a clone; a path -> a worktree of that checkout."""
    text = text.strip()
    if not text or re.fullmatch(r"\d+(\.\w+)*", text):
        return {"source": "wheel", "version": text or facts.fastvideo()["version"], "repo": "", "ref": ""}
    _word("fastvideo", text)
    if re.match(r"(https?|ssh|git|file)://|git@", text):
        url, ref = text, ""
        if found := re.fullmatch(r"(.*/[^/]*?)@([^/@]+)", text):
            url, ref = found[1], found[2]
        return {"source": "clone", "version": "", "repo": url, "ref": ref}
    if not re.match(r"[./~]|[A-Za-z]:|\w+[/\\]", text):
        todo = "Give a version such as 0.2.1, a path to a checkout (./FastVideo), or a URL"
        raise UsageError(f"{text!r} is no version, path or URL", where="fastvideo", todo=todo)
    # an absolute path is this machine's: it stays out of the port, and `fvport workspace --at` says it again
    return {"source": "worktree", "version": "", "repo": "" if text[0] in "/~" else text, "ref": ""}


def _commit(repo: str, commit: str) -> None:
    _word("official_repo", repo or "-")
    if commit and not repo:
        raise UsageError("is given without official_repo", where="official_commit", todo="Give both, or neither")
    if commit and not re.fullmatch(r"[0-9a-f]{7,40}", commit):
        raise UsageError(f"{commit!r} is no commit", where="official_commit", todo="Give 7 to 40 hexadecimal digits")


def _word(key: str, value: str) -> None:
    if not value.isprintable() or value != value.strip() or (value.startswith("-") and value != "-"):
        raise UsageError(f"{value!r} is not usable", where=key)


def weights(text: str, cwd: Path) -> tuple[str, Path | None]:
    """(hub id or "", local path or None) of the answer `official_weights`. BlockedError where a path is missing."""
    text = text.strip()
    if not text:
        return "", None
    if "\0" in text or "\n" in text:
        raise UsageError(f"{text!r} is no path and no hub id", where="official_weights")
    path = (cwd / Path(text).expanduser()).absolute()
    if path.exists():
        return "", path
    first = text.split("/")[0]
    if HUB_ID.fullmatch(text) and not (cwd / first).exists() and not text.endswith((".json", ".safetensors")):
        return text, None
    todo = "Give a folder in Diffusers layout, an inspection.json, or a hub id such as Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
    raise BlockedError(f"there is no checkpoint at {text!r}", where="official_weights", todo=todo)
