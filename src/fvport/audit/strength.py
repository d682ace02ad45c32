# SPDX-License-Identifier: Apache-2.0
"""The strength of the census: the catalogue of faults planted in the native model of every equal case, a fork a case.

The first equal case of a pair (all cases of one name before the `/`) is tried with every fault, and the trace asked; a
later one with those that none before it caught. Two shares: by case, what the first ones catch alone; by pair, what
one of its cases catches. The goal is the pair's, as a port's parity has several inputs too.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from fvport.audit import run
from fvport.audit.case import Case
from fvport.errors import UsageError

GOAL, NAMED = 0.99, 0.95  # of the faults by pair; of the caught ones of weights and numerics that were traced
DRAWS = 1  # more draws of weights and inputs of each case that must be equal too
TIMEOUT = 1800.0  # seconds of one case
PARITY = ("compare", "strength", "probe", "record", "lockstep", "trace", "pairs", "tree", "oracle_trace")
OWN = ("judge.py", "official.py", "strength_case.py", "calls.py", "case.py")

Row = dict[str, Any]


def pair_of(name: str) -> str:
    return name.partition("/")[0]


def strengths(names: list[str], *, log: str = "") -> dict[str, Any]:
    """Measure the cases and return `record`. Raises UsageError for an unknown name or a log that cannot be used.

    `log`: a file to which each case is added at once; what it holds for the code as it is now is not run again.
    """
    every, wanted = run.cases(), run.chosen(names)
    started = time.monotonic()
    known = kept(log) if log else {}
    rows = [row for case in wanted if (row := known.get(case.name)) and row["state"] == state(case)]
    open_ = [case for case in wanted if case.name not in {row["case"] for row in rows}]
    if open_:
        run.boot(open_)
    for number, case in enumerate(open_, 1):
        others = [c for c in every if c.name != case.name and pair_of(c.name) == pair_of(case.name)]
        row = one(case, others, [row for row in rows if row["pair"] == pair_of(case.name)])
        rows.append(row)
        print(f"strength: {number} of {len(open_)}: {line(row)}", file=sys.stderr, flush=True)
        if log:
            with open(log, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
    return record(rows, round(time.monotonic() - started, 1))


def kept(log: str) -> dict[str, Row]:
    """{case: row} of a log's last row of each; {} without the file."""
    path = Path(log)
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"the log {log} is no file that can be written", todo="Name a file in a folder that is there")
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return {row["case"]: row for row in map(json.loads, lines)}
    except (ValueError, KeyError, TypeError, OSError) as error:
        words = f"{log} is no log of a strength run ({type(error).__name__})"
        raise UsageError(words, todo="Name another file, or move it away") from None


def state(case: Case | None = None) -> str:
    """Digest of the code that a strength depends on: comparison, catalogue, trace, judge, and the case's own file."""
    home = Path(__file__).resolve().parent
    files = [home.parent / "parity" / f"{name}.py" for name in PARITY]
    files += sorted((home.parent / "parity" / "catalogue").glob("*.py"))
    files += [home / name for name in OWN]
    spec = importlib.util.find_spec(case.ours.__module__) if case else None
    files += [Path(spec.origin)] if spec and spec.origin else []
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def left(kind: str, before: list[Row]) -> tuple[str, ...]:
    """Ids of the faults that no case of the pair caught; () for all, in the first one."""
    from fvport.parity.catalogue import for_kind

    done = [row["statuses"] for row in before if row["verdict"] == "equal"]
    caught = {fault for statuses in done for fault, status in statuses.items() if status == "caught"}
    return tuple(f.id for f in for_kind(kind) if f.id not in caught) or ("(none)",) if done else ()


def one(case: Case, others: list[Case], before: list[Row]) -> Row:
    """The row of one case, measured in a fork of its own; `failed` where that ended in another way."""
    from fvport.audit import strength_case
    from fvport.models import forked

    only = left(strength_case.kind_of(case), before)
    head = {"case": case.name, "pair": pair_of(case.name), "state": state(case), "first": not only}
    with tempfile.TemporaryDirectory(prefix="fvport_audit_logs_") as logs:
        done = forked.run(
            lambda: strength_case.measure(case, others, traced=not only, draws=DRAWS, only=only),
            name=case.name,
            log=Path(logs) / "case.log",
            timeout=TIMEOUT,
        )
    if done.status != "done":
        return {**head, "verdict": "failed", "problem": done.message, "seconds": done.seconds}
    return {**head, **told(done.value), "seconds": done.seconds}


def told(found: dict[str, Any]) -> Row:
    """What is kept of a measured case: counts, every blind fault, every module that the trace named wrongly."""
    if "strength" not in found:
        return {"verdict": found["verdict"], "problem": found["problem"]}
    measured = found["strength"]
    faults = measured["faults"]
    named = [fault for fault in faults if fault["localised"] is not None]
    blind = [{key: fault[key] for key in ("id", "words", "reveal")} for fault in faults if fault["status"] == "blind"]
    wrong = [
        {"id": f["id"], "words": f["words"], "named": f["localised_to"], "expected": f["expected"][:3]}
        for f in named
        if not f["localised"]
    ]
    drawn = [f"drawn again with seed {d['seed']}: {d['problem']}" for d in found["draws"] if d["verdict"] != "equal"]
    return {
        "verdict": "equal",
        **{key: measured[key] for key in ("caught", "total", "harmless", "no_place")},
        "by": dict(Counter(measure_of(fault["caught_by"]) for fault in faults if fault["status"] == "caught")),
        "blind": blind,
        "traced": len(named),
        "misnamed": wrong,
        "false_alarms": [*drawn, *found["changed"]],
        "greens": 1 + len(found["draws"]) + len(faults),
        "statuses": {fault["id"]: fault["status"] for fault in faults},
    }


