# SPDX-License-Identifier: Apache-2.0
"""The verb that explains an error or a numbered rule."""

from __future__ import annotations

from typing import Annotated

import typer

from fvport.verbs import Json, app, complete, out


@app.command()
def explain(
    id: Annotated[str, typer.Argument(help="As at the end of a sentence, or FV113.", autocompletion=complete.errors)],
    as_json: Json = False,
) -> None:
    """What is behind an error, or what a numbered rule asks for, and its page: fvport explain FV113"""
    from fvport import errors_catalogue

    entry = errors_catalogue.by_id(id)
    out(entry.to_json(), as_json, entry.text())
