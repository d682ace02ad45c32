# SPDX-License-Identifier: Apache-2.0
"""The workflow's matrix: one job for each port and check of this tree, on the runner that the table names.

Standard library only, Python 3.11 or later: it runs on a bare runner. The table is runners.toml beside this file.
    python3 plan.py [--root DIR] [--gpu-label LABEL] [--cpu-label LABEL] [--weights DIR] [--gate FILE]
prints lines for $GITHUB_OUTPUT: matrix={"include": [...]}, slugs=the ports' names, cpu=the verdict's runner; and a
table with the reason of each job for $GITHUB_STEP_SUMMARY. `--gate FILE` is what `fvport gate --json` said of a port on
the evidence of an earlier run, which is where digests are taken: checks that passed on these very inputs are left out.
Leaving one out opens nothing: the verdict counts records, not plans.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomllib

TABLE = Path(__file__).resolve().parent / "runners.toml"
CHECKS = (  # of a port.toml that says nothing, as fvport has them (a test compares)
    *("mapping", "keys", "config", "conversion", "parity", "smoke"),
    *("pipeline", "ssim", "example", "docs", "boundary"),
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("."), help="a tree that holds ports")
    parser.add_argument("--gpu-label", default="", help="label of the GPU runners (default: the table's)")
    parser.add_argument("--cpu-label", default="", help="label of the other runners (default: the table's)")
    parser.add_argument("--weights", default="", help="folder on the runners that holds SLUG/ of local releases")
    parser.add_argument("--gate", type=Path, action="append", default=[], help="output of `fvport gate --json`")
    options = parser.parse_args(argv)
    try:
        files = sorted(options.root.glob("tests/local_tests/*/port.toml"))
        if not files:
            raise LookupError(f"{options.root.resolve()} holds no tests/local_tests/*/port.toml: no port to gate")
        ports = {file.parent.name: read(file) for file in files}
        table = read(TABLE)
        given = {"cpu": options.cpu_label, "gpu": options.gpu_label}
        labels = {name: given[name] or label for name, label in table["labels"].items()}
        one_label(labels.values())
        planned = jobs(ports, table, labels, said_by_gate(options.gate))
        print("matrix=" + json.dumps({"include": planned}))
        summary(planned)
        print("slugs=" + " ".join(ports))
        print("cpu=" + labels["cpu"])
    except (OSError, LookupError, tomllib.TOMLDecodeError) as error:
        print(f"plan: {error.args[0] if isinstance(error, LookupError) else error}", file=sys.stderr)
        return 2
    warnings = [] if options.weights else unreachable(ports, options.root)
    if options.weights and labels["cpu"].startswith(("ubuntu-", "windows-", "macos-")):
        warnings = [f"{labels['cpu']} has no {options.weights}: name runners that have it (FVPORT_CPU_LABEL)"]
    warnings += unused(ports, options.gpu_label)
    for warning in warnings:
        print(f"::warning title=alignment gate::{warning}", file=sys.stderr)
    return 0


def unused(ports: Mapping[str, Any], gpu_label: str) -> list[str]:
    """A sentence for each port that gets none of the GPU runners that somebody named."""
    said = 'no job of {2} goes to {0}: [gate] require_device is "{1}" in its port.toml, so none of it is seen on a GPU'
    devices = {slug: port.get("gate", {}).get("require_device", "cuda") for slug, port in ports.items()}
    return [said.format(gpu_label, device, slug) for slug, device in devices.items() if gpu_label and device != "cuda"]


def one_label(labels: Iterable[str]) -> None:
    """LookupError for a list of labels: it would be taken for one name, and the job would wait for it."""
    for label in labels:
        if not re.fullmatch(r"[\w.-]+", label):
            raise LookupError(f"{label!r} is not one label: give the runners one of their own, such as h100")


def read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LookupError(f"{path}: {error}") from None


Job = dict[str, Any]
Said = dict[tuple[str, str], str]  # (port, check) -> why it has to run; '' where it does not
NO_EVIDENCE = "no evidence of an earlier run is known here"


def said_by_gate(files: Sequence[Path]) -> Said:
    """What verdicts on earlier evidence say of each check: a row that is current and green need not run again."""
    found: Said = {}
    for file in files:
        try:
            verdict = json.loads(file.read_text(encoding="utf-8"))
            for row in verdict["rows"]:
                green = (row["state"], row["verdict"]) == ("current", "pass")
                why = "; ".join(row["reasons"]) or f"{row['state']}, {row['verdict']}"
                key = verdict["port"], row["check"]  # a variant has a row of its own of the same check
                found[key] = found.get(key) or ("" if green else why)
        except (ValueError, KeyError, TypeError) as error:
            raise LookupError(f"{file} is not what `fvport gate --json` prints ({error})") from None
    return found


def summary(planned: Sequence[Mapping[str, Any]]) -> None:
    """The jobs and why each of them runs, for people: the run's summary where there is one, else standard error."""
    lines = ["| port | check | runner | why |", "| --- | --- | --- | --- |"]
    lines += [f"| {job['slug']} | {job['check']} | {job['runner']} | {job['why']} |" for job in planned]
    text = "\n".join(lines if planned else ["Nothing is affected: no check has to run."]) + "\n"
    file = os.environ.get("GITHUB_STEP_SUMMARY")
    if not file:
        sys.stderr.write(text)
        return
    with open(file, "a", encoding="utf-8") as out:
        out.write(text)


