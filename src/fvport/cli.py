# SPDX-License-Identifier: Apache-2.0
"""`fvport`: one verb a job, no logic. Every verb has --help with an example and --json; see DESIGN for exit codes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fvport import __version__

app = typer.Typer(
    name="fvport",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Port a diffusion model into FastVideo, and prove that the port equals the original.",
)
mapping_app = typer.Typer(no_args_is_help=True, help="Look at, sign and compare the weight mapping's rules.")
app.add_typer(mapping_app, name="mapping")

PortDir = Annotated[
    Path, typer.Option("--port", help="Folder of the port (or any folder inside it).", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output; messages on standard error.")]
HERE = Path(".")


def main() -> None:
    """Entry point: whatever goes wrong is one sentence on standard error and an exit code, never a traceback."""
    from fvport import trouble

    with trouble.told(as_json="--json" in sys.argv[1:]):
        trouble.run(app)


def _out(result: Any, as_json: bool, text: str) -> None:
    print(json.dumps(result, indent=1, default=str) if as_json else text)


def _port(folder: Path) -> Any:
    from fvport import spec

    return spec.load(folder)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(f"fvport {__version__}")
        raise typer.Exit


@app.command()
def new(
    answers: Annotated[list[str] | None, typer.Argument(help="key=value, as in cookiecutter.json")] = None,
    output_dir: Annotated[Path, typer.Option(help="Where the port's folder is made.")] = HERE,
    no_input: Annotated[bool, typer.Option("--no-input", help="Never ask; defaults for what is not given.")] = False,
    list_keys: Annotated[bool, typer.Option("--list", help="List the keys with their defaults and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Bake a port: fvport new model_name="Tiny Wan" official_weights=build/official/tiny_wan"""
    from fvport.scaffold import new as bake

    if list_keys:
        keys = bake.keys()
        _out(keys, as_json, "\n".join(f"{key:20} {value}" for key, value in keys.items()))
        return
    result = bake.bake(answers or [], output_dir=output_dir, no_input=no_input)
    _out(result.to_json(), as_json, result.text())


@app.command()
def workspace(
    port: PortDir = HERE,
    undo: Annotated[bool, typer.Option("--undo", help="Take the registration edits back, byte for byte.")] = False,
    at: Annotated[Path | None, typer.Option(help="FastVideo checkout for a worktree.")] = None,
    as_json: Json = False,
) -> None:
    """Put the port on an isolated FastVideo tree on a branch of its own: fvport workspace --port build/tiny_wan"""
    from fvport import workspace as ws

    result = ws.undo(_port(port)) if undo else ws.make(_port(port), checkout=at)
    _out(result.to_json(), as_json, result.text())


@app.command()
def prep(port: PortDir = HERE, as_json: Json = False) -> None:
    """Link or fetch the official weights and lock them (port.lock.json): fvport prep --port build/tiny_wan"""
    from fvport.weights import prep as prepare

    result = prepare.run(_port(port))
    _out(result.to_json(), as_json, result.text())


@app.command()
def inspect(path: Annotated[str, typer.Argument(help="A checkpoint folder or file.")], as_json: Json = False) -> None:
    """Say what a release holds, from headers only: fvport inspect official_weights/tiny_wan"""
    from fvport.weights import layout

    found = layout.inspect(Path(path))
    _out(found.to_json(), as_json, found.text())


@mapping_app.command("review")
def mapping_review(
    component: Annotated[str | None, typer.Argument(help="One component (default: all).")] = None,
    sign: Annotated[str, typer.Option("--sign", metavar="NAME", help="Record that NAME reviewed these rules.")] = "",
    port: PortDir = HERE,
    as_json: Json = False,
) -> None:
    """The rules as a table a person reads: fvport mapping review transformer --sign alice"""
    from fvport.progress import beat
    from fvport.weights import review

    with beat("mapping review"):
        result = review.review(_port(port), component, sign=sign)
    _out(result.to_json(), as_json, result.text())


@mapping_app.command("diff")
def mapping_diff(port: PortDir = HERE, as_json: Json = False) -> None:
    """What changed in the rules since they were signed: fvport mapping diff"""
    from fvport.weights import review

    result = review.diff(_port(port))
    _out(result.to_json(), as_json, result.text())


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="mapping, keys, config, conversion, parity, smoke, pipeline ...")],
    components: Annotated[list[str] | None, typer.Argument(help="Only these components.")] = None,
    port: PortDir = HERE,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    bootstrap: Annotated[bool, typer.Option("--bootstrap", help="ssim: write draft references.")] = False,
    as_json: Json = False,
) -> None:
    """Run one check of the alignment gate and leave its evidence: fvport check parity transformer"""
    from fvport import checks
    from fvport.report import terminal

    options = checks.Options(components=tuple(components or ()), device=device, extra={"bootstrap": bootstrap})
    record = checks.run_check(_port(port), name, options)
    _out(record.to_json(), as_json, terminal.record(record))
    raise typer.Exit({"pass": 0, "fail": 1, "blocked": 3}[record.verdict])


@app.command()
def gate(
    port: PortDir = HERE,
    run: Annotated[bool, typer.Option("--run", help="First run what is missing or stale.")] = False,
    markdown: Annotated[Path | None, typer.Option(help="Also write the verdict as Markdown.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Also write the verdict as JUnit XML.")] = None,
    as_json: Json = False,
) -> None:
    """Decide from the evidence alone whether the port may be merged: fvport gate --json"""
    from fvport import gate as g
    from fvport import report

    loaded = _port(port)
    verdict = g.run_missing(loaded) if run else g.decide(loaded)
    report.write(loaded, verdict, markdown=markdown, junit=junit)
    _out(verdict.to_json(), as_json, report.terminal.gate(verdict))
    raise typer.Exit({"pass": 0, "fail": 1, "blocked": 3}[verdict.verdict])


@app.command("report")
def report_(port: PortDir = HERE, as_json: Json = False) -> None:
    """Write the gate's report (HTML, Markdown, JUnit, JSON) and say where it lies: fvport report"""
    from fvport import gate as g
    from fvport import report

    loaded = _port(port)
    files = report.write(loaded, g.decide(loaded))
    _out([str(file) for file in files], as_json, "\n".join(str(file) for file in files))


@app.command()
def plan(
    port: PortDir = HERE,
    sync: Annotated[bool, typer.Option("--sync", help="Bring PLAN, STATUS, README, docs up to date.")] = False,
    as_json: Json = False,
) -> None:
    """Progress of PLAN.md, item by item: fvport plan --sync"""
    from fvport.report import plan as p

    result = p.sync(_port(port)) if sync else p.progress(_port(port))
    _out(result.to_json(), as_json, result.text())


@app.command()
def handoff(
    kind: Annotated[str, typer.Argument(help="prep, component, parity, final ...")],
    component: Annotated[str | None, typer.Argument()] = None,
    port: PortDir = HERE,
    as_json: Json = False,
) -> None:
    """Print a handoff block of FastVideo's add-model contracts, from evidence: fvport handoff final"""
    from fvport.report import handoff as h

    block = h.block(_port(port), kind, component)
    _out(block, as_json, h.text(block))


@app.command()
def status(port: PortDir = HERE, as_json: Json = False) -> None:
    """Where the port stands and the one thing to do next: fvport status"""
    from fvport import gate as g
    from fvport.report import terminal

    verdict = g.decide(_port(port))
    _out({"verdict": verdict.verdict, "next": verdict.next_step}, as_json, terminal.status(verdict))


if __name__ == "__main__":
    main()
