# SPDX-License-Identifier: Apache-2.0
"""Asks the official library for the module tree of a class, in a process of an environment that has it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from fvport.scaffold.skeleton import official_tree

LIMIT = 180  # seconds
LIBRARIES = ("diffusers", "transformers")
ASKED: dict[tuple[str, str, str], tuple[dict[str, Any], str]] = {}  # a bake asks for the same class several times


def tree(library: str, cls: str, config: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """(the tree, '') or ({}, why there is none). Nothing is started for a class that the library does not have."""
    key = (library, cls, json.dumps(config, sort_keys=True, default=str))
    if key not in ASKED:
        ASKED[key] = _tree(*key)
    return ASKED[key]


def _tree(library: str, cls: str, config: str) -> tuple[dict[str, Any], str]:
    root, _, inside = library.partition(".")
    if root not in LIBRARIES or not cls:
        return {}, f"the class is not one of {' or '.join(LIBRARIES)}"
    python, package = _environment(root)
    if not package:
        return {}, f"{library} is not installed where the bake runs (FVPORT_ENV names an environment that has it)"
    if not _names(package.joinpath(*inside.split(".")) if inside else package, cls):
        return {}, f"the installed {library} has no {cls}"
    with tempfile.TemporaryDirectory(prefix="fvport-tree-") as folder:
        job, out = Path(folder, "job.json"), Path(folder, "out.json")
        job.write_text(json.dumps({"library": library, "cls": cls, "config": json.loads(config)}), encoding="utf-8")
        command = [python, "-I", official_tree.__file__, str(job), str(out)]
        try:
            subprocess.run(command, check=False, capture_output=True, timeout=LIMIT)
            found = json.loads(out.read_text(encoding="utf-8"))
        except (subprocess.TimeoutExpired, OSError, ValueError):
            return {}, f"{library} gave no module tree of {cls} within {LIMIT} s"
    return found.get("tree", {}), found.get("error", "")


def module(library: str) -> str:
    """Where a release's word for a library leads: `ltx` is diffusers.pipelines.ltx, if the installed diffusers has it.

    A model_index.json names classes that lie beside a pipeline by the pipeline's folder.
    """
    if library in LIBRARIES or not library.isidentifier():
        return library
    _, package = _environment("diffusers")
    there = package is not None and (package / "pipelines" / library / "__init__.py").is_file()
    return f"diffusers.pipelines.{library}" if there else library


def _environment(library: str) -> tuple[str, Path | None]:
    """(python, the library's folder) of FVPORT_ENV, else of this process."""
    root = os.environ.get("FVPORT_ENV", "")
    for folder in sorted(Path(root).glob("lib/python3*/site-packages")) if root else []:
        if (folder / library).is_dir() and (folder / "torch").is_dir():
            return str(Path(root) / "bin" / "python"), folder / library
    spec = importlib.util.find_spec(library)
    if spec is None or not spec.origin or importlib.util.find_spec("torch") is None:
        return sys.executable, None
    return sys.executable, Path(spec.origin).parent


def _names(package: Path, cls: str) -> bool:
    """Whether the library exports this class, as its top level says it (transformers says it below models/)."""
    word = re.compile(rf"\b{re.escape(cls)}\b")
    if word.search((package / "__init__.py").read_text(encoding="utf-8")):
        return True
    return package.name == "transformers" and any(
        word.search(file.read_text(encoding="utf-8", errors="replace"))
        for file in package.glob("models/*/modeling_*.py")
    )
