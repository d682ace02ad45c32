# SPDX-License-Identifier: Apache-2.0
"""The line of a port's own file that builds a module, for modules whose class is a shared layer of FastVideo's."""

from __future__ import annotations

from pathlib import Path

import pytest

from fvport.parity import built
from fvport.spec import Component

FILE = """
from fastvideo.layers.mlp import MLP
class Attention:
    def __init__(self, dim):
        self.norm_q = RMSNorm(dim)
class Block:
    def __init__(self, dim):
        self.act = None
        self.attn = Attention(dim)
        self.ffn: MLP = MLP(dim, act="gelu")
class Model:
    def __init__(self, dim):
        self.act = SiLU()
        self.blocks = nn.ModuleList([Block(dim) for _ in range(4)])
        self.head = None
        if dim:
            self.head = MLP(dim)
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("blocks.0.ffn.act", 10),  # the layer's own `act` is no line of this file, nor the model's `act`
        ("blocks.3.attn.norm_q", 5),
        ("blocks.1", 14),
        ("head.fc_in", 17),
        ("nowhere.at.all", None),
    ],
)
def test_the_line_that_builds_a_module(path: str, line: int | None) -> None:
    """From class to class as the assignments say, to the deepest one in this file."""
    assert built.line(FILE, "Model", path) == line


@pytest.mark.parametrize(("text", "cls"), [("class Model(", "Model"), ("", "Model"), (FILE, "Other")])
def test_a_file_that_says_nothing(text: str, cls: str) -> None:
    """No line is invented."""
    assert built.line(text, cls, "blocks.0") is None


PORT = Component("net", "dit", "port", native="fastvideo.models.dits.net:Model")


OWN, SHARED = "fastvideo/models/dits/net.py:9", "fastvideo/layers/mlp.py:3"


@pytest.mark.parametrize(
    ("native", "line", "resized", "said"),
    [
        (None, "", "", ""),
        ("(call)", "", "", ""),
        ("", OWN, "", "Correct (the model itself) (fastvideo/"),
        ("head.fc_in", SHARED, "", "Correct fastvideo/models/dits/net.py:17,"),
        ("x", OWN, "y is given z of [1], officially of [2]", "Look first at sizes (y is given z"),
    ],
)
def test_what_to_correct(native: str | None, line: str, resized: str, said: str, tmp_path: Path) -> None:
    """The model itself has a place too; a shared layer's is the port's line; another size comes before both."""
    file = tmp_path / "fastvideo/models/dits/net.py"
    file.parent.mkdir(parents=True)
    file.write_text(FILE)
    found = built.correct(PORT, {"native": native, "native_line": line, "resized": resized}, tmp_path)
    assert found.startswith(said)
    assert bool(found) == bool(said)


def test_a_cause_that_was_confirmed_comes_before_sizes(tmp_path: Path) -> None:
    """What makes the module equal is what to correct; another size beside it is only told."""
    cause = {"family": "scale", "words": "with a softmax scale of 1 it is equal", "before": 0.06, "after": 0.0}
    trace = {"native": "x", "native_line": OWN, "resized": "y is given z of [1], officially of [2]", "causes": [cause]}
    found = built.correct(PORT, trace, tmp_path)
    assert found == f"Correct x ({OWN}), which the trace names: with a softmax scale of 1 it is equal"
