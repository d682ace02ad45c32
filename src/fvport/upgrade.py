# SPDX-License-Identifier: Apache-2.0
"""`fvport upgrade`: port.toml from its schema to this version's, step by step, and the port's pin of fvport.

A step changes the document that tomlkit read, so comments, order and spacing of everything else stay. The new text is
read back by the same code that every check uses before it replaces the old, and what was changed is written down.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fvport import __version__
from fvport.errors import UsageError
from fvport.portfile import SCHEMA

PIN = re.compile(r'^(SOURCE = os\.environ\.get\("FVPORT_SOURCE", "[^"\n]+@v)([\w.]+)("\))$', re.MULTILINE)


@dataclass(frozen=True)
class Step:
    """From schema `old` to the next: `change` edits the document and gives one sentence for each thing it changed."""

    old: int
    change: Callable[[Any], list[str]]


def _first(document: Any) -> list[str]:
    """Drafts that say no schema are read as those of schema 1."""
    return ["says its schema"]


STEPS: tuple[Step, ...] = (Step(0, _first),)


@dataclass
class Upgrade:
    """What was changed: {file: sentences}; empty where everything is as this version wants it."""

    schema: int
    changes: dict[str, list[str]] = field(default_factory=dict)
    report: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        if not self.changes:
            return f"nothing to do: schema {self.schema}, fvport {__version__}"
        lines = [f"- {name}: {said}" for name, all_said in self.changes.items() for said in all_said]
        return "\n".join([*lines, f"Written to {self.report}. Next: git diff, then fvport gate"])


def run(folder: Path, *, steps: Sequence[Step] = STEPS, schema: int = SCHEMA, read: Any = None) -> Upgrade:
    """Bring the port at `folder` up to date. UsageError leaves every file as it was."""
    from fvport import portfile

    file = portfile.find_port_file(folder)
    root = file.parent.parent.parent.parent
    done, new = Upgrade(schema), {}
    text, said = _port_toml(file, steps, schema)
    if said:
        _readable(file, text, read or portfile.parse)
        new[file], done.changes[file.relative_to(root).as_posix()] = text, said
    noxfile = root / "noxfile.py"
    found = PIN.search(_text(noxfile)) if noxfile.is_file() else None
    if found and _number(found[2]) < _number(__version__):
        new[noxfile] = PIN.sub(rf"\g<1>{__version__}\g<3>", _text(noxfile))
        done.changes["noxfile.py"] = [f"pins fvport v{__version__}, was v{found[2]}"]
    for path, content in new.items():
        _replace(path, content)
    if new:
        report = root / ".fvport" / "report" / "upgrade.md"
        done.report = str(report)
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(f"# Upgrade to schema {schema}, fvport {__version__}\n\n{done.text()}\n", encoding="utf-8")
    return done


def behind(root: Path) -> str:
    """A sentence where the port pins another fvport than the one that runs; '' where it pins none, or this one."""
    noxfile = root / "noxfile.py"
    found = PIN.search(_text(noxfile)) if noxfile.is_file() else None
    if found is None or found[2] == __version__:
        return ""
    if _number(found[2]) < _number(__version__):
        return f"the port pins fvport {found[2]} and this is {__version__}: fvport upgrade, and cruft update"
    return f"the port pins fvport {found[2]}, which is newer than this {__version__}: install that one"


def _port_toml(file: Path, steps: Sequence[Step], schema: int) -> tuple[str, list[str]]:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        document: Any = tomlkit.parse(_text(file))
    except TOMLKitError as error:
        raise UsageError(f"is not valid TOML ({error})", where=str(file)) from None
    now = document.get("schema", 0)
    if not isinstance(now, int) or isinstance(now, bool) or now > schema:
        what = f"schema {now!r} is not one that this fvport ({__version__}, schema {schema}) knows"
        raise UsageError(what, where=str(file), todo="Install the fvport that the port's noxfile.py pins")
    said: list[str] = []
    for number in range(now, schema):
        step = next((step for step in steps if step.old == number), None)
        if step is None:
            raise UsageError(f"no way leads from schema {number} to {number + 1}", where=str(file))
        said += [f"schema {number} to {number + 1}: {sentence}" for sentence in step.change(document)]
        if "schema" in document:
            document["schema"] = number + 1
    text = tomlkit.dumps(document)
    return (text if "schema" in document else f"schema = {schema}\n{text}"), said


def _readable(file: Path, text: str, read: Callable[[Path], Any]) -> None:
    """The new text says what it should, read where it will lie; the file itself is not touched yet."""
    spare = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        spare.write_text(text, encoding="utf-8", newline="")
        read(spare)
    except UsageError as error:
        what = f"cannot be brought up to date, and was left as it is: {error.what}"
        raise UsageError(what, where=str(file), todo=error.todo or "Correct that, then: fvport upgrade") from None
    finally:
        spare.unlink(missing_ok=True)


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", newline="") as lines:  # line endings stay as they are
            return lines.read()
    except UnicodeDecodeError as error:
        raise UsageError(f"is not UTF-8 text ({error})", where=str(path)) from None


def _replace(path: Path, text: str) -> None:
    spare = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with spare.open("w", encoding="utf-8", newline="") as out:
            out.write(text)
        spare.chmod(path.stat().st_mode & 0o777)
        os.replace(spare, path)
    finally:
        spare.unlink(missing_ok=True)


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
