# SPDX-License-Identifier: Apache-2.0
"""The judge: verdicts from what lies on disk, so a test that patches the comparator gains nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fvport import evidence
from fvport.checks import parity
from fvport.evidence import Evidence, Item
from fvport.parity import compare, judge, oracle
from fvport.parity.job import Kept
from fvport.spec import Component, Gate, Port

COMPONENT = Component("net", "dit", "port", native="a:Net", weights="net")


class Official:
    """What `oracle.results` gives: one case with its float64 values."""

    cases = ("one",)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        (folder / "float32.safetensors").write_bytes(b"values")
        torch.manual_seed(1)
        self.right = torch.randn(6, 5, dtype=torch.float64)

    def outputs(self, case: str) -> compare.Outputs:
        return compare.Outputs({"out": self.right.float()}, {"out": "a tensor"}, {"out": self.right})


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Official:
    made = Official(tmp_path / "oracle")
    monkeypatch.setattr(oracle, "results", lambda port, name, device="auto": made)
    return made


PORT: Any = SimpleNamespace(component=lambda name: COMPONENT)
SAYS = {
    "component": "net",
    "passed": True,
    "problem": "",
    "results": [{"ok": True}],
    "fault": {"seen": True, "faults": []},
}


def left(official: Official, folder: Path, native: Any = None, faulty: Any = None) -> None:
    """What a test's process leaves: answers without a fault, again, and with two kinds of fault."""
    kept = Kept(folder)
    right = official.right.float() if native is None else native
    wrong = official.right.float() + 0.1 if faulty is None else faulty
    for kind, words, value in (
        ("right", "", right),
        ("again", "", right),
        ("swap", "a and b", wrong),
        ("row", "r", wrong),
    ):
        kept.put(kind, words, "one", compare.Outputs({"out": value}, {"out": "a tensor"}))


def verdict(official: Official, folder: Path, found: dict[str, Any] = SAYS, sealed: Any = None) -> dict[str, Any]:
    return judge.judge(PORT, "net", dict(found), folder, "cpu", judge.seal(official) if sealed is None else sealed)


def test_equal_on_disk_and_faults_seen_passes(official: Official, tmp_path: Path) -> None:
    """Everything on disk agrees, and each kind of planted fault is red there."""
    left(official, tmp_path / "native")
    found = verdict(official, tmp_path / "native")
    assert found["passed"]
    assert found["fault"]["seen"]
    assert [row["output"] for row in found["results"]] == ["out"]
    assert found["results"][0]["metrics"]["budget_use"] <= 1


def test_a_patched_comparator_gains_nothing(official: Official, tmp_path: Path) -> None:
    """The test's process says green of an output that is one percent off: red, and a note says who said what."""
    left(official, tmp_path / "native", native=official.right.float() * 1.01)
    found = verdict(official, tmp_path / "native")
    assert not found["passed"]
    assert not found["results"][0]["ok"]
    assert "the judge does not" in found["notes"][-1]


def test_planted_faults_that_change_nothing_are_red(official: Official, tmp_path: Path) -> None:
    """A call that never uses the native object answers the same with every fault: it proves nothing."""
    left(official, tmp_path / "native", faulty=official.right.float())
    found = verdict(official, tmp_path / "native")
    assert not found["passed"]
    assert "a stock fault stayed green" in found["fault"]["problem"]


@pytest.mark.parametrize("kind", ["nothing", "half", "no fault", "a case is missing"])
def test_what_is_not_on_disk_is_not_proven(official: Official, tmp_path: Path, kind: str) -> None:
    """No outputs, a broken file, no fault tried, a case left out: none passes."""
    folder = tmp_path / "native"
    if kind != "nothing":
        left(official, folder)
    if kind == "half":
        (folder / "0000.safetensors").write_bytes(b"\x00")
        with pytest.raises(Exception, match="cannot be read"):
            verdict(official, folder)
        return
    if kind == "no fault":
        entries = [e for e in judge._entries(folder) if e["kind"] in ("right", "again")]
        kept = Kept(folder)
        kept.entries = list(entries)
        kept.put("right", "", "one", official.outputs("one"))
    if kind == "a case is missing":
        official.cases = ("one", "two")  # type: ignore[assignment]
    assert not verdict(official, folder)["passed"]


