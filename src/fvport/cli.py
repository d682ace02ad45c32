# SPDX-License-Identifier: Apache-2.0
"""`fvport`: one verb a job, no logic. Every verb has --help with an example and --json; see DESIGN for exit codes."""

from __future__ import annotations

import sys
from typing import Any


def __getattr__(name: str) -> Any:
    """`app`: the typer application with every verb on it, built when it is first asked for."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fvport.verbs import app, audit, errors, gate, machine, media, models, port, reuse, tiny, upstream, weights  # noqa: F401

    return app


def main() -> None:
    """Entry point: whatever goes wrong is one sentence on standard error and an exit code, never a traceback."""
    from fvport import manners, quick, trouble

    sys.argv[1:] = manners.taken(sys.argv[1:])
    with trouble.told(as_json="--json" in sys.argv[1:]):
        if quick.answered(sys.argv[1:]):
            sys.exit(0)
        trouble.run(__getattr__("app"))


if __name__ == "__main__":
    main()
