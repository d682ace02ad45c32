# SPDX-License-Identifier: Apache-2.0
"""Verbs on the machine itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fvport.verbs import Json, app, load, out


@app.command()
def doctor(
    port: Annotated[Path | None, typer.Option("--port", help="Also look at what this port needs.")] = None,
    as_json: Json = False,
) -> None:
    """What this machine has and lacks, row by row, with what to do: fvport doctor --port build/tiny_wan"""
    from fvport import doctor as doctors

    found = doctors.examine(load(port) if port else None)
    out(found.to_json(), as_json, found.text())
    raise typer.Exit(0 if found.verdict == "pass" else 3)
