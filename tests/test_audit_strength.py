# SPDX-License-Identifier: Apache-2.0
"""The census's strength: faults in a toy pair are caught, named and taken back; shares by case and by pair."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import audit_toy
import pytest
import torch
import trace_notations as tn

from benchmarks import strength as bench
from fvport.audit import strength, strength_case
from fvport.audit.case import normal
from fvport.errors import UsageError
from fvport.parity import strength as ports
from fvport.parity.catalogue import Fault, Planted, Target, core


@pytest.fixture(autouse=True)
def _without_fastvideo(monkeypatch: pytest.MonkeyPatch) -> None:
    import contextlib

    from fvport import fastvideo_api
    from fvport.models import native, native_audit

    monkeypatch.setattr(fastvideo_api, "init_distributed", lambda: None)
    monkeypatch.setattr(native, "forward_context", contextlib.nullcontext)
    monkeypatch.setattr(native_audit, "call", lambda case, module, given: case.theirs(module, given))
    monkeypatch.setattr(strength_case, "kind_of", lambda case: "dit")


def test_faults_of_an_equal_case_are_caught_named_and_taken_back() -> None:
    """A toy pair: every fault with an effect is caught and its module named, and nothing is red without one."""
    case = audit_toy.case("Native")
    row = strength.told(strength_case.measure(case, [], draws=2))
    assert row["verdict"] == "equal"
    assert row["caught"] == row["total"] >= 15, row["blind"]
    assert row["traced"] >= 10
    assert row["misnamed"] == []
    assert row["false_alarms"] == []
    assert row["greens"] == 3 + len(row["statuses"])
    assert set(row["by"]) <= {"rel_l2", "worst", "angle", "drift", "raised", "form", "values"}


def test_a_case_that_differs_is_left_out() -> None:
    """Where the two sides differ without a fault, a red says nothing about one."""
    row = strength.told(strength_case.measure(audit_toy.case("Wrong"), []))
    assert row["verdict"] == "differs"
    assert "caught" not in row


def test_another_case_of_the_pair_reveals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs that hide a fault: the other case's show it, so it is blind and not harmless; by pair it is caught."""
    monkeypatch.setattr(ports, "PROBES", {})
    case = audit_toy.case("Native", "toy/same")
    same = replace(case, inputs=lambda generator: {"x": torch.zeros(4, 6) + torch.arange(6.0)})
    other = replace(case, name="toy", inputs=lambda generator: {"x": normal(generator, 4, 6)})
    moved = Fault("moved", "layout", "rows", "L01", lambda target: core.hooked(target, "rows", [""], rolled))
    rows = []
    for one, rest in ((same, [other]), (other, [same])):
        found = planted(one, rest, [moved])
        rows.append(
            {"case": one.name, "pair": "toy", "state": "0", "first": True, "seconds": 1.0, **strength.told(found)}
        )
    assert [b["reveal"] for b in rows[0]["blind"]] == ["the inputs of toy"]
    assert rows[1]["blind"] == []
    made = strength.record(rows, 1.0)
    assert (made["by_case"]["strength"], made["strength"]) == (0.5, 1.0)
    assert made["ok"]


def rolled(original: Any, x: Any) -> Any:
    return original(x).roll(1, 0)


def planted(case: Any, others: list[Any], faults: list[Fault], **more: Any) -> dict[str, Any]:
    from fvport.parity import catalogue

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "for_kind", lambda kind: faults)
        return strength_case.measure(case, others, traced=False, **more)


