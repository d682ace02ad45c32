# SPDX-License-Identifier: Apache-2.0
"""`fvport check parity --scale tiny`: the port's own code on a tiny twin of its release, where that is too large.

The port is set up once more beside its state, with the twin that `fvport tiny` makes of its release in its place. There
the ordinary check runs, through the same loaders, cases, faults and strength, and its record stays there: it speaks of
other weights, so the port's gate, whatever scale that asks for, does not read it.
"""

from __future__ import annotations

import os
from dataclasses import replace

from fvport import checks
from fvport import evidence as ev
from fvport.errors import BlockedError, UsageError
from fvport.evidence import Evidence
from fvport.parity import beside
from fvport.spec import Port
from fvport.tiny import overrides, write
from fvport.weights import lockfile

CHECKS = ("keys", "config", "conversion", "parity")  # what reads weights, and no pipeline


def asked(port: Port, check: str, scale: str, blocks: str, options: checks.Options) -> Evidence:
    """What a command line says with --scale. UsageError for another scale, or for a twin's blocks."""
    if scale != "tiny":
        raise UsageError(f'--scale is "{scale}"', todo="Give full or tiny")
    if blocks:
        raise UsageError("--scale tiny and --blocks make two different releases", todo="Give one of them")
    return run(port, check, options)


def run(port: Port, check: str, options: checks.Options) -> Evidence:
    """Run `check` on the twin. UsageError for a check that reads no weights, BlockedError where no twin can be made."""
    if check not in CHECKS:
        raise UsageError(f"--scale tiny goes with {', '.join(CHECKS)}", todo="fvport check parity --scale tiny")
    if port.official.needs_conversion:
        what = "the release is not in Diffusers layout, and a twin is made of classes and configs"
        raise BlockedError(what, todo="Make a twin of the converted folder by hand: fvport tiny FOLDER OUT")
    source = port.official_weights.resolve()
    if not (source / "model_index.json").is_file():
        raise BlockedError("no release with a model_index.json", where=str(source), todo="Run: nox -s prep")
    twin, made = beside.make(port, port.state / "tiny", lambda twin: _release(port, twin))
    record = checks.run_check(twin, check, replace(options, scale="tiny"))
    kept = os.path.relpath(ev.folder(twin) / f"{check}.json", port.root)
    notes = [f"on a tiny twin, not on the release's own weights; the whole record: {kept}", *_said(made)]
    record.notes[:0] = notes
    return replace(record, artifacts=[kept])


def _release(port: Port, twin: Port) -> write.Made:
    with overrides.official_path(port):
        source = port.official_weights.resolve()
        made = write.run(source, twin.official_weights, overrides=overrides.collect(source, (), port), port=port)
    lock, hashes = ev.lock(port), lockfile.Hashes(twin)
    entries = lock.get("components", {})
    lock["components"] = {name: lockfile.entry(twin, twin.component(name), hashes) for name in entries}
    hashes.save()
    lockfile.write(twin.lock_file, lock)
    return made


def _said(made: write.Made) -> list[str]:
    """What became of each component, and what could not be made small."""
    sizes = [f"{name}: {twin.before:,} -> {twin.after:,} parameters" for name, twin in made.twins.items()]
    kept = [f"{name}: {key} not shrunk: {why}" for name, twin in made.twins.items() for key, why in twin.kept.items()]
    return [*sizes, *kept]
