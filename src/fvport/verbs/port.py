# SPDX-License-Identifier: Apache-2.0
"""Verbs that make a port and its workspace."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from fvport.verbs import HERE, Json, PortDir, app, complete, load, out

variant_app = typer.Typer(no_args_is_help=True, help="Releases of the same model beside the base: distilled, refiner.")
app.add_typer(variant_app, name="variant")


@app.command()
def new(
    answers: Annotated[
        list[str] | None, typer.Argument(help="key=value, as in cookiecutter.json", autocompletion=complete.answers)
    ] = None,
    output_dir: Annotated[Path, typer.Option(help="Where the port's folder is made.")] = HERE,
    no_input: Annotated[bool, typer.Option("--no-input", help="Never ask; defaults for what is not given.")] = False,
    list_keys: Annotated[bool, typer.Option("--list", help="List the keys with their defaults and stop.")] = False,
    variant: Annotated[
        list[str] | None,
        typer.Option("--variant", help="NAME=FOLDER[,key=value...]: a release of the same model; again for more."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Bake a port: fvport new model_name="Tiny Wan" official_weights=build/official/tiny_wan"""
    from fvport.scaffold import ask
    from fvport.scaffold import new as bake
    from fvport.scaffold import variant as variants

    if list_keys:
        keys = bake.keys()
        out(keys, as_json, "\n".join(f"{key:20} {value}" for key, value in keys.items()))
        return
    given = list(answers or [])
    if ask.wanted(given, no_input, as_json):
        given, no_input = ask.answers(output_dir), True
    alone = no_input or as_json or not sys.stdin.isatty()  # without a terminal nobody is asked
    told = variants.parse(variant or ())
    result = bake.bake(given, output_dir=output_dir, no_input=alone)
    added = [variants.add(load(result.root), *one) for one in told]
    document = result.to_json() | ({"variants": [one.to_json() for one in added]} if added else {})
    out(document, as_json, "\n\n".join([result.text(), *(one.text() for one in added)]))


@variant_app.command("add")
def variant_add(
    name: Annotated[str, typer.Argument(help="Such as distilled.")],
    folder: Annotated[Path, typer.Argument(help="The variant's release.")],
    values: Annotated[list[str] | None, typer.Argument(help="key=value: what its preset has otherwise.")] = None,
    hub_id: Annotated[str, typer.Option(help="ORG/NAME of this release on the hub.")] = "",
    source: Annotated[str, typer.Option(help="Where the values come from, such as its model card.")] = "",
    port: PortDir = HERE,
    as_json: Json = False,
) -> None:
    """One release more of the same model: fvport variant add distilled DIR num_inference_steps=4 guidance_scale=1.0"""
    from fvport.scaffold import variant as variants

    told = (values or (), hub_id, source or variants.SOURCE)
    added = variants.add(load(port), name, folder, *told)
    out(added.to_json(), as_json, added.text())


@app.command()
def workspace(
    port: PortDir = HERE,
    undo: Annotated[bool, typer.Option("--undo", help="Take the registration edits back, byte for byte.")] = False,
    at: Annotated[Path | None, typer.Option(help="FastVideo checkout for a worktree.")] = None,
    as_json: Json = False,
) -> None:
    """Put the port on an isolated FastVideo tree on a branch of its own: fvport workspace --port build/tiny_wan"""
    from fvport import workspace as ws

    result = ws.undo(load(port)) if undo else ws.make(load(port), checkout=at)
    out(result.to_json(), as_json, result.text())


@app.command()
def packet(
    component: Annotated[str, typer.Argument(help="The component, as port.toml names it.")],
    port: PortDir = HERE,
    as_json: Json = False,
) -> None:
    """Print a component's component_context; what is unknown says the search: fvport packet text_encoder"""
    from fvport.report import handoff, packet

    block = packet.block(load(port), component)
    out(block, as_json, handoff.text(block))


@app.command()
def prototype(
    component: Annotated[str, typer.Argument(help="The component, as port.toml names it.")],
    port: PortDir = HERE,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Json = False,
) -> None:
    """Instantiate both sides with random weights and dump keys and shapes, no parity: fvport prototype text_encoder"""
    from fvport.models import prototype

    found = prototype.run(load(port), component, device)
    out(found.to_json(), as_json, found.text())
    raise typer.Exit(0 if found.made else 1)
