# SPDX-License-Identifier: Apache-2.0
"""`mapping_suggest`: the share of keys that `fvport mapping suggest` maps rightly with no hand edit.

On every native class of FastVideo with a non-empty mapping that can be built here; truth are FastVideo's own rules,
which `suggest` does not see. The clock runs on the class nearest to 2,000 keys. The baseline pairs each key with the
name of its shape that shares most words.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measure import Run, run

if TYPE_CHECKING:
    from benchmarks.cases import Case

ROOT = Path(__file__).resolve().parent.parent
KEYS = 2000


def mapping_suggest(scratch: Path, quick: bool) -> Case:
    """Ours against the nearest name, on the class nearest to 2,000 keys; every class in the detail."""
    from benchmarks.cases import FVPORT, Case

    tables = _tables(scratch)
    classes = {name: table for name, table in tables.items() if "truth" in table}
    timed = min(classes, key=lambda name: abs(len(classes[name]["official"]) - KEYS))
    official, native = scratch / "official.json", scratch / "native.json"
    official.write_text(json.dumps(classes[timed]["official"]), encoding="utf-8")
    native.write_text(json.dumps(classes[timed]["native"]), encoding="utf-8")

    def ours() -> Run:
        return run([FVPORT, "mapping", "suggest", "--official", official, "--native", native, "--json"])

    def nearest() -> Run:
        return run([sys.executable, "-m", "benchmarks.mapping_suggest", official, native], cwd=ROOT)

    def detail(runs: dict[str, list[Run]]) -> dict[str, Any]:
        chosen = dict(list(classes.items())[:3]) if quick else classes
        found = {name: _judged(table) for name, table in chosen.items()}
        total = sum(item["keys"] for item in found.values())
        reasons = {name: table["reason"] for name, table in tables.items() if "reason" in table}
        shares = {word: sum(item[word] for item in found.values()) for word in ("right", "marked", "wrong_unmarked")}
        return {
            "timed": {"class": timed, "keys": len(classes[timed]["official"])},
            "classes": len(found),
            "keys": total,
            **shares,
            "share_right": round(shares["right"] / total, 4),
            "nearest_name_share_right": round(sum(item["nearest_name"] for item in found.values()) / total, 4),
            "by_class": found,
            "not_built": reasons,
        }

    return Case({"ours": ours, "nearest name": nearest}, detail)


def _tables(scratch: Path) -> dict[str, Any]:
    """Asked of FastVideo once in a child; kept under build/ for this version of FastVideo and of the questions."""
    import hashlib
    from importlib.metadata import distribution

    held = distribution("fastvideo")
    asked = b"".join((ROOT / "benchmarks" / f"mapping_{name}.py").read_bytes() for name in ("tables", "inverse"))
    kept = ROOT / "build" / "bench" / f"mapping-{held.version}-{hashlib.sha256(asked).hexdigest()[:12]}.json"
    if not kept.is_file():
        root, out = Path(str(held.locate_file(""))), scratch / "tables.json"
        command = [sys.executable, "-m", "benchmarks.mapping_tables", root, out]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"benchmarks: FastVideo's names could not be asked:\n{done.stderr[-2000:]}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(out.read_text(encoding="utf-8"), encoding="utf-8")
    return json.loads(kept.read_text(encoding="utf-8"))


def _judged(table: dict[str, Any]) -> dict[str, Any]:
    """One class. `marked`: keys under a rule that is marked as a guess; `wrong_unmarked` is what must never be."""
    from fvport.weights.suggest import suggest

    official = {name: tuple(shape) for name, shape in table["official"].items()}
    native = {name: tuple(shape) for name, shape in table["native"].items()}
    start, worked = time.perf_counter(), time.process_time()
    found = suggest(official, native)
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    guesses = [_pattern(proposal.rule) for proposal in found.ambiguous]
    marked = {name for name in official if any(pattern.match(name) for pattern in guesses)} | set(found.unplaced)
    placed = {item.source: (item.target, item.index, item.count) for item in found.rules.apply(official).placed}
    right = {name for name, place in table["truth"].items() if placed[name] == tuple(place)}
    near = nearest_names(official, native)
    return {
        "official": table["origin"],
        "keys": len(table["truth"]),
        "right": len(right),
        "marked": len(marked),
        "wrong_unmarked": len(set(table["truth"]) - right - marked),
        "nearest_name": sum(near.get(name) == place[0] for name, place in table["truth"].items()),
        "rules": len(found.rules.rules),
        "passthroughs": len(found.passthrough),
        "fastvideo_rules": table["rules"],
        "seconds": round(seconds, 3),
        "cpu_seconds": round(worked, 3),
    }


def _pattern(rule: str) -> re.Pattern[str]:
    """The pattern of a proposal's text; a pass-through is about whole names."""
    if rule.endswith(" (passes through)"):
        return re.compile(f"^{rule.removesuffix(' (passes through)')}$")
    return re.compile(rule.split(" -> ")[0])


def nearest_names(official: dict[str, tuple[int, ...]], native: dict[str, tuple[int, ...]]) -> dict[str, str]:
    """{official name: the native name of its shape that shares most words}"""
    shapes: dict[tuple[int, ...], list[tuple[str, frozenset[str]]]] = {}
    for name, shape in native.items():
        shapes.setdefault(shape, []).append((name, frozenset(re.split(r"[._]", name))))
    found = {}
    for name, shape in official.items():
        words = frozenset(re.split(r"[._]", name))
        best = max(shapes.get(shape, []), key=lambda item: len(words & item[1]) / len(words | item[1]), default=None)
        if best:
            found[name] = best[0]
    return found


if __name__ == "__main__":
    sides = [{k: tuple(v) for k, v in json.loads(Path(path).read_text()).items()} for path in sys.argv[1:3]]
    print(json.dumps(nearest_names(*sides)))
