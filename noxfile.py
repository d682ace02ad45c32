#!/usr/bin/env -S uv run --script
# /// script
# dependencies = ["nox>=2025.2.9"]
# ///
# SPDX-License-Identifier: Apache-2.0
"""Sessions of this repository; `nox -l` is the table of contents. They run in .venv, which `make env` builds.

The alignment gate's sessions are the port's own: here they are called on a port, the demo's unless `-- --port DIR`.
"""

from __future__ import annotations

import os
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "tests"]

ROOT = Path(__file__).parent.resolve()
PYTHON = str(ROOT / ".venv" / "bin" / "python")
UV = [PYTHON, "-m", "uv", "pip", "compile", "-q", "--generate-hashes", "--no-emit-index-url", "--no-header"]
UNIVERSAL = ["--universal", "--python-version", "3.11"]
CUDA = ["--python-version", "3.12", "--python-platform", "x86_64-manylinux_2_35"]
LINT_ENV = ROOT / ".nox" / "lint-env"

# --- this repository --------------------------------------------------------------------------------------------------


@nox.session(default=True)
def tests(session: nox.Session) -> None:
    """The test suite; arguments go on to pytest: nox -s tests -- -m "not slow" """
    session.run(PYTHON, "-m", "pytest", *session.posargs, external=True)


@nox.session(default=False)
def faults(session: nox.Session) -> None:
    """Every fault of the table, one at a time, in a green port: each must be red in the right place (half an hour)."""
    file = "tests/test_end_to_end_faults.py"
    session.run(PYTHON, "-m", "pytest", "-n", "2", file, "-m", "heavy or not heavy", *session.posargs, external=True)


@nox.session(default=False)
def heavy(session: nox.Session) -> None:
    """Tests too long for every run: all faults, FastVideo's own tests before and after a port, full matrices."""
    session.run(PYTHON, "-m", "pytest", "-n", "2", "-m", "heavy", *session.posargs, external=True)


@nox.session(default=True)
def lint(session: nox.Session) -> None:
    """Everything that reads the files without running them: ours, and what the template renders."""
    session.run(PYTHON, "-m", "ci.lint", "--env", str(LINT_ENV), *session.posargs, external=True)


@nox.session(default=False)
def site(session: nox.Session) -> None:
    """The site, built strictly in an environment of its own, every link inside checked: build/site/index.html."""
    session.run(PYTHON, "-m", "ci.site", *session.posargs, external=True)


@nox.session(default=False)
def site_pages(session: nox.Session) -> None:
    """Write the site's pages and blocks that are made from code; a test is red when one has drifted."""
    session.run(PYTHON, "-m", "ci.site_pages", *session.posargs, external=True)


@nox.session(default=False)
def pythons(session: nox.Session) -> None:
    """fvport without the gate's environment on Python 3.10 to 3.13: help, explain, a bake, status (-- 3.10 3.13)."""
    session.run(PYTHON, "-m", "ci.pythons", *session.posargs, external=True)


@nox.session(default=False)
def bake_matrix(session: nox.Session) -> None:
    """Every bake that must work and every bake that must fail."""
    session.run(
        PYTHON, "-m", "pytest", *sorted(map(str, ROOT.glob("tests/test_bake*.py"))), *session.posargs, external=True
    )


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure: nox -s bench -- bake --quick (python -m benchmarks --help names them)."""
    session.run(PYTHON, "-m", "benchmarks", *session.posargs, external=True)


@nox.session(default=False)
def audit(session: nox.Session) -> None:
    """The parity census of FastVideo, and its page: nox -s audit -- --control (fvport audit --help)."""
    page = [] if session.posargs else ["--docs", "docs/census.md"]
    session.run(PYTHON, "-m", "fvport.cli", "audit", *page, *session.posargs, external=True)


@nox.session(default=False)
def image(session: nox.Session) -> None:
    """Build the gate's image and run checks of a port inside: nox -s image -- --engine podman parity"""
    session.run(
        PYTHON, "-m", "ci.container", *(session.posargs or ["mapping", "keys", "parity", "gate"]), external=True
    )


