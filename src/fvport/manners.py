# SPDX-License-Identifier: Apache-2.0
"""How much fvport says: --quiet, --verbose, --debug, anywhere on the command line; children get them by environment."""

from __future__ import annotations

import os

FLAGS = {"--quiet": "FVPORT_QUIET", "--verbose": "FVPORT_VERBOSE", "--debug": "FVPORT_DEBUG"}


def taken(words: list[str]) -> list[str]:
    """The command line without the flags; those that were there are set. After `--` nothing is a flag."""
    end = words.index("--") if "--" in words else len(words)
    for word in words[:end]:
        if word in FLAGS:
            os.environ[FLAGS[word]] = "1"
    return [word for word in words[:end] if word not in FLAGS] + words[end:]


def quiet() -> bool:
    return os.environ.get("FVPORT_QUIET") == "1"


def verbose() -> bool:
    return os.environ.get("FVPORT_VERBOSE") == "1"
