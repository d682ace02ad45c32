# SPDX-License-Identifier: Apache-2.0
"""Records say on which run of CI they were made; a verdict counts its own run's, commit's and image's only."""

from __future__ import annotations

import json
from pathlib import Path

import gate_support as g
import pytest

from fvport import evidence as ev
from fvport import gate, origin
from fvport.origin import Demand
from fvport.spec import Port

OURS = {"run": "github-7", "commit": "a" * 40, "image": "gate@sha256:1"}


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Port:
    """A port whose records were all made on run 7."""
    made = g.make(tmp_path)
    g.stub_checks(monkeypatch)
    for check in made.gate.checks:
        g.green(made, check, origin=dict(OURS))
    return made


def test_records_of_this_run_count(port: Port) -> None:
    """What was made on the run, for the commit and in the image that are asked for opens the gate."""
    assert gate.decide(port, Demand(**OURS)).verdict == "pass"


@pytest.mark.parametrize("field", list(OURS))
def test_a_record_of_another_run_commit_or_image_is_shown_and_does_not_count(port: Port, field: str) -> None:
    """Each field in turn: the row is blocked, says what it was made at, and the other rows stand."""
    record = ev.read(port, "parity")
    assert record is not None
    record.origin[field] = "another"
    ev.write(port, record)
    verdict = gate.decide(port, Demand(**OURS))
    row = verdict.row("parity")
    assert row is not None
    assert (verdict.verdict, row.verdict) == ("blocked", "blocked")
    assert f"made at {field} another" in " ".join(row.reasons)
    assert all(other.verdict == "pass" for other in verdict.rows if other.check != "parity")


def test_a_laptops_record_does_not_open_cis_gate(port: Port) -> None:
    """A record without an origin names no run: blocked in CI, counted on the laptop itself."""
    record = ev.read(port, "ssim")
    assert record is not None
    record.origin = {}
    ev.write(port, record)
    row = gate.decide(port, Demand(**OURS)).row("ssim")
    assert row is not None
    assert row.verdict == "blocked"
    assert "made outside CI" in row.reasons[0]
    assert gate.decide(port).verdict == "pass"


def test_an_origin_written_in_by_hand_breaks_the_seal(port: Port) -> None:
    """Another run's number put into the file is an edit like any other: refused."""
    file = ev.folder(port) / "keys.json"
    data = json.loads(file.read_text())
    data["origin"]["run"] = "github-8"
    file.write_text(json.dumps(data))
    row = gate.decide(port, Demand(run="github-8")).row("keys")
    assert row is not None
    assert (row.verdict, row.state) == ("fail", "refused")


def test_a_red_record_stays_red_wherever_it_was_made(port: Port) -> None:
    """A failed check of another run is not softened to blocked."""
    record = ev.read(port, "keys")
    assert record is not None
    record.items[0].verdict, record.origin = "fail", {}
    ev.write(port, record)
    row = gate.decide(port, Demand(**OURS)).row("keys")
    assert row is not None
    assert row.verdict == "fail"


def test_the_workflows_variables_are_what_a_record_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the job is the origin; without it there is none."""
    for name in origin.VARIABLES.values():
        monkeypatch.delenv(name, raising=False)
    assert origin.here() == {}
    monkeypatch.setenv("FVPORT_RUN", "github-7")
    assert origin.here() == {"run": "github-7"}
