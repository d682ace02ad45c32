# SPDX-License-Identifier: Apache-2.0
"""Signed records: the sigstore bundle that CI made of a record lies beside it and is verified with `gh`.

`<check>.json` and `<check>.sigstore.json`, which is what `gh attestation download` and GitHub's attest action give. A
bundle that is there is verified, also where nobody asks for one: against the repository that the verdict names
(`--only-signed-by OWNER/REPO`), else the one whose CI this is. A record without a bundle counts unless the verdict
names a signer.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

GH = "gh"
SECONDS = 120  # gh asks the network for the trusted root


def refuses(record: Path, signer: str) -> str:
    """Why the signature of the record file does not let it count; '' where it does, or where none is asked for."""
    bundle = record.with_suffix(".sigstore.json")
    if not bundle.is_file():
        return f"it is not signed (no {bundle.name}); this verdict counts what {signer} signed" if signer else ""
    whose = signer or os.environ.get("GITHUB_REPOSITORY", "")
    if not whose:
        return ""
    if whose.count("/") != 1:
        return f"{whose!r} is no OWNER/REPO, so nobody can say whose signature counts"
    import subprocess

    command = [GH, "attestation", "verify", str(record), "--bundle", str(bundle), "--repo", whose]
    try:
        done = _gh(command)
    except FileNotFoundError:
        return f"it is signed and {GH} is not here to verify that: install GitHub's command line"
    except subprocess.TimeoutExpired:
        return f"its signature could not be verified: {GH} did not answer within {SECONDS} s"
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()
        return f"its signature is not one of {whose}: {words[-1] if words else 'no reason given'}"
    return ""


def _gh(command: list[str]) -> subprocess.CompletedProcess[str]:
    import subprocess

    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
