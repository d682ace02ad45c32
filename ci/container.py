# SPDX-License-Identifier: Apache-2.0
"""The gate inside its image: build the image where it is missing, run sessions of a port in it, evidence in the port.

make gate-docker DOCKER=podman PORT=build/tiny_wan ARGS="mapping keys parity gate"

A machine with ways of its own adds flags through FVPORT_BUILD_FLAGS and FVPORT_RUN_FLAGS, and before the engine's verb
through FVPORT_ENGINE_FLAGS (such as `--runtime runc`).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ci import base

ROOT = Path(__file__).resolve().parent.parent
MADE_FROM = ("docker/Dockerfile", "docker/gate-{device}.lock", "ci/gate.sh", "pyproject.toml", "cookiecutter.json")
MADE_FROM_TREES = ("src", "hooks", "{{cookiecutter.model_slug}}")
GATE_UID = 10001  # docker/Dockerfile
HANDED_ON = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "PIP_CERT", "SSL_CERT_FILE")


def main(argv: Sequence[str] | None = None) -> int:
    options, sessions = arguments(argv)
    if not shutil.which(options.engine):
        return wrong(f"{options.engine} is not on this machine; name another with DOCKER=podman or DOCKER=docker")
    port = options.port.resolve()
    if sessions and not (port / "noxfile.py").is_file():
        return wrong(f"{port} is no port; run `make demo`, which makes one, or name yours: PORT=DIR")
    tag = options.image or build(options)
    if not tag or not sessions:
        return 0 if tag else 1
    return run(options, tag, port, sessions)


def arguments(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="python -m ci.container", description=__doc__.splitlines()[0])
    parser.add_argument("--engine", default=os.environ.get("DOCKER", "docker"), help="docker or podman")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: what there is")
    parser.add_argument(
        "--base", default="", help="BASE_IMAGE; `debootstrap` makes a plain Debian root on this machine"
    )
    parser.add_argument("--image", default="", help="an image that exists; nothing is built")
    parser.add_argument("--port", type=Path, default=ROOT / "build" / "tiny_wan")
    parser.add_argument("--network", default="none", help="network of the sessions (default: none)")
    parser.add_argument("sessions", nargs=argparse.REMAINDER, help="sessions of the port's noxfile; none: only build")
    options = parser.parse_args(argv)
    if options.device == "auto":
        options.device = "cuda" if has_gpu() else "cpu"
    return options, options.sessions


def build(options: argparse.Namespace) -> str:
    """The image's tag, after building it where no image of these sources exists; empty where the build failed."""
    tag = f"localhost/fvport-gate-{options.device}:{digest(options.device, options.base)}"
    if quiet(engine(options, "image", "inspect", tag)):
        return tag
    image = base.make(engine(options)) if options.base == "debootstrap" else options.base
    given = {"DEVICE": options.device, "REVISION": revision(), **({"BASE_IMAGE": image} if image else {})}
    flags = [f"--build-arg={key}={value}" for key, value in given.items()]
    flags += [f"--build-arg={name}" for name in HANDED_ON if os.environ.get(name)]
    print(f"Building {tag} (the first time, several GB are downloaded)", flush=True)
    command = [*extra("FVPORT_BUILD_FLAGS"), *flags, "-f", "docker/Dockerfile", "-t", tag, "."]
    return tag if subprocess.run(engine(options, "build", *command), check=False, cwd=ROOT).returncode == 0 else ""


def run(options: argparse.Namespace, tag: str, port: Path, sessions: Sequence[str]) -> int:
    """Run the sessions on the port through ci/in-image.sh, the script that the workflow uses, too."""
    given = {"DOCKER": options.engine, "IMAGE": tag, "DEVICE": options.device, "NETWORK": options.network}
    links = "\n".join(map(str, sorted(linked_to(port))))
    env = {**os.environ, **given, "FVPORT_READ_ONLY": links, "OUT": ".fvport/gate-out"}
    command = ["bash", str(ROOT / "ci" / "in-image.sh"), *sessions]
    if os.getuid():
        return subprocess.run(command, check=False, cwd=port, env=env).returncode
    return lent(port, command, env)


def lent(port: Path, command: Sequence[str], env: dict[str, str]) -> int:
    """For a caller who is root: the port is the image's user's while it runs, and its owner's again afterwards."""
    owner = port.stat()
    (port / env["OUT"]).mkdir(parents=True, exist_ok=True)
    try:
        chown(port, GATE_UID, GATE_UID)
        return subprocess.run(command, check=False, cwd=port, env=env).returncode
    finally:
        chown(port, owner.st_uid, owner.st_gid)


def chown(root: Path, uid: int, gid: int) -> None:
    for folder, folders, files in os.walk(root):
        for name in (".", *folders, *files):
            os.chown(os.path.join(folder, name), uid, gid, follow_symlinks=False)


def linked_to(port: Path) -> Iterator[Path]:
    """Folders outside the port that its weights link to; they must be there inside, too."""
    seen = set()
    for top in ("official_weights", "converted_weights"):
        for folder, folders, files in os.walk(port / top):
            for path in (Path(folder, name) for name in (*folders, *files)):
                target = path.resolve()
                if path.is_symlink() and not target.is_relative_to(port) and target.exists():
                    seen.add(target if target.is_dir() else target.parent)
    for path in seen:
        if not seen & set(path.parents):
            yield path


def digest(device: str, image: str) -> str:
    """Twelve digits of everything the image is made from: another text, another tag."""
    total = hashlib.sha256(image.encode())
    files = [ROOT / name.format(device=device) for name in MADE_FROM]
    for tree in MADE_FROM_TREES:
        found = (path for path in (ROOT / tree).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        files += sorted(found)
    for file in files:
        total.update(str(file.relative_to(ROOT)).encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()[:12]


def engine(options: argparse.Namespace, *rest: str) -> list[str]:
    return [options.engine, *extra("FVPORT_ENGINE_FLAGS"), *rest]


def extra(name: str) -> list[str]:
    return shlex.split(os.environ.get(name, ""))


def quiet(command: Sequence[str]) -> bool:
    return subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def has_gpu() -> bool:
    return Path("/dev/nvidiactl").exists()


def revision() -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], check=False, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def wrong(sentence: str) -> int:
    print(f"gate-docker: {sentence}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
