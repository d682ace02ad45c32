# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks NAME [--quick] [--save]`: one JSON document on standard output."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.cases import CASES

RESULTS = Path(__file__).parent / "results"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=sorted(CASES), metavar="NAME", help=", ".join(sorted(CASES)))
    parser.add_argument("--quick", action="store_true", help="one run, and the smaller job where there is one")
    parser.add_argument("--runs", type=int, default=3, help="runs of each (default: 3)")
    parser.add_argument("--save", action="store_true", help="also keep the document under benchmarks/results/")
    options = parser.parse_args(argv)
    result = bench(options.name, quick=options.quick, runs=1 if options.quick else max(1, options.runs))
    text = json.dumps(result, indent=1)
    print(text)
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{options.name}.json").write_text(text + "\n", encoding="utf-8")
    return 0


def bench(name: str, *, quick: bool = False, runs: int = 3) -> dict[str, Any]:
    """Measure one case; `ours` first, then each baseline, in turn."""
    with tempfile.TemporaryDirectory(prefix="fvport-bench-") as folder:
        case = CASES[name](Path(folder), quick)
        print(f"benchmarks: {name}: {runs} run(s) of {', '.join(case.commands)}", file=sys.stderr, flush=True)
        results = measure.in_turn(case.commands, runs)
        detail = case.detail(results)
    ours = measure.medians(results.pop("ours"))
    more = {key: measure.medians(results.pop(key)) for key in list(results) if key.startswith("fvport ")}
    baselines = {key: measure.medians(value) for key, value in results.items()}
    return {
        "name": name,
        "machine": measure.machine(),
        "ours": ours,
        "baselines": baselines,
        "ratios": {
            key: {word: round(ours[word] / value[word], 3) for word in ours if value[word]}
            for key, value in baselines.items()
        },
        "detail": {"runs": runs, **more, **detail},
    }


if __name__ == "__main__":
    sys.exit(main())
