# SPDX-License-Identifier: Apache-2.0
"""The workflow's matrix: one job a check that the ports on this tree ask for, on the runner that the table names.

Standard library only, Python 3.11 or later: it runs on a bare runner. The table is runners.toml beside this file.
    python3 plan.py [--root DIR] [--gpu-label LABEL]     prints matrix={"include": [...]} for $GITHUB_OUTPUT
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomllib

TABLE = Path(__file__).resolve().parent / "runners.toml"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("."), help="a tree that holds ports")
    parser.add_argument("--gpu-label", default="", help="label of the GPU runners (default: the table's)")
    options = parser.parse_args(argv)
    try:
        ports = [read(path) for path in sorted(options.root.glob("tests/local_tests/*/port.toml"))]
        if not ports:
            raise LookupError(f"{options.root.resolve()} holds no tests/local_tests/*/port.toml: no port to gate")
        print("matrix=" + json.dumps({"include": jobs(ports, read(TABLE), options.gpu_label)}))
    except (OSError, LookupError, tomllib.TOMLDecodeError) as error:
        print(f"plan: {error.args[0] if isinstance(error, LookupError) else error}", file=sys.stderr)
        return 2
    return 0


def read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise LookupError(f"{path}: {error}") from None


def jobs(ports: Sequence[dict[str, Any]], table: dict[str, Any], gpu_label: str = "") -> list[dict[str, Any]]:
    """One job a check: its name, its runner's label, cpu or cuda, its minutes."""
    cuda = any(port.get("gate", {}).get("require_device", "cuda") == "cuda" for port in ports)
    wanted = [check for port in ports for check in port.get("gate", {}).get("checks", ())]
    if not wanted:
        raise LookupError("no port.toml on this tree has [gate] checks")
    labels, plan = table["labels"], []
    for check in dict.fromkeys(wanted):
        needs = {**table["default"], **table.get("checks", {}).get(check, {})}
        on_gpu = needs["gpu"] and cuda
        runner = (gpu_label or labels["gpu"]) if on_gpu else labels["cpu"]
        device = "cuda" if on_gpu else "cpu"
        plan.append({"check": check, "runner": runner, "device": device, "minutes": needs["minutes"]})
    return plan


if __name__ == "__main__":
    sys.exit(main())