@nox.session(default=False)
def ci_dry_run(session: nox.Session) -> None:
    """The gate's workflow without GitHub, on the demo's port: plan, one job a check, verdict (-- --engine podman)."""
    known = ["--weights", str(ROOT / "build" / "official")] if "--weights" not in session.posargs else []
    session.run(PYTHON, "-m", "ci.dry_run", *known, *session.posargs, external=True)


@nox.session(default=False)
def slurm(session: nox.Session) -> None:
    """The gate on a real two-node Slurm cluster of this machine (root; Debian: slurmctld slurmd slurm-client munge)."""
    session.run(
        PYTHON, "-m", "pytest", "-v", "-m", "heavy", "tests/test_cluster_slurm.py", *session.posargs, external=True
    )


@nox.session(default=False)
def release_check(session: nox.Session) -> None:
    """Build, read, install into an empty environment, bake, uninstall: what a release must hold (-- --tag vX.Y.Z)."""
    session.run(PYTHON, "-m", "ci.release", *session.posargs, external=True)


@nox.session(default=False)
def lock(session: nox.Session) -> None:
    """Compile every lock again (-- --upgrade takes newer versions), and copy the gate's into the template."""
    cpu = ["-c", "docker/gate-cpu.lock"]
    for name, options in (
        ("gate-cpu", [*UNIVERSAL, "--override", "docker/gate-cpu.overrides"]),
        ("gate-cuda", [*CUDA, *cpu]),
        ("uv", [*UNIVERSAL, *cpu]),
        ("lint", [*UNIVERSAL, *cpu]),
        ("site", [*UNIVERSAL, *cpu]),
    ):
        command = [*UV, f"docker/{name}.in", *options, "-o", f"docker/{name}.lock", *session.posargs]
        session.run(*command, external=True)
    session.run(PYTHON, "-m", "ci.template_copies", external=True)


# --- the alignment gate of a port -------------------------------------------------------------------------------------

GATE = {
    "prep": "Official weights linked or fetched, and locked.",
    "workspace": "The port on an isolated FastVideo tree, on a branch of its own.",
    "mapping": "Every mapping rule is used, unambiguous, and signed by a reviewer.",
    "keys": "Official names through the mapping equal the native ones, from headers alone.",
    "config": "Native configs, schedules and token ids equal the official ones.",
    "conversion": "The load tree loads whole, and every tensor is the one it claims to be.",
    "parity": "Each component equals the official one on the same inputs.",
    "strength": "Faults that ports really had, planted one at a time: how many parity sees.",
    "trace": "The first module of a component that differs by itself: nox -s trace -- transformer",
    "smoke": "Imports, registry, presets and class resolution are the port's.",
    "pipeline": "Same seed, same call: latents and frames agree.",
    "ssim": "Generated media against references that the official pipeline made.",
    "example": "The example runs as a user runs it and writes the video it promises.",
    "docs": "The docs page exists, is complete, and its figures are today's.",
    "boundary": "No foreign class at run time, no secret, no weight, no placeholder.",
    "gate": "The verdict, from evidence alone (-- --run first runs what is missing).",
    "report": "The gate's report as files.",
}


def port_session(name: str, words: str) -> None:
    def run(session: nox.Session) -> None:
        port, rest = port_of(session)
        env = {"FVPORT_ENV": os.environ.get("FVPORT_ENV", str(ROOT / ".venv"))}
        session.run(
            PYTHON, "-m", "nox", "-f", str(port / "noxfile.py"), "-s", name, "--", *rest, env=env, external=True
        )

    run.__doc__ = words
    nox.session(run, name=name, default=False)


def port_of(session: nox.Session) -> tuple[Path, list[str]]:
    """The folder after `--port`, else the demo's port; and the arguments that are left."""
    rest, port = list(session.posargs), ROOT / "build" / "tiny_wan"
    if "--port" in rest:
        at = rest.index("--port")
        port = Path((rest[at + 1 : at + 2] or ["."])[0]).resolve()
        del rest[at : at + 2]
    if not (port / "noxfile.py").is_file():
        session.error(
            f"{port} is no port; run `make demo`, which makes one, or name yours: nox -s {session.name} -- --port DIR"
        )
    return port, rest


for _name, _words in GATE.items():
    port_session(_name, _words)

if __name__ == "__main__":
    nox.main()