def test_what_is_not_taken_back_is_a_false_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault that leaves the model changed a little, or much, is told with its name."""
    import contextlib

    def stays(size: float) -> Any:
        def plant(target: Target) -> Planted:
            @contextlib.contextmanager
            def change() -> Any:
                target.module.linear.bias.data.add_(size)
                yield

            return Planted("stays", change(), ["linear"])

        return plant

    monkeypatch.setattr(ports._Judge, "unchanged", lambda self: None)
    faults = [Fault("a", "weights", "a", "L01", stays(2**-24)), Fault("b", "weights", "b", "L01", stays(1.0))]
    row = strength.told(planted(audit_toy.case("Native"), [], faults))
    assert row["false_alarms"] == ["a: other outputs after it was taken back", "b: red after it was taken back"]
    head = {"case": "toy", "pair": "toy", "state": "0", "first": True, "seconds": 1.0}
    made = strength.record([{**head, **row}], 1.0)
    assert not made["ok"]


def test_a_case_that_is_equal_by_luck_is_a_false_alarm() -> None:
    """Other weights and other inputs of the same case must be equal too."""

    def call(model: Any, given: dict[str, Any]) -> dict[str, Any]:
        off = float(given["x"].shape[0] == 5)
        return {"y": model(given["x"]) + off}

    case = audit_toy.case("Native")
    lucky = replace(case, theirs=call, inputs=lambda g: {"x": normal(g, 4 + (g.initial_seed() > 1), 6)})
    row = strength.told(planted(lucky, [], []))
    assert [alarm.partition(":")[0] for alarm in row["false_alarms"]] == ["drawn again with seed 1000"]


@pytest.mark.parametrize(("notation", "fault", "module"), tn.CASES)
def test_the_trace_names_the_module_across_notations(notation: str, fault: str, module: str) -> None:
    """Tied embeddings, residuals kept apart, lists of one, a far input written in two ways, frozen inputs."""
    found = strength_case.measure(tn.case(notation), [], draws=0, only=(fault,))
    (tried,) = found["strength"]["faults"]
    assert tried["status"] == "caught"
    assert tried["localised_to"] == module


def test_sound_models_in_other_notations_have_nothing_to_leave_out() -> None:
    """A healthy pair shows no finding, however its residual, its table or its lists are written."""
    from fvport.parity import lockstep

    for name in tn.NOTATIONS:
        seen: list[Any] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lockstep, "sizes", lambda found, seen=seen: seen.extend(found) or {})
            strength_case.measure(tn.case(name), [], draws=0, only=("none",))
        assert seen == [], name


def test_shares_by_pair_and_by_case() -> None:
    """Sums, misnamed modules, failed cases and goals, from rows alone."""
    rows = [
        row("a", caught=["x", "y"], blind=["z"]),
        row("a/b", caught=["z"], blind=["x"], traced=20, misnamed=["z"]),
        row("c", caught=["x"], blind=["y"]),
    ]
    made = strength.record(rows, 1.0)
    assert (made["caught"], made["total"], made["strength"]) == (4, 5, 0.8)
    assert made["by_case"] == {"caught": 3, "total": 5, "strength": 0.6}
    assert [(p["pair"], [b["id"] for b in p["blind"]]) for p in made["by_pair"]] == [("a", []), ("c", ["y"])]
    assert made["named"] == 0.95
    assert not made["ok"]
    good = strength.record(rows[:2], 1.0)
    assert good["ok"]
    failed = {"case": "d", "pair": "d", "state": "0", "verdict": "failed", "problem": "ended", "seconds": 1.0}
    assert not strength.record([*rows[:2], failed], 1.0)["ok"]
    shown = strength.text(strength.record([*rows, failed], 1.0))
    assert "blind: c: y in words; small inputs would show it" in shown
    assert "trace: a/b: z in words: named other, not right" in shown
    assert "failed: d: ended" in shown
    assert "below the goal" in shown


def row(name: str, caught: list[str], blind: list[str], traced: int = 0, misnamed: tuple[str, ...] | Any = ()) -> Any:
    statuses = {**dict.fromkeys(caught, "caught"), **dict.fromkeys(blind, "blind"), "none": "harmless"}
    wrong = [{"id": f, "words": f"{f} in words", "named": "other", "expected": ["right"]} for f in misnamed]
    return {
        "case": name,
        "pair": strength.pair_of(name),
        "state": "0",
        "first": "/" not in name,
        "verdict": "equal",
        "problem": "",
        "seconds": 1.0,
        "caught": len(caught),
        "total": len(caught) + len(blind),
        "harmless": 1,
        "no_place": 0,
        "by": {"rel_l2": len(caught)},
        "blind": [{"id": f, "words": f"{f} in words", "reveal": "small inputs"} for f in blind],
        "traced": traced,
        "misnamed": wrong,
        "false_alarms": [],
        "greens": 2,
        "statuses": statuses,
    }


def test_a_later_case_is_tried_with_what_none_caught() -> None:
    """Every fault in the first equal case; then those that it missed, had no place for, or that had no effect."""
    from fvport.parity.catalogue import for_kind

    ids = [fault.id for fault in for_kind("scheduler")]
    differs = {"case": "a", "pair": "a", "verdict": "differs"}
    assert strength.left("scheduler", []) == strength.left("scheduler", [differs]) == ()
    assert strength.left("scheduler", [row("a", ids[2:], ids[:1])]) == tuple(ids[:2])
    assert strength.left("scheduler", [row("a", ids, [])]) == ("(none)",)


def test_a_log_is_gone_on_with_and_a_bad_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A case of the same code is not run again, one of other code is; what is no log is a sentence."""
    from fvport.audit import run

    cases = [audit_toy.case("Native", name) for name in ("one", "two")]
    monkeypatch.setattr(run, "cases", lambda: cases)
    monkeypatch.setattr(run, "boot", lambda wanted: None)
    ran: list[str] = []

    def one(case: Any, others: list[Any], before: list[Any]) -> Any:
        ran.append(case.name)
        return {**row(case.name, ["x"], []), "state": strength.state(case)}

    monkeypatch.setattr(strength, "one", one)
    log = tmp_path / "strength.jsonl"
    old = [{**row("one", ["x"], []), "state": strength.state(cases[0])}, {**row("two", ["x"], []), "state": "older"}]
    log.write_text("".join(json.dumps(line) + "\n" for line in old))
    assert strength.strengths([], log=str(log))["cases"] == 2
    assert ran == ["two"]
    assert strength.strengths([], log=str(log))["cases"] == 2
    assert ran == ["two"]
    for bad in ("no json\n", '{"a": 1}\n', "3\n"):
        log.write_text(bad)
        with pytest.raises(UsageError, match="is no log of a strength run"):
            strength.strengths([], log=str(log))
    with pytest.raises(UsageError, match="can be written"):
        strength.strengths([], log=str(tmp_path / "nowhere" / "x.jsonl"))


def test_the_page_shows_the_kept_figures() -> None:
    """python -m benchmarks.strength --write brings docs/strength.md up to date; a blind pair is named there."""
    text = bench.block({"detail": strength.record([row("a", ["x"], []), row("c", ["x"], ["y"], traced=2)], 1.0)})
    assert "| strength by pair | 0.6667 (2 of 3) | 0.99 |" in text
    assert "| trace names the module | 1.0000 (2 of 2) | 0.95 |" in text
    assert "- `c`: y in words" in text
    if bench.KEPT.is_file():
        assert bench.block(json.loads(bench.KEPT.read_text())) in bench.PAGE.read_text()


@pytest.mark.heavy
def test_two_pairs_of_the_census() -> None:
    """A scheduler and an encoder: all that has a place and an effect is caught by the pair, and the module is named."""
    names = ["siglip_vision", "flow_match_euler"]
    command = [sys.executable, "-m", "fvport.cli", "audit", "--strength", "--json", *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout[done.stdout.index("{\n") :])
    assert done.returncode == 0, strength.text(found)
    assert found["pairs"] == 2
    assert found["strength"] >= strength.GOAL
    assert found["named"] >= strength.NAMED
    assert found["false_alarms"] == []
