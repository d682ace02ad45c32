# SPDX-License-Identifier: Apache-2.0
"""`reuse_find`: for how many of the official classes that FastVideo ports `fvport reuse --find` is right.

Official classes and their native twins are the pairs of the parity census, which `find` does not see; it gets the tiny
official class's names, shapes and config. Schedulers have no tensors, and a twin that FastVideo's registry does not
know is no port. The baseline is the native class whose name shares most words with the official one's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measure import here

if TYPE_CHECKING:
    from benchmarks.cases import Case
    from benchmarks.measure import Run

ROOT = Path(__file__).resolve().parent.parent
Json = dict[str, Any]


def reuse_find(scratch: Path, quick: bool) -> Case:
    """Every class once; the clock runs on ranking, after FastVideo's structures were asked (and kept under build/)."""
    from benchmarks.cases import Case
    from fvport.reuse import find, structure

    wanted = officials()
    if quick:
        wanted = dict(list(wanted.items())[:3])
    source = find.installed(ROOT / "build" / "bench")
    defaults, built = structures(source, wanted)
    found: dict[str, find.Ranking] = {}

    def ours() -> None:
        for label, (official, _) in wanted.items():
            found[label] = find.ranking(official, defaults, of_label(built, label))

    def names() -> None:
        for official, _ in wanted.values():
            max(defaults, key=lambda name: structure.word_share(official.name, name))

    def detail(runs: dict[str, list[Run]]) -> Json:
        rows = [judged(label, *wanted[label], found[label]) for label in wanted]
        by_name = 0
        for official, natives in wanted.values():
            by_name += max(defaults, key=lambda name: structure.word_share(official.name, name)) in natives
        return summary(rows) | {"nearest_name_first": by_name}

    return Case({"ours": lambda: here(ours), "nearest name": lambda: here(names)}, detail)


def officials() -> dict[str, tuple[Any, list[str]]]:
    """{census case: (official names, shapes and config, its native twins)}: one entry an official class."""
    from fvport.audit import inventory, run
    from fvport.audit import official as build
    from fvport.reuse import find

    found: dict[str, tuple[Any, list[str]]] = {}
    classes: dict[str, str] = {}
    ported = inventory.classes()
    for case in run.cases():
        if ".schedulers." in case.native or case.native not in ported:
            continue
        if case.official in classes:
            natives = found[classes[case.official]][1]
            natives += [case.native] if case.native not in natives else []
            continue
        model = build.construct(build.cls_of(case.official), case.config)
        config = model.config.to_dict() if hasattr(model.config, "to_dict") else dict(model.config)
        tensors = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        given = json.loads(json.dumps(config, default=str))
        classes[case.official] = case.name
        found[case.name] = (find.Official(case.official, tensors, given), [case.native])
    return found


def structures(source: Any, wanted: dict[str, tuple[Any, list[str]]]) -> tuple[Json, Json]:
    """(default structures, structures on each official config): the shortlists of all together, from one child each."""
    from fvport.reuse import find

    print("reuse_find: native structures by default", file=sys.stderr, flush=True)
    defaults = source.defaults()
    labels: dict[str, list[str]] = {}
    for label, (official, _) in wanted.items():
        for name in find.shortlist(official, defaults):
            labels.setdefault(name, []).append(label)
    count = sum(map(len, labels.values()))
    print(f"reuse_find: {count} native structures on official configs", file=sys.stderr, flush=True)
    configs = {label: official.config for label, (official, _) in wanted.items()}
    return defaults, source.on_configs(configs, labels)


def of_label(built: Json, label: str) -> Json:
    """What `find` would have been told for this one official class."""
    return {n: {"on": a[label], "rules": a.get("rules", [[], []])} for n, a in built.items() if label in a}


def judged(label: str, official: Any, natives: list[str], ranking: Any) -> Json:
    places = [n for n, c in enumerate(ranking.candidates, 1) if c.native in natives]
    first = ranking.candidates[0]
    return {
        "case": label,
        "official": official.name,
        "right": natives,
        "first": first.native,
        "place": places[0] if places else None,
        "score": round(first.likeness.score, 4),
        "by_name": first.tied,
        "why_not": {n: ranking.unbuilt[n] for n in natives if n in ranking.unbuilt},
    }


def summary(rows: list[Json]) -> Json:
    """Shares of first places and of the first three; `by_name`: of one structure with another, decided by the names."""
    first = [row for row in rows if row["place"] == 1]
    return {
        "classes": len(rows),
        "first": len(first),
        "share_first": round(len(first) / len(rows), 4) if rows else 0.0,
        "first_by_name_among_equals": sum(row["by_name"] for row in first),
        "in_first_three": sum(row["place"] is not None and row["place"] <= 3 for row in rows),
        "not_first": {row["case"]: row for row in rows if row["place"] != 1},
        "rows": rows,
    }
