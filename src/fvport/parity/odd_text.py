# SPDX-License-Identifier: Apache-2.0
"""Prompts that a port must treat as the official pipeline does: what cleaning changes, and what does not fit.

A plain prompt says nothing of cleaning: with it, a port that cleans nothing is equal. Each part of `ODD` is something
that a pipeline of the field repairs, folds, cuts or passes on: runs of space, a tab and a line's end, an entity escaped
twice, letters decoded twice in the wrong encoding, curly quotes, capitals, a full-width letter, percent and braces (a
template's own signs), what a cleaner of captions takes out or reads as weights (plain quotes, brackets, a hash, an
address), a character outside of any Latin vocabulary, and the sign `<`, beside which ftfy leaves entities as they are.
No space stands at an end: `VideoGenerator` strips every prompt there, whatever the port does.
"""

from __future__ import annotations

ODD = (
    "{0},  at 100% {{snow}},\tcaf\u00c3\u00a9 &amp;amp; \u201cTWO \uff28ats\u201d <3\n seen   From above, \u96ea, "
    'a sign (neon:1.2) says "OPEN" [now] #7 https://example.org/a_b'
)
NEGATIVE = "overexposed,\tDull &amp;amp; gr\u00c3\u00a9y"
LONG_WORDS = 700  # more than any text encoder of the field takes


def odd(prompt: str) -> str:
    """Another prompt than this one, and an untidy one."""
    return ODD.format(prompt)


def long(prompt: str) -> str:
    """The prompt so often that no text encoder takes all of it."""
    return " ".join([prompt] * (LONG_WORDS // max(len(prompt.split()), 1) + 1))
