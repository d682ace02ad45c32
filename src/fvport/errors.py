# SPDX-License-Identifier: Apache-2.0
"""What goes wrong for a user, as one sentence and an exit code.

0 pass, 1 fail, 2 wrong use, 3 blocked, 4 a fault of fvport itself.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

PASS, FAIL, USAGE, BLOCKED, INTERNAL = 0, 1, 2, 3, 4


class FvportError(Exception):
    """A user's problem: `what` happened, `where`, and what `todo`. Printed as one sentence, never a traceback."""

    exit_code = FAIL

    def __init__(self, what: str, *, where: str = "", todo: str = "") -> None:
        self.what, self.where, self.todo = what, where, todo
        super().__init__(": ".join(part for part in (where, what) if part) + (f". {todo}" if todo else ""))

    def further(self, words: str) -> FvportError:
        """The same error with more said of what happened."""
        return type(self)(self.what + words, where=self.where, todo=self.todo)


class UsageError(FvportError):
    """Wrong command line, wrong answers, or a wrong port.toml."""

    exit_code = USAGE


class BlockedError(FvportError):
    """Something that the work needs is not there: an asset, a device, a workspace."""

    exit_code = BLOCKED


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """' Did you mean "x"?' for the nearest known word, or '' when none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f' Did you mean "{near[0]}"?' if near else ""
