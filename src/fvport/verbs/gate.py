# SPDX-License-Identifier: Apache-2.0
"""Verbs of the alignment gate: check, decide, report, say what is next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fvport.verbs import HERE, Json, PortDir, app, complete, load, out


@app.command()
def check(
    name: Annotated[
        str, typer.Argument(help="mapping, keys, config, conversion, parity, smoke ...", autocompletion=complete.checks)
    ],
    components: Annotated[
        list[str] | None, typer.Argument(help="Only these components.", autocompletion=complete.components)
    ] = None,
    port: PortDir = HERE,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    bootstrap: Annotated[bool, typer.Option("--bootstrap", help="ssim: write draft references.")] = False,
    blocks: Annotated[str, typer.Option(help="parity of one component: only these blocks, such as 0,1,-1.")] = "",
    scale: Annotated[str, typer.Option(help="full, or tiny: keys to parity on a tiny twin of the release.")] = "full",
    variant: Annotated[str, typer.Option(help="Only this variant, or base; else the port and all its variants.")] = "",
    as_json: Json = False,
) -> None:
    """Run one check of the alignment gate and leave its evidence: fvport check parity transformer"""
    from fvport import checks
    from fvport.report import terminal

    options = checks.Options(components=tuple(components or ()), device=device, extra={"bootstrap": bootstrap})
    further: list[Any] = []
    if scale != "full":
        from fvport.parity import tiny_scale

        record = tiny_scale.asked(load(port), name, scale, blocks, options)
    elif blocks:
        from fvport.parity import blocks as some

        record = some.run(load(port), name, blocks, options)
    else:
        record, *further = checks.run_all(load(port), name, options, variant)
    told = [record, *further]
    document = record.to_json() | ({"variants": [one.to_json() for one in further]} if further else {})
    out(document, as_json, "\n\n".join(terminal.record(one, options.components) for one in told))
    words = {one.verdict for one in told}
    raise typer.Exit(1 if "fail" in words else 3 if "blocked" in words else 0)


@app.command()
def gate(
    port: PortDir = HERE,
    run: Annotated[bool, typer.Option("--run", help="First run what is missing or stale.")] = False,
    markdown: Annotated[Path | None, typer.Option(help="Also write the verdict as Markdown.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Also write the verdict as JUnit XML.")] = None,
    on: Annotated[str, typer.Option(help="Run what is missing as jobs: slurm, or local by the same path.")] = "",
    shared: Annotated[Path | None, typer.Option(help="Folder that all nodes see (--on).")] = None,
    at_once: Annotated[int, typer.Option(help="Most jobs in flight (--on; 0: what fits).")] = 0,
    only_run: Annotated[str, typer.Option(help="Count only records made on this run of CI.")] = "",
    only_commit: Annotated[str, typer.Option(help="Count only records made for this commit.")] = "",
    only_image: Annotated[str, typer.Option(help="Count only records made in this image.")] = "",
    only_signed_by: Annotated[str, typer.Option(help="Count only records signed by CI of OWNER/REPO.")] = "",
    as_json: Json = False,
) -> None:
    """Decide from the evidence alone whether the port may be merged: fvport gate --json"""
    from fvport import gate as g
    from fvport import report
    from fvport.origin import Demand

    loaded = load(port)
    demand = Demand(only_run, only_commit, only_image, only_signed_by)
    if on:
        from fvport.cluster import runner

        verdict = runner.run(loaded, on, shared=shared, at_once=at_once, demand=demand)
    else:
        if run:
            g.run_missing(loaded)
        verdict = g.decide(loaded, demand)
    report.write(loaded, verdict, markdown=markdown, junit=junit, media=run)
    out(verdict.to_json(), as_json, report.terminal.gate(verdict))
    raise typer.Exit({"pass": 0, "fail": 1, "blocked": 3}[verdict.verdict])


@app.command("report")
def report_(
    port: PortDir = HERE,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Two ports or folders of evidence, before and after.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="With --compare: also write it as a page.")] = None,
    as_json: Json = False,
) -> None:
    """Write the gate's report (HTML, Markdown, JUnit, JSON) and say where it lies: fvport report"""
    from fvport import gate as g
    from fvport import report

    if compare:
        found = report.compare(*compare, page=html)
        out(found.to_json(), as_json, found.text())
        return
    loaded = load(port)
    files = report.write(loaded, g.decide(loaded), media=True)
    out([str(file) for file in files], as_json, "\n".join(str(file) for file in files))


@app.command()
def plan(
    port: PortDir = HERE,
    sync: Annotated[bool, typer.Option("--sync", help="Bring PLAN, STATUS, README, docs up to date.")] = False,
    as_json: Json = False,
) -> None:
    """Progress of PLAN.md, item by item: fvport plan --sync"""
    from fvport.report import plan as p

    result = p.sync(load(port)) if sync else p.progress(load(port))
    out(result.to_json(), as_json, result.text())


@app.command()
def handoff(
    kind: Annotated[str, typer.Argument(help="prep, parity, conversion, pipeline, final, or a component.")],
    component: Annotated[str | None, typer.Argument()] = None,
    port: PortDir = HERE,
    as_json: Json = False,
) -> None:
    """Print a handoff block of FastVideo's add-model contracts, from evidence: fvport handoff text_encoder"""
    from fvport.report import handoff as h

    block = h.block(load(port), kind, component)
    out(block, as_json, h.text(block))


@app.command()
def status(port: PortDir = HERE, as_json: Json = False) -> None:
    """Where the port stands and the one thing to do next: fvport status"""
    from fvport import quick

    print(quick.status(port, as_json))
