# SPDX-License-Identifier: Apache-2.0
"""The census's verdicts, its control, its changes tried, and what becomes of a case that crashes."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import audit_toy
import pytest

from fvport.audit import findings, judge, official, run
from fvport.audit.case import Case
from fvport.audit.findings import Edit, Finding, Place


@pytest.fixture(autouse=True)
def _without_fastvideo(monkeypatch: pytest.MonkeyPatch) -> None:
    from fvport import fastvideo_api
    from fvport.models import native_audit

    monkeypatch.setattr(fastvideo_api, "init_distributed", lambda: None)
    monkeypatch.setattr(native_audit, "call", lambda case, module, given: case.theirs(module, given))


def finding(*cases: str, fix: Any = ()) -> Finding:
    place = Place("audit_toy:Wrong.forward", "linear.bias")
    return Finding("T01", "no bias", "the bias is taken away again", place, place, cases, "keep it", fix)


def test_equal_and_the_control_sees_noise() -> None:
    """A right native class is equal, and noise on its parameters is seen."""
    answer = judge.judge(audit_toy.case("Native"), control=True)
    assert answer["verdict"] == "equal", answer
    assert answer["worst"]["times_budget"] < 1
    assert answer["control"]["caught"]


def test_a_control_that_is_missed_is_told() -> None:
    """A native class that does not compute with its parameters stays green under noise: not caught."""
    answer = judge.judge(audit_toy.case("Blind"), control=True)
    assert answer["verdict"] == "equal"
    assert answer["control"]["caught"] is False


def test_a_difference_without_a_finding_is_unexplained(monkeypatch: pytest.MonkeyPatch) -> None:
    """What differs and has no finding is kept, with figures, as unexplained."""
    monkeypatch.setattr(findings, "all_findings", list)
    answer = judge.judge(audit_toy.case("Wrong"))
    assert answer["verdict"] == "differs"
    assert answer["findings"] == []
    assert answer["tried"] is None
    row = run._row(audit_toy.case("Wrong"), {**answer, "seconds": 1.0, "peak_mb": 1.0})
    assert row["explained"] is False


def test_a_finding_is_tried_and_the_figure_after_it_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The edit is made in memory, the case compared again, and both places have line numbers."""
    edit = Edit("audit_toy:Wrong.forward", " - self.linear.bias", "")
    monkeypatch.setattr(findings, "all_findings", lambda: [finding("toy", fix=(edit,))])
    before = audit_toy.Wrong.forward
    try:
        answer = judge.judge(audit_toy.case("Wrong"))
    finally:
        audit_toy.Wrong.forward = before  # type: ignore[method-assign]
    assert answer["verdict"] == "differs"
    assert answer["findings"] == ["T01"]
    assert answer["tried"]["verdict"] == "equal"
    text = Path(audit_toy.__file__).read_text().splitlines()
    line = int(answer["places"]["T01"]["native"].rpartition(":")[2])
    assert "- self.linear.bias" in text[line - 1]


@pytest.mark.parametrize(
    ("edit", "verdict", "words"),
    [
        (Edit("audit_toy:Wrong.forward", "no such text", ""), "blocked", "no longer applies"),
        (Edit("audit_toy:Wrong.forward", "self.linear.bias", "self.linear.bias * 0.5"), "differs", "y"),
    ],
)
def test_a_change_that_does_not_mend_leaves_the_case_unexplained(
    monkeypatch: pytest.MonkeyPatch, edit: Edit, verdict: str, words: str
) -> None:
    """A finding whose change no longer applies, or does not make the sides equal, explains nothing."""
    monkeypatch.setattr(findings, "all_findings", lambda: [finding("toy", fix=(edit,))])
    before = audit_toy.Wrong.forward
    try:
        answer = judge.judge(audit_toy.case("Wrong"))
    finally:
        audit_toy.Wrong.forward = before  # type: ignore[method-assign]
    assert answer["tried"]["verdict"] == verdict
    assert words in answer["tried"]["problem"]
    assert run._row(audit_toy.case("Wrong"), {**answer, "seconds": 1.0, "peak_mb": 1.0})["explained"] is False


def test_a_native_side_that_raises_is_blocked() -> None:
    """An exception is the verdict, in one sentence with its place."""
    answer = judge.judge(audit_toy.case("Raises"))
    assert answer["verdict"] == "blocked"
    assert "no such path" in answer["problem"]


def test_every_parameter_is_drawn() -> None:
    """Nothing keeps the zero or one of its initialisation, and the draw is the same each time."""
    one, two = official.build(audit_toy.case("Native")), official.build(audit_toy.case("Native"))
    for name, parameter in one.named_parameters():
        assert parameter.unique().numel() > parameter.numel() // 2, name
        assert float(parameter.detach().abs().min()) > 0, name
        assert bool((parameter == dict(two.named_parameters())[name]).all()), name


def test_a_crash_is_that_cases_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """A case that dies takes no other with it; a case that hangs is ended."""

    def judged(case: Case, *, control: bool = False) -> dict[str, Any]:
        if case.name == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        while case.name == "hangs":
            signal.pause()
        return {"verdict": "equal", "sides": {}}

    monkeypatch.setattr(judge, "judge", judged)
    monkeypatch.setattr(run, "TIMEOUT", 2.0)
    wanted = [audit_toy.case("Native", name) for name in ("dies", "lives", "hangs", "lives_too")]
    answers = run.side_by_side(wanted, False, 2)
    assert answers["lives"]["verdict"] == answers["lives_too"]["verdict"] == "equal"
    assert answers["dies"]["verdict"] == "blocked"
    assert "SIGKILL" in answers["dies"]["problem"]
    assert answers["hangs"]["verdict"] == "blocked"
    assert "still running" in answers["hangs"]["problem"]


def test_a_worker_that_dies_leaves_no_case_without_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """The census ends, and says of what the worker did not answer that it is blocked."""

    def dead(case: Case, control: bool, logs: Path) -> dict[str, Any]:
        if case.name == "second":
            os._exit(9)
        return {"verdict": "equal", "seconds": 0.0, "peak_mb": 0.0}

    monkeypatch.setattr(run, "one", dead)
    wanted = [audit_toy.case("Native", name) for name in ("first", "second")]
    answers = run.side_by_side(wanted, False, 1)
    assert answers["first"]["verdict"] == "equal"
    assert "worker" in answers["second"]["problem"]


def test_a_native_call_may_change_no_input_and_leave_no_state() -> None:
    """A call that writes into its inputs, or answers otherwise the second time, is not equal."""
    assert "inputs in place" in judge.judge(audit_toy.case("Writes"))["problem"]
    answer = judge.judge(audit_toy.case("Remembers"))
    assert answer["verdict"] == "differs"
    assert "again/y" in answer["problem"]


def test_rewrite_keeps_super_and_static_methods(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A changed function keeps its class cell, its kind and the module's names."""
    from fvport.models import native_audit_fixes

    text = (
        "K = 2\nclass A:\n    def f(self):\n        return 1\n"
        "class B(A):\n    def f(self):\n        return super().f() + K\n"
        "    @staticmethod\n    def g(x):\n        return x + K\n"
    )
    (tmp_path / "rewritten.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    native_audit_fixes.rewrite("rewritten:B.f", "+ K", "+ K * 10")
    native_audit_fixes.rewrite("rewritten:B.g", "x + K", "x - K")
    module = sys.modules["rewritten"]
    assert module.B().f() == 21
    assert module.B.g(5) == 3
    with pytest.raises(LookupError):
        native_audit_fixes.rewrite("rewritten:B.f", "not there", "")
