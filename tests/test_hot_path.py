# SPDX-License-Identifier: Apache-2.0
"""What slows a port that is right: found by rule and line, and nothing said of code that is well."""

from __future__ import annotations

from pathlib import Path

import gate_support as g
import pytest

from fvport.checks import _hot_path, _sources

FILE = "fastvideo/pipelines/basic/toy/stages/denoising.py"
LOOP = """\
import os
import torch


class Stage:

    def forward(self, batch, args):
        for t in batch.timesteps:
            {line}
        return batch
"""
FOUND = {
    "FV330": "x = torch.tensor([1.0, 2.0], device=t.device)",
    "FV331": "x = torch.zeros(batch.shape, dtype=torch.float32)",
    "FV332": "torch.backends.cudnn.benchmark = True",
    "FV332 env": 'os.environ["A"] = "1"',
    "FV332 seed": "torch.manual_seed(1)",
    "FV333": "x = t * 0.18215",
    "FV334": 'batch.extra["never"] = t',
    "FV335": "x = t.item()",
}
WELL = (
    "x = torch.zeros(t.shape)",
    "y = t + 1.0; x = torch.full(y.shape, 2)",
    "x = t * 0.5 + 1e-6",
    'batch.extra["read"] = t; x = batch.extra["read"]',
    'batch.extra["got"] = t; x = batch.extra.get("got")',
    "x = torch.cat([t, t])",
)


def notes(tmp_path: Path, text: str, file: str = FILE) -> list[str]:
    port = g.make(tmp_path)
    path = port.root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("# SPDX-License-Identifier: Apache-2.0\n" + text)
    return _hot_path.notes(_sources.read(port))


@pytest.mark.parametrize("rule", FOUND)
def test_a_slow_line_is_named_by_rule_and_place(tmp_path: Path, rule: str) -> None:
    """One finding, with its line and what to do."""
    (note,) = notes(tmp_path, LOOP.format(line=FOUND[rule]))
    assert note.startswith(f"{rule[:5]} {FILE}:10: ")


@pytest.mark.parametrize("line", WELL)
def test_a_good_line_is_let_alone(tmp_path: Path, line: str) -> None:
    """What a step changes is made in the step; round numbers are no measurements."""
    assert notes(tmp_path, LOOP.format(line=line)) == []


def test_outside_of_a_loop_and_of_the_port(tmp_path: Path) -> None:
    """A table made once is right where it is; a test of the port may do what it likes."""
    assert notes(tmp_path, "import torch\n\n\ndef table():\n    return torch.tensor([1.0, 2.0])\n") == []
    slow = LOOP.format(line=FOUND["FV330"])
    assert notes(tmp_path, slow, "tests/local_tests/toy/test_toy_parity.py") == []
