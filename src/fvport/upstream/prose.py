# SPDX-License-Identifier: Apache-2.0
"""Title and text of the pull request, from evidence. FastVideo's own template decides the form where the tree has it.

A checkbox is ticked only where a record, or a run of `--check`, says so; the others are left to people.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from fvport.spec import Port
from fvport.upstream.branch import Made
from fvport.verdict import Verdict
from fvport.workspace import git

TEMPLATE = re.compile(r"(^|/)pull_request_template\.md$", re.IGNORECASE)
OWN = """\
## Purpose

## Changes

## Test Plan

## Test Results

## Environment

## Checklist

- [ ] The pre-commit set is green
- [ ] Tests were added
- [ ] Documentation was updated
- [ ] The support matrix has the model
- [ ] The SSIM regression test passes
- [ ] GPU memory was considered
"""


def title(port: Port) -> str:
    """FastVideo's tag for a new model, which also lets its SSIM lane start without references."""
    return f"[new-model] Add {' '.join(port.port.model.split())}"


def body(port: Port, verdict: Verdict, made: Made, proofs: Mapping[str, str]) -> str:
    """The text: the template's headings in their order, each filled by what it asks for; ours where it asks not."""
    filled = {
        "purpose": _purpose(port),
        "changes": _changes(port, made),
        "test plan": _plan(verdict),
        "test results": _results(verdict, proofs),
        "environment": _environment(verdict),
    }
    parts: list[str] = []
    done: set[str] = set()
    for heading, text in _sections(_template(port, made.base)):
        key = heading.strip("# ").lower()
        if key in filled:
            text = f"{filled[key]}\n"
            done.add(key)
        elif key == "checklist":
            missing = [f"## {name.title()}\n\n{filled[name]}\n" for name in filled if name not in done]
            parts, done = parts + missing, done | set(filled)
            text = _ticked(text, verdict, made, proofs)
        parts.append(f"{heading}\n\n{text}" if heading else text)
    parts += [f"## {name.title()}\n\n{filled[name]}\n" for name in filled if name not in done]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts if part.strip())


def _template(port: Port, base: str) -> str:
    for path in git.tree_files(port.root, base):
        if TEMPLATE.search(path):
            text = git.run(port.root, "cat-file", "blob", f"{base}:{path}").stdout.decode(errors="replace")
            return re.sub(r"<!--.*?-->\n*", "", text, flags=re.DOTALL)
    return OWN


def _sections(text: str) -> list[tuple[str, str]]:
    """(heading, text below it) for every `##`; what stands before the first has no heading."""
    parts = re.split(r"^(## .*)$", text, flags=re.MULTILINE)
    return [("", parts[0].strip("\n")), *((h, t.strip("\n")) for h, t in zip(parts[1::2], parts[2::2], strict=True))]


def _purpose(port: Port) -> str:
    official = port.official.repo or port.official.library
    return f"Adds {port.port.model} ({', '.join(port.port.workload_types)}), ported from {official}."


def _changes(port: Port, made: Made) -> str:
    lines = ["| component | mode | native | official |", "| --- | --- | --- | --- |"]
    lines += [f"| {n} | {c.mode} | `{c.native or '-'}` | `{c.official}` |" for n, c in port.components.items()]
    edited = ", ".join(f"`{path}`" for path in made.edited)
    return "\n".join([*lines, "", f"{len(made.new)} new files; registration only in {edited or 'no file'}."])


def _plan(verdict: Verdict) -> str:
    checks = [f"nox -s {row.check}  # {row.title}" for row in verdict.rows if not row.variant]
    return "\n".join(["```bash", *checks, "nox -s gate", "```"])


def _results(verdict: Verdict, proofs: Mapping[str, str]) -> str:
    lines = [f"Alignment gate: **{verdict.verdict}** ({verdict.summary}).", ""]
    lines += ["| check | verdict | device | scale | seconds | commit |", "| --- | --- | --- | --- | --- | --- |"]
    for row in verdict.rows:
        cells = (row.label, row.verdict, row.device or "-", row.scale or "-", f"{row.seconds:.1f}", row.commit[:12])
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"- {row.label}: {_one_line(row.reasons[0])}" for row in verdict.red if row.reasons)]
    said = {"pre-commit": "FastVideo's pre-commit set", "tests": "FastVideo's API and contract tests"}
    lines += [f"- {said.get(name, name)}: {_one_line(word)}" for name, word in proofs.items()]
    lines += [] if proofs else ["- FastVideo's pre-commit set and tests: not run here (`fvport pr --check` runs them)"]
    return "\n".join(lines)


def _environment(verdict: Verdict) -> str:
    """Every value that the records name; where they differ, all of them."""
    found: dict[str, set[str]] = {}
    for row in verdict.rows:
        record = row.record
        for key, value in (record.environment if record else {}).items():
            if isinstance(value, str | int | float | bool) and "path" not in key and "/" not in str(value):
                found.setdefault(key, set()).add(str(value))
        if record and record.origin.get("image"):
            found.setdefault("image", set()).add(record.origin["image"])
        if record and record.device.get("name"):
            found.setdefault("device", set()).add(record.device["name"])
    lines = [f"| {key} | {', '.join(sorted(found[key]))} |" for key in sorted(found)]
    return "\n".join(["| what | value |", "| --- | --- |", *lines]) if lines else "No record says."


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]


def _ticked(text: str, verdict: Verdict, made: Made, proofs: Mapping[str, str]) -> str:
    def passed(check: str) -> bool:
        row = verdict.row(check)
        return row is not None and row.verdict == "pass"

    known = {
        "pre-commit": proofs.get("pre-commit") == "pass",
        "ssim": passed("ssim"),
        "support matrix": "docs/inference/support_matrix.md" in made.edited,
        "documentation": passed("docs"),
        "tests": any(path.rpartition("/")[2].startswith("test_") for path in made.new),
    }
    lines = []
    for line in text.splitlines():
        true = next((yes for word, yes in known.items() if word in line.lower()), False)
        lines.append(line.replace("- [ ]", "- [x]", 1) if true else line)
    return "\n".join(lines) + "\n"
