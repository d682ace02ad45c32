# SPDX-License-Identifier: Apache-2.0
"""Verbs on checkpoints: names, shapes and bytes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from fvport.verbs import HERE, Json, PortDir, app, load, out

mapping_app = typer.Typer(no_args_is_help=True, help="Propose, look at, sign and compare the weight mapping's rules.")
app.add_typer(mapping_app, name="mapping")


@app.command()
def prep(port: PortDir = HERE, as_json: Json = False) -> None:
    """Official code pinned, weights there and locked, imports checked: fvport prep --port build/tiny_wan"""
    from fvport.report import handoff
    from fvport.weights import prep as prepare

    loaded = load(port)
    result = prepare.whole(loaded)
    prepare.refuse_blocked(result)
    further = prepare.of_variants(loaded)
    block = handoff.block(loaded, "prep")
    document = result.to_json() | {"handoff": block}
    document |= {"variants": {name: one.to_json() for name, one in further.items()}} if further else {}
    texts = [result.text(), *(f"variant {name}\n{one.text()}" for name, one in further.items())]
    # In a job of CI nobody copies the handoff, and its hundred lines would bury the job's own.
    told = (
        "prep_handoff: fvport handoff prep" if os.environ.get("FVPORT_RUN") else f"prep_handoff\n{handoff.text(block)}"
    )
    out(document, as_json, "\n\n".join([*texts, told]))


@app.command()
def inspect(
    path: Annotated[str, typer.Argument(help="A checkpoint folder or file, or a hub id.", metavar="PATH|HUB_ID")],
    revision: Annotated[str, typer.Option("--revision", help="Branch, tag or commit of a hub id.")] = "main",
    as_json: Json = False,
) -> None:
    """Say what a release holds, from headers only: fvport inspect official_weights/tiny_wan"""
    from fvport import quick

    print(quick.inspect(path, revision, as_json))


@app.command()
def convert(
    link: Annotated[bool, typer.Option("--link", help="Link folders that are copied as they are.")] = False,
    sync: Annotated[bool, typer.Option("--sync", help="Wait until everything is on the disk.")] = False,
    scan: Annotated[bool, typer.Option(help="Look for NaN in what is moved.")] = True,
    retry: Annotated[Path | None, typer.Option(help="A component check's conversion_retry_request.")] = None,
    port: PortDir = HERE,
    as_json: Json = False,
) -> None:
    """The declared conversion of a release that is not in Diffusers layout: fvport convert --port build/raw_wan"""
    from fvport.weights import converter, retries
    from fvport.weights.fill import Options

    request = retries.read(retry) if retry else None
    loaded, options = load(port), Options(link, sync, scan)
    result = converter.run(loaded, options, request)
    document, text = result.to_json(), result.text()
    for name, one in converter.of_variants(loaded, options).items():
        document.setdefault("variants", {})[name] = one.to_json()
        text += f"\n\nvariant {name}\n{one.text()}"
    if request:
        from fvport.report import handoff

        block = retries.handoff(handoff.block(load(port), "conversion"), result.retry)
        document["handoff"] = block
        text += f"\n\nconversion_handoff\n{handoff.text(block)}"
    out(document, as_json, text)


@mapping_app.command("suggest")
def mapping_suggest(
    component: Annotated[str | None, typer.Argument(help="One component (default: all).")] = None,
    official: Annotated[Path | None, typer.Option("--official", help="Without a port: headers or names.json.")] = None,
    native: Annotated[Path | None, typer.Option("--native", help="Without a port: headers or names.json.")] = None,
    port: PortDir = HERE,
    as_json: Json = False,
) -> None:
    """Propose rules from both sides' names and shapes: fvport mapping suggest transformer"""
    from fvport.errors import UsageError
    from fvport.progress import beat
    from fvport.weights import suggest_input

    if (official is None) != (native is None):
        raise UsageError("--official and --native go together", todo="Give both, or neither inside a port")
    with beat("mapping suggest"):
        if official is not None and native is not None:
            result = suggest_input.for_files(official, native)
        else:
            result = suggest_input.for_port(load(port), component)
    out(result.to_json(), as_json, result.text())


@mapping_app.command("review")
def mapping_review(
    component: Annotated[str | None, typer.Argument(help="One component (default: all).")] = None,
    sign: Annotated[
        str | None, typer.Option("--sign", metavar="NAME", help="Record that NAME reviewed these rules.")
    ] = None,
    port: PortDir = HERE,
    as_json: Json = False,
) -> None:
    """The rules as a table a person reads: fvport mapping review transformer --sign alice"""
    from fvport.progress import beat
    from fvport.weights import review

    with beat("mapping review"):
        result = review.review(load(port), component, sign=sign)
    out(result.to_json(), as_json, result.text())


@mapping_app.command("diff")
def mapping_diff(port: PortDir = HERE, as_json: Json = False) -> None:
    """What changed in the rules since they were signed: fvport mapping diff"""
    from fvport.weights import review

    result = review.diff(load(port))
    out(result.to_json(), as_json, result.text())
