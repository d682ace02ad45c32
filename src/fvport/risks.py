# SPDX-License-Identifier: Apache-2.0
"""What a green gate does not say by itself: what nobody ran, what a person excused, what a check noted, in order."""

from __future__ import annotations

import re
from typing import Any

from fvport import upgrade, variants
from fvport.spec import Port
from fvport.verdict import Row
from fvport.words import CHECKS

SIZES = ("height", "width", "num_frames", "num_inference_steps", "audio_end_in_s")
# Notes that say that something was looked for and is well, or only what was done: nothing to know of. The record keeps
# them, the report's pages show them.
GOOD = re.compile(
    r"agrees on inputs whose official outputs did not exist yet|strength 1\.00: (\d+) of \1 planted faults"
    r"|natively made by |^(stages|definition|computed in)\b|: FV109 "
)

LINE = 160  # characters of a numbered note: the rest is where the line says
NUMBERED = re.compile(r"(?P<component>\w+): FV\d+")


def of(port: Port, rows: list[Row], commit: str, dirty: bool, waivers: list[str]) -> list[str]:
    """`waivers`: for each of the port's, why it does not hold, or ''. What was never run comes first, notes last."""
    return [*_not_run(port, rows, commit, dirty, waivers), *_excused(port), *_noted(rows)]


def _not_run(port: Port, rows: list[Row], commit: str, dirty: bool, waivers: list[str]) -> list[str]:
    risks = [f"{row.label} is waived ({row.waiver})" for row in rows if row.waiver]
    held = zip(port.waivers, waivers, strict=True)
    risks += [f"waiver {waiver.id} does not hold: {problem}" for waiver, problem in held if problem]
    if left_out := [name for name in CHECKS if name not in port.gate.checks]:
        risks.append(f"port.toml leaves {', '.join(left_out)} out of the gate")
    if port.gate.require_device != "cuda":
        risks.append(f"the gate asks for {port.gate.require_device} evidence only: nothing here was seen on a GPU")
    if port.gate.require_scale != "full":
        risks.append("the gate asks for tiny-twin evidence only: the real weights were not compared")
    risks += [words for view in (port, *port.views) if (words := smaller_call(view))]
    risks += [*port.untested, *variants.alike(port)]
    if older_pin := upgrade.behind(port.root):
        risks.append(older_pin)
    if dirty:
        risks.append("the tree has changes that are not committed")
    older = sorted({row.check for row in rows if row.state == "current" and row.commit and row.commit != commit})
    if older:
        risks.append(f"{', '.join(older)} ran at another commit; what they read has not changed since")
    return risks


def smaller_call(port: Port) -> str:
    """That the call of the presets was never run, where the gate's own is another; '' where it is the same."""
    call: dict[str, Any] = port.official.pipeline.call
    told = port.presets.get(port.variant or "default", {})
    differ = {key: (told[key].value, call[key]) for key in SIZES if key in told and key in call}
    differ = {key: pair for key, pair in differ.items() if pair[0] != pair[1]}
    if not differ:
        return ""
    default, ran = (", ".join(f"{key} {pair[side]}" for key, pair in differ.items()) for side in (0, 1))
    whose = f"variant {port.variant}: the" if port.variant else "the"
    said = f"{whose} default call ({default}) was never run, so nobody knows whether it works"
    return f"{said}; the pipeline was compared at {ran}"


def _excused(port: Port) -> list[str]:
    """What a person or the template declared, with the reason given."""
    risks = []
    for name, c in port.components.items():
        if c.tolerance.mode == "fixed":
            risks.append(
                f"{name}: fixed tolerance (atol {c.tolerance.atol:g}, rtol {c.tolerance.rtol:g}): {c.tolerance.reason}"
            )
        if c.tolerance.mode == "calibrated" and c.tolerance.factor > 3:
            risks.append(f"{name}: may err by {c.tolerance.factor:g} times its floor, not 3: {c.tolerance.reason}")
        if c.mode == "external":
            risks.append(f"{name}: external wrapper: {c.reason}")
        risks += [f"{name}: official keys {key} are not loaded: {why}" for key, why in c.mapping.exclude.items()]
        risks += _ignored(name, c.config_ignored)
    return risks


def _ignored(name: str, fields: dict[str, str]) -> list[str]:
    said = [f"{key} ({why})" for key, why in fields.items()]
    if len(said) < 2:
        return [f"{name}: config field {words} is ignored" for words in said]
    more = f" and {len(said) - 3} more" if len(said) > 3 else ""
    return [f"{name}: {len(said)} config fields are ignored: {', '.join(said[:3])}{more} (port.toml)"]


def _noted(rows: list[Row]) -> list[str]:
    current = [row for row in rows if row.record and row.state == "current"]
    noted = [(row.label, note) for row in current for note in (row.record.notes if row.record else [])]
    return [f"{label}: {note}" for label, note in _grouped(noted) if not GOOD.search(note)]


def _grouped(noted: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Notes of one numbered rule about one component as one, where there are several: a list of 30 is not read."""
    groups: dict[tuple[str, str], list[str]] = {}
    for label, note in noted:
        found = NUMBERED.match(note)
        groups.setdefault((label, found.group() if found else note), []).append(note)
    return [(label, _one(notes)) for (label, _), notes in groups.items()]


def _one(notes: list[str]) -> str:
    if not (found := NUMBERED.match(notes[0])):
        return notes[0]
    first = notes[0][found.end() :].strip()
    short = first if len(first) <= LINE else f"{first[: LINE - 1].rstrip()}…"
    if len(notes) == 1 and short == first:
        return notes[0]
    many = f" in {len(notes)} places, such as:" if len(notes) > 1 else ""
    return f"{found.group()}{many} {short} (all: fvport mapping review {found['component']})"
