# SPDX-License-Identifier: Apache-2.0
"""The main job on a release that is not in Diffusers layout: a raw tiny Wan, from its bare folder to a gate's verdict.

    python -m examples.raw_wan.demo [--build build] [--only mapping,keys,conversion,parity]

raw release -> bake with the declaration -> the oracle's own reading of the release -> prep -> convert -> workspace ->
mapping signed (as `demo`, visibly) -> checks. What a person writes is `raw_wan_to_diffusers.py` and `oracle_parts.py`.
"""

from __future__ import annotations

import argparse
import ast
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from examples import demo
from examples.demo import call, fvport, step

HERE = Path(__file__).resolve().parent
SLUG = "raw_wan"


def answers(release: Path) -> list[str]:
    return [
        "model_name=Raw Wan",
        f"model_slug={SLUG}",
        f"official_weights={release}",
        f"conversion={HERE / 'raw_wan_to_diffusers.py'}",
        "workload_type=t2v",
        "components=transformer=port,text_encoder=port,vae=reuse,scheduler=reuse",
        "gate_device=cpu",
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.raw_wan.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=demo.REPO / "build", help="where everything is made")
    parser.add_argument("--only", default="", help="checks to run (default: all)")
    args = parser.parse_args(argv)
    from fvport.models import warm

    demo.environment()
    port = prepare(args.build.resolve())
    names = [name for name in args.only.split(",") if name] or list(demo.ORDER)
    with warm.session():  # FastVideo is imported once for all checks
        demo.run_checks(port, names, fresh=False)
    if not args.only:
        call(fvport("plan", "--sync", "--port", port), quiet=True)
        demo.check(port, "docs", fresh=True)
    return call(fvport("gate", "--port", port), check=False)


def prepare(build: Path) -> Path:
    """Release, bake, oracle, prep, conversion, workspace, signature. Returns the port's root."""
    from examples.raw_wan import make_raw
    from examples.tiny_wan import make_official

    with step("raw release"):
        tiny = make_official.make(build / "official" / "tiny_wan")
        release = make_raw.make(build / "official" / SLUG, tiny)
    port = build / SLUG
    if (port / ".fvport" / "signed").is_file():
        return port
    if port.is_dir():
        shutil.rmtree(port)
    with step("bake"):
        call(fvport("new", "--no-input", "--output-dir", build, *answers(release)), quiet=True)
    with step("the oracle reads the release"):
        put(HERE / "oracle_parts.py", port / "tests" / "local_tests" / SLUG / "oracle.py")
    for word in ("prep", "convert", "workspace"):
        with step(word):
            call(fvport(word, "--port", port), quiet=True)
    with step(f'mapping signed by "{demo.SIGNED_BY}"'):
        call(fvport("mapping", "review", "--sign", demo.SIGNED_BY, "--port", port), quiet=True)
    (port / ".fvport" / "signed").write_text("")
    return port


def put(parts: Path, oracle: Path) -> None:
    """Functions of `parts` into an oracle.py: one of the same name is replaced, another comes before the first."""
    text, given = oracle.read_text(encoding="utf-8"), parts.read_text(encoding="utf-8")
    new = {node.name: ast.get_source_segment(given, node) or "" for node in _functions(given)}
    old = _functions(text)
    lines = text.splitlines()
    known = {node.name for node in old}
    for node in reversed(old):
        if node.name in new:
            lines[node.lineno - 1 : node.end_lineno] = new[node.name].splitlines()
    added = [f"{body}\n\n" for name, body in new.items() if name not in known]
    first = old[0].lineno - 1
    head, rest = lines[:first], lines[first:]
    imports = [
        line for line in ("import json", "import pathlib", "import tempfile", "import torch") if line not in head
    ]
    if imports:
        place = next(n for n, line in enumerate(head) if line.startswith("import "))
        head[place:place] = imports
    oracle.write_text("\n".join([*head, *"\n".join(added).splitlines(), "", *rest]) + "\n", encoding="utf-8")


def _functions(text: str) -> list[ast.FunctionDef]:
    return [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]


if __name__ == "__main__":
    sys.exit(main())
