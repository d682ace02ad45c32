#!/usr/bin/env -S uv run --script
# /// script
# dependencies = ["nox>=2025.2.9"]
# ///
# SPDX-License-Identifier: Apache-2.0
"""The alignment gate, one session a step; `nox -l` is the table of contents. The same file for every port.

Ports are found by tests/local_tests/*/port.toml; FVPORT_SLUG chooses where a tree has several. Everything after -- goes
to the command: nox -s parity -- transformer
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "none"
nox.options.sessions = ["gate"]

ROOT = Path(__file__).parent.resolve()
ENV = Path(os.environ.get("FVPORT_ENV") or ROOT / ".fvport" / "env").absolute()
# fvport at the version that made this file; FVPORT_SOURCE is a path, a wheel or an address to use in its place
SOURCE = os.environ.get("FVPORT_SOURCE", "{{ "git+" ~ p.repository ~ "@v" ~ p.version if p.repository else "" }}")


def port_file(session: nox.Session) -> Path:
    """Declaration of the port that the sessions speak of: FVPORT_SLUG's, else the only one of this tree."""
    found = {file.parent.name: file for file in sorted(ROOT.glob("tests/local_tests/*/port.toml"))}
    slug, names = os.environ.get("FVPORT_SLUG"), ", ".join(found)
    if slug and slug not in found:
        session.error(f"FVPORT_SLUG is {slug}, which is no port of this tree ({names or 'it has none'})")
    if not slug and len(found) > 1:
        session.error(f"several ports on this tree ({names}): choose one with FVPORT_SLUG=...")
    return found[slug] if slug else next(iter(found.values()), ROOT / "port.toml")


def device(session: nox.Session) -> str:
    """Device whose evidence opens the port's gate, which decides the lock of the environment."""
    file = port_file(session)
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    said = re.search(r'^require_device\s*=\s*["\'](\w+)["\']', text, re.MULTILINE)
    return os.environ.get("FVPORT_DEVICE") or (said[1] if said else "cuda")


def build(session: nox.Session) -> None:
    """One environment for every session, from the device's lock, built once."""
    kind, uv = device(session), ("uv", "pip", "install", "--quiet", "--python", str(ENV / "bin" / "python"))
    if not SOURCE:
        session.error("say where fvport comes from: FVPORT_SOURCE=path, wheel or address (or FVPORT_ENV=environment)")
    version = "3.12" if kind == "cuda" else "3.11"
    session.run("uv", "venv", "--quiet", "--allow-existing", "--python", version, str(ENV), external=True)
    session.run(*uv, "--require-hashes", "-r", f"docker/alignment-gate/gate-{kind}.lock", external=True)
    session.run(*uv, "--no-deps", SOURCE, external=True)


def fvport(session: nox.Session, *words: str, posargs: Sequence[str] | None = None) -> None:
    """Run fvport of the environment on this port; the first session builds the environment."""
    session.chdir(ROOT)
    port_file(session)  # which port is decided before anything is built or run
    if not (ENV / "bin" / "fvport").exists():
        if os.environ.get("FVPORT_ENV"):
            session.error(f"FVPORT_ENV={ENV} has no bin/fvport")
        build(session)
    more = session.posargs if posargs is None else posargs
    session.run(str(ENV / "bin" / "fvport"), *words, "--port", ".", *more, external=True)


# --- before the checks ------------------------------------------------------------------------------------------------


@nox.session(default=False)
def env(session: nox.Session) -> None:
    """Build or update the environment of all sessions (nothing where FVPORT_ENV names one)."""
    if os.environ.get("FVPORT_ENV"):
        session.log(f"FVPORT_ENV is used as it is: {ENV}")
    else:
        session.chdir(ROOT)
        build(session)


@nox.session(default=False)
def prep(session: nox.Session) -> None:
    """Official code at its commit, official weights there and locked, imports of the official side checked."""
    fvport(session, "prep")


@nox.session(default=False)
def workspace(session: nox.Session) -> None:
    """Put the port on an isolated FastVideo tree on a branch of its own, and register it."""
    fvport(session, "workspace")


@nox.session(default=False)
def prototype(session: nox.Session) -> None:
    """Both sides of a component without weights: names and shapes dumped, concerns listed (-- names the component)."""
    fvport(session, "prototype")


# --- the checks, cheap before dear ------------------------------------------------------------------------------------


@nox.session(default=False)
def mapping(session: nox.Session) -> None:
    """Mapping rules: every rule used, no two in each other's way, signed by a reviewer."""
    fvport(session, "check", "mapping")


@nox.session(default=False)
def keys(session: nox.Session) -> None:
    """Official names and shapes through the mapping equal the native state dict."""
    fvport(session, "check", "keys")


@nox.session(default=False)
def config(session: nox.Session) -> None:
    """Native configs, presets, schedules and token ids against the official ones."""
    fvport(session, "check", "config")


@nox.session(default=False)
def conversion(session: nox.Session) -> None:
    """Convert where the release needs it; the load tree through the production loader, every tensor compared."""
    file = port_file(session)
    if file.is_file() and re.search(r"^needs_conversion\s*=\s*true", file.read_text(encoding="utf-8"), re.MULTILINE):
        fvport(session, "convert", posargs=())
    fvport(session, "check", "conversion")


@nox.session(default=False)
def parity(session: nox.Session) -> None:
    """Each component against the official one, within a multiple of its own floor."""
    fvport(session, "check", "parity")


@nox.session(default=False)
def strength(session: nox.Session) -> None:
    """Faults that ports really had, planted one at a time: how many parity sees, and where (parity reads it)."""
    fvport(session, "strength")


@nox.session(default=False)
def trace(session: nox.Session) -> None:
    """The first module of a component that differs by itself, and why (-- names the component)."""
    fvport(session, "trace")


@nox.session(default=False)
def smoke(session: nox.Session) -> None:
    """Imports, EntryClass, registry, presets, load, and which class is really resolved."""
    fvport(session, "check", "smoke")


@nox.session(default=False)
def pipeline(session: nox.Session) -> None:
    """Same seed, same call: denoised latents and decoded media agree."""
    fvport(session, "check", "pipeline")


@nox.session(default=False)
def ssim(session: nox.Session) -> None:
    """Generated media against this device's references (-- --bootstrap writes a draft)."""
    fvport(session, "check", "ssim")


@nox.session(default=False)
def example(session: nox.Session) -> None:
    """The example as a user runs it; its file is decoded and measured."""
    fvport(session, "check", "example")


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """The documentation page: complete, and its figures as new as the code."""
    fvport(session, "check", "docs")


@nox.session(default=False)
def boundary(session: nox.Session) -> None:
    """What the port's files may hold: no foreign model class, token, weights or open decision."""
    fvport(session, "check", "boundary")


# --- the verdict ------------------------------------------------------------------------------------------------------


@nox.session(default=True)
def gate(session: nox.Session) -> None:
    """The verdict, from evidence alone (-- --run runs what is missing or stale)."""
    fvport(session, "gate")


@nox.session(default=False)
def report(session: nox.Session) -> None:
    """The verdict as HTML, Markdown, JUnit and JSON under .fvport/report/."""
    fvport(session, "report")


@nox.session(default=False)
def plan(session: nox.Session) -> None:
    """Progress of PLAN.md (-- --sync brings PLAN, PORT_STATUS, README and docs up to the evidence)."""
    fvport(session, "plan")


if __name__ == "__main__":
    nox.main()
