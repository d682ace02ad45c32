# SPDX-License-Identifier: Apache-2.0
"""`strength`: of the faults planted in the census's equal pairs, the shares that are seen and whose module is named.

A share, not a time: every case once, no baseline. `python -m benchmarks.strength --write` brings the figures of
docs/strength.md up to date from the kept document.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.cases import FVPORT, ROOT, Case
from benchmarks.measure import Run

QUICK = ("siglip_vision", "flow_match_euler")
PAGE = ROOT / "docs" / "strength.md"
KEPT = ROOT / "benchmarks" / "results" / "strength.json"
BLOCK = re.compile(r"(<!-- census:begin -->\n).*?(<!-- census:end -->)", re.DOTALL)


def strength(scratch: Path, quick: bool) -> Case:
    """The bench. FVPORT_STRENGTH names some cases; FVPORT_STRENGTH_LOG a file with which an ended run goes on."""
    named = [name for name in os.environ.get("FVPORT_STRENGTH", "").split(",") if name]
    names = named or list(QUICK if quick else ())
    log = os.environ.get("FVPORT_STRENGTH_LOG", "") or str(scratch / "strength.jsonl")
    made: dict[str, Any] = {}

    def ours() -> Run:
        clock = time.perf_counter()
        if not made:
            command = [FVPORT, "audit", "--strength", "--json", "--log", log, *names]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            if "{\n" not in done.stdout:
                return Run(time.perf_counter() - clock, 0.0, done.returncode or 1, done.stdout)
            made.update(json.loads(done.stdout[done.stdout.index("{\n") :]))
        return Run(sum(row["seconds"] for row in made["rows"]), 0.0, 0, "")

    return Case({"ours": ours}, lambda runs: made)


def lines(detail: dict[str, Any]) -> list[str]:
    """The figures of a kept document as Markdown."""
    alone, goals = detail["by_case"], detail["goals"]
    missing = list(dict.fromkeys(name.partition("/")[0] for name in detail["not_run"]))
    blind = [f"`{pair['pair']}`: {fault['words']}" for pair in detail["by_pair"] for fault in pair["blind"]]
    wrong = {row["case"]: len(row["misnamed"]) for row in detail["rows"] if row.get("misnamed")}
    named = detail["traced"] - sum(wrong.values())
    by = ", ".join(f"{measure} {count}" for measure, count in detail["by_measure"].items())
    found = [
        f"FastVideo {detail['fastvideo']}; comparison, catalogue and trace in state `{detail['state']}`.",
        "",
        "| figure | value | goal |",
        "| --- | --- | --- |",
        f"| pairs, cases | {detail['pairs']}, {detail['cases']} equal ({detail['left_out']} differ or are blocked) | |",
        f"| strength by pair | {share(detail)} | {goals['strength']} |",
        f"| by a pair's first case alone | {share(alone)} | |",
        f"| false alarms | {len(detail['false_alarms'])} in {detail['greens']} sound comparisons | 0 |",
        f"| trace names the module | {detail['named']:.4f} ({named} of {detail['traced']}) | {goals['named']} |",
        f"| caught by | {by} | |",
        "",
    ]
    if wrong:
        words = ", ".join(f"`{case}` ({count})" for case, count in wrong.items())
        found += [f"The trace named another module, or none, in: {words}.", ""]
    if missing:
        found += [f"Not run: {len(detail['not_run'])} cases of {', '.join(f'`{name}`' for name in missing)}.", ""]
    found += ["No fault is blind to a whole pair."] if not blind else ["Blind to a whole pair:", ""]
    return found + [f"- {words}" for words in blind]


def share(figures: dict[str, Any]) -> str:
    return f"{figures['strength']:.4f} ({figures['caught']} of {figures['total']})"


def block(document: dict[str, Any]) -> str:
    return "\n".join(lines(document["detail"])) + "\n"


def main() -> int:
    text = block(json.loads(KEPT.read_text(encoding="utf-8")))
    if "--write" not in sys.argv[1:]:
        print(text, end="")
        return 0
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(BLOCK.sub(lambda found: found[1] + text + found[2], page), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
