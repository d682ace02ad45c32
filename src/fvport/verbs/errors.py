# SPDX-License-Identifier: Apache-2.0
"""The verb that explains an error."""

from __future__ import annotations

from typing import Annotated

import typer

from fvport.verbs import Json, app, complete, out


@app.command()
def explain(
    id: Annotated[str, typer.Argument(help="The id at the end of the sentence.", autocompletion=complete.errors)],
    as_json: Json = False,
) -> None:
    """What is behind an error, what to do, and its page: fvport explain E0001"""
    from fvport import errors_catalogue

    entry = errors_catalogue.by_id(id)
    out(entry.to_json(), as_json, entry.text())
