# SPDX-License-Identifier: Apache-2.0
"""What every verb shares: the application, the options that all take, and how a result is printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fvport import __version__


class Verbs(TyperGroup):
    """The list of verbs says what each does, whole; the example stands in the verb's own help."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for verb in self.commands.values():
            verb.short_help = verb.short_help or (verb.help or "").partition(": fvport ")[0]
        super().format_commands(ctx, formatter)


app = typer.Typer(
    name="fvport",
    cls=Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    rich_markup_mode=None,  # plain help: drawing it would import rich, half of the time that help takes
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Port a diffusion model into FastVideo, and prove that the port equals the original.",
)

PortDir = Annotated[
    Path, typer.Option("--port", help="Folder of the port (or any folder inside it).", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output; messages on standard error.")]
HERE = Path(".")


def out(result: Any, as_json: bool, text: str) -> None:
    print(json.dumps(result, indent=1, default=str) if as_json else text)


def load(folder: Path) -> Any:
    from fvport import spec

    return spec.load(folder)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No signs of life from long work (anywhere).")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="An error's cause, remedy and page (anywhere).")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="The traceback of an error (anywhere).")] = False,
) -> None:
    if version:
        print(f"fvport {__version__}")
        raise typer.Exit
