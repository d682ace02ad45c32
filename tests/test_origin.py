# SPDX-License-Identifier: Apache-2.0
"""Records say on which run of CI they were made; a verdict counts its own run's, commit's and image's only."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import gate_support as g
import pytest

from fvport import attestation, gate, origin
from fvport import evidence as ev
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


def forged(port: Port, check: str, field: str) -> None:
    """What somebody who can write a whole record, seal and all, would put into it for another tree, run or machine."""
    record = ev.read(port, check)
    assert record is not None
    if field in OURS:
        record.origin[field] = "another"
    elif field == "no origin":
        record.origin = {}
    elif field == "input":  # the digest of a file as it was elsewhere
        record.inputs[min(record.inputs)] = "blake3:" + "0" * 64
    elif field == "inputs":
        record.inputs.pop(min(record.inputs))
    elif field == "device":
        record.device = {"kind": "cuda", "name": "another"}
    elif field == "scale":
        record.scale = "tiny"
    elif field == "items":
        record.items = []
    elif field == "port":
        record.port = "another"
    else:
        record.check = "boundary"
    file = ev.folder(port) / f"{check}.json"
    file.write_text(json.dumps(record.to_json()))


FORGED = [*OURS, "no origin", "input", "inputs", "device", "scale", "items", "port", "check"]


@pytest.mark.parametrize("field", FORGED)
def test_each_field_forged_in_turn_shuts_the_gate(port: Port, field: str) -> None:
    """A whole forged record with a fitting seal: whichever field is not this run's or tree's, the row is red."""
    assert gate.decide(port, Demand(**OURS)).verdict == "pass"
    forged(port, "parity", field)
    verdict = gate.decide(port, Demand(**OURS))
    row = verdict.row("parity")
    assert row is not None
    assert row.verdict in ("fail", "blocked")
    assert row.reasons
    assert verdict.verdict != "pass"


# --- signatures: only `gh` is a stand-in ------------------------------------------------------------------------------


@pytest.fixture
def gh(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A `gh` that accepts a bundle whose text names the record's digest and the repository, as sigstore's would."""
    seen: list[list[str]] = []

    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        seen.append(command)
        record, bundle, repo = Path(command[3]), Path(command[5]), command[7]
        good = bundle.read_text() == f"{ev.blake3(record.read_bytes())} {repo}"
        return subprocess.CompletedProcess(command, 0 if good else 1, "", "" if good else "no matching attestation")

    monkeypatch.setattr(attestation, "_gh", run)
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    return seen


def sign(port: Port, by: str = "us/fastvideo") -> None:
    for check in port.gate.checks:
        record = ev.folder(port) / f"{check}.json"
        record.with_suffix(".sigstore.json").write_text(f"{ev.blake3(record.read_bytes())} {by}")


SIGNED = Demand(**OURS, signer="us/fastvideo")


def test_signed_records_open_the_gate(port: Port, gh: list[list[str]]) -> None:
    """Each record's own bundle is verified, against the repository that the verdict names."""
    sign(port)
    assert gate.decide(port, SIGNED).verdict == "pass"
    assert len(gh) == len(port.gate.checks)
    assert gh[0][:3] == ["gh", "attestation", "verify"]


@pytest.mark.parametrize("how", ["no bundle", "another signer", "another record"])
def test_a_signature_that_does_not_hold_is_refused(port: Port, gh: list[list[str]], how: str) -> None:
    """Missing, somebody else's, or another record's: the row is refused, and says so."""
    sign(port, "them/fastvideo" if how == "another signer" else "us/fastvideo")
    if how == "no bundle":
        (ev.folder(port) / "keys.sigstore.json").unlink()
    if how == "another record":
        record = ev.read(port, "keys")
        assert record is not None
        record.seconds = 7.0
        ev.write(port, record)
    row = gate.decide(port, SIGNED).row("keys")
    assert row is not None
    assert (row.verdict, row.state) == ("fail", "refused")
    assert "sign" in row.reasons[-1]


def test_a_bundle_that_is_there_is_verified_unasked(
    port: Port, gh: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In CI its own repository is the signer; a laptop that knows none asks for nothing."""
    sign(port, "them/fastvideo")
    assert gate.decide(port).verdict == "pass"
    assert not gh
    monkeypatch.setenv("GITHUB_REPOSITORY", "us/fastvideo")
    assert gate.decide(port).verdict == "fail"


def test_without_gh_a_signature_is_not_believed(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program is named, and a word that is no repository, too."""
    monkeypatch.setattr(attestation, "GH", "no-such-gh")
    sign(port)
    assert "no-such-gh is not here" in attestation.refuses(ev.folder(port) / "keys.json", "us/fastvideo")
    assert "no OWNER/REPO" in attestation.refuses(ev.folder(port) / "keys.json", "us")
