# SPDX-License-Identifier: Apache-2.0
"""Between cookiecutter and the scaffold: the names `p` and `bake` in its templates, and answers kept as data."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment
from jinja2.runtime import Context

from fvport.errors import FvportError
from fvport.scaffold import bytecode, context, finish, render, validate
from fvport.scaffold.context import PortContext

_last: dict[str, Any] = {}  # the port of the bake under way: {"answers": ..., "p": PortContext}


def connect(environment: Environment, root: Path, package_path: Path, refuse: type[Exception]) -> None:
    """Give templates of this environment `p` and `bake`; raise `refuse` with one sentence for what is wrong."""
    environment.filters.update(render.FILTERS)
    environment.bytecode_cache = bytecode.cache()
    cwd = Path.cwd()

    class PortVariables(Context):
        """Resolves `p` and `bake` from the answers, when a template first asks."""

        def resolve_or_missing(self, key: str) -> Any:
            if key not in ("p", "bake", "cookiecutter"):
                return super().resolve_or_missing(key)
            values = super().resolve_or_missing("cookiecutter")
            if key == "cookiecutter":
                if isinstance(values, dict) and "_template" in values:  # the answers are complete (also in a replay)
                    _port(values, cwd, refuse)
                return values
            p = _port(values, cwd, refuse)
            return p if key == "p" else finish.payload(p, package_path)

    environment.context_class = PortVariables


def _port(values: dict[str, Any], cwd: Path, refuse: type[Exception]) -> PortContext:
    """The port of these answers. Built once a bake: while the questions are answered it is always built anew."""
    answers = {key: values.get(validate.GIVEN.get(key, key), "") for key in (*validate.KEYS, *validate.GIVEN)}
    repository = _public_address(str(values.get("_template", "")))
    if _last.get("answers") != answers or ("_template" not in values and _last.get("cwd") != (cwd, id(values))):
        try:
            _last.update(p=context.build(answers, cwd), answers=answers, cwd=(cwd, id(values)))
        except FvportError as error:
            _last.clear()
            raise refuse(str(error)) from error
    p: PortContext = _last["p"]
    p.repository = repository
    return p


def _public_address(template: str) -> str:
    """The template's address when it is one that another machine can use; '' for a path."""
    for short, url in (("gh:", "https://github.com/"), ("gl:", "https://gitlab.com/")):
        if template.startswith(short):
            return url + template[len(short) :]
    return template if template.startswith(("https://", "ssh://", "git@")) else ""


def as_data(source: str, root: Path) -> str:
    """`source` unless it is an answer with jinja's braces in it: then a template that renders to the answer's text."""
    # jinja also makes \n of every other line end
    if not any(tag in source for tag in ("{{", "{%", "{#", "\r")) or source in _own(root):
        return source
    if "{{cookiecutter.model_slug}}" in source or source.startswith("# SPDX-License-Identifier"):
        return source  # a path of the template, or the hook
    return "{{ " + json.dumps(source, ensure_ascii=False) + " }}"


@cache
def _own(root: Path) -> frozenset[str]:
    """Every string of the template's own cookiecutter.json."""
    found: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, str):
            found.add(value)
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            walk(item)

    walk(json.loads((root / "cookiecutter.json").read_text(encoding="utf-8")))
    return frozenset(found)


def forget() -> None:
    """Start a bake in a process that has baked before."""
    _last.clear()


def current() -> PortContext:
    """The port that was baked last in this process."""
    p: PortContext = _last["p"]
    return p
