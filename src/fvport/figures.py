# SPDX-License-Identifier: Apache-2.0
"""The figures of a docs page: rendered from evidence by `fvport plan --sync`, looked at again by the `docs` check.

The block says of each check which inputs its figures were made from. While the tree gives the same digest the figures
speak of this code, on whatever machine they were taken; where the record on this machine is the very one, every figure
in the block must be the record's. The rows have a digest of their own, so that an edited figure shows. No check writes
the block, so there is no cycle.
"""

from __future__ import annotations

import re
from typing import Any

from fvport import evidence as ev
from fvport.errors import FvportError
from fvport.spec import Port

CHECKS = ("parity", "pipeline", "ssim", "example")
HEAD = "| Check | What | Figures | Device | Scale | Seconds |\n|---|---|---|---|---|---|\n"
_STAMP = re.compile(r"<!-- figures (\w+) inputs=(\S+) record=(\S+) rows=(\S+) -->\n((?:\|.*\n)*)")
NONE = "No figures yet.\n"
MOST = 12  # rows of one check


def wanted(port: Port) -> list[str]:
    """The checks whose figures belong on the page."""
    return [name for name in CHECKS if name in port.gate.checks]


def inputs(port: Port) -> list[str]:
    """Everything that the figures depend on: what the checks that made them read."""
    return sorted({name for check in wanted(port) for name in _inputs(port, check)})


def render(port: Port) -> str:
    """The block's text from the evidence that is current; a check without such evidence is left out."""
    parts = []
    for check in wanted(port):
        record = ev.read(port, check)
        now = _now(port, check)
        if record is not None and record.verdict == "pass" and ev.digests(port, _inputs(port, check)) == record.inputs:
            rows = "".join(_rows(record))
            seal = _short(record.to_json()["seal"])
            parts.append(f"<!-- figures {check} inputs={now} record={seal} rows={_digest(rows)} -->\n{rows}")
    return HEAD.join(["", "".join(parts)]) if parts else NONE


def problems(port: Port, block: str) -> list[str]:
    """What is wrong with a block as it stands on a page, in sentences; [] when every figure speaks of this code."""
    stamped = {check: rest for check, *rest in _STAMP.findall(block)}
    found = []
    for check in wanted(port):
        if check not in stamped:
            found.append(f"has no figures of {check}")
            continue
        inputs, seal, digest, rows = stamped[check]
        if inputs != _now(port, check):
            found.append(f"the figures of {check} are older than the code")
            continue
        if not rows.strip() or "nan" in rows.lower() or not re.search(r"\d", rows):
            found.append(f"the figures of {check} are empty")
        record = ev.read(port, check)
        same = record if record is not None and _short(record.to_json()["seal"]) == seal else None
        if digest != _digest(rows) or (same is not None and "".join(_rows(same)) != rows):
            found.append(f"the figures of {check} are not what its evidence says")
    return found


def _rows(record: ev.Evidence) -> list[str]:
    items = [item for item in record.items if item.metrics] or record.items[:1]
    lines = []
    for number, item in enumerate(items[:MOST]):
        seconds = f"{record.seconds:.1f}" if not number else ""
        cells = (record.check, item.name, _figures(item.metrics), record.device.get("kind", ""), record.scale, seconds)
        lines.append(f"| {' | '.join(str(cell).replace('|', '/').strip() for cell in cells)} |\n")
    if len(items) > MOST:
        lines.append(f"| {record.check} | and {len(items) - MOST} more | in the record and the report | | | |\n")
    return lines


def _figures(metrics: dict[str, Any]) -> str:
    plain = {k: v for k, v in metrics.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    return ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in list(plain.items())[:6])


def _inputs(port: Port, check: str) -> list[str]:
    from fvport import checks

    try:
        return list(checks.module(check).inputs(port))
    except (ImportError, AttributeError) as error:
        raise FvportError(f"check {check} cannot be loaded ({error})") from None


def _now(port: Port, check: str) -> str:
    return _short(ev.blake3(ev.canonical(ev.digests(port, _inputs(port, check)))))


def _digest(rows: str) -> str:
    return _short(ev.blake3(rows.encode()))


def _short(digest: str) -> str:
    return digest.removeprefix("blake3:")[:24]
