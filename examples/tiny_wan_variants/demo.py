# SPDX-License-Identifier: Apache-2.0
"""One port of two releases: the tiny Wan and its distilled variant, from nothing to a gate's verdict.

    python -m examples.tiny_wan_variants.demo [--build build] [--only mapping,keys]

Each check runs for the base and for the variant; text encoder and VAE are the same files in both and compared once.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from examples import demo
from examples.demo import call, fvport, step
from examples.tiny_wan import make_official as base
from examples.tiny_wan_variants import make_official as distilled

SLUG, VARIANT = "tiny_wan_family", "distilled"
ANSWERS = (
    "model_name=Tiny Wan Family",
    f"model_slug={SLUG}",
    "components=transformer=port,text_encoder=port,vae=reuse,scheduler=reuse",
    "gate_device=cpu",
)
VALUES = "num_inference_steps=4,guidance_scale=1.0"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.tiny_wan_variants.demo")
    parser.add_argument("--build", type=Path, default=demo.REPO / "build", help="where everything is made")
    parser.add_argument("--only", default="", help="checks to run (default: all)")
    args = parser.parse_args(argv)
    from fvport.models import warm

    demo.environment()
    port = prepare(args.build.resolve())
    names = [name for name in args.only.split(",") if name] or list(demo.ORDER)
    with warm.session():  # FastVideo is imported once for all checks of both
        demo.run_checks(port, [name for name in names if name != "docs"], fresh=False)
    if "docs" in names or not args.only:
        call(fvport("plan", "--sync", "--port", port), quiet=True)
        demo.check(port, "docs", fresh=True)
    return call(fvport("gate", "--port", port), check=False)


def prepare(build: Path) -> Path:
    """Both checkpoints, bake, prep, workspace, signature. Returns the port's root; one that is signed is left alone."""
    with step("official checkpoints"):
        official = base.make(build / "official" / "tiny_wan")
        variant = distilled.make(build / "official" / f"tiny_wan_{VARIANT}")
    port = build / SLUG
    signed = port / ".fvport" / "signed"
    if signed.is_file():
        return port
    if port.is_dir():
        shutil.rmtree(port)
    with step("bake"):
        told = [f"official_weights={official}", "--variant", f"{VARIANT}={variant},{VALUES}"]
        call(fvport("new", "--no-input", "--output-dir", build, *ANSWERS, *told), quiet=True)
    for word in ("prep", "workspace"):
        with step(word):
            call(fvport(word, "--port", port), quiet=True)
    with step(f'mapping signed by "{demo.SIGNED_BY}"'):
        call(fvport("mapping", "review", "--sign", demo.SIGNED_BY, "--port", port), quiet=True)
    signed.write_text("")
    return port


if __name__ == "__main__":
    sys.exit(main())
