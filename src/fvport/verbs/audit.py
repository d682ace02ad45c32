# SPDX-License-Identifier: Apache-2.0
"""The parity census of the installed FastVideo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fvport.verbs import Json, app, out


@app.command()
def audit(
    cases: Annotated[
        list[str] | None, typer.Argument(help="Cases, or families (default: all).", metavar="CASE")
    ] = None,
    as_json: Json = False,
    html: Annotated[Path | None, typer.Option("--html", help="Also write the census as one HTML file.")] = None,
    docs: Annotated[Path | None, typer.Option("--docs", help="Also write the census as a Markdown page.")] = None,
    control: Annotated[
        bool, typer.Option("--control", help="Noise on every native parameter must turn every equal case red.")
    ] = False,
    names: Annotated[bool, typer.Option("--list", help="Name the cases and stop.")] = False,
    strength: Annotated[
        bool,
        typer.Option("--strength", help="Plant faults in every equal case: what the comparison and the trace see."),
    ] = False,
    log: Annotated[str, typer.Option("--log", help="With --strength: keep each case here at once, and go on.")] = "",
) -> None:
    """Every native class of FastVideo against its official twin, at tiny size: fvport audit cosmos2 wan/i2v

    A difference is a fact about FastVideo, not a failure of the census. Exit code 1 where something is unexplained, or
    where the control is missed.
    """
    from fvport.audit import page, run, show

    if names:
        found = [case.name for case in run.chosen(list(cases or []))]
        out(found, as_json, "\n".join(found))
        return
    if strength:
        from fvport.audit import strength as strengths

        found_ = strengths.strengths(list(cases or []), log=log)
        out(found_, as_json, strengths.text(found_))
        if not found_["ok"]:
            raise typer.Exit(1)
        return
    page.writable(html, docs)
    census = run.census(list(cases or []), control=control)
    for file, make in ((html, page.html), (docs, page.markdown)):
        if file:
            file.write_text(make(census), encoding="utf-8")
    out(census, as_json, show.text(census))
    if census["unexplained"] or (census["control"] or {}).get("missed"):
        raise typer.Exit(1)
