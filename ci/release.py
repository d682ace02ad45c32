# SPDX-License-Identifier: Apache-2.0
"""What a release must hold before it is one: nox -s release_check [-- --tag v0.1.0]

Builds the wheel and the sdist, reads their metadata, installs the wheel into an empty environment, bakes a port there
without a network, compares it with the bake of this checkout, and uninstalls again.
"""

from __future__ import annotations

import argparse
import email
import filecmp
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "build" / "dist"
TEMPLATE = "fvport/_template/{{cookiecutter.model_slug}}/noxfile.py"
ANSWERS = ("model_name=Release Check", "official_weights=nobody/nothing", "workload_type=t2v")
REQUIRED = (
    "Name",
    "Version",
    "Summary",
    "License-Expression",
    "License-File",
    "Requires-Python",
    "Description-Content-Type",
)


class Wrong(Exception):
    """One sentence on what a release lacks."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ci.release", description=__doc__.splitlines()[0])
    parser.add_argument("--tag", default="", help="the tag that is released, such as v0.1.0")
    options = parser.parse_args(argv)
    scratch = ROOT / "build" / "release"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        wheel, sdist = build()
        told("metadata", lambda: metadata(wheel, sdist))
        told("version", lambda: version(wheel, options.tag))
        told("sdist gives the same wheel", lambda: same_wheel(wheel, sdist, scratch))
        told("installed, baked, uninstalled", lambda: installed(wheel, scratch))
    except Wrong as error:
        print(f"release_check: {error}")
        return 1
    print(f"release_check: {wheel.name} and {sdist.name} are fit to be released")
    return 0


def told(what: str, work: Callable[[], None]) -> None:
    print(f"{what} ...", flush=True)
    work()


def build(source: Path = ROOT, target: Path = DIST) -> tuple[Path, Path]:
    shutil.rmtree(target, ignore_errors=True)
    run([sys.executable, "-m", "hatchling", "build", "-d", target], cwd=source)
    return next(target.glob("*.whl")), next(target.glob("*.tar.gz"))


def metadata(wheel: Path, sdist: Path) -> None:
    """Every field that an index shows, the licence's text, the template and the mark of a typed package."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        head = email.message_from_bytes(archive.read(next(n for n in names if n.endswith(".dist-info/METADATA"))))
    if lacking := [field for field in REQUIRED if not head.get(field)]:
        raise Wrong(f"the wheel's metadata lacks {', '.join(lacking)}")
    for wanted in (TEMPLATE, "fvport/_template/cookiecutter.json", "fvport/py.typed"):
        if wanted not in names:
            raise Wrong(f"the wheel lacks {wanted}")
    if not any(name.endswith("/licenses/LICENSE") for name in names):
        raise Wrong("the wheel lacks the licence's text")
    with tarfile.open(sdist) as archive:
        parts = {"/".join(name.split("/")[1:]) for name in archive.getnames()}
    if lacking := {"LICENSE", "README.md", "pyproject.toml", "cookiecutter.json"} - parts:
        raise Wrong(f"the sdist lacks {', '.join(sorted(lacking))}")


def version(wheel: Path, tag: str) -> None:
    """One version: the package's, the changelog's newest, the wheel's, and the tag that ports pin."""
    said = package_version()
    if wheel.name.split("-")[1] != said:
        raise Wrong(f"the wheel is {wheel.name.split('-')[1]}, the package says {said}")
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    if newest is None or newest[1] != said:
        raise Wrong(f"CHANGELOG.md begins with {newest[1] if newest else 'no version'}, the package says {said}")
    if tag and tag != f"v{said}":
        raise Wrong(f"the tag is {tag}; ports pin v{said}")


def package_version() -> str:
    found = re.search(r'^__version__ = "(.+)"', (ROOT / "src/fvport/__init__.py").read_text(), re.MULTILINE)
    if found is None:
        raise Wrong("src/fvport/__init__.py says no version")
    return found[1]


def same_wheel(wheel: Path, sdist: Path, scratch: Path) -> None:
    """What the sdist builds holds the same files as the wheel."""
    with tarfile.open(sdist) as archive:
        archive.extractall(scratch / "sdist", filter="data")
    again, _ = build(next((scratch / "sdist").iterdir()), scratch / "again")
    first, second = (set(zipfile.ZipFile(file).namelist()) for file in (wheel, again))
    if first != second:
        raise Wrong(f"the sdist builds another wheel: {', '.join(sorted(first ^ second)[:5])}")


def installed(wheel: Path, scratch: Path) -> None:
    """In an empty environment: help, a bake without a network that equals this checkout's, and nothing left behind."""
    env = scratch / "env"
    run([sys.executable, "-m", "uv", "venv", "-q", "--python", sys.executable, env])
    python = env / "bin" / "python"
    run([sys.executable, "-m", "uv", "pip", "install", "-q", "--python", python, wheel])
    fvport = env / "bin" / "fvport"
    run([fvport, "--help"], cwd=scratch)
    offline = {**os.environ, "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    run([fvport, "new", "--no-input", "--output-dir", scratch / "wheel", *ANSWERS], cwd=scratch, env=offline)
    here = [sys.executable, "-m", "fvport.cli", "new", "--no-input", "--output-dir", scratch / "checkout", *ANSWERS]
    run(here, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    if differs := list(differences(scratch / "checkout", scratch / "wheel")):
        raise Wrong(f"the wheel bakes another port than this checkout: {', '.join(differs[:5])}")
    run([sys.executable, "-m", "uv", "pip", "uninstall", "-q", "--python", python, "fvport"])
    if left := [str(path) for path in env.rglob("*fvport*") if "__pycache__" not in path.parts]:
        raise Wrong(f"uninstalling leaves {', '.join(left[:5])}")


def differences(one: Path, other: Path) -> Iterator[str]:
    """Files that two trees do not both hold with the same bytes."""
    trees = [{path.relative_to(top) for path in top.rglob("*") if path.is_file()} for top in (one, other)]
    yield from map(str, sorted(trees[0] ^ trees[1]))
    for name in sorted(trees[0] & trees[1]):
        if not filecmp.cmp(one / name, other / name, shallow=False):
            yield str(name)


def run(command: Sequence[object], **more: object) -> None:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload]
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it says nothing"]
        raise Wrong(f"{' '.join(words[:6])} ended with {done.returncode}: {said[0]}")


if __name__ == "__main__":
    sys.exit(main())
