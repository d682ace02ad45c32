# SPDX-License-Identifier: Apache-2.0
"""Writes src/fvport/errors_catalogue.json and the page of errors, from what the code says. Part of `nox -s site_pages`.

A sentence that stays keeps its id, also when it is reworded a little; a new one takes the next number; the number of
one that is gone is never given again.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path

from ci.errors_read import Place, places
from ci.site_rules import cell
from fvport import errors_catalogue as catalogue

FILE = Path(catalogue.__file__).with_name("errors_catalogue.json")
ALIKE = 0.6  # how alike two sentences of one module must be to be one that was reworded
FAMILY = {  # module, or the beginning of its name -> family; the longest that fits counts
    "portfile": "port.toml",
    "spec": "port.toml",
    "scaffold": "answers",
    "scaffold.conversion": "conversion",
    "weights": "release",
    "weights.remote": "hub",
    "weights.fetch": "hub",
    "weights.lockfile": "lock",
    "weights.prep": "lock",
    "weights.declaration": "conversion",
    "weights.conversion": "conversion",
    "weights.converter": "conversion",
    "weights.verify": "conversion",
    "weights.tree": "conversion",
    "weights.fill": "conversion",
    "weights.stream": "conversion",
    "weights.arithmetic": "conversion",
    "weights.operations": "conversion",
    "weights.retries": "conversion",
    "weights.mapping": "mapping",
    "weights.review": "mapping",
    "weights.sides": "mapping",
    "weights.suggest": "mapping",
    "weights.convert": "load tree",
    "weights.external": "load tree",
    "workspace": "workspace",
    "workspace.oracle_env": "official",
    "fastvideo_api": "native",
    "models": "native",
    "models.official": "official",
    "parity": "comparison",
    "parity.oracle": "official",
    "parity.commands": "trace",
    "parity.trace": "trace",
    "parity.strength": "strength",
    "contract": "comparison",
    "media": "media",
    "checks": "evidence",
    "checks._media": "media",
    "evidence": "evidence",
    "figures": "evidence",
    "gate": "evidence",
    "report": "evidence",
    "cluster": "cluster",
    "audit": "census",
    "reuse": "reuse",
    "doctor": "workspace",
    "tiny": "release",
    "upgrade": "workspace",
    "upstream": "workspace",
    "verbs": "command line",
    "errors_catalogue": "command line",
    "quick": "command line",
    "trouble": "command line",
}


def family(module: str) -> str:
    """KeyError for a module that has errors and no family: add it to FAMILY."""
    fitting = [name for name in FAMILY if module == name or module.startswith((f"{name}.", f"{name}_"))]
    if module.startswith("weights.suggest"):
        fitting.append("weights.suggest")
    if not fitting:
        raise KeyError(f"{module} has errors and no family in ci/errors_write.py")
    return FAMILY[max(fitting, key=len)]


def renewed(old: dict[str, object], now: list[Place]) -> dict[str, object]:
    """The catalogue for the places that there are now: {next, entries}."""
    rows = [catalogue.Entry(**row) for row in old["entries"]]  # type: ignore[attr-defined]
    ids = {(row.module, row.kind, row.sentence): row.id for row in rows}
    wanted = {place.key: place for place in now}
    gone = [row for row in rows if (row.module, row.kind, row.sentence) not in wanted]
    number, made = int(str(old["next"])), []
    for key, place in wanted.items():
        id = ids.get(key) or _reworded(place, gone)
        if not id:
            id, number = f"E{number:04}", number + 1
        made.append(catalogue.Entry(id, place.module, place.kind, place.sentence, place.todo, family(place.module)))
    return {"next": number, "entries": [vars(entry) for entry in sorted(made, key=lambda e: e.id)]}


def _reworded(place: Place, gone: list[catalogue.Entry]) -> str:
    """The id of a sentence of the same module that is gone and much like this one; it is taken out of `gone`."""
    best, score = None, ALIKE
    for row in gone:
        if row.module == place.module:
            alike = difflib.SequenceMatcher(None, row.sentence, place.sentence).ratio()
            best, score = (row, alike) if alike > score else (best, score)
    if best is None:
        return ""
    gone.remove(best)
    return best.id


def stored() -> dict[str, object]:
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {"next": 1, "entries": []}


def pages(docs: Path) -> dict[Path, str]:
    """The catalogue's file and its page."""
    made = renewed(stored(), places())
    entries = [catalogue.Entry(**row) for row in made["entries"]]  # type: ignore[attr-defined]
    return {
        FILE: json.dumps(made, indent=1, ensure_ascii=False) + "\n",
        docs / "reference" / "errors.md": page(entries),
    }


def page(entries: list[catalogue.Entry]) -> str:
    lines = [
        "# Errors",
        "",
        "What goes wrong for a user is one sentence, an id and an exit code; `fvport explain E0001` prints the rest.",
        "This page is made from the code: `{}` stands for what is filled in. A traceback is shown with `--debug` only.",
        "",
        "Exit codes: 2 wrong use, 3 blocked (something lacks), 1 a finding, 4 a fault of fvport, 130 interrupted.",
    ]
    for name, family in catalogue.FAMILIES.items():
        rows = [entry for entry in entries if entry.family == name]
        if not rows:
            continue
        lines += [
            "",
            f"## {name}",
            "",
            f"{family.cause}.",
            "",
            f"{family.remedy}. See [the page](../{family.page}).",
            "",
        ]
        lines += ["| id | sentence | remedy of its own | code |", "| --- | --- | --- | --- |"]
        for entry in rows:
            own = code(entry.todo) if entry.todo else ""
            lines.append(f"| {entry.id} | {code(entry.sentence)} | {own} | {entry.exit_code} |")
    return "\n".join(lines) + "\n"


def code(text: str) -> str:
    """Text of the code in a table's cell: no Markdown or HTML in it."""
    return cell(
        text.replace("&", "&amp;").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_").replace("[", "\\[")
    )
