# SPDX-License-Identifier: Apache-2.0
"""A verdict for people and machines: text, JSON, Markdown, JUnit, one HTML file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from fvport.report import terminal
from fvport.spec import Port
from fvport.verdict import Verdict

if TYPE_CHECKING:
    from fvport.report.compare import Comparison

__all__ = ["compare", "terminal", "write"]


def write(
    port: Port, verdict: Verdict, markdown: Path | None = None, junit: Path | None = None, *, media: bool = False
) -> list[Path]:
    """Write gate.json, gate.md, gate.xml and index.html under .fvport/report/, and the two copies asked for.

    `media`: make the pictures of what was generated too; else those that were made before are shown.
    """
    from fvport.report import html, markup, pictures

    shown = pictures.make(port) if media else pictures.kept(port)
    folder = port.state / "report"
    texts = {
        folder / "gate.json": json.dumps(verdict.to_json(), indent=1, default=str) + "\n",
        folder / "gate.md": markup.markdown(verdict),
        folder / "gate.xml": markup.junit(verdict),
        folder / "index.html": html.page(verdict, shown, pictures.drifts(port)),
    }
    if markdown:
        texts[markdown] = texts[folder / "gate.md"]
    if junit:
        texts[junit] = texts[folder / "gate.xml"]
    for path, text in texts.items():
        _write(path, text)
    return list(texts)


def compare(a: Path, b: Path, *, page: Path | None = None) -> Comparison:
    """Two runs beside one another: ports, or folders of their evidence. `page`: also as HTML."""
    from fvport.report.compare import compare as beside

    found = beside(a, b)
    if page:
        _write(page, found.page())
    return found


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
