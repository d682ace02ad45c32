# SPDX-License-Identifier: Apache-2.0
"""What runs on a node: one check of one port, as the command line runs it. A red check is an answer, not an error."""

from __future__ import annotations

from typing import Any


def run(root: str, slug: str, check: str, components: tuple[str, ...], device: str) -> dict[str, Any]:
    """`{"check", "verdict", "reason"}`. An error of the tool itself is a `blocked` answer with its words."""
    import os
    from pathlib import Path

    from fvport import checks, spec
    from fvport.errors import FvportError

    os.environ["FVPORT_SLUG"] = slug
    try:
        record = checks.run_check(spec.load(Path(root)), check, checks.Options(components=components, device=device))
    except FvportError as error:
        return {"check": check, "verdict": "blocked", "reason": str(error)}
    return {"check": check, "verdict": record.verdict, "reason": ""}
