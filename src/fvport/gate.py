# SPDX-License-Identifier: Apache-2.0
"""The alignment gate: evidence in, verdict out. It runs nothing, imports no model library, and trusts no record's word.

A record counts when its seal fits, its inputs are the ones that the check names now, each of their digests is what the
tree gives now, its verdict follows from its items, everything that had to run has a passed item, and it was made at the
required scale and on the required device. Everything else is red and says what to run.
"""

from __future__ import annotations

import datetime
import os
import re
import sys
import time
from collections.abc import Callable
from typing import Any

from fvport import attestation, callnames, compared, firststep, planfile, risks, spec, variants
from fvport import evidence as ev
from fvport.errors import BlockedError, FvportError, UsageError
from fvport.origin import Demand
from fvport.spec import Port, Waiver
from fvport.verdict import ORDER, TITLES, Row, Verdict
from fvport.words import CHECKS

REQUIRED = CHECKS  # of every port: what one leaves out, another does not see
ON_DEVICE = ("parity", "pipeline", "ssim", "example")  # what must have run on the device that the port requires


def decide(port: Port, demand: Demand | None = None) -> Verdict:
    """The verdict from the evidence alone: reads records and the tree, runs nothing, takes well under a second.

    `demand` says where records must have been made to count: a verdict job counts its own run's.
    """
    port = spec.base(port)
    rows: list[Row] = []
    for view in (port, *port.views):
        cache: dict[str, str] = {}
        found = [_row(view, name, cache) for name in variants.checks(view) if name in port.gate.checks]
        for row in found:
            _elsewhere(row, demand or Demand())
            _signed(view, row, demand or Demand())
        known = variants.checks(view)
        found += [_left_out(name, view) for name in REQUIRED if name not in port.gate.checks and name in known]
        for row in found if view.variant else ():
            variants.hold_back(view, row, rows)
        rows += found
    today = datetime.date.today()
    for row in rows:
        _waive(port, row, today)
    commit, dirty = ev.git_state(port.root)
    return Verdict(
        port=port.slug,
        model=port.port.model,
        rows=rows,
        workspace=str(port.root),
        branch=_branch(port),
        commit=commit,
        dirty=dirty,
        requires={"device": port.gate.require_device, "scale": port.gate.require_scale},
        plan=_plan(port, rows),
        signatures=_signatures(port),
        components=compared.components(port),
        calls=callnames.words(port),
        risks=risks.of(port, rows, commit, dirty, [waiver_problem(port, waiver, today) for waiver in port.waivers]),
        root=str(port.root),
        first=firststep.first(port, rows),
    )


def run_missing(port: Port, *, say: Callable[[str], None] | None = None) -> Verdict:
    """Run every check whose record is missing, stale, refused or blocked, cheap before dear, then decide.

    A check that is red stays red and is not run again (nothing that it read has changed); the later ones still run, so
    one call shows all there is to fix. `say` gets one line before and after each check (default: standard error).
    """
    from fvport.models import warm

    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    with warm.session():
        for view in (port, *port.views):
            _run_all(view, to_run(view), say)
    return decide(port)


def why(port: Port, name: str) -> str:
    """Why a check has to run: what its row says, in a few words."""
    row = _row(port, name, {})
    return (row.reasons[0] if row.reasons else f"its record says {row.verdict}").removeprefix("stale: ")


def _run_all(port: Port, todo: list[str], say: Callable[[str], None]) -> None:
    from fvport import checks

    for number, name in enumerate(todo, 1):
        label = Row(name, "", variant=port.variant).label
        say(f"[{number}/{len(todo)}] {label}: {TITLES[name]} ({why(port, name)}) ...")
        clock = time.monotonic()
        try:
            word = checks.run_check(port, name).verdict
        except UsageError:
            raise
        except FvportError as error:
            word = f"blocked: {error}"
        say(f"[{number}/{len(todo)}] {label}: {word} ({time.monotonic() - clock:.1f} s)")
        for line in _red(port, name):
            say(f"    {line}")


