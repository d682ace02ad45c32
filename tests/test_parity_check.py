# SPDX-License-Identifier: Apache-2.0
"""What the parity check makes of a component's answer: only a comparison that ran, with a fault seen, is a pass."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fvport.checks import parity
from fvport.spec import Component

NATIVE = "fastvideo.models.dits.toy:Toy"
COMPONENT = Component("net", "dit", "port", native=NATIVE)
FAULT = {"seen": True, "faults": [{"kind": "output", "fault": "one element", "red": True}], "problem": ""}


def row(output: str = "sample", ok: bool = True, case: str = "ragged", use: float = 0.3) -> dict[str, Any]:
    problem = "" if ok else "worst is 1e-3, 300 times its budget of 3e-6"
    return {
        "case": case,
        "output": output,
        "ok": ok,
        "problem": problem,
        "metrics": {"budget_use": use},
        "tolerance": {},
    }


def answer(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    found = {"component": "net", "native_class": NATIVE, "problem": "", "where": "", "notes": [], "fault": FAULT}
    found |= {"results": list(rows), "passed": all(r["ok"] for r in rows)}
    test = {"test": "t.py::test_net_parity", "outcome": "passed", "when": "call", "text": ""}
    base = {"status": "done", "message": "", "compared": [found], "tests": [test]}
    for key, value in more.items():
        (base if key in base else found)[key] = value
    return base


def verdicts(given: dict[str, Any]) -> dict[str, str]:
    items, _ = parity.component_items(COMPONENT, given)
    return {item.name: item.verdict for item in items}


def test_what_only_new_inputs_show_is_said_to_be_kept() -> None:
    """Attention backend and schedule are not where a cache is found."""
    items, _ = parity.component_items(COMPONENT, answer(row("a"), row("a", ok=False, case="late")))
    assert "keeps from one call to the next" in items[0].todo
    items, _ = parity.component_items(COMPONENT, answer(row("a", ok=False), row("a", ok=False, case="late")))
    assert "keeps from one call" not in items[0].todo


def test_a_trace_is_told_once() -> None:
    """Red outputs of one fault are lines of figures and one of trace; the closing line says what to correct."""
    trace = {"case": "tall", "sentence": "first to differ is up", "native": "blocks.0", "native_line": "net.py:7"}
    items, _ = parity.component_items(COMPONENT, answer(row("a", ok=False), row("b", ok=False), trace=trace))
    assert [item.reason.count("first to differ is up") for item in items] == [1, 0]
    assert "The trace is told at ragged/a" in items[1].reason
    assert all(item.todo.startswith("Correct blocks.0 (net.py:7)") for item in items)


def test_a_component_that_agrees_passes_with_one_item_an_output() -> None:
    """Cases and layers are merged to their worst; the self test is an item of its own."""
    rows = [row("hidden.00"), row("hidden.01", use=0.9), row("sample", case="tall", use=0.5), row("sample")]
    items, _ = parity.component_items(COMPONENT, answer(*rows))
    assert [(i.name, i.verdict) for i in items] == [
        ("net: ragged/hidden", "pass"),
        ("net: tall/sample", "pass"),
        ("net: stock fault seen", "pass"),
    ]
    assert items[0].metrics["budget_use"] == 0.9
    assert {item.component for item in items} == {"net"}


def test_pytests_own_exit_code_counts() -> None:
    """pytest ended badly (an error in teardown, an internal one) although every test of it is green: red."""
    given = answer(row()) | {"code": 1}
    items, _ = parity.component_items(COMPONENT, given)
    assert verdicts(answer(row()) | {"code": 0})["net: ragged/sample"] == "pass"
    assert [(item.name, item.verdict) for item in items][-1] == ("net: run", "fail")
    assert "ended with code 1" in items[-1].reason


def test_a_red_output_is_red_whatever_the_others_are() -> None:
    """One bad case among good ones makes the output's item fail, with the sentence and the order to look in."""
    items, _ = parity.component_items(COMPONENT, answer(row(use=0.2), row(ok=False, case="tall"), tests=[]))
    assert [item.verdict for item in items] == ["fail"]
    assert items[0].reason.startswith("net, case tall: sample worst is 1e-3")
    assert "mapping, attention backend" in items[0].todo


def test_the_traced_module_is_the_first_thing_to_correct() -> None:
    """Where the trace names a module, what to do begins with it and its line."""
    given = answer(row(ok=False), tests=[])
    given["compared"][0]["trace"] = {
        "native": "blocks.0",
        "native_line": "dits/x.py:7",
        "case": "tall",
        "sentence": "s",
    }
    items, _ = parity.component_items(COMPONENT, given)
    assert items[0].todo.startswith("Correct blocks.0 (dits/x.py:7), which the trace names. Else: Look at")


@pytest.mark.parametrize(
    ("given", "verdict", "words"),
    [
        (answer(row(), fault={"seen": False, "problem": "stayed green", "faults": []}), "fail", "stayed green"),
        (answer(row(), native_class="fastvideo.models.dits.wanvideo:Wan"), "fail", "ran, port.toml says"),
        (answer(), "fail", "nothing was compared"),
        (answer(compared=[], tests=[]), "blocked", "no test compared net"),
        (
            answer(status="killed", message="net was killed by SIGKILL", compared=[]),
            "fail",
            "SIGKILL",
        ),
        (answer(status="timeout", message="still running after 9 s", compared=[]), "fail", "still running"),
        (answer(problem="no load tree for net", blocked=True), "blocked", "no load tree"),
        (answer(problem="FastVideo's loader raised ValueError"), "fail", "loader raised"),
        (
            answer(
                row(), tests=[{"test": "t.py::test_net_parity", "outcome": "skipped", "when": "call", "text": "later"}]
            ),
            "blocked",
            "a skip is never a pass",
        ),
        (
            answer(row(), tests=[{"test": "t.py::test_b", "outcome": "failed", "when": "call", "text": "E   boom"}]),
            "fail",
            "test_b failed: boom",
        ),
    ],
)
def test_what_is_no_pass(given: dict[str, Any], verdict: str, words: str) -> None:
    """No fault seen, another class, nothing compared, a crash, a hang, a skip, another failure: none is green."""
    items, _ = parity.component_items(COMPONENT, given)
    assert any(item.verdict == verdict and words in item.reason for item in items), items


def run_pytest(tmp_path: Path, test: str) -> tuple[int, str]:
    file = tmp_path / "test_x.py"
    file.write_text(test, encoding="utf-8")
    out = tmp_path / "found.json"
    env = {**os.environ, "FVPORT_PARITY_OUT": str(out)}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
        f"--rootdir={tmp_path}",
    ]
    done = subprocess.run([*command, str(file)], env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + out.read_text(encoding="utf-8")


def test_a_parity_test_that_compares_nothing_fails(tmp_path: Path) -> None:
    """Using the fixture without comparing is no pass, and a skipped test is written down as skipped."""
    test = "import pytest\ndef test_a(parity):\n    pass\n\n@pytest.mark.xfail\ndef test_b(parity):\n    assert 0\n"
    code, text = run_pytest(tmp_path, test + "\ndef test_c(parity):\n    pytest.skip('later')\n")
    assert code == 1
    assert "compared nothing" in text
    assert text.count('"outcome": "skipped"') == 2


def test_no_port_is_one_sentence(tmp_path: Path) -> None:
    """Outside a port the fixture fails with what to do, not with a traceback."""
    code, text = run_pytest(tmp_path, "def test_a(parity):\n    parity.compare('net', None)\n")
    assert code == 1
    assert "no port here" in text
    assert "Traceback" not in text
