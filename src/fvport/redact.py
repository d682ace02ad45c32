# SPDX-License-Identifier: Apache-2.0
"""What must not be said: tokens and passwords in other programs' words, before they reach a screen or a file.

A token is known to fvport by the name of its variable only. Its value is looked at here for one purpose: taking it out.
"""

from __future__ import annotations

import os
import re
import urllib.parse

READ_BY_THE_HUB = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")  # what huggingface_hub reads, in this order
NOT_READ = ("HUGGINGFACE_HUB_TOKEN", "HF_API_KEY")  # names in use elsewhere (FastVideo's own tools), which it does not
SECRET = re.compile(r"(?i)token|secret|passw|api_?key|access_?key|credential|_pat$")
SHORT = 6  # characters; a shorter value would take words out of every sentence


def redact(text: str) -> str:
    """The same words without values of secret variables, passwords in addresses, query strings, or hub tokens."""
    for name, value in os.environ.items():
        if SECRET.search(name) and len(value.strip()) >= SHORT:
            for form in {value.strip(), urllib.parse.quote(value.strip(), safe="")}:
                text = text.replace(form, f"${name}")
    text = re.sub(r"(?i)\b([a-z][a-z0-9+.-]*://)[^\s/@'\"]+@", r"\1", text)
    text = re.sub(r"(?i)\b(https?://[^\s?'\"]+)\?[^\s'\"]+", r"\1?...", text)
    return re.sub(r"\bhf_[A-Za-z0-9]{6,}", "hf_...", text)


def without_secrets(environment: dict[str, str]) -> dict[str, str]:
    """An environment for code that needs no token: somebody else's package that is only imported."""
    return {name: value for name, value in environment.items() if not SECRET.search(name)}


def token_name() -> str:
    """Name of the variable that the hub's client would take its token from, or ''."""
    return next((name for name in READ_BY_THE_HUB if os.environ.get(name)), "")


def token_advice() -> str:
    """What to set, said by name: with a word on a variable that is set and that the hub's client does not read."""
    unread = next((name for name in NOT_READ if os.environ.get(name)), "")
    if not token_name() and unread:
        return f'set HF_TOKEN (huggingface_hub does not read {unread}: export HF_TOKEN="${unread}")'
    return "set HF_TOKEN to the token of an account that has access"
