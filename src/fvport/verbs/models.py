# SPDX-License-Identifier: Apache-2.0
"""Verbs on both sides of a component, run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fvport.verbs import HERE, Json, PortDir, app, complete, load, out


@app.command()
def trace(
    component: Annotated[
        str, typer.Argument(help="The component, as port.toml names it.", autocompletion=complete.components)
    ],
    case: Annotated[str, typer.Option(help="Case of oracle.py (default: the first that differs).")] = "",
    native: Annotated[
        Path | None, typer.Option("--from", help="An activation trace (JSONL) that FastVideo wrote.")
    ] = None,
    official: Annotated[
        Path | None, typer.Option(help="With --from: the official side's, else the last trace's.")
    ] = None,
    port: PortDir = HERE,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Json = False,
) -> None:
    """Name the first module that differs by itself, and why: fvport trace transformer"""
    from fvport.parity import commands

    loaded = load(port)
    if native is not None:
        found = commands.trace_from(loaded, component, native, official)
    else:
        found = commands.trace(loaded, component, case=case, device=device)
    out(found.data, as_json, found.text())
    raise typer.Exit(0 if found.equal else 1)


@app.command()
def strength(
    components: Annotated[
        list[str] | None, typer.Argument(help="Only these components.", autocompletion=complete.components)
    ] = None,
    fault: Annotated[list[str] | None, typer.Option(help="Only this fault of the catalogue (more than once).")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again although nothing changed.")] = False,
    port: PortDir = HERE,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Json = False,
) -> None:
    """Plant faults that ports really had, one at a time, and count what parity sees: fvport strength transformer"""
    from fvport.parity import commands

    loaded = load(port)
    found = commands.strength(loaded, list(components or ()), device=device, fresh=fresh, faults=tuple(fault or ()))
    out(found.data, as_json, found.text())
    raise typer.Exit(0 if found.enough else 1)


@app.command()
def parallel(
    component: Annotated[
        str, typer.Argument(help="The component, as port.toml names it.", autocompletion=complete.components)
    ],
    tp: Annotated[int, typer.Option(help="Ranks that share each matrix (encoders: 2).")] = 0,
    sp: Annotated[int, typer.Option(help="Ranks that share the sequence (transformers: 2).")] = 0,
    time_limit: Annotated[float, typer.Option(help="Seconds for all ranks together.")] = 900.0,
    port: PortDir = HERE,
    device: Annotated[str, typer.Option(help="auto, cpu (gloo) or cuda (nccl).")] = "auto",
    as_json: Json = False,
) -> None:
    """Split a component over ranks by torchrun, each against the official model: fvport parallel transformer"""
    from fvport.parity import parallel as room
    from fvport.progress import beat
    from fvport.report import terminal

    loaded = load(port)
    with beat("parallel"):
        record = room.run(loaded, component, tp=tp, sp=sp, device=device, limit=time_limit)
    out(record.to_json(), as_json, terminal.record(record))
    raise typer.Exit({"pass": 0, "fail": 1, "blocked": 3}[record.verdict])
