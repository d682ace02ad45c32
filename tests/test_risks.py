# SPDX-License-Identifier: Apache-2.0
"""What a green gate does not say by itself: the list of risks, short enough to be read."""

from __future__ import annotations

from pathlib import Path

import gate_support as g
import pytest

from fvport import gate, risks, spec
from fvport.spec import Port


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Port:
    port = g.make(tmp_path)
    g.stub_checks(monkeypatch)
    g.all_green(port)
    return port


def test_a_default_call_that_nobody_ran_is_a_risk(port: Port) -> None:
    """What the presets offer and the gate's own call differ in size: said before all that is only noted."""
    assert not any("never run" in risk for risk in gate.decide(port).risks)
    g.edit(port, "tests/local_tests/toy/port.toml", "height = { value = 32,", "height = { value = 480,")
    found = gate.decide(spec.load(port.root)).risks
    said = "the default call (height 480) was never run, so nobody knows whether it works"
    assert f"{said}; the pipeline was compared at height 32" in found[:3]


def test_good_news_is_no_risk(port: Port) -> None:
    """A note that all planted faults were seen is left out; one that some were not is kept."""
    good = "net: strength 1.00: 9 of 9 planted faults were seen"
    bad = "net: strength 0.96: 73 of 76 planted faults were seen"
    g.green(
        port, "parity", notes=[good, bad, "net: agrees on inputs whose official outputs did not exist yet (2 outputs)"]
    )
    assert [risk for risk in gate.decide(port).risks if risk.startswith("parity: ")] == [f"parity: {bad}"]


def test_many_notes_of_one_rule_are_one_risk(port: Port) -> None:
    """33 lines of two numbered rules are not read: each rule is said once a component, with how often and where."""
    notes = [f"net: FV113 pair {i} has one shape" for i in range(3)] + [
        "vae: FV113 alone",
        "net: FV109 renames none",
    ]  # the last is of style
    g.green(port, "mapping", notes=notes)
    assert [risk for risk in gate.decide(port).risks if risk.startswith("mapping: ")] == [
        "mapping: net: FV113 in 3 places, such as: pair 0 has one shape (all: fvport mapping review net)",
        "mapping: vae: FV113 alone",
    ]


def test_a_long_numbered_note_is_cut_and_says_where_the_rest_is(port: Port) -> None:
    """One bullet of eight lines buries the risks behind it."""
    g.green(port, "mapping", notes=[f"net: FV113 {'pair; ' * 100}"])
    (risk,) = [risk for risk in gate.decide(port).risks if risk.startswith("mapping: ")]
    assert risk.endswith("… (all: fvport mapping review net)")
    assert len(risk) < 250


def test_ignored_fields_of_a_component_are_one_risk(port: Port) -> None:
    """Ten lines of bookkeeping would hide the one risk that matters: how many, the first three, where all are."""
    given = {f"field_{i}": "unused" for i in range(5)}
    said = "field_0 (unused), field_1 (unused), field_2 (unused) and 2 more (port.toml)"
    assert risks._ignored("net", given) == [f"net: 5 config fields are ignored: {said}"]
    assert risks._ignored("net", {"a": "why"}) == ["net: config field a (why) is ignored"]
