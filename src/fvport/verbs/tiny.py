# SPDX-License-Identifier: Apache-2.0
"""Verb that makes tiny twins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fvport.verbs import Json, app, load, out


@app.command()
def tiny(
    source: Annotated[Path, typer.Argument(help="A release in Diffusers layout, or one component's folder.")],
    target: Annotated[Path, typer.Argument(help="Folder to write.", metavar="OUT")],
    seed: Annotated[int, typer.Option(help="Seed of every parameter.", min=0)] = 0,
    max_params: Annotated[int, typer.Option(help="Fail where a component stays above this (0: no limit).", min=0)] = 0,
    setting: Annotated[list[str] | None, typer.Option("--set", help="COMPONENT.KEY=VALUE, more than once.")] = None,
    port: Annotated[Path | None, typer.Option("--port", help="Take classes and `tiny` from this port.")] = None,
    as_json: Json = False,
) -> None:
    """Shrink an official release, with its structure, names and layout: fvport tiny official_weights/x build/x-tiny"""
    from fvport.progress import beat
    from fvport.tiny import overrides, write

    loaded = load(port) if port else None
    given = overrides.collect(source, setting or (), loaded)
    with beat("tiny"), overrides.official_path(loaded):
        made = write.run(source, target, seed=seed, limit=max_params, overrides=given, port=loaded)
    out(made.to_json(), as_json, made.text())
