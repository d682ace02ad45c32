# SPDX-License-Identifier: Apache-2.0
"""The rules as a table a person reads, the signature under them, and what changed since.

A signature is a name, a date and the digest of the rules, in port.toml. The rules that were signed are kept as they
were in
`mapping.signed.json` beside it, so that a clone of the branch can tell what changed.
"""

from __future__ import annotations

import datetime
import difflib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fvport import progress
from fvport.errors import FvportError, UsageError
from fvport.spec import Component, Port
from fvport.weights import alike, convert, converter, first_link, manifest, show, sides
from fvport.weights.case import Case, Finding
from fvport.weights.sides import Side

SIGNED = "mapping.signed.json"


@dataclass
class Sheet:
    """One component's rules for a reader."""

    component: str
    mode: str
    digest: str
    signature: str  # signed | unsigned | stale | not needed (rules of an existing FastVideo class)
    signed_by: str
    rows: list[dict[str, Any]]
    findings: list[Finding]
    declared: list[dict[str, Any]] = field(default_factory=list)  # official -> converted, where that is declared

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "findings": [finding.to_json() for finding in self.findings]}

    def head(self) -> str:
        """One line: whose rules they are, and what of them is worth a look."""
        said = f"{self.signature}{' by ' + self.signed_by if self.signed_by else ''}"
        return f"{self.component} ({self.mode}): {said}, {self.digest}"

    def short(self) -> str:
        """For rules that nobody signs, or that were signed just now: the line, errors, and how many notes there are."""
        errors = [f"{f.severity:5} {f.code} {f.message}" for f in self.findings if f.severity == "error"]
        notes = len(self.findings) - len(errors)
        more = f"{len(self.rows)} rules, {notes} notes: fvport mapping review {self.component}"
        return "\n".join([f"{self.head()}: {more}", *errors])

    def text(self) -> str:
        lines = [self.head()]
        if self.declared:
            lines += ["official -> converted, as the conversion is declared", _table(self.declared)]
        if self.declared and self.digest:
            lines += ["converted -> native"]
        lines += [_table(self.rows)] if self.digest else []
        lines += [f"{f.severity:5} {f.code} {f.message}" for f in self.findings]
        return "\n".join(lines)


def _table(rows: list[dict[str, Any]]) -> str:
    columns = ("rule", "keys", "before", "after", "shape", "alike", "exchange")
    table: list[tuple[str, ...]] = [("rule", "keys", "example", "becomes", "shape", "alike", "could be exchanged")]
    return show.table([*table, *(tuple(str(row[key]) for key in columns) for row in rows)])


@dataclass
class Review:
    sheets: list[Sheet] = field(default_factory=list)
    signed: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)  # by the declared conversion: reason -> keys
    asked: str = ""  # the one component that was asked for

    def to_json(self) -> dict[str, Any]:
        sheets = [sheet.to_json() for sheet in self.sheets]
        return {"components": sheets, "signed": self.signed, "left_out": self.left_out}

    def text(self) -> str:
        parts = [sheet.short() if self._short(sheet) else sheet.text() for sheet in self.sheets]
        left = [f"{len(keys)} keys, such as {keys[0]}: {reason}" for reason, keys in self.left_out.items()]
        parts += ["\n".join(["left out of the conversion", *left])] if left else []
        parts += [f"signed: {', '.join(self.signed)}"] if self.signed else []
        return "\n\n".join(parts) or "no component has rules of its own"

    def _short(self, sheet: Sheet) -> bool:
        """Rules that nobody has to sign, unless they were asked for; all of them, once what was read is signed."""
        return bool(self.signed) or (sheet.mode == "reuse" and not self.asked)


