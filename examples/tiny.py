# SPDX-License-Identifier: Apache-2.0
"""The main job on another tiny release than the demo's: from nothing to a gate's verdict, with no edit by hand.

    python -m examples.tiny tiny_wan_i2v [--build build] [--only mapping,keys,pipeline]
    python -m examples.tiny tiny_wan_v2v
    python -m examples.tiny tiny_sd3
    python -m examples.tiny tiny_sd3_i2i
    python -m examples.tiny tiny_stable_audio

Every component that fvport has native source for is ported, although FastVideo has most of them.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from examples import demo
from examples.demo import call, fvport, step

RELEASES = {
    "tiny_stable_audio": (
        "model_name=Tiny Stable Audio",
        "components=transformer=port,text_encoder=port,projection_model=port,vae=reuse,scheduler=port",
    ),
    "tiny_wan_i2v": (
        "model_name=Tiny Wan I2V",
        "components=transformer=port,text_encoder=port,image_encoder=port,vae=reuse,scheduler=reuse",
    ),
    "tiny_wan_v2v": (
        "model_name=Tiny Wan V2V",
        "components=transformer=port,text_encoder=port,vae=reuse,scheduler=reuse",
    ),
    "tiny_sd3_i2i": (
        "model_name=Tiny SD3 I2I",
        "components=transformer=port,vae=port,text_encoder=port,text_encoder_2=port,text_encoder_3=port,scheduler=reuse",
    ),
    "tiny_sd3": (
        "model_name=Tiny SD3",
        "components=transformer=port,vae=port,text_encoder=port,text_encoder_2=port,text_encoder_3=port,scheduler=reuse",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.tiny", description=__doc__.splitlines()[0])
    parser.add_argument("release", choices=sorted(RELEASES))
    parser.add_argument("--build", type=Path, default=demo.REPO / "build", help="where everything is made")
    parser.add_argument("--only", default="", help="checks to run (default: all)")
    args = parser.parse_args(argv)
    from fvport.models import warm

    demo.environment()
    port = prepare(args.release, args.build.resolve())
    names = [name for name in args.only.split(",") if name] or list(demo.ORDER)
    with warm.session():  # FastVideo is imported once for all checks
        demo.run_checks(port, [name for name in names if name != "docs"], fresh=False)
    if "docs" in names or not args.only:
        call(fvport("plan", "--sync", "--port", port), quiet=True)
        demo.check(port, "docs", fresh=True)
    return call(fvport("gate", "--port", port), check=False)


def prepare(release: str, build: Path) -> Path:
    """Checkpoint, bake, prep, workspace, signature. Returns the port's root; one that is signed is left alone."""
    make_official = importlib.import_module(f"examples.{release}.make_official")
    with step("official checkpoint"):
        official = make_official.make(build / "official" / release)
    port = build / release
    signed = port / ".fvport" / "signed"
    if signed.is_file():
        return port
    if port.is_dir():
        shutil.rmtree(port)
    answers = (*RELEASES[release], f"model_slug={release}", f"official_weights={official}", "gate_device=cpu")
    with step("bake"):
        call(fvport("new", "--no-input", "--output-dir", build, *answers), quiet=True)
    for word in ("prep", "workspace"):
        with step(word):
            call(fvport(word, "--port", port), quiet=True)
    with step(f'mapping signed by "{demo.SIGNED_BY}"'):
        call(fvport("mapping", "review", "--sign", demo.SIGNED_BY, "--port", port), quiet=True)
    signed.write_text("")
    return port


if __name__ == "__main__":
    sys.exit(main())
