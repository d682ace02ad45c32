# SPDX-License-Identifier: Apache-2.0
"""The README's picture, the gate's table of a port as SVG: python -m examples.picture build/tiny_wan docs/gate.svg"""

from __future__ import annotations

import html
import subprocess
import sys
from pathlib import Path

LINE, COLUMN, PAD = 20, 8.4, 20  # pixels
COLOURS = {"ok": "#3fb950", "FAIL": "#f85149", "blocked": "#d29922"}


def picture(text: str) -> str:
    """Monospaced text as a standalone SVG without outside addresses; verdict words in their colours."""
    lines = text.splitlines()
    width, height = PAD * 2 + COLUMN * max(map(len, lines)), PAD * 2 + LINE * len(lines)
    rows = [
        f'<text x="{PAD}" y="{PAD + LINE * (number + 0.8):.0f}" xml:space="preserve">{_coloured(line)}</text>'
        for number, line in enumerate(lines)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" '
        'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="14" fill="#e6edf3">\n'
        '<rect width="100%" height="100%" rx="8" fill="#0d1117"/>\n' + "\n".join(rows) + "\n</svg>\n"
    )


def _coloured(line: str) -> str:
    words = html.escape(line)
    for word, colour in COLOURS.items():
        words = words.replace(f" {word} ", f' <tspan fill="{colour}">{word}</tspan> ')
    return words


def main() -> int:
    port, out = sys.argv[1:3]
    command = [sys.executable, "-m", "fvport.cli", "gate", "--port", port]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    table = said.split("\n\nworkspace", 1)[0]
    Path(out).write_text(picture(table), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