def review(port: Port, component: str | None = None, sign: str | None = None) -> Review:
    """Tables for one component or all; `sign` records that a person of this name reviewed them.

    Raises FvportError, and signs nothing, when the rules of any of them have errors.
    """
    if sign is not None and not sign.strip():  # "$USER" is empty in a container
        raise UsageError(
            "a signature needs a name", where="--sign", todo="Say whose: fvport mapping review --sign NAME"
        )
    chosen = sides.components(port, (component,) if component else ())
    convert.build_load_tree(port)
    with progress.beat("FastVideo is asked for its names (once; kept until its tree changes)"):
        sides.prefetch(port, chosen, "rules", "meta")
    looked = [Side(port, item) for item in chosen]
    result = Review([sheet(side) for side in looked], asked=component or "")
    if port.official.needs_conversion:
        plan = converter.plan_of(port)
        result.left_out = first_link.left_out(plan)
        more = first_link.others(port, plan) if not component else []
        result.sheets += [_declared_sheet(port, *entry) for entry in more]
    if sign:
        mine = [side for side in looked if side.component.mode == "port"]
        _refuse(result)
        _write_signature(port, mine, sign.strip())
        result.signed = [side.component.name for side in mine]
        for item in result.sheets:
            if item.component in result.signed:
                item.signature, item.signed_by = "signed", sign.strip()
    return result


def _refuse(result: Review) -> None:
    for item in result.sheets:
        errors = [finding for finding in item.findings if finding.severity == "error"]
        if errors and item.mode == "port":
            first = f"{errors[0].code} {errors[0].message}"
            more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
            todo = "Correct the rules, or accept a finding in mapping.accept with a reason"
            raise FvportError(f"not signed: {first}{more}", where=item.component, todo=todo)


def signature(component: Component, digest: str) -> str:
    """signed | unsigned | stale | not needed"""
    if component.mode != "port":
        return "not needed"
    if not component.mapping.signed_by or not component.mapping.digest:
        return "unsigned"
    return "signed" if component.mapping.digest == digest else "stale"


def sheet(side: Side) -> Sheet:
    digest = side.digest()
    name, mode = side.component.name, side.component.mode
    state = signature(side.component, digest)
    findings = side.findings()
    rows = [] if any(finding.code == "FV101" for finding in findings) else _rows(side.case)
    declared = _rows(side.link.case, side.link.keys) if side.link else []
    return Sheet(name, mode, digest, state, side.component.mapping.signed_by, rows, findings, declared)


def _declared_sheet(port: Port, name: str, mode: str, link: first_link.Link) -> Sheet:
    """Of a component that no native class loads: the first link alone, which nobody signs."""
    accept = port.components[name].mapping.accept if name in port.components else {}
    return Sheet(name, mode, "", "not needed", "", [], link.findings(accept), _rows(link.case, link.keys))


