# SPDX-License-Identifier: Apache-2.0
"""What runs on a node: one check of one port, as the command line runs it. A red check is an answer, not an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fvport.spec import Port


def run(
    root: str, slug: str, check: str, components: tuple[str, ...], device: str, variant: str = ""
) -> dict[str, Any]:
    """`{"check", "verdict", "reason"}`. An error of the tool itself is a `blocked` answer with its words.

    `generation` is no check: it makes one call (`components` has its name) for the check that waits for it.
    """
    import os
    from pathlib import Path

    from fvport import checks, spec
    from fvport.cluster.plan import GENERATION
    from fvport.errors import FvportError

    os.environ["FVPORT_SLUG"] = slug
    try:
        port = spec.load(Path(root))
        view = port.of(variant) if variant else port
        if check == GENERATION:
            return _generate(view, components[0], device)
        record = checks.run_check(view, check, checks.Options(components=components, device=device))
    except FvportError as error:
        return {"check": check, "verdict": "blocked", "reason": str(error)}
    return {"check": check, "verdict": record.verdict, "reason": ""}


def _generate(port: Port, call: str, device: str) -> dict[str, Any]:
    from fvport import fastvideo_api, spec
    from fvport.parity import generation

    with spec.seen_as(port):
        generation.ahead(port, call, fastvideo_api.resolve_device(device))
    return {"check": "generation", "verdict": "pass", "reason": ""}
