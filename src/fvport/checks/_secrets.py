# SPDX-License-Identifier: Apache-2.0
"""What a token, a key or a password looks like in a line of text. The secret itself is never repeated."""

from __future__ import annotations

import math
import re
from collections import Counter

_SECRETS = {
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{20,}\b|\bapi_org_[A-Za-z0-9]{20,}\b",
    "an AWS key": r"\b(AKIA|ASIA)[0-9A-Z]{16}\b",
    "a GitHub token": r"\bgh[pousr]_[A-Za-z0-9]{30,}\b|\bgithub_pat_\w{30,}\b",
    "a private key": r"-----BEGIN (RSA |EC |OPENSSH |DSA |PGP )?PRIVATE KEY",
    "an API key": r"\bsk-[A-Za-z0-9_-]{20,}\b|\bxox[abprs]-[A-Za-z0-9-]{10,}|\bglpat-[\w-]{20,}",
    "a Google key": r"\bAIza[0-9A-Za-z_-]{35}\b",
    "a wandb key": r"WANDB_API_KEY\W{1,5}[0-9a-f]{40}\b",
    "a password in an address": r"\bhttps?://[^\s/:@'\"]+:[^\s/@'\"]{6,}@",
}
_NAMED = re.compile(
    r"(?i)\b[\w-]*(token|secret|passw(or)?d|api_?key|access_?key|credential|auth)\w*[\"']?\s*[:=]\s*[\"']?"
    r"([A-Za-z0-9+/_=.-]{16,})[\"']?"
)


def secret(line: str, *, hashes: bool = False) -> str:
    """What kind of secret a line holds, or ''. The secret is never repeated. `hashes`: digests are at home here."""
    for what, pattern in _SECRETS.items():
        if re.search(pattern, line):
            return what
    named = None if hashes else _NAMED.search(line)
    if named and _random(named[3]):
        return f'what looks like a secret called "{named[0].split(named[3])[0].strip(" :=")[:40]}"'
    return ""


def _random(word: str) -> bool:
    """Many different characters with digits and letters mixed: not a path, a name or a call."""
    if re.search(r"[./]\w*[./]|^[a-z_.]+$|^[A-Z_]+$|^[a-z]+(-[a-z]+)+$", word) or not re.search(r"\d", word):
        return False
    if sum(part.isalpha() for part in re.split(r"[._/-]", word)) >= 2:
        return False
    entropy = -sum(n / len(word) * math.log2(n / len(word)) for n in Counter(word).values())
    return entropy > 3.3
