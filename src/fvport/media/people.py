# SPDX-License-Identifier: Apache-2.0
"""What people do with references: list, look at the difference, promote, verify."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fvport.errors import BlockedError, UsageError, did_you_mean
from fvport.media import port_references, references
from fvport.media.references import Entry
from fvport.media.store import Store


@dataclass
class Result:
    """Rows for machines, text for people. `ok` is the exit code's."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    ok: bool = True

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, "rows": self.rows}

    def text(self) -> str:
        return "\n".join(self.lines)


def store(port: Path, address: str) -> Store:
    """The store at an address, else the port's own."""
    if address:
        return Store(address, Path.cwd())
    from fvport import spec

    return port_references.store_of(spec.load(port))


def everything(held: Store) -> list[Entry]:
    return references.entries(held) + port_references.old_entries(held)


def listing(held: Store) -> Result:
    """Each entry with its key, who made it and who approved it; media of FastVideo's own suite as foreign."""
    result = Result()
    for entry in everything(held):
        told = entry.told
        state = "draft" if entry.draft else told.kind
        row = {"state": state, "name": entry.name, "layout": "old" if entry.top == port_references.OLD else "fastvideo"}
        keys = ("producer", "device", "made", "commit", "versions", "digest", "approved_by", "approved_on", "replaces")
        result.rows.append({**row, "key": told.key, **{name: getattr(told, name) for name in keys}})
        who = f"approved by {told.approved_by} {told.approved_on}".strip() if not entry.draft else "not approved"
        result.lines.append(f"{state:9} {entry.name}\n          made by {told.producer} {told.made}, {who}")
    for name in references.foreign(held):
        result.rows.append({"state": "foreign", "name": name})
        result.lines.append(f"foreign   {name}\n          no provenance")
    result.lines = result.lines or [f"{held.address}: no reference and no draft"]
    return result


def verified(held: Store) -> Result:
    """Red where anything in the store is not what it says, or says too little."""
    result = Result()
    for entry in port_references.old_entries(held):
        try:
            entry.lossless()
        except BlockedError as error:
            result.rows.append({"name": entry.name, "problem": error.what})
    result.rows += [{"name": name, "problem": problem} for name, problem in references.verify(held)]
    count = len(everything(held))
    if not count:  # nothing to verify is no store in order
        result.rows.append({"name": held.address, "problem": "no reference and no draft"})
    result.ok = not result.rows
    words = f"{count} entries, each file is what its digest says"
    result.lines = [f"{row['name']}: {row['problem']}" for row in result.rows] or [words]
    return result


def promoted(held: Store, names: list[str], by: str, suite: bool, replace: str) -> Result:
    """Promote the named drafts (all without a name), each on its own: one that cannot be is said, none is lost."""
    drafts = [entry for entry in everything(held) if entry.draft]
    today = datetime.date.today().isoformat()
    result = Result()
    if not by.strip():
        raise UsageError("a reference needs a person who approves it", where="--by")
    if not drafts:
        raise BlockedError("there is no draft to promote", where=held.address, todo="fvport check ssim --bootstrap")
    for entry in chosen(drafts, names):
        try:
            made = references.promote(entry, by, today, suite=suite, replace=replace)
        except (BlockedError, UsageError) as error:
            result.ok = False
            result.rows.append({"name": entry.name, "promoted": False, "reason": str(error)})
            result.lines.append(f"not promoted: {error}")
            continue
        result.rows.append({"name": entry.name, "promoted": True, "digest": made.told.digest, "approved_by": by})
        result.lines.append(f"promoted: {made.title}")
    return result


def chosen(found: list[Entry], names: list[str]) -> list[Entry]:
    """Entries whose name holds one of the words; all without words. UsageError where a word fits none."""
    for name in names:
        if not any(name in entry.name for entry in found):
            known = [entry.name for entry in found]
            raise UsageError(f'no such entry: "{name}".{did_you_mean(name, known)} See: fvport references list')
    return [entry for entry in found if not names or any(name in entry.name for name in names)]


def differences(held: Store, names: list[str], metric: str = "ssim") -> Result:
    """Each draft against the reference that it would replace: figures, and what its provenance says otherwise."""
    result = Result()
    by_name = {entry.name: entry for entry in references.entries(held) if not entry.draft}
    drafts = [entry for entry in references.entries(held) if entry.draft]
    for entry in chosen(drafts, names):
        before = by_name.get(entry.name)
        if before is None:
            result.rows.append({"name": entry.name, "reference": None})
            result.lines.append(f"{entry.name}: new, there is no reference yet")
            continue
        told, figures = _told(before, entry), _figures(before, entry, metric)
        result.rows.append({"name": entry.name, "told": told, "measures": figures})
        result.lines += [entry.name, *(f"  {key}: {old} -> {new}" for key, (old, new) in told.items())]
        result.lines += [f"  {name}: {words}" for name, words in figures.items()]
    result.lines = result.lines or ["no draft"]
    return result


def _told(a: Entry, b: Entry) -> dict[str, list[Any]]:
    names = ("producer", "commit", "device", "versions", "call", "digest")
    return {n: [getattr(a.told, n), getattr(b.told, n)] for n in names if getattr(a.told, n) != getattr(b.told, n)}


def _figures(a: Entry, b: Entry, metric: str) -> dict[str, Any]:
    from fvport.media import measures, sound, spectra
    from fvport.media.probe import MediaError

    names = set(a.names()) & set(b.names())
    found: dict[str, Any] = {}
    try:
        if "frames" in names:
            done = measures.measure(a.frames(), b.frames(), dict.fromkeys([metric, "psnr", "temporal"]))
            found |= {name: series.to_json(values=False) for name, series in done.items()}
        if "audio" in names:
            sides = [sound.of_array(e.tensors()["audio"], int(e.told.extra.get("rate") or 0)) for e in (a, b)]
            found["mel_l1"] = spectra.measure(sides[0], sides[1], "mel_l1").to_json(values=False)
    except MediaError as error:
        found["no pair"] = error.what
    return found or {"no pair": "one has frames, the other sound"}
