# SPDX-License-Identifier: Apache-2.0
"""Verbs that bring a port upstream, and a port up to date."""

from __future__ import annotations

from typing import Annotated

import typer

from fvport.verbs import HERE, Json, PortDir, app, load, out


@app.command()
def pr(
    port: PortDir = HERE,
    onto: Annotated[str, typer.Option(help="Commit of FastVideo to put it on (default: the port's own base).")] = "",
    push: Annotated[str, typer.Option(help="Remote that the branch is pushed to; without, nothing is pushed.")] = "",
    draft: Annotated[bool, typer.Option("--draft", help="Also where the gate is not green.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Run FastVideo's pre-commit set and tests on it.")] = False,
    also: Annotated[list[str] | None, typer.Option("--with", help="A file of FastVideo that it may change.")] = None,
    as_json: Json = False,
) -> None:
    """Make the pull request's branch and text from evidence: fvport pr --port build/tiny_wan --draft"""
    from fvport import upstream

    made = upstream.make(load(port), onto=onto, push=push, draft=draft, check=check, also=tuple(also or ()))
    out(made.to_json(), as_json, made.text())


@app.command()
def upgrade(port: PortDir = HERE, as_json: Json = False) -> None:
    """Bring port.toml to this version's schema, with a written change list: fvport upgrade --port build/tiny_wan"""
    from fvport import upgrade as u

    done = u.run(port)
    out(done.to_json(), as_json, done.text())
