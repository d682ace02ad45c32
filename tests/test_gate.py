# SPDX-License-Identifier: Apache-2.0
"""The gate: what it believes, what it refuses, and what it says."""

from __future__ import annotations

import dataclasses
import datetime
import time
from pathlib import Path
from typing import Any

import gate_support as g
import pytest

from fvport import checks, gate, spec
from fvport import evidence as ev
from fvport.spec import Port


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Port:
    port = g.make(tmp_path)
    g.stub_checks(monkeypatch)
    g.all_green(port)
    return port


def row(port: Port, check: str = "parity") -> gate.Row:
    found = gate.decide(port).row(check)
    assert found is not None
    return found


def test_green(port: Port) -> None:
    """With a current, sealed, complete record of every check the gate is open, and it decides in under a second."""
    clock = time.monotonic()
    verdict = gate.decide(port)
    assert time.monotonic() - clock < 1
    assert verdict.verdict == "pass", [r.reasons for r in verdict.rows]
    assert verdict.next_step == "fvport handoff final"
    assert verdict.to_json()["rows"][0]["items"] == {"pass": 1, "fail": 0, "blocked": 0}


def test_missing_record(port: Port) -> None:
    """A check without a record is blocked, and the gate says what to run."""
    (ev.folder(port) / "parity.json").unlink()
    verdict = gate.decide(port)
    assert verdict.verdict == "blocked"
    assert verdict.next_step == "fvport check parity"
    assert "never run" in row(port).reasons[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(verdict="pass", status="non_skip_pass", items=data["items"][:0]),
        lambda data: data["items"][0].update(verdict="fail"),
        lambda data: data["inputs"].update({"port:components": "blake3:00"}),
        lambda data: data["inputs"].pop("port:components"),
        lambda data: data["device"].update(kind="cuda"),
        lambda data: data.update(scale="tiny"),
        lambda data: data["items"][0]["metrics"].update(max_abs=0.0),
        lambda data: data.pop("seal"),
        lambda data: data.update(extra=1),
    ],
)
def test_edited_by_hand(port: Port, change: Any) -> None:
    """Any edit of a record on disk is refused: red, and it cannot be waived."""
    g.tamper(port, "parity", change)
    found = row(port)
    assert (found.verdict, found.state) == ("fail", "refused")
    assert gate.decide(port).verdict == "fail"


def test_flipped_verdict_with_a_new_seal(port: Port) -> None:
    """A failed record whose verdict was flipped is refused also where somebody sealed it again."""
    g.green(port, "parity", items=[ev.Item("transformer", "fail", "differs", component="transformer")])

    def flip(data: dict[str, Any]) -> None:
        data.update(verdict="pass", status="non_skip_pass")
        data["seal"] = ev.seal(data)

    g.tamper(port, "parity", flip)
    assert row(port).state == "refused"


def test_trimmed_inputs(port: Port) -> None:
    """A sealed record that names fewer inputs than the check reads now is stale."""
    record = ev.read(port, "parity")
    assert record is not None
    record.inputs.pop("file:fastvideo/models/dits/toy.py")
    ev.write(port, record)
    found = row(port)
    assert (found.verdict, found.state) == ("blocked", "stale")
    assert "says nothing of file:fastvideo/models/dits/toy.py" in found.reasons[0]


def test_surplus_inputs(port: Port) -> None:
    """A record made from inputs that the check no longer reads is stale."""
    record = ev.read(port, "parity")
    assert record is not None
    record.inputs["file:gone.py"] = "absent"
    ev.write(port, record)
    assert row(port).state == "stale"


def test_changed_file(port: Port) -> None:
    """When a file that was read changes, its records are stale, by its name."""
    g.edit(port, "fastvideo/models/dits/toy.py", "class ToyNative", "# eps\nclass ToyNative")
    found = row(port)
    assert (found.verdict, found.state) == ("blocked", "stale")
    assert "fastvideo/models/dits/toy.py changed" in found.reasons[0]


