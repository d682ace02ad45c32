# SPDX-License-Identifier: Apache-2.0
"""Verbs for media files and references."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fvport.verbs import HERE, Json, PortDir, app, load, out

media = typer.Typer(no_args_is_help=True, help="Look at media files and compare them.")
references = typer.Typer(no_args_is_help=True, help="Approved media of a port: list, diff, promote, verify.")
app.add_typer(media, name="media")
app.add_typer(references, name="references")

Where = Annotated[str, typer.Option("--store", help="Another store: a folder, hf://datasets/ORG/NAME, any address.")]
Names = Annotated[list[str] | None, typer.Argument(help="Parts of names; all without one.")]


@media.command()
def compare(
    a: Annotated[Path, typer.Argument(help="A video, picture (png, webp, jpeg) or sound.")],
    b: Annotated[Path, typer.Argument(help="The one to compare with it.")],
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="ssim, ms_ssim, psnr, temporal, lpips, mel_l1, mr_stft.")
    ] = None,
    as_json: Json = False,
) -> None:
    """How near two files are, frame by frame, and whether they are a pair: fvport media compare a.mp4 b.mp4 --json"""
    from fvport.media import pairs

    result = pairs.compare(a, b, metric or ())
    out(result.to_json(), as_json, result.text())
    raise typer.Exit(1 if result.problems else 0)


@references.command("list")
def list_(port: PortDir = HERE, store: Where = "", as_json: Json = False) -> None:
    """Each reference and draft with its key, origin and approval: fvport references list --port build/tiny_wan"""
    from fvport.media import people

    result = people.listing(people.store(port, store))
    out(result.to_json(), as_json, result.text())


@references.command()
def verify(port: PortDir = HERE, store: Where = "", as_json: Json = False) -> None:
    """Whether every file is what its digest says, and every approval is there: fvport references verify"""
    from fvport.media import people

    result = people.verified(people.store(port, store))
    out(result.to_json(), as_json, result.text())
    raise typer.Exit(0 if result.ok else 1)


@references.command()
def diff(
    names: Names = None,
    port: PortDir = HERE,
    store: Where = "",
    metric: Annotated[str, typer.Option(help="ssim, ms_ssim, lpips.")] = "ssim",
    as_json: Json = False,
) -> None:
    """Each draft against the reference that it would replace: fvport references diff"""
    from fvport.media import people

    result = people.differences(people.store(port, store), names or [], metric)
    out(result.to_json(), as_json, result.text())


@references.command()
def promote(
    names: Names = None,
    by: Annotated[str, typer.Option("--by", help="Who has looked at it and approves it.")] = "",
    port: PortDir = HERE,
    store: Where = "",
    suite: Annotated[bool, typer.Option("--suite", help="Also where FastVideo's suite reads it (one seed).")] = False,
    replace: Annotated[str, typer.Option("--replace", help="Why a reference that is there is replaced.")] = "",
    as_json: Json = False,
) -> None:
    """Make drafts references: fvport references promote --by "A. Person" seed_0 --suite"""
    from fvport.media import people

    result = people.promoted(people.store(port, store), names or [], by, suite, replace)
    out(result.to_json(), as_json, result.text())
    raise typer.Exit(0 if result.ok else 1)


@references.command()
def draft(
    port: PortDir = HERE,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Json = False,
) -> None:
    """Drafts of what the official pipeline makes, for machines that cannot run it: fvport references draft"""
    from fvport.checks import ssim

    titles = ssim.official_drafts(load(port), device)
    out(titles, as_json, "\n".join(titles))
