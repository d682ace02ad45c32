# SPDX-License-Identifier: Apache-2.0
"""`fvport inspect PATH [--json]` without the command tree: building the tree costs more than reading 100 GB's headers.

Only this exact form is answered here; anything else, `--help` and mistakes too, goes the usual way and says the same.
"""

from __future__ import annotations


def answered(words: list[str]) -> bool:
    """Whether the command line was answered. FvportError as from the verb."""
    rest = [word for word in words[1:] if word != "--json"]
    if words[:1] != ["inspect"] or len(rest) != 1 or rest[0].startswith("-"):
        return False
    from fvport.weights import remote

    print(remote.inspect(rest[0]).shown("--json" in words))
    return True