def _rows(case: Case, keys: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """One row a rule, and one for what no rule takes; `keys` gives the whole key of a name, for the example."""
    counts: dict[Any, int] = {}
    for item in case.mapped.placed:
        counts[case.shapes[item.source]] = counts.get(case.shapes[item.source], 0) + 1
    families = alike.families(case)
    rows = []
    for position, rule in enumerate(case.rules.rules):
        rows.append(_row(rule.text, case.taken(position), case.shapes, counts, families))
    rest = [item for item in case.mapped.placed if not item.rules]
    if rest:
        rows.append(_row("(passes through)", rest, case.shapes, counts, families))
    for row in rows:
        row["before"] = (keys or {}).get(row["before"], row["before"])
    return rows


def _row(text: str, taken: list[Any], shapes: Any, counts: dict[Any, int], families: dict[str, str]) -> dict[str, Any]:
    if not taken:
        return {"rule": text, "keys": 0, "before": "", "after": "", "shape": "", "alike": "", "exchange": ""}
    first = taken[0]
    could = dict.fromkeys(families[item.source] for item in taken if item.source in families)
    shape = shapes[first.source]
    more = f"{counts[shape] - 1} more of this shape" if counts[shape] > 1 else "only one of this shape"
    return {
        "rule": text,
        "keys": len(taken),
        "before": first.source,
        "after": "(left out)" if first.skipped else alike.place(first),
        "shape": list(shape),
        "alike": more,
        "exchange": "; ".join(could),
    }


# --- signing ---------------------------------------------------------------------------------------------------------


def _write_signature(port: Port, signed: list[Side], name: str) -> None:
    import tomlkit

    document: Any = tomlkit.parse(port.file.read_text(encoding="utf-8"))
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    kept = _signed_file(port)
    for side in signed:
        table = document["components"][side.component.name]
        if "mapping" not in table:
            table["mapping"] = tomlkit.inline_table()
        table["mapping"].update({"signed_by": name, "signed_on": today, "digest": side.digest()})
        entry = {"signed_by": name, "signed_on": today, "digest": side.digest(), "rules": side.canonical()}
        kept[side.component.name] = entry
    _replace(port.folder / SIGNED, json.dumps(kept, indent=1, sort_keys=True) + "\n")
    _replace(port.file, tomlkit.dumps(document))


def _replace(path: Path, text: str) -> None:
    """Beside and rename: an interrupted write leaves the old file whole."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8", newline="\n")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _signed_file(port: Port) -> dict[str, Any]:
    path = port.folder / SIGNED
    return manifest.read_json(path) if path.is_file() else {}


# --- what changed ----------------------------------------------------------------------------------------------------


@dataclass
class Diff:
    components: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return self.components

    def text(self) -> str:
        lines = []
        for name, entry in self.components.items():
            lines.append(f"{name}: {entry['state']}")
            lines += [f"  {line}" for line in entry["changes"]]
        return "\n".join(lines) or "no component has rules of its own"


def diff(port: Port) -> Diff:
    """What changed in each component's rules since they were signed: `- ` gone, `+ ` new, in their order."""
    chosen = [component for component in sides.components(port) if component.mode == "port"]
    convert.build_load_tree(port)
    with progress.beat("FastVideo is asked for its names (once; kept until its tree changes)"):
        sides.prefetch(port, chosen, "rules")
    kept = _signed_file(port)
    result = Diff()
    for component in chosen:
        side = Side(port, component)
        state = signature(component, side.digest())
        entry = kept.get(component.name)
        if state == "unsigned" or not isinstance(entry, dict):
            changes = [] if state == "unsigned" else [f"{SIGNED} does not hold the signed rules"]
        elif entry.get("digest") != component.mapping.digest:
            changes = [f"{SIGNED} holds another signature than port.toml"]
        else:
            changes = changed(entry["rules"], side.canonical())
        said = f"{state} by {component.mapping.signed_by} on {component.mapping.signed_on}"
        result.components[component.name] = {"state": said if state != "unsigned" else state, "changes": changes}
    return result


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Lines of a diff between two canonical forms."""
    lines = difflib.unified_diff(_lines(before), _lines(after), lineterm="", n=0)
    return [f"{line[0]} {line[1:]}" for line in lines if line[0] in "+-" and not line.startswith(("+++", "---"))]


def _lines(canonical: dict[str, Any]) -> list[str]:
    from fvport.weights.mapping import Rule

    lines = [Rule.from_json(rule).text for rule in canonical.get("rules", [])]
    lines += [f"passes through: {pattern}" for pattern in canonical.get("passthrough", [])]
    for key in ("exclude", "accept"):
        lines += [f"{key}: {pattern} ({reason})" for pattern, reason in sorted(canonical.get(key, {}).items())]
    return lines + _declared_lines(canonical.get("conversion", {}))


def _declared_lines(conversion: dict[str, Any]) -> list[str]:
    """The declared conversion, one entry a line; tables in the order of their names, as signatures are kept."""
    lines = []
    for name, value in sorted(conversion.items()):
        tables = value.items() if name == "COMPONENTS" else [("", {name: value})]
        for component, table in tables:
            for key, said in sorted((table or {}).items()):
                where = ".".join(filter(None, ("conversion", component, key)))
                entries = said if key in ("rename", "rules") and isinstance(said, list) else [said]
                lines += [f"{where}: {json.dumps(entry, sort_keys=True)}" for entry in entries]
    return lines