def test_official_results_that_changed_are_red(official: Official, tmp_path: Path) -> None:
    """A test that writes into the oracle's cache is found by the digests taken before it began."""
    left(official, tmp_path / "native")
    sealed = judge.seal(official)
    (official.folder / "float32.safetensors").write_bytes(b"other values")
    found = verdict(official, tmp_path / "native", sealed=sealed)
    assert not found["passed"]
    assert "changed while the test ran" in found["problem"]


@pytest.mark.parametrize(("answer", "passes"), [("right", True), ("of the kept inputs", False), ("none", False)])
def test_looked_up_answers_are_wrong_on_inputs_of_another_seed(tmp_path: Path, answer: str, passes: bool) -> None:
    """A native side that finds the kept results has none for inputs that the official side has not answered yet."""
    kept, late = Official(tmp_path / "kept"), Official(tmp_path / "late")
    late.right = late.right.flip(0)
    folder = tmp_path / "native"
    left(kept, folder)
    if answer != "none":
        wrote = Kept(folder, judge._entries(folder))
        right = late.right if answer == "right" else kept.right
        wrote.put("late", "", "one", compare.Outputs({"out": right.float()}, {"out": "a tensor"}))
    found = judge.judge_late(COMPONENT, {**SAYS, "notes": []}, late, folder)  # type: ignore[arg-type]
    assert found["passed"] is passes
    assert ("did not exist yet" if passes else "not on inputs of another seed") in found["notes"][-1]
    assert all(row["ok"] for row in found["results"]) is passes


def test_red_stays_red(official: Official, tmp_path: Path) -> None:
    """What the test's process found wrong is never made good by the judge."""
    left(official, tmp_path / "native")
    red = {**SAYS, "passed": False, "results": [{"ok": False}]}
    assert not verdict(official, tmp_path / "native", red)["passed"]
    unseen = {**SAYS, "passed": False, "fault": {"seen": False, "problem": "x", "faults": []}}
    assert not verdict(official, tmp_path / "native", unseen)["passed"]


# --- the gate recomputes ----------------------------------------------------------------------------------------------


def record(metrics: dict[str, Any] | None = None, strength: float | None = 0.99) -> Evidence:
    figures = {"rel_l2": 1e-7, "worst": 1e-6, "angle": 1e-7, "drift": 1e-9}
    figures |= {"floor_rel_l2": 1e-7, "floor_worst": 1e-6, "floor_angle": 1e-7, "floor_drift": 1e-9}
    calibrated = {"mode": "calibrated", "factor": 3.0}
    items = [Item("net: one/out", "pass", "", {**figures, **(metrics or {})}, calibrated, "net")]
    if strength is not None:
        items.append(Item("net: strength", "pass", "", {"strength": strength}, {"mode": "strength"}, "net"))
    return Evidence("parity", "toy", items=items)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (record(), ""),
        (record({"rel_l2": 4e-7}), "rel_l2 is 4.00e-07, more than 3 times its floor"),
        (record({"drift": 1.0}), "drift"),
        (record({"floor_worst": None}), "does not say its worst"),
        (record(strength=0.9), "0.900, below 0.95"),
        (record(strength=None), "strength was not measured"),
    ],
)
def test_a_verdict_must_follow_from_its_figures(monkeypatch: pytest.MonkeyPatch, made: Evidence, words: str) -> None:
    """A green record whose figures, floors or strength say otherwise does not count."""
    port: Any = SimpleNamespace(components={"net": COMPONENT}, gate=Gate(), variant="")
    monkeypatch.setattr(evidence, "read", lambda port, check: made)
    reasons = parity.outdated(port)
    assert (not reasons) if not words else any(words in reason for reason in reasons)
    assert isinstance(port, SimpleNamespace)
    assert Port
