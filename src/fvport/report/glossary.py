# SPDX-License-Identifier: Apache-2.0
"""The words of a report for a reader who has only the page: the docs say more, and may not be at hand."""

from __future__ import annotations

from html import escape

WORDS = {
    "budget": "what an output may differ by: three times its floor, unless port.toml has another factor and a reason. "
    "A class that is equal uses about a third of it, for it errs as the official one does",
    "floor": "how far the official model in float32 is from itself in float64: rounding, and nothing else",
    "rel l2, worst, angle, drift": "the four measures that must all hold: the norm of the difference, its largest "
    "element, the direction, the mean; each relative to the official output",
    "planted faults": "faults that ports really had, put into the port's component one at a time; seen are those that "
    "turn the comparison red",
    "harmless, no place": "planted faults that change no output on any input that was tried, and such as are about "
    "parts that this class does not have: neither is counted",
    "blocks in bf16": "each module in the precision that is shipped, given the official bf16 inputs",
    "non_skip_pass, debug_red, scaffold_skip": "FastVideo's words for pass, fail, and nothing to test yet",
    "stale": "something that the check read has changed since it ran: its record does not count until it ran again",
    "FV113 and the like": "numbered rules: fvport explain FV113",
    "temporal worst": "the largest difference between the two sides in what changes from one frame to the next",
}


def listing() -> str:
    """A list of terms, folded away."""
    rows = "".join(f"<dt>{escape(word)}</dt><dd>{escape(said)}</dd>" for word, said in WORDS.items())
    return f"<details><summary>What the words and figures mean</summary><dl>{rows}</dl></details>"
