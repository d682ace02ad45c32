# SPDX-License-Identifier: Apache-2.0
"""Edits of FastVideo's YAML and Markdown pages as text: comments and layout stay, each one can be taken back."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fvport.errors import FvportError
from fvport.workspace.pyedit import newline


def _lines(data: bytes) -> list[bytes]:
    return data.splitlines(keepends=True)


def no_anchor(where: str, what: str, by_hand: str) -> FvportError:
    return FvportError(f"{what}, so there is no anchor", where=where, todo=f"Add by hand: {by_hand}")


@dataclass(frozen=True)
class MatrixRow:
    """A row of the support matrix's first table (family, model id, workloads, example), in the families' order."""

    family: str
    model_id: str
    workloads: str
    example: str

    @property
    def row(self) -> str:
        return f"| {self.family} | {self.model_id} | {self.workloads} | {self.example} |"

    def _is_mine(self, line: bytes) -> bool:
        cells = [cell.strip() for cell in line.decode("utf-8", "replace").split("|")]
        return len(cells) > 4 and cells[1] == self.family and self.example in cells

    def present(self, data: bytes, where: str) -> bool:
        return any(self._is_mine(line) for line in _lines(data))

    def add(self, data: bytes, where: str) -> bytes:
        lines = _lines(data)
        header = rb"\|\s*Family\s*\|\s*HuggingFace Model ID\s*\|\s*Workloads\s*\|\s*Example\s*\|\s*"
        top = next((n for n, line in enumerate(lines) if re.fullmatch(header, line)), None)
        if top is None:
            raise no_anchor(where, "no table of registered model ids", self.row)
        at = top + 2
        while at < len(lines) and lines[at].startswith(b"|"):
            family = lines[at].split(b"|")[1].strip().decode("utf-8", "replace")
            if family > self.family:
                break
            at += 1
        return b"".join([*lines[:at], (self.row + newline(data)).encode(), *lines[at:]])

    def remove(self, data: bytes, where: str) -> bytes:
        return b"".join(line for line in _lines(data) if not self._is_mine(line))


@dataclass(frozen=True)
class NavEntry:
    """`- Title: inference/<slug>.md` after the last page that stands directly in the nav's Inference section."""

    title: str
    page: str

    def _is_mine(self, line: bytes) -> bool:
        return re.fullmatch(rb"\s+- .*:\s+" + re.escape(self.page.encode()) + rb"\s*", line) is not None

    def present(self, data: bytes, where: str) -> bool:
        return any(self._is_mine(line) for line in _lines(data))

    def add(self, data: bytes, where: str) -> bytes:
        lines = _lines(data)
        nav = next((n for n, line in enumerate(lines) if re.match(rb"nav:\s*$", line)), None)
        entry = f"- {self._title()}: {self.page}"
        top = None
        if nav is not None:
            found = (n for n in range(nav + 1, len(lines)) if re.match(rb"\s+- Inference:\s*$", lines[n]))
            top = next(found, None)
        if top is None:
            raise no_anchor(where, "no nav section Inference", entry)
        depth = len(lines[top]) - len(lines[top].lstrip())
        at, indent = None, b""
        for n in range(top + 1, len(lines)):
            here = len(lines[n]) - len(lines[n].lstrip())
            if lines[n].strip() and here <= depth:
                break
            page = re.match(rb"(\s+)- [^:]+:\s+inference/[^/\s]+\.md\s*$", lines[n])
            if page and (at is None or page[1] == indent):
                at, indent = n + 1, page[1]
        if at is None:
            raise no_anchor(where, "no page in the nav section Inference", entry)
        return b"".join([*lines[:at], indent + (entry + newline(data)).encode(), *lines[at:]])

    def _title(self) -> str:
        plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._+()-]*", self.title)
        return self.title if plain else '"' + self.title.replace("\\", "\\\\").replace('"', '\\"') + '"'

    def remove(self, data: bytes, where: str) -> bytes:
        return b"".join(line for line in _lines(data) if not self._is_mine(line))


@dataclass(frozen=True)
class InventoryField:
    """One field that only this port's pipeline config has, in the schema inventory's `pipeline_config_extensions`."""

    field: str
    source: str  # dotted path of the config class

    def _section(self, lines: list[bytes]) -> tuple[int, int] | None:
        """First and last line of surfaces.pipeline_config_extensions.preset_owned."""
        top = next((n for n, line in enumerate(lines) if re.match(rb"\s+pipeline_config_extensions:\s*$", line)), None)
        if top is None or top + 1 >= len(lines) or not re.match(rb"\s+preset_owned:\s*$", lines[top + 1]):
            return None
        depth = len(lines[top + 1]) - len(lines[top + 1].lstrip())
        end = top + 2
        while end < len(lines):
            text = lines[end]
            if text.strip() and not text.lstrip().startswith(b"#") and len(text) - len(text.lstrip()) <= depth:
                break
            end += 1
        while end > top + 2 and not lines[end - 1].strip():
            end -= 1
        return top + 2, end

    def _at(self, lines: list[bytes]) -> int | None:
        section = self._section(lines)
        for n in range(*section) if section else ():
            if re.match(rb"\s+" + re.escape(self.field.encode()) + rb":", lines[n]):
                return n
        return None

    def present(self, data: bytes, where: str) -> bool:
        return self._at(_lines(data)) is not None

    def add(self, data: bytes, where: str) -> bytes:
        lines, nl = _lines(data), newline(data).encode()
        section = self._section(lines)
        if section is None or section[0] == section[1]:
            raise no_anchor(
                where, "no surfaces.pipeline_config_extensions.preset_owned", f"{self.field} ({self.source})"
            )
        first = lines[section[0]]
        indent = first[: len(first) - len(first.lstrip())]
        new = [
            indent + self.field.encode() + b":" + nl,
            indent + b"  sources: [" + self.source.encode() + b"]" + nl,
        ]
        return b"".join([*lines[: section[1]], *new, *lines[section[1] :]])

    def remove(self, data: bytes, where: str) -> bytes:
        lines = _lines(data)
        at = self._at(lines)
        if at is None or at + 1 >= len(lines) or b"[" + self.source.encode() + b"]" not in lines[at + 1]:
            return data  # the field is another model's too: not ours to take
        return b"".join([*lines[:at], *lines[at + 2 :]])
