# SPDX-License-Identifier: Apache-2.0
"""Pages of the site that are made from code: `nox -s site_pages` writes them, a test fails when one has drifted.

Whole pages: the rules, port.toml, the commands, the errors, the drawings. Blocks in pages that people write stand
between `<!-- made: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ci import errors_write, site_diagrams, site_reference, site_rules

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
BLOCK = re.compile(r"(<!-- made: ([\w ]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
NOTE = "<!-- Made by `nox -s site_pages`; edit the code that it is made from. -->\n\n"


def whole() -> dict[str, str]:
    """{page: text} of the pages that are made as a whole."""
    made = {**site_rules.pages(), "reference/port-toml.md": site_reference.port_toml()}
    made["reference/commands.md"] = site_reference.commands()
    return {name: NOTE + text for name, text in made.items()} | site_diagrams.pages()


def blocks() -> dict[str, Callable[[], str]]:
    """Name of a block -> what makes it."""
    checks = site_reference.faults()
    made: dict[str, Callable[[], str]] = {"benchmarks": benchmarks}
    for check in checks:
        made[f"faults {check}"] = functools.partial(site_reference.fault_table, check)
    return made


def benchmarks() -> str:
    """The figures in benchmarks/results, one row a benchmark and baseline."""
    lines = ["| benchmark | ours | baseline | its time |", "| --- | --- | --- | --- |"]
    for file in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        data = json.loads(file.read_text(encoding="utf-8"))
        for name, other in data.get("baselines", {}).items():
            if "seconds" in data.get("ours", {}) and "seconds" in other:
                ours, theirs = data["ours"]["seconds"], other["seconds"]
                lines.append(f"| {data['name']} | {ours:.3g} s | {name} | {theirs:.3g} s |")
    return "\n".join(lines)


def filled(text: str) -> str:
    """A page's text with its blocks made anew. KeyError for a block that nothing makes."""
    makers = blocks()
    return BLOCK.sub(lambda m: f"{m[1]}{makers[m[2]]()}\n{m[4]}", text)


def wanted() -> dict[Path, str]:
    """Every page that is made, whole or in part, as it should be."""
    pages = {DOCS / name: text for name, text in whole().items()} | errors_write.pages(DOCS)
    for path in sorted(DOCS.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        if path not in pages and BLOCK.search(text):
            pages[path] = filled(text)
    return pages


def drifted() -> list[Path]:
    return [path for path, text in wanted().items() if not path.is_file() or path.read_text(encoding="utf-8") != text]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 when a page has drifted")
    options = parser.parse_args(argv)
    pages = wanted()
    changed = [path for path in drifted() if path in pages]
    for path in changed:
        print(path.relative_to(ROOT))
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(pages[path], encoding="utf-8", newline="\n")
    return int(options.check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
