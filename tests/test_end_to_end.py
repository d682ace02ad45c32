# SPDX-License-Identifier: Apache-2.0
"""The main job as a newcomer meets it: the gate is green, says what the seeds ask for, and cannot be talked round."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPO, PortCopy

from fvport.spec import CHECKS

pytestmark = pytest.mark.slow


def test_the_demo_is_green_in_every_row(port: PortCopy) -> None:
    """Each check has a current pass at full scale; the required output of the second seed is all there."""
    verdict = port.fvport("gate", "--json")
    said = verdict.json()
    assert verdict.code == 0
    assert {row["check"]: row["verdict"] for row in said["rows"]} == dict.fromkeys(CHECKS, "pass")
    text = port.fvport("gate").out
    for words in (str(port.root), "branch", "port/tiny_wan-", "PLAN.md", "signed: transformer by demo", "risks"):
        assert words in text


def test_a_video_was_written_by_the_port(port: PortCopy) -> None:
    """VideoGenerator wrote a file of the declared shape with the port's own classes."""
    record = json.loads((port.root / ".fvport/evidence/tiny_wan/example.json").read_text())
    shape = next(item["metrics"] for item in record["items"] if item["name"] == "shape")
    assert shape == {"frames": 9, "width": 96, "height": 64, "fps": 16}
    assert record["device"]["kind"] == "cpu"
    assert record["environment"]["fastvideo_path"].startswith("fastvideo")


def test_a_second_demo_runs_nothing_again(demo_root: Path) -> None:
    """Every check but the docs page is told to be valid still, in seconds."""
    if not (demo_root.parent / ".tiny_wan.stamp").is_file():
        pytest.fail("the demo left no stamp")
    command = [sys.executable, "-m", "examples.demo", "--build", str(demo_root.parent)]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("still valid") == len(CHECKS) - 1


@pytest.mark.parametrize("check", CHECKS)
def test_a_missing_record_is_not_green(port: PortCopy, check: str) -> None:
    """Evidence that is not there blocks the gate, and the row says what to run."""
    (port.root / f".fvport/evidence/tiny_wan/{check}.json").unlink()
    ran = port.fvport("gate", "--json")
    row = next(row for row in ran.json()["rows"] if row["check"] == check)
    assert (ran.code, row["verdict"]) == (3, "blocked")
    assert f"check {check}" in json.dumps(row)


def test_evidence_edited_by_hand_is_refused(port: PortCopy) -> None:
    """A figure changed in a record is found, and named with its file."""
    path = port.root / ".fvport/evidence/tiny_wan/parity.json"
    path.write_text(path.read_text().replace('"seen": 3', '"seen": 4', 1))
    ran = port.fvport("gate", "--json")
    assert ran.code == 1
    row = next(row for row in ran.json()["rows"] if row["check"] == "parity")
    assert (row["verdict"], row["state"]) == ("fail", "refused")


def test_a_test_turned_into_a_skip_is_not_green(port: PortCopy) -> None:
    """The record of before is stale, and the check itself says that a skip is not a pass."""
    file = "tests/local_tests/transformers/test_tiny_wan_transformer_parity.py"
    port.edit(
        file,
        "def test_transformer_parity(",
        'import pytest\n\n\n@pytest.mark.skip("later")\ndef test_transformer_parity(',
    )
    assert port.fvport("gate").code == 3
    ran = port.fvport("check", "parity", "transformer", "--json")
    assert ran.json()["verdict"] != "pass"
    assert "skip" in ran.out
    assert port.fvport("check", "boundary").code == 1


def test_a_source_that_changes_makes_its_records_stale(port: PortCopy) -> None:
    """One comment in the native code, and everything that read it must run again."""
    port.edit("fastvideo/models/dits/tiny_wan.py", "# Entry point for model registry", "# The entry point")
    rows = {row["check"]: row["verdict"] for row in port.fvport("gate", "--json").json()["rows"]}
    assert rows["parity"] == rows["pipeline"] == rows["conversion"] == "blocked"


def test_evidence_of_a_small_scale_or_another_device_does_not_open_the_gate(port: PortCopy) -> None:
    """What port.toml requires decides: CPU evidence is shown, and is not green where CUDA is asked for."""
    port.edit("tests/local_tests/tiny_wan/port.toml", 'require_device = "cpu"', 'require_device = "cuda"')
    ran = port.fvport("gate", "--json")
    assert ran.code != 0
    row = next(row for row in ran.json()["rows"] if row["check"] == "parity")
    assert row["verdict"] == "blocked"
    assert "cuda" in json.dumps(row)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('kind = "dit"', 'knid = "dit"', 'Did you mean "kind"'),
        ("schema = 1", "schema = one", "not valid TOML"),
    ],
)
def test_a_wrong_port_toml_is_exit_2(port: PortCopy, old: str, new: str, words: str) -> None:
    """File, line, key and a suggestion on standard error; never a traceback."""
    port.edit("tests/local_tests/tiny_wan/port.toml", old, new)
    ran = port.fvport("check", "keys")
    assert ran.code == 2
    assert words in ran.err
    assert "Traceback" not in ran.err


def test_a_missing_checkpoint_is_exit_3(port: PortCopy) -> None:
    """Without the official weights nothing can be said, and the message says what to run."""
    link = port.root / "official_weights/tiny_wan"
    target = link.readlink()
    link.unlink()
    try:
        ran = port.fvport("check", "keys")
    finally:
        link.symlink_to(target)
    assert ran.code == 3
    assert "prep" in ran.out + ran.err


def test_a_truncated_weight_file_is_named(port: PortCopy, tmp_path: Path) -> None:
    """A file cut short is one sentence with its name."""
    import shutil

    link = port.root / "official_weights/tiny_wan"
    target = link.readlink()
    shutil.copytree(link.resolve(), tmp_path / "official")
    file = tmp_path / "official/transformer/diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    link.unlink()
    link.symlink_to(tmp_path / "official")
    try:
        ran = port.fvport("check", "keys")
    finally:
        link.unlink()
        link.symlink_to(target)
    assert ran.code in (1, 3)
    assert "diffusion_pytorch_model.safetensors" in ran.out + ran.err
    assert "Traceback" not in ran.out + ran.err