def _red(port: Port, name: str) -> list[str]:
    """What is red of a check that just ran: nobody should wait for the others to learn it."""
    record = ev.read(port, name)
    bad = [item for item in record.items if item.verdict in ("fail", "blocked")] if record else []
    more = [f"and {len(bad) - 3} more"] if len(bad) > 3 else []
    return [*(f"{item.name}: {item.reason}"[:300] for item in bad[:3]), *more]


def to_run(port: Port) -> list[str]:
    """The checks that `run_missing` would run, cheap before dear."""
    cache: dict[str, str] = {}
    known = variants.checks(port)
    names = [name for name in ORDER if name in port.gate.checks and name in known]
    return [name for name in names if _worth_running(_row(port, name, cache), port)]


def _worth_running(row: Row, port: Port) -> bool:
    """Not what is settled, and not what only another device could settle."""
    if row.state != "current":
        return True
    wrong_device = row.record is not None and row.record.verdict == "pass" and row.check in ON_DEVICE
    if row.verdict == "blocked" and wrong_device and row.device != port.gate.require_device:
        return port.gate.require_device == "cuda" and os.path.exists("/dev/nvidiactl")
    return row.verdict == "blocked"


# --- one row ---------------------------------------------------------------------------------------------------------


def _left_out(name: str, view: Port) -> Row:
    """The row of a check that every port needs and that port.toml leaves out: red, unless a waiver says why."""
    row = Row(
        name,
        TITLES[name],
        variant=view.variant,
        todo=f'Put "{name}" back into gate.checks of port.toml, or have it waived',
    )
    row.reasons.append(f"port.toml leaves {name} out of gate.checks; every port needs it")
    return row


def _row(port: Port, name: str, cache: dict[str, str]) -> Row:
    """A record that cannot be judged, whatever is wrong with it or with the tree, is never one that passed."""
    row = Row(name, TITLES[name], todo=f"fvport check {name}", variant=port.variant)
    try:
        with spec.seen_as(port):
            _read_row(port, row, cache)
    except Exception as error:  # noqa: BLE001 - no record may crash the gate, none may pass by it
        from fvport.checks import mishap_words

        row.verdict, row.state, row.status = "blocked", "missing", "blocked"
        row.reasons.append(f"cannot be judged: {error if isinstance(error, FvportError) else mishap_words(error)}")
        row.todo = getattr(error, "todo", "") or row.todo
    if row.variant:
        row.todo += f" --variant {row.variant}" if row.todo.startswith("fvport check") else f" (variant {row.variant})"
    return row


def _read_row(port: Port, row: Row, cache: dict[str, str]) -> None:
    name = row.check
    try:
        record = ev.read(port, name)
    except UsageError as error:
        row.verdict, row.state, row.status = "fail", "refused", "debug_red"
        row.reasons.append(f"refused: {error.what}")
        return
    if record is None:
        row.reasons.append("never run: there is no record")
        return
    row.record, row.status, row.scale, row.seconds = record, record.status, record.scale, record.seconds
    row.device, row.commit, row.dirty = str(record.device.get("kind", "none")), record.commit, record.dirty
    if (record.check, record.port, record.variant) != (name, port.slug, port.variant):
        row.verdict, row.state = "fail", "refused"
        of = f'variant "{record.variant}" of ' if record.variant else ""
        row.reasons.append(f'refused: the record is of check "{record.check}" of {of}port "{record.port}"')
        return
    from fvport import checks  # here: a port without records needs none of it

    module = checks.module(name)
    stale = _stale(port, record, variants.inputs(port, module, name), cache)
    if not stale and record.verdict == "pass" and hasattr(module, "outdated"):  # a red one stays red
        stale = module.outdated(port)
    if not stale and record.verdict == "fail" and hasattr(module, "mended"):
        stale = module.mended(port, record)
    if stale:
        row.verdict, row.state = "blocked", "stale"
        row.reasons += stale
        return
    row.state = "current"
    _judge(port, row, record, module.expected(port))


