# SPDX-License-Identifier: Apache-2.0
"""The verb on classes that FastVideo already has."""

from __future__ import annotations

from typing import Annotated

import typer

from fvport.verbs import HERE, Json, PortDir, app, load, out


@app.command()
def reuse(
    component: Annotated[str, typer.Argument(help="A component; with --find also a component's folder.")],
    find: Annotated[bool, typer.Option("--find", help="Rank FastVideo's classes by names and shapes.")] = False,
    native: Annotated[str, typer.Option("--native", help="Another candidate, as MODULE:CLASS.")] = "",
    port: PortDir = HERE,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Json = False,
) -> None:
    """Whether a class of FastVideo's can serve an official one: fvport reuse vae; fvport reuse text_encoder --find"""
    from pathlib import Path

    from fvport.errors import BlockedError, UsageError
    from fvport.progress import beat
    from fvport.reuse import commands

    try:
        loaded = load(port)
    except (BlockedError, UsageError):
        if not (find and Path(component).is_dir()):
            raise
        loaded = None
    with beat("reuse"):
        if find:
            ranking = commands.find(loaded, component, device)
            out(ranking.to_json(), as_json, ranking.text())
            return
        result = commands.prove(loaded, component, native, device)
    out(result.to_json(), as_json, result.text())
    raise typer.Exit(0 if result.reusable else 1)