def jobs(ports: Mapping[str, Any], table: Mapping[str, Any], labels: Mapping[str, str], said: Said) -> list[Job]:
    """One job for each port and check: both names, runner's label, cpu or cuda, minutes, what runs before, why."""
    plan = []
    for slug, port in ports.items():
        cuda = port.get("gate", {}).get("require_device", "cuda") == "cuda"
        for check in wanted(slug, port):
            why = said.get((slug, check), NO_EVIDENCE)
            if not why:
                continue
            needs = {**table["default"], **table.get("checks", {}).get(check, {})}
            on_gpu = needs["gpu"] and cuda
            job = {
                "slug": slug,
                "check": check,
                "runner": labels["gpu" if on_gpu else "cpu"],
                "device": "cuda" if on_gpu else "cpu",
                "minutes": needs["minutes"],
                "prepare": "prep workspace" if needs["weights"] else "workspace",
                "why": re.sub(r"[\r\n|`<>]", " ", why)[:300],
            }
            plan.append(job)
    return plan


def wanted(slug: str, port: Mapping[str, Any]) -> list[str]:
    """The checks of a port's gate: those of [gate] checks, all where it says nothing."""
    file = f"{slug}/port.toml"
    if not re.fullmatch(r"\w+", slug):
        raise LookupError(f"{file}: the folder's name is no slug (letters, digits and underscores)")
    checks = port.get("gate", {}).get("checks", list(CHECKS))
    if not isinstance(checks, list) or not checks:
        raise LookupError(f"{file}: [gate] checks must name at least one check; leave it out for all")
    for check in checks:
        if check not in CHECKS:
            raise LookupError(f"{file}: [gate] checks: unknown {check!r} (there are: {', '.join(CHECKS)})")
    return list(dict.fromkeys(checks))


def unreachable(ports: Mapping[str, Any], root: Path) -> list[str]:
    """A sentence for each port whose weights no runner can get: a folder that is not in the tree, and none given."""
    found = []
    for slug, port in ports.items():
        weights = str(port.get("official", {}).get("weights", ""))
        if weights.startswith(("official_weights/", ".")) and not (root / weights).exists():
            said = f"{slug}: {weights} is not in the repository, so every check that reads weights will be red. "
            said += f"Give [official] weights a hub id, or put the release on the runners as DIR/{slug} and set the "
            said += "variable FVPORT_WEIGHTS to DIR"
            found.append(said)
    return found


if __name__ == "__main__":
    sys.exit(main())