def _stale(port: Port, record: ev.Evidence, names: list[str], cache: dict[str, str]) -> list[str]:
    """Why the record does not speak of this tree: the inputs it should have, and what each of them is now."""
    wanted = set(names)
    if not wanted:
        return ["the check names no input, so nothing ties its record to this tree"]
    reasons = []
    if missing := sorted(wanted - set(record.inputs)):
        reasons.append(f"stale: the record says nothing of {_some(missing)}")
    if extra := sorted(set(record.inputs) - wanted):
        reasons.append(f"stale: the record was made from {_some(extra)}, which the check no longer reads")
    for name in wanted - set(cache):
        cache[name] = ev.digest(port, name)
    changed = sorted(name for name in wanted & set(record.inputs) if cache[name] != record.inputs[name])
    if changed:
        reasons.append(f"stale: {_some(changed)} changed since it ran")
    return reasons + _weights_reasons(port, {name: cache[name] for name in sorted(wanted)})


def _weights_reasons(port: Port, now: dict[str, str]) -> list[str]:
    """Weights that nothing ties to a record: never locked, or other files than the locked ones."""
    from fvport.weights import lockfile

    reasons = []
    for given, digest in now.items():
        scheme, _, name = given.partition(":")
        component = port.components.get(name) if scheme == "weights" else None
        if component is None or not lockfile.locked_here(component):
            continue
        if digest == "absent":
            reasons.append(f"stale: the weights of {component.name} are not locked (fvport prep)")
        elif digest.startswith("differs:"):
            reasons.append(f"stale: {digest.removeprefix('differs:')}")
    return reasons


def _judge(port: Port, row: Row, record: ev.Evidence, expected: list[str]) -> None:
    """Verdict of a record that speaks of this tree."""
    failed = [item for item in record.items if item.verdict == "fail"]
    blocked = [item for item in record.items if item.verdict == "blocked"]
    silent = [
        name
        for name in expected
        if not any(i.verdict == "pass" and name in (i.component, i.name) for i in record.items)
    ]
    row.reasons += [_sentence(item) for item in failed + blocked]
    row.todo = next((item.todo for item in failed + blocked if item.todo), row.todo)
    row.verdict = record.verdict
    failing = {name for item in failed for name in (item.component, item.name)}
    unrun = [name for name in silent if name not in failing]
    if unrun:
        row.reasons.append(f"not run: {_some(unrun)} (no passed item of that name; a skip is no pass)")
    if row.verdict == "pass" and not record.items:
        row.verdict = "blocked"
    if row.verdict == "pass" and silent:
        row.verdict, row.status = "blocked", "scaffold_skip"
    if port.gate.require_scale == "full" and record.scale != "full":
        row.reasons.append(f"made at scale {record.scale}, the gate requires full")
        row.verdict = "fail"
    needed = port.gate.require_device
    if row.check in ON_DEVICE and row.device != needed:
        row.reasons.append(f"made on {row.device}, the gate requires {needed}: shown, does not count")
        row.todo = f"fvport check {row.check} --device {needed}" if row.verdict == "pass" else row.todo
        row.verdict = "blocked" if row.verdict == "pass" else row.verdict


def _elsewhere(row: Row, demand: Demand) -> None:
    """A record made on another run, at another commit or in another image is shown and does not count."""
    if row.record is None or row.state != "current":
        return
    refused = demand.refuses(row.record.origin)
    row.reasons += refused
    if refused and row.verdict == "pass":
        row.verdict, row.todo = "blocked", f"Run {row.check} in this run of CI"


def _signed(port: Port, row: Row, demand: Demand) -> None:
    """A signature that does not hold, or is missing where one is asked for: refused, and no waiver helps."""
    if row.record is None or row.state not in ("current", "stale"):
        return
    if why := attestation.refuses(ev.folder(port) / f"{row.check}.json", demand.signer):
        row.reasons.append(f"refused: {why}")
        row.verdict, row.state, row.status = "fail", "refused", "debug_red"


