# SPDX-License-Identifier: Apache-2.0
"""What comes before the checks: prepare, make the workspace, read the mapping, write what nobody could derive."""

from __future__ import annotations

import json
from pathlib import Path

import gate_support as g
import pytest

from fvport import evidence as ev
from fvport import firststep, gate
from fvport.report import plan
from fvport.spec import Port

MARK = '    raise NotImplementedError("FVPORT-DECIDE: forward of ToyBlock (norm, attn)")\n'
NATIVE = "fastvideo/models/dits/toy.py"


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Port:
    made = g.make(tmp_path)
    g.stub_checks(monkeypatch)
    g.all_green(made)
    return made


def without(port: Port, *checks: str) -> None:
    for check in checks:
        (ev.folder(port) / f"{check}.json").unlink()


def test_prep_comes_before_everything(port):
    without(port, "boundary", "parity")
    lock = port.folder / "port.lock.json"
    held = lock.read_text()
    lock.unlink()
    assert gate.decide(port).next_step == "fvport prep"
    lock.write_text('{"components": {"transformer": {"files": {"transformer/config.json": {"bytes": 30}}}}}')
    assert gate.decide(port).next_step == "fvport prep"  # what a bake writes: sizes, no digests
    lock.write_text(held)
    assert gate.decide(port).next_step == "fvport check boundary"


def test_then_the_workspace(port, tmp_path):
    """`fvport workspace` in place; `cd` where a finished one lies elsewhere."""
    without(port, "boundary")
    (port.root / firststep.REGISTRY).unlink()
    assert gate.decide(port).next_step == "fvport workspace"
    other = tmp_path / "beside"
    (other / "fastvideo").mkdir(parents=True)
    record = port.root / ".fvport/workspace.json"
    record.parent.mkdir(exist_ok=True)
    record.write_text(json.dumps({port.slug: {"root": str(other), "done": True}}))
    assert gate.decide(port).next_step == "fvport workspace"  # it has no FastVideo in it (any more)
    (other / firststep.REGISTRY).write_text("")
    assert gate.decide(port).next_step == f"cd {other}"
    record.write_text("{")
    assert gate.decide(port).next_step == "fvport workspace"


def test_then_mapping_and_keys_and_then_the_line_to_write(port):
    """A skeleton's first red is boundary, which cannot be mended before its forward is written."""
    with open(port.root / NATIVE, "a", encoding="utf-8") as file:
        file.write(MARK)
    without(port, "boundary", "mapping", "keys")
    assert gate.decide(port).next_step == "fvport check mapping"
    g.green(port, "mapping")
    assert gate.decide(port).next_step == "fvport check keys"
    g.green(port, "keys")
    line = (port.root / NATIVE).read_text().splitlines().index(MARK.rstrip()) + 1
    assert gate.decide(port).next_step == f"Write what {NATIVE}:{line} asks for: forward of ToyBlock (norm, attn)"


def test_a_green_gate_is_asked_for_nothing_before(port):
    (port.folder / "port.lock.json").unlink()
    assert gate.decide(port).next_step == "fvport handoff final"


def test_every_marked_line_once(port):
    """Components, pipeline, oracle, port.toml; a file that is no text is passed over."""
    for name, text in {
        NATIVE: MARK,
        "fastvideo/pipelines/basic/toy/stages/denoising.py": "# FVPORT-DECIDE: when noise is drawn\n",
        "tests/local_tests/toy/oracle.py": "x = 1  # FVPORT-DECIDE: inputs of toy\n",
        "fastvideo/models/dits/other.py": "# FVPORT-DECIDE: of another port\n",
    }.items():
        (port.root / name).parent.mkdir(parents=True, exist_ok=True)
        (port.root / name).write_text(text)
    (port.folder / "odd.py").write_bytes(b"\xff FVPORT-DECIDE")
    assert [str(d) for d in firststep.decisions(port)] == [
        f"{NATIVE}:1: forward of ToyBlock (norm, attn)",
        "fastvideo/pipelines/basic/toy/stages/denoising.py:1: when noise is drawn",
        "tests/local_tests/toy/oracle.py:1: inputs of toy",
    ]


def test_the_plans_first_boxes_are_ticked_by_what_is_there(port):
    """prep and workspace are no checks: the lock's digests and the FastVideo tree decide, not a later check."""
    file = port.folder / "PLAN.md"
    boxes = "- [ ] locked <!-- gate: prep -->\n- [ ] in a tree <!-- gate: workspace -->\n"
    file.write_text(boxes)
    plan.sync(port)
    assert file.read_text() == boxes.replace("[ ]", "[x]")
    (port.folder / "port.lock.json").unlink()
    plan.sync(port)
    assert file.read_text() == "- [ ] locked <!-- gate: prep -->\n- [x] in a tree <!-- gate: workspace -->\n"
