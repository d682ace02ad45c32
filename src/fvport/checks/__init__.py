# SPDX-License-Identifier: Apache-2.0
"""The gate's checks: one module each, all with `run(port, options) -> Evidence`. They do not import one another.

`run_check` is the only caller: it times the check, stamps the record with what it depended on, and writes it.
"""

from __future__ import annotations

import importlib
import time
from dataclasses import dataclass, field
from typing import Any

from fvport import evidence as ev
from fvport import progress
from fvport.errors import BlockedError, FvportError, UsageError, did_you_mean
from fvport.spec import CHECKS, Port


@dataclass(frozen=True)
class Options:
    """What a command line may say to a check. A check ignores what does not concern it."""

    components: tuple[str, ...] = ()  # only these (the record then says so, and the gate asks for the rest)
    device: str = "auto"  # auto | cpu | cuda
    scale: str = "full"  # full | tiny
    quiet: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


def module(name: str) -> Any:
    if name not in CHECKS:
        raise UsageError(f'no check "{name}" (there are: {", ".join(CHECKS)}).{did_you_mean(name, CHECKS)}')
    return importlib.import_module(f"fvport.checks.{name}")


def run_check(port: Port, name: str, options: Options | None = None) -> ev.Evidence:
    """Run one check and write its record. A missing asset ends as a `blocked` record, a finding as a `fail` one.

    The inputs are read before and after: when something changed underneath, the record is not written (it would speak
    of a tree that never was).
    """
    options = options or Options()
    check = module(name)
    started, clock = ev.now(), time.monotonic()
    before = ev.digests(port, check.inputs(port))
    try:
        with progress.beat(name, quiet=options.quiet):
            record = check.run(port, options)
    except BlockedError as error:
        record = ev.Evidence(name, port.slug, items=[ev.Item(name, "blocked", error.what, todo=error.todo)])
    except UsageError:
        raise
    except FvportError as error:
        record = ev.Evidence(name, port.slug, items=[ev.Item(name, "fail", str(error), todo=error.todo)])
    record.started, record.seconds = started, round(time.monotonic() - clock, 3)
    record.inputs = ev.digests(port, check.inputs(port))
    changed = [key for key in before if before[key] != record.inputs.get(key)]
    if changed:
        raise BlockedError(f"{', '.join(changed)} changed while {name} ran", todo=f"Run again: fvport check {name}")
    record.commit, record.dirty = ev.git_state(port.root)
    ev.write(port, record)
    return record
