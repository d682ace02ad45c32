# SPDX-License-Identifier: Apache-2.0
"""Where a record was made: on which run of CI, at which commit, in which image. A verdict job demands its own.

The workflow says all three by environment variables, which reach the container; a laptop says none. `gate --only-run`,
`--only-commit` and `--only-image` then show what was made elsewhere and do not count it. This binds evidence to a run;
it is no signature: what a record says of itself is believed only as far as its run's artifacts are. Signatures are
`attestation.py`'s; `signer` here says whose count.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

VARIABLES = {"run": "FVPORT_RUN", "commit": "FVPORT_COMMIT", "image": "FVPORT_IMAGE"}


@dataclass(frozen=True)
class Demand:
    """What a record's origin must say for it to count; '' demands nothing."""

    run: str = ""
    commit: str = ""
    image: str = ""
    signer: str = ""  # OWNER/REPO whose workflows signed each record; '' asks for no signature

    def refuses(self, origin: Mapping[str, str]) -> list[str]:
        """Why a record of this origin does not count, one sentence a field."""
        found = []
        for field in VARIABLES:
            wanted, said = getattr(self, field), str(origin.get(field, ""))
            if wanted and said != wanted:
                made = f"made at {field} {said}" if said else f"made outside CI (it names no {field})"
                found.append(f"{made}; this verdict counts {field} {wanted} only: shown, does not open the gate")
        return found


def here() -> dict[str, str]:
    """What this process knows of the run that it is part of; empty on a laptop."""
    return {field: os.environ[name] for field, name in VARIABLES.items() if os.environ.get(name)}
