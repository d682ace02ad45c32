# SPDX-License-Identifier: Apache-2.0
"""Names that the shell completes: checks, components of the port here, answers of `fvport new`, ids of errors."""

from __future__ import annotations


def checks(incomplete: str) -> list[str]:
    from fvport.words import CHECKS

    return [name for name in CHECKS if name.startswith(incomplete)]


def components(incomplete: str) -> list[str]:
    """Those of the port in this folder; none where there is no port, or none that can be read."""
    from fvport import spec
    from fvport.errors import FvportError

    try:
        return [name for name in spec.load(".").components if name.startswith(incomplete)]
    except (FvportError, OSError):
        return []


def answers(incomplete: str) -> list[str]:
    from fvport.scaffold import new

    return [f"{key}=" for key in list(new.keys()) if key.startswith(incomplete)]


def errors(incomplete: str) -> list[str]:
    from fvport import errors_catalogue

    return [id for id in errors_catalogue.entries() if id.startswith(incomplete.upper())]
