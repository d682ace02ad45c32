# SPDX-License-Identifier: Apache-2.0
"""`fvport new`: cookiecutter's own bake of this template, with answers checked and mistakes told in one sentence."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fvport.errors import FvportError, UsageError, did_you_mean
from fvport.scaffold import finish, validate


@dataclass(frozen=True)
class Baked:
    """Where the port lies and what the bake chose."""

    root: Path
    summary: dict[str, Any]
    files: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {"root": str(self.root), "files": self.files, **self.summary}

    def text(self) -> str:
        return finish.next_steps(self.summary, self.root)


def template_root() -> Path:
    """The template in a checkout (two folders above src/fvport) or in the installed package (`fvport/_template`)."""
    package = Path(__file__).resolve().parent.parent
    for root in (package.parent.parent, package / "_template"):
        if (root / "cookiecutter.json").is_file() and (root / "bake_ext.py").is_file():
            return root
    raise UsageError("the template is not beside this package", where=str(package), todo="Install fvport again")


def keys() -> dict[str, str]:
    """{key: default, or its choices} of the template's questions, in order."""
    return {key: ", ".join(v) if isinstance(v, list) else v for key, v in _questions().items()}


def _questions() -> dict[str, Any]:
    text = (template_root() / "cookiecutter.json").read_text(encoding="utf-8")
    asked = json.loads(text)
    more = {key: asked[name] for key, name in validate.GIVEN.items()}
    return {key: value for key, value in asked.items() if not key.startswith("_")} | more


def parse(answers: Sequence[str]) -> dict[str, str]:
    """`key=value` words as a dict. UsageError for an unknown key, a key given twice, or a word without `=`."""
    known, found = _questions(), {}
    for word in answers:
        key, sign, value = word.partition("=")
        if not sign:
            raise UsageError(f'"{word}" is not key=value', todo='Such as: fvport new model_name="Tiny Wan"')
        if key not in known:
            raise UsageError(f'unknown key "{key}" (fvport new --list names them).{did_you_mean(key, known)}')
        if key in found:
            raise UsageError(f'"{key}" is given twice')
        if isinstance(known[key], list) and value not in known[key]:
            raise UsageError(
                f'"{value}" is none of {", ".join(known[key])}.{did_you_mean(value, known[key])}', where=key
            )
        found[key] = value
    return found


def bake(answers: Sequence[str], output_dir: Path | str = ".", no_input: bool = False) -> Baked:
    """Bake a port below `output_dir`. Raises UsageError (2) or BlockedError (3); nothing is left where it raises."""
    given, root = parse(answers), template_root()
    output_dir = Path(output_dir)
    if output_dir.exists() and not output_dir.is_dir():
        raise UsageError("is not a folder", where=str(output_dir))
    from cookiecutter.exceptions import CookiecutterException, OutputDirExistsException

    try:
        project = Path(_cookiecutter(root, given, output_dir, no_input))
    except FvportError:
        raise
    except CookiecutterException as error:
        if isinstance(error.__cause__, FvportError):
            raise error.__cause__ from None
        if isinstance(error, OutputDirExistsException):
            raise UsageError(_sentence(error), todo="Choose another --output-dir or slug, or move it away") from None
        raise FvportError(f"the template failed: {_sentence(error)}") from error
    return _baked(project)


def _sentence(error: Exception) -> str:
    """cookiecutter's message without the context that some of its exceptions print."""
    inner = getattr(error, "error", None)
    message = getattr(error, "message", "") or str(error)
    return f"{message}{f' ({inner})' if inner else ''}".removeprefix("Error: ").rstrip(".")


def _cookiecutter(root: Path, given: dict[str, str], output_dir: Path, no_input: bool) -> str:
    """What cookiecutter.main does, less reading a user's configuration, writing a replay, and fetching templates."""
    from cookiecutter.exceptions import OutputDirExistsException
    from cookiecutter.generate import generate_context, generate_files
    from cookiecutter.prompt import prompt_for_config

    from fvport.scaffold import bridge

    bridge.forget()
    with _importable(root), _quiet():
        named = {validate.GIVEN.get(key, key): value for key, value in given.items()}
        made = generate_context(context_file=str(root / "cookiecutter.json"), extra_context=named)
        made["_cookiecutter"] = {k: v for k, v in made["cookiecutter"].items() if not k.startswith("_")}
        made["cookiecutter"].update(prompt_for_config(made, no_input))
        made["cookiecutter"].update(
            _template=str(root), _output_dir=str(output_dir.absolute()), _repo_dir=str(root), _checkout=None
        )
        project = output_dir / str(made["cookiecutter"]["model_slug"])
        if project.exists() or project.is_symlink():  # said before anything is rendered
            raise OutputDirExistsException(f'"{project}" already exists')
        try:
            return str(generate_files(repo_dir=str(root), context=made, output_dir=str(output_dir)))
        except BaseException:
            shutil.rmtree(project, ignore_errors=True)  # cookiecutter takes it away for errors of its own only
            raise


@contextlib.contextmanager
def _importable(root: Path) -> Iterator[None]:
    """bake_ext from this root, also where another template's was imported before."""
    sys.path.insert(0, str(root))
    sys.modules.pop("bake_ext", None)
    try:
        yield
    finally:
        sys.path.remove(str(root))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The hook says nothing: `fvport new` prints, or writes JSON."""
    before = os.environ.get(finish.QUIET)
    os.environ[finish.QUIET] = "1"
    try:
        yield
    finally:
        os.environ.pop(finish.QUIET) if before is None else os.environ.update({finish.QUIET: before})


def _baked(project: Path) -> Baked:
    from fvport.scaffold import bridge, render

    names = sorted(
        path.relative_to(project).as_posix()
        for folder, _, found in os.walk(project)
        for path in (Path(folder) / name for name in found)
    )
    return Baked(project, render.summary(bridge.current()), names)
