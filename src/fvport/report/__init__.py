# SPDX-License-Identifier: Apache-2.0
"""A verdict for people and machines: text, JSON, Markdown, JUnit, one HTML file."""

from __future__ import annotations

import json
import os
from pathlib import Path

from fvport.gate import Verdict
from fvport.report import terminal
from fvport.spec import Port

__all__ = ["terminal", "write"]


def write(port: Port, verdict: Verdict, markdown: Path | None = None, junit: Path | None = None) -> list[Path]:
    """Write gate.json, gate.md, gate.xml and index.html under .fvport/report/, and the two copies asked for."""
    from fvport.report import html, markup

    folder = port.state / "report"
    texts = {
        folder / "gate.json": json.dumps(verdict.to_json(), indent=1, default=str) + "\n",
        folder / "gate.md": markup.markdown(verdict),
        folder / "gate.xml": markup.junit(verdict),
        folder / "index.html": html.page(verdict),
    }
    if markdown:
        texts[markdown] = texts[folder / "gate.md"]
    if junit:
        texts[junit] = texts[folder / "gate.xml"]
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    return list(texts)
