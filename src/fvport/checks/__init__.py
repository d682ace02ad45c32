# SPDX-License-Identifier: Apache-2.0
"""The gate's checks: one module each, all with `run(port, options) -> Evidence`. They do not import one another.

`run_check` is the only caller: it times the check, stamps the record with what it depended on, and writes it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fvport import evidence as ev
from fvport import origin, progress, spec, threads, variants
from fvport.checks import _partial
from fvport.errors import BlockedError, FvportError, UsageError, did_you_mean
from fvport.spec import Port
from fvport.words import CHECKS

LOCK_SECONDS = 120  # a record is written in a moment; whoever holds it longer hangs


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

    A fault of the check itself is `blocked` too, with its place: what it would have found is not known. The inputs are
    read before and after: when something changed underneath, the record is not written (it would speak of a tree that
    never was).
    """
    with spec.seen_as(port):
        variants.ready(port)
        return _run_check(port, name, options or Options())


def run_all(port: Port, name: str, options: Options | None = None, variant: str = "") -> list[ev.Evidence]:
    """`run_check` of the port and of each of its variants, or of `variant` alone ("base": the port without them).

    UsageError for a variant that port.toml does not have.
    """
    views = [port, *port.views] if not variant else [port if variant == "base" else port.of(variant)]
    module(name)  # a check that there is
    views = [view for view in views if name in variants.checks(view)]
    if not views:
        raise UsageError(f"{name} is about the port's files, which are no variant's", todo=f"fvport check {name}")
    return [run_check(view, name, options) for view in views]


def _run_check(port: Port, name: str, options: Options) -> ev.Evidence:
    from fvport.models import warm

    check = module(name)
    started, clock = ev.now(), time.monotonic()
    before: dict[str, str] = {}
    try:
        before = ev.digests(port, variants.inputs(port, check, name))
        with progress.beat(name, quiet=options.quiet):
            locked_weights(port, before)
            with threads.sized(port), warm.session():
                record = variants.run(port, check, name, options)
    except UsageError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the record must say that nothing was proven
        record = ev.Evidence(name, port.slug, items=[_mishap(name, error)])
    record.scale = options.scale  # what a check of names or fields says is about these weights too
    record.started, record.seconds = started, round(time.monotonic() - clock, 3)
    if before:
        record.inputs = ev.digests(port, variants.inputs(port, check, name))
        changed = [key for key in before if before[key] != record.inputs.get(key)]
        if changed:
            raise BlockedError(f"{', '.join(changed)} changed while {name} ran", todo=f"Run again: fvport check {name}")
    record.variant = port.variant
    record.commit, record.dirty = ev.git_state(port.root)
    record.origin = origin.here()
    with writing(port, name):
        return keep(port, record, options.components)


def keep(port: Port, record: ev.Evidence, components: tuple[str, ...] = ()) -> ev.Evidence:
    """Write a record; one of some components only takes what is known of the others along. Inside `writing`."""
    if record.inputs and components:
        record = _partial.merged(port, record, components, module(record.check).expected(port))
        _partial.put_by(port, record)
    ev.write(port, record)
    return record


@contextlib.contextmanager
def writing(port: Port, name: str) -> Iterator[None]:
    """One writer of a record at a time, on all machines that share the folder. BlockedError where none can be."""
    import filelock

    file = port.state / "locks" / f"{port.slug}.{name}.lock"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(file, timeout=LOCK_SECONDS):
            yield
    except filelock.Timeout:
        what = f"another run has held the record of {name} for {LOCK_SECONDS} s"
        raise BlockedError(what, where=str(file), todo="Wait for it, or end it, then run again") from None
    except OSError as error:
        what = f"the record of {name} cannot be written ({error.strerror or error}); the old one is kept"
        raise BlockedError(what, where=str(file.parent.parent), todo="Make room, or make it writable") from None


def locked_weights(port: Port, names: Iterable[str]) -> None:
    """BlockedError unless the official weights among these inputs are the ones of port.lock.json, byte for byte.

    A file is read again only when its size or time changed since it was last read.
    """
    from fvport.weights import prep

    components = tuple(name.partition(":")[2] for name in names if name.startswith("weights:"))
    if components:
        prep.check_code(port)
        prep.verify(port, components)


def _mishap(name: str, error: Exception) -> ev.Item:
    """The one item of a check that did not come to its end."""
    if isinstance(error, BlockedError):
        return ev.Item(name, "blocked", f"{error.where}: {error.what}" if error.where else error.what, todo=error.todo)
    if isinstance(error, FvportError):
        return ev.Item(name, "fail", str(error), todo=error.todo)
    if os.environ.get("FVPORT_DEBUG") == "1":
        traceback.print_exception(error)
    todo = "If the named file is not at fault, report this; FVPORT_DEBUG=1 shows the whole traceback"
    return ev.Item(name, "blocked", f"{name} did not come to its end: {mishap_words(error)}", todo=todo)


def mishap_words(error: BaseException) -> str:
    """What an unforeseen exception says, and the last line of ours that it passed through."""
    frames = traceback.extract_tb(error.__traceback__)
    here = str(Path(__file__).resolve().parents[1])
    frame = next((f for f in reversed(frames) if f.filename.startswith(here)), frames[-1] if frames else None)
    words = str(error).strip().splitlines()
    said = f"{type(error).__name__}: {words[0][:300]}" if words else type(error).__name__
    return f"{said} (at {Path(frame.filename).name}:{frame.lineno})" if frame else said