def test_no_inputs(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that reads nothing proves nothing."""
    g.stub_checks(monkeypatch, parity=g.Stub([], ["transformer"]))
    g.green(port, "parity")
    assert row(port).verdict == "blocked"


def test_wrong_device(port: Port) -> None:
    """Evidence from another device is shown and does not count."""
    g.green(port, "parity", device={"kind": "cuda", "name": "x"})
    found = row(port)
    assert (found.verdict, found.device) == ("blocked", "cuda")
    assert found.todo == "fvport check parity --device cpu"


def test_no_device(port: Port) -> None:
    """A record that does not say where it ran does not count where a device is required."""
    g.green(port, "example", device={})
    assert row(port, "example").verdict == "blocked"


def test_device_does_not_matter_for_text(port: Port) -> None:
    """Checks of text and headers count from any machine."""
    g.green(port, "mapping", device={"kind": "none", "name": "x"})
    assert row(port, "mapping").verdict == "pass"


def test_tiny_where_full_is_required(port: Port) -> None:
    """Tiny-twin evidence where full scale is required is red."""
    g.green(port, "parity", scale="tiny")
    found = row(port)
    assert found.verdict == "fail"
    assert "requires full" in found.reasons[0]


def test_skip_is_no_pass(port: Port) -> None:
    """An expected component without a passed item leaves the row blocked, as scaffold_skip."""
    g.green(port, "parity", items=[ev.Item("vae", "pass", "ran", component="vae")])
    found = row(port)
    assert (found.verdict, found.status) == ("blocked", "scaffold_skip")
    assert "not run: transformer" in found.reasons[0]


def test_empty_record(port: Port) -> None:
    """A record in which nothing was compared is blocked."""
    g.green(port, "parity", items=[])
    assert row(port).verdict == "blocked"


def test_failed_item_is_named(port: Port) -> None:
    """A red row repeats the item's sentence and its next command."""
    item = ev.Item(
        "transformer: block 1", "fail", "transformer differs in block 1", component="transformer", todo="look"
    )
    g.green(port, "parity", items=[item])
    found = row(port)
    assert (found.verdict, found.todo) == ("fail", "look")
    assert "transformer differs in block 1" in found.reasons[0]


def test_record_of_another_port(port: Port) -> None:
    """A record of another port under this one's name is refused."""
    record = ev.read(port, "parity")
    assert record is not None
    path = ev.write(port, dataclasses.replace(record, port="other"))
    assert path.parent.name == "toy"
    assert row(port).state == "refused"


def test_check_module_that_cannot_load(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that cannot be asked for its inputs blocks its row instead of passing it."""

    def missing(name: str) -> Any:
        raise ImportError("no module")

    monkeypatch.setattr(checks, "module", missing)
    assert row(port).verdict == "blocked"


def test_outdated_hook(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check may say itself why its record does not hold any more."""
    stub = g.Stub(["port:components"], ["transformer"])
    stub.outdated = lambda port: ["figures older than the code"]  # type: ignore[attr-defined]
    g.stub_checks(monkeypatch, docs=stub)
    g.green(port, "docs")
    assert row(port, "docs").reasons == ["figures older than the code"]


# --- waivers ---------------------------------------------------------------------------------------------------------

WAIVER = '\n[[waivers]]\nid = "E001"\ncheck = "ssim"\nreason = "no GPU"\napproved_by = "ann"\nexpires = {day}\n'


def waived(port: Port, day: str = "2999-01-01", *, with_row: bool = True, waiver: str = WAIVER) -> gate.Verdict:
    g.edit(port, "tests/local_tests/toy/port.toml", "", waiver.format(day=day))
    if with_row:
        g.edit(port, "tests/local_tests/toy/PORT_STATUS.md", "", "| E001 | ssim later |\n")
    return gate.decide(spec.load(port.root))


def test_waiver(port: Port) -> None:
    """A waiver with its row in PORT_STATUS.md turns a red row to waived, in sight."""
    (ev.folder(port) / "ssim.json").unlink()
    verdict = waived(port)
    assert verdict.verdict == "pass"
    assert (verdict.row("ssim").verdict, verdict.row("ssim").waiver) == ("waived", "E001")  # type: ignore[union-attr]
    assert "ssim is waived (E001)" in verdict.risks


def test_what_is_red_is_said_at_once(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """`gate --run` shows the red items of a check before it begins the next one."""

    def red(view: Port, name: str, options: Any = None) -> ev.Evidence:
        items = [ev.Item(f"item {i}", "fail", f"reason {i}") for i in range(5)]
        ev.write(view, record := ev.Evidence(name, view.slug, items=items))
        return record

    (ev.folder(port) / "keys.json").unlink()
    monkeypatch.setattr(checks, "run_check", red)
    said: list[str] = []
    gate.run_missing(port, say=said.append)
    assert said[1].startswith("[1/1] keys: fail (")
    assert said[2:] == ["    item 0: reason 0", "    item 1: reason 1", "    item 2: reason 2", "    and 2 more"]


def test_expired_waiver(port: Port) -> None:
    """An expired waiver opens nothing and is said."""
    (ev.folder(port) / "ssim.json").unlink()
    yesterday = datetime.date.today() - datetime.timedelta(days=1)
    verdict = waived(port, yesterday.isoformat())
    assert verdict.verdict == "blocked"
    assert any("expired" in reason for reason in verdict.row("ssim").reasons)  # type: ignore[union-attr]


def test_waiver_without_its_row(port: Port) -> None:
    """A waiver that PORT_STATUS.md does not know opens nothing."""
    (ev.folder(port) / "ssim.json").unlink()
    assert waived(port, with_row=False).verdict == "blocked"


def test_waiver_without_a_name(port: Port) -> None:
    """A waiver that nobody approved opens nothing."""
    (ev.folder(port) / "ssim.json").unlink()
    assert waived(port, waiver=WAIVER.replace('"ann"', '""')).verdict == "blocked"


def test_edited_record_cannot_be_waived(port: Port) -> None:
    """A record that was changed by hand stays red under a waiver."""
    g.tamper(port, "ssim", lambda data: data.update(seconds=1.5))
    assert waived(port).verdict == "fail"


# --- what else it says -----------------------------------------------------------------------------------------------


def test_plan_follows_evidence(port: Port) -> None:
    """An item of PLAN.md that names a check is done by evidence, one without by a person's tick."""
    (ev.folder(port) / "mapping.json").unlink()
    done = {item["text"]: item["done"] for item in gate.decide(port).plan}
    assert done == {"rules read": False, "scope confirmed": True, "transformer": True, "scheduler": False}


def test_check_left_out_is_said(port: Port) -> None:
    """A gate that leaves a check out says so, and stays shut where every port needs that check."""
    g.edit(port, "tests/local_tests/toy/port.toml", "[gate]\n", '[gate]\nchecks = ["docs"]\n')
    verdict = gate.decide(spec.load(port.root))
    assert verdict.verdict == "blocked"
    assert {r.check for r in verdict.red} >= set(gate.REQUIRED) - {"docs"}
    assert any("leaves parity out" in reason for reason in verdict.row("parity").reasons)  # type: ignore[union-attr]
    assert "back into gate.checks" in verdict.next_step
    assert any("out of the gate" in risk for risk in verdict.risks)


def test_check_left_out_with_a_waiver(port: Port) -> None:
    """A waiver may stand for a check that the gate leaves out; without one no check may go."""
    left = [name for name in spec.CHECKS if name != "ssim"]
    g.edit(port, "tests/local_tests/toy/port.toml", "[gate]\n", f"[gate]\nchecks = {left}\n")
    assert gate.decide(spec.load(port.root)).verdict == "blocked"
    for name in ("docs",):
        g.green(spec.load(port.root), name)
    verdict = waived(spec.load(port.root))
    assert verdict.row("ssim").verdict == "waived"  # type: ignore[union-attr]
    assert verdict.verdict == "pass"


def test_weights_that_nothing_ties(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record made from weights that were never locked proves nothing of any weights."""
    (port.folder / "port.lock.json").unlink()
    g.stub_checks(monkeypatch, parity=g.Stub(["weights:transformer"], ["transformer"]))
    g.green(port, "parity")
    found = row(port)
    assert (found.verdict, found.state) == ("blocked", "stale")
    assert "are not locked" in found.reasons[0]


def test_bytes_that_are_no_text(port: Port) -> None:
    """A PLAN.md or PORT_STATUS.md in another encoding neither crashes the gate nor opens it."""
    for name in ("PLAN.md", "PORT_STATUS.md"):
        file = port.folder / name
        file.write_bytes(file.read_bytes() + "- [ ] größer\n".encode("latin-1"))
    assert gate.decide(port).verdict == "pass"


def test_a_check_that_cannot_judge(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault while a record is judged leaves its row blocked, with the place."""
    stub = g.Stub(["port:components"], ["transformer"])
    g.stub_checks(monkeypatch, docs=stub)
    g.green(port, "docs")
    stub.outdated = lambda port: 1 // 0  # type: ignore[attr-defined]
    found = row(port, "docs")
    assert found.verdict == "blocked"
    assert "cannot be judged: ZeroDivisionError" in found.reasons[0]


def test_empty_gate_is_shut(port: Port) -> None:
    """A gate with no checks is blocked, not open."""
    g.edit(port, "tests/local_tests/toy/port.toml", "[gate]\n", "[gate]\nchecks = []\n")
    assert gate.decide(spec.load(port.root)).verdict == "blocked"


def test_signatures(port: Port) -> None:
    """The verdict names who signed each ported mapping, and nobody where nobody did."""
    assert gate.decide(port).signatures == [{"component": "transformer", "by": "", "on": "", "digest": ""}]


def test_run_missing(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is missing, stale or refused runs, cheap before dear; a red record stays."""
    (ev.folder(port) / "ssim.json").unlink()
    (ev.folder(port) / "mapping.json").unlink()
    g.tamper(port, "keys", lambda data: data.update(seconds=1.5))
    g.green(port, "smoke", items=[ev.Item("transformer", "fail", "no", component="transformer")])
    ran: list[str] = []

    def run(port: Port, name: str) -> ev.Evidence:
        ran.append(name)
        return g.green(port, name)

    monkeypatch.setattr(checks, "run_check", run)
    said: list[str] = []
    verdict = gate.run_missing(port, say=said.append)
    assert ran == ["mapping", "keys", "ssim"]
    assert verdict.verdict == "fail"
    assert said[0].startswith("[1/3] mapping")


def test_no_heavy_import(port: Port) -> None:
    """Deciding imports no model library."""
    import subprocess
    import sys

    code = (
        "import sys; from fvport import gate, spec; gate.decide(spec.load(sys.argv[1]));"
        "assert not {'torch', 'diffusers', 'transformers', 'fastvideo'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(port.root)], check=True)
