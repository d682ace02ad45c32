# SPDX-License-Identifier: Apache-2.0
"""`fvport`: one verb a job, no logic. Every verb has --help with an example and --json; see DESIGN for exit codes."""

from __future__ import annotations

import sys

from fvport.verbs import app, audit, gate, machine, media, models, port, weights

__all__ = ["app", "audit", "gate", "machine", "main", "media", "models", "port", "weights"]


def main() -> None:
    """Entry point: whatever goes wrong is one sentence on standard error and an exit code, never a traceback."""
    from fvport import trouble

    with trouble.told(as_json="--json" in sys.argv[1:]):
        trouble.run(app)


if __name__ == "__main__":
    main()
