# SPDX-License-Identifier: Apache-2.0
"""What many ports cost on a cluster, on paper: python -m benchmarks.fleet prints the block of docs/costs.md (--write).

Inputs are the runner table (which checks need a GPU, and their limits), measured figures of benchmarks/results, and
what nobody has measured here, which is said to be assumed: --gpu-seconds, --release-gb, --storage-gb-s.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ci import plan

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "costs.md"
BLOCK = re.compile(r"(<!-- fleet:begin -->\n).*?(<!-- fleet:end -->)", re.DOTALL)
DAY = 86400


@dataclass(frozen=True)
class Fleet:
    """What is asked of the cluster, and what is assumed of checks, releases and storage."""

    ports: int = 500
    checks: int = 40
    gpus: int = 64
    release_gb: float = 30.0
    gpu_seconds: float = 300.0
    storage_gb_s: float = 5.0


def lines(fleet: Fleet) -> list[str]:
    """The table, row by row: quantity, figure, where it comes from."""
    table = plan.read(plan.TABLE)
    needs = {name: {**table["default"], **table["checks"].get(name, {})} for name in plan.CHECKS}
    on_gpu = [name for name in plan.CHECKS if needs[name]["gpu"]]
    runs = fleet.ports * fleet.checks
    gpu_runs = runs * len(on_gpu) / len(plan.CHECKS)
    budget = fleet.gpus * DAY / gpu_runs
    limit = 60 * sum(needs[name]["minutes"] for name in on_gpu) / len(on_gpu)
    read = gpu_runs * 2 * fleet.release_gb / DAY
    checked = runs / len(plan.CHECKS)
    gate = measured("startup", "detail", "fvport gate", "seconds")
    keys = measured("keys", "ours", "seconds")
    rows = [
        ("checks a day", f"{runs:,}", f"{fleet.ports} ports, {fleet.checks} checks each"),
        ("of them on a GPU", f"{gpu_runs:,.0f}", f"{len(on_gpu)} of {len(plan.CHECKS)} checks: {', '.join(on_gpu)}"),
        ("GPU time there is", f"{fleet.gpus * 24:,} GPU-hours", f"{fleet.gpus} GPUs, a day"),
        ("GPU time a check may take", f"{budget:.0f} s", "the two rows above"),
        (
            "GPU time at the limits",
            f"{gpu_runs * limit / 3600:,.0f} GPU-hours",
            f"{limit / 60:.0f} min each (runners.toml)",
        ),
        (
            "GPU time as assumed",
            f"{gpu_runs * fleet.gpu_seconds / 3600:,.0f} GPU-hours",
            f"assumed: {fleet.gpu_seconds:.0f} s a check; not measured here",
        ),
        (
            "weights read",
            f"{read:.1f} GB/s, day and night",
            f"assumed: {fleet.release_gb:g} GB a release, both sides read it once a GPU check",
        ),
        ("jobs submitted", f"one in {DAY / runs:.1f} s", "each check a job"),
        (
            "CPU time of `keys`",
            f"{checked * keys / 3600:.1f} core-hours",
            f"measured: {keys:.1f} s for 4 GB",
        ),
        (
            "CPU time of verdicts",
            f"{checked * gate / 3600:.1f} core-hours",
            f"measured: {gate:.2f} s each",
        ),
    ]
    out = ["| what | figure | from |", "| --- | --- | --- |", *(f"| {' | '.join(row)} |" for row in rows), ""]
    return [*out, binds(fleet, budget, read)]


def binds(fleet: Fleet, budget: float, read: float) -> str:
    """Which part is full first, in a sentence that holds for other figures, too."""
    parts = {"the GPUs": fleet.gpu_seconds / budget, "reading the weights": read / fleet.storage_gb_s}
    first = max(parts, key=lambda name: parts[name])
    shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in parts.items())
    return (
        f"What binds first: **{first}** ({shares} of what there is, at {fleet.gpu_seconds:.0f} s a check and with "
        f"{fleet.storage_gb_s:g} GB/s of shared storage, assumed). The GPUs are full at {budget:.0f} s a check; "
        f"weights that are kept on the nodes take the reading away. Checks whose inputs did not change do not run at "
        f"all, so all figures are upper ends. Scheduling and verdicts are small beside. GPU-hours times your price "
        f"is the bill."
    )


def measured(name: str, *keys: str) -> float:
    """A figure of benchmarks/results/NAME.json."""
    value = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    for key in keys:
        value = value[key]
    return float(value)


def block(fleet: Fleet) -> str:
    return "\n".join(lines(fleet)) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__.splitlines()[0])
    for name in ("ports", "checks", "gpus", "release-gb", "gpu-seconds", "storage-gb-s"):
        default = getattr(Fleet, name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--write", action="store_true", help="bring docs/costs.md up to date")
    given = vars(parser.parse_args(argv))
    write = given.pop("write")
    if min(given.values()) <= 0:
        print("fleet: every figure must be above 0", file=sys.stderr)
        return 2
    text = block(Fleet(**given))
    if write:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(BLOCK.sub(lambda found: found[1] + text + found[2], page), encoding="utf-8")
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
