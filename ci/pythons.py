# SPDX-License-Identifier: Apache-2.0
"""fvport without the gate's environment on every Python it says it runs on: `nox -s pythons`.

One throw-away environment a Python, fvport installed from this checkout with its plain dependencies: help, an error's
explanation, a bake, `status` in the baked port. A Python that is not on this machine is named, and the session is red.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ci import env as environment

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
COMMANDS = (
    ["--help"],
    ["explain", "E0001"],
    ["new", "--no-input", "model_name=Some Model"],
    ["status", "--port", "some_model"],
)


def main(argv: Sequence[str] | None = None) -> int:
    """0 when every Python passed; the versions may be given as words."""
    wanted = list(sys.argv[1:] if argv is None else argv) or list(PYTHONS)
    red = {version: problem for version in wanted if (problem := tried(version))}
    for version in wanted:
        print(f"pythons: {version}: {red.get(version, 'ok')}")
    return 1 if red else 0


def tried(version: str) -> str:
    """What went wrong on this Python, in one line, or ''."""
    settings = environment.index_settings(dict(os.environ))
    settings.pop("PYTHONPATH", None)
    with tempfile.TemporaryDirectory() as folder:
        env = Path(folder) / "env"
        python = str(env / "bin" / "python")
        uv = [sys.executable, "-m", "uv"]
        steps = [
            [*uv, "venv", "-q", "--python", version, "--no-python-downloads", str(env)],
            [*uv, "pip", "install", "-q", "--python", python, str(ROOT)],
            *([python, "-m", "fvport.cli", *words] for words in COMMANDS),
        ]
        for step in steps:
            done = subprocess.run(step, cwd=folder, env=settings, capture_output=True, text=True, check=False)
            if done.returncode:
                return f"{' '.join(step[-3:])}: exit {done.returncode}: {done.stderr.strip()[-300:]}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
