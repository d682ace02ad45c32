# SPDX-License-Identifier: Apache-2.0
"""The tutorial: a transformer that FastVideo lacks and no archetype covers, from bake to green component checks.

    python -m examples.sana_video.demo [--build build]

official checkpoint -> bake (skeleton) -> prep -> workspace -> mapping signed -> keys, with no edit -> what a person
writes (`person.py`) -> config, conversion, parity, boundary. Prints the time of each and what boundary finds elsewhere.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from examples import demo
from examples.demo import call, fvport, step
from examples.sana_video import make_official, person

SLUG, COMPONENT = person.SLUG, "transformer"
BEFORE, AFTER = ("mapping", "keys"), ("mapping", "keys", "config", "conversion", "parity")


def answers(official: Path) -> list[str]:
    return [
        "model_name=Sana Video",
        f"model_slug={SLUG}",
        f"official_weights={official}",
        "components=transformer=port,text_encoder=port,vae=reuse,scheduler=reuse",
        "gate_device=cpu",
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.sana_video.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=demo.REPO / "build", help="where everything is made")
    args = parser.parse_args(argv)
    from fvport.models import warm

    demo.environment()
    port = prepare(args.build.resolve())
    with warm.session():  # FastVideo is imported once for all checks
        results = [judged(port, name) for name in BEFORE]
        with step("the person's edits"):
            person.write(port)
        results += [judged(port, name) for name in AFTER]
        results.append(bounded(port))
    return 0 if all(results) else 1


def prepare(build: Path) -> Path:
    """Checkpoint, bake, prep, workspace, signature: a new port each time, its root is returned."""
    with step("official checkpoint"):
        official = make_official.make(build / "official" / SLUG)
    port = build / SLUG
    if port.is_dir():
        shutil.rmtree(port)
    with step("bake"):
        call(fvport("new", "--no-input", "--output-dir", build, *answers(official)), quiet=True)
    for word in ("prep", "workspace"):
        with step(word):
            call(fvport(word, "--port", port), quiet=True)
    with step(f'mapping signed by "{demo.SIGNED_BY}"'):
        call(fvport("mapping", "review", "--sign", demo.SIGNED_BY, "--port", port), quiet=True)
    return port


def judged(port: Path, check: str) -> bool:
    """Run a check of the transformer and say what became of it."""
    record = run(port, check, COMPONENT)
    demo.say(f"{check:10} {record['verdict']}  {record['seconds']:6.1f} s  {len(record['items'])} items")
    for item in record["items"]:
        if item["verdict"] != "pass":
            demo.say(f"  {item['name']}: {item['reason']}")
    return bool(record["verdict"] == "pass")


def bounded(port: Path) -> bool:
    """Run boundary on the whole port: green for the transformer where nothing red lies in a file of its own."""
    red = [item for item in run(port, "boundary")["items"] if item["verdict"] != "pass"]
    own = [item for item in red if item.get("component") == COMPONENT or "dits/" in item["name"]]
    demo.say(f"boundary   {len(own)} findings in the transformer, {len(red) - len(own)} elsewhere")
    for item in red:
        demo.say(f"  {item['reason']}")
    return not own


def run(port: Path, check: str, *more: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(demo._output(fvport("check", check, *more, "--port", port, "--json")))
    return record


if __name__ == "__main__":
    sys.exit(main())