def measure_of(words: str) -> str:
    """The measure that `caught_by` names; `raised`, `values` (integers that differ) or `form` else."""
    last = words.rpartition(" ")[2]
    if words.endswith(("rel_l2", "worst", "angle", "drift")):
        return last.rpartition(":")[2]
    if "native side raised" in words:
        return "raised"
    return "values" if "values differ" in words else "form"


def line(row: Row) -> str:
    """One case in one line."""
    if row["verdict"] != "equal":
        return f"{row['case']}: {row['verdict']}, left out" + (f" ({row['problem'][:200]})" if row["problem"] else "")
    words = f"{row['case']}: {row['caught']} of {row['total']} caught"
    if row["traced"]:
        words += f", {row['traced'] - len(row['misnamed'])} of {row['traced']} named"
    return words + "".join(f"; FALSE ALARM {alarm}" for alarm in row["false_alarms"]) + f" ({row['seconds']:.0f} s)"


# --- the figures ------------------------------------------------------------------------------------------------------


def pairs(rows: list[Row]) -> list[Row]:
    """A row a pair: a fault is caught where one of its cases catches it, blind where none does and one could."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row["verdict"] == "equal":
            found.setdefault(row["pair"], []).append(row)
    made = []
    for name, cases in found.items():
        ids = {fault for row in cases for fault in row["statuses"]}
        seen = {fault: {row["statuses"].get(fault) for row in cases} for fault in sorted(ids)}
        caught = [fault for fault, words in seen.items() if "caught" in words]
        blind = [fault for fault, words in seen.items() if "caught" not in words and "blind" in words]
        words = {b["id"]: b for row in cases for b in row["blind"]}
        made.append(
            {
                "pair": name,
                "cases": len(cases),
                "caught": len(caught),
                "total": len(caught) + len(blind),
                "harmless": len(ids) - len(caught) - len(blind),
                "blind": [words[fault] for fault in blind],
            }
        )
    return made


def record(rows: list[Row], seconds: float) -> dict[str, Any]:
    """The figures as data; `ok` says whether the goals are met over what was run."""
    from importlib import metadata

    equal = [row for row in rows if row["verdict"] == "equal"]
    by_pair = pairs(rows)
    caught, total = sum(p["caught"] for p in by_pair), sum(p["total"] for p in by_pair)
    first = [row for row in equal if row["first"]]
    by_case = {"caught": sum(row["caught"] for row in first), "total": sum(row["total"] for row in first)}
    traced, wrong = sum(row["traced"] for row in equal), sum(len(row["misnamed"]) for row in equal)
    alarms = [f"{row['case']}: {alarm}" for row in equal for alarm in row["false_alarms"]]
    failed = [f"{row['case']}: {row['problem']}" for row in rows if row["verdict"] == "failed"]
    by: Counter[str] = Counter()
    for row in equal:
        by.update(row["by"])
    figures = {
        "cases": len(equal),
        "pairs": len(by_pair),
        "left_out": len(rows) - len(equal) - len(failed),
        "not_run": [case.name for case in run.cases() if case.name not in {row["case"] for row in rows}],
        "strength": share(caught, total),
        "caught": caught,
        "total": total,
        "by_case": {**by_case, "strength": share(by_case["caught"], by_case["total"])},
        "traced": traced,
        "named": share(traced - wrong, traced),
        "false_alarms": alarms,
        "greens": sum(row["greens"] for row in equal),
        "by_measure": dict(by.most_common()),
        "failed": failed,
    }
    good = total and figures["strength"] >= GOAL and not alarms and not failed
    return {
        "fastvideo": metadata.version("fastvideo"),
        "versions": {name: metadata.version(name) for name in ("torch", "diffusers", "transformers")},
        "state": state(),
        "goals": {"strength": GOAL, "named": NAMED},
        "draws": DRAWS,
        **figures,
        "ok": bool(good and (not traced or figures["named"] >= NAMED)),
        "by_pair": by_pair,
        "rows": [{key: value for key, value in row.items() if key != "statuses"} for row in rows],
        "seconds": seconds,
    }


def share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def text(found: dict[str, Any]) -> str:
    """The figures on a terminal: cases, what no case of a pair caught, what the trace named wrongly, and the sums."""
    lines = [line(row) for row in found["rows"] if row["verdict"] != "failed"]
    lines += [
        f"  blind: {p['pair']}: {b['words']}; {b['reveal']} would show it" for p in found["by_pair"] for b in p["blind"]
    ]
    for row in found["rows"]:
        for wrong in row.get("misnamed", []):
            words = (
                f"{wrong['words']}: named {wrong['named'] or '(the model itself)'}, not {', '.join(wrong['expected'])}"
            )
            lines.append(f"  trace: {row['case']}: {words}")
    lines += [f"  failed: {words}" for words in found["failed"]]
    lines += [f"  false alarm: {words}" for words in found["false_alarms"]]
    one_case = found["by_case"]
    lines.append(
        f"strength {found['strength']:.4f} by pair ({found['caught']} of {found['total']}), "
        f"{one_case['strength']:.4f} by the first case of each ({one_case['caught']} of {one_case['total']}); "
        f"{len(found['false_alarms'])} false alarms in {found['greens']} sound comparisons; "
        f"the trace named the right module in {found['named']:.4f} of {found['traced']}: "
        + ("ok" if found["ok"] else f"below the goal ({GOAL}, none, {NAMED})")
    )
    return "\n".join(lines)