def _sentence(item: ev.Item) -> str:
    return f"{item.name}: {item.reason}" if item.reason and item.name not in item.reason else item.reason or item.name


def _some(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


# --- waivers ---------------------------------------------------------------------------------------------------------


def _waive(port: Port, row: Row, today: datetime.date) -> None:
    """An accepted blocker turns a red row to `waived`, in sight; a refused record cannot be waived."""
    waivers = [w for w in port.waivers if (w.check, w.variant) == (row.check, row.variant)]
    if row.verdict not in ("fail", "blocked") or not waivers:
        return
    for waiver in waivers:
        problem = waiver_problem(port, waiver, today)
        if row.state == "refused":
            problem = "a record that was changed by hand cannot be waived"
        if problem:
            row.reasons.append(f"waiver {waiver.id} does not hold: {problem}")
            continue
        row.verdict, row.waiver = "waived", waiver.id
        row.reasons.append(f"waived by {waiver.approved_by} until {waiver.expires} ({waiver.id}): {waiver.reason}")
        return


def waiver_problem(port: Port, waiver: Waiver, today: datetime.date) -> str:
    """Why a waiver does not hold, or ''."""
    if waiver.expires < today:
        return f"it expired on {waiver.expires}"
    if not waiver.reason.strip() or not waiver.approved_by.strip():
        return "it needs a reason and the name of who approved it"
    if not re.fullmatch(r"E\d{3,}", waiver.id):
        return f'its id must look like E001, is "{waiver.id}"'
    status = port.folder / "PORT_STATUS.md"
    text = status.read_text(encoding="utf-8", errors="replace") if status.is_file() else ""
    if not re.search(rf"^\|\s*`?{waiver.id}`?\s*\|", text, flags=re.MULTILINE):
        return f"PORT_STATUS.md has no row {waiver.id}"
    return ""


# --- what else a reader must know ------------------------------------------------------------------------------------


def _branch(port: Port) -> str:
    """The branch as .git says it, without starting git; the commit when detached, '' where there is no git tree."""
    git = port.root / ".git"
    try:
        if git.is_file():  # a worktree: the file names its git directory
            git = (port.root / git.read_text().removeprefix("gitdir:").strip()).resolve()
        return (git / "HEAD").read_text().strip().removeprefix("ref: refs/heads/")
    except (OSError, ValueError):
        return ""


def _plan(port: Port, rows: list[Row]) -> list[dict[str, Any]]:
    return [{**item.to_json(), "done": done(port, item, rows)} for item in planfile.read(port.folder / "PLAN.md")]


def done(port: Port, item: planfile.PlanItem, rows: list[Row]) -> bool:
    """Evidence, or what the tree holds, decides for an item that names checks or steps; a person's tick for others."""
    if not item.gate:
        return item.ticked
    return all(_reached(port, rows, name) for name in item.gate)


def _reached(port: Port, rows: list[Row], name: str) -> bool:
    if step := firststep.STEPS.get(name):
        return step(port)
    return _passed(rows, *name.partition("/")[::2])


def _passed(rows: list[Row], check: str, name: str) -> bool:
    mine = [row for row in rows if row.check == check]
    return bool(mine) and all(row.passed(name) for row in mine)


def _signatures(port: Port) -> list[dict[str, str]]:
    return [
        {"component": name, "by": c.mapping.signed_by, "on": c.mapping.signed_on, "digest": c.mapping.digest}
        for name, c in port.components.items()
        if c.has_weights and c.mode == "port"
    ]


def require(port: Port) -> Verdict:
    """The verdict, or BlockedError where the port has no evidence at all (for tools that need some)."""
    verdict = decide(port)
    if all(row.record is None for row in verdict.rows):
        raise BlockedError("there is no evidence yet", where=str(port.root), todo="Run: fvport gate --run")
    return verdict
