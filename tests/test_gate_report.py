# SPDX-License-Identifier: Apache-2.0
"""The verdict for people and machines: text, Markdown, JUnit, HTML, PLAN.md, handoff blocks."""

from __future__ import annotations

import html.parser
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import gate_support as g
import pytest

from fvport import evidence as ev
from fvport import gate, report
from fvport.errors import UsageError
from fvport.report import handoff, plan, terminal
from fvport.spec import Port

HOSTILE = 'a | b <script>alert("x")</script> \x07 & more'


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Port:
    port = g.make(tmp_path)
    g.stub_checks(monkeypatch)
    g.all_green(port)
    return port


def break_(port: Port) -> gate.Verdict:
    item = ev.Item("transformer: block 1", "fail", HOSTILE, component="transformer", todo="fvport trace")
    g.green(port, "parity", items=[item])
    (ev.folder(port) / "ssim.json").unlink()
    return gate.decide(port)


def test_terminal_gate(port: Port) -> None:
    """The gate's text names every check, the red reason, workspace, signatures, and ends with a command."""
    text = terminal.gate(break_(port))
    for word in (*gate.TITLES, str(port.root), "PLAN.md", "transformer by nobody", "never run"):
        assert word in text
    assert text.splitlines()[-1] == "The gate is shut by parity. Next: fvport trace"
    assert terminal.gate(gate.decide(g.make(port.root))).count("\033") == 0


def test_terminal_red_record_fits_a_screen(port: Port) -> None:
    """A red record with a hundred items fits one screen and ends in a sentence that names the first."""
    items = [ev.Item(f"transformer: {n}", "fail", "differs " * 9, component="transformer") for n in range(100)]
    text = terminal.record(ev.Evidence("parity", "toy", items=items))
    assert len(text.splitlines()) <= 40
    assert "first in transformer: transformer: 0." in text.splitlines()[-1]


def test_terminal_green_and_empty_records() -> None:
    """A green record says so; a record of nothing says that nothing is proven."""
    assert "hold" in terminal.record(ev.Evidence("keys", "toy", items=[ev.Item("a", "pass")]))
    assert "nothing is proven" in terminal.record(ev.Evidence("keys", "toy"))


def test_a_green_record_begins_with_what_was_asked_for() -> None:
    """Of 23 green items the screen shows 12, those of the component that was asked for among them, and says so."""
    items = [ev.Item(f"vae: {i}", "pass", component="vae") for i in range(22)]
    record = ev.Evidence("parity", "toy", items=[*items, ev.Item("net: sample", "pass", component="net")])
    told = terminal.record(record, ["net"]).splitlines()
    assert "net: sample" in told[1]
    assert told[-2] == "  and 11 more: .fvport/evidence/toy/parity.json"
    assert told[-1] == "All 23 items of parity hold."


def test_status_says_what_an_edit_made_stale(port: Port) -> None:
    """Every record by its name, where there are several."""
    g.all_green(port)
    edited = g.edit(port, "fastvideo/models/dits/toy.py", "class ToyNative", "# eps\nclass ToyNative")
    verdict = gate.decide(edited)
    stale = [row.label for row in verdict.rows if row.state == "stale"]
    assert len(stale) > 1
    assert f"{len(stale)} records are stale: {', '.join(stale)}" in " ".join(terminal.status(verdict).split())


def test_terminal_status(port: Port) -> None:
    """The status is short and ends with the next step."""
    assert terminal.status(break_(port)).splitlines()[-1] == "Next: fvport trace"


def test_written_files_parse(port: Port, tmp_path: Path) -> None:
    """JSON, Markdown, JUnit and HTML are written, parse, and carry hostile text as text."""
    files = report.write(port, break_(port), markdown=tmp_path / "out" / "a.md", junit=tmp_path / "out" / "a.xml")
    assert [f.name for f in files] == ["gate.json", "gate.md", "gate.xml", "index.html", "a.md", "a.xml"]
    data = json.loads(files[0].read_text(encoding="utf-8"))
    assert (data["verdict"], data["next_step"]) == ("fail", "fvport trace")
    root = ET.parse(files[2]).getroot()
    assert (root.get("failures"), root.get("errors")) == ("2", "1")
    assert {suite.get("name") for suite in root} == set(gate.TITLES)
    assert not root.findall(".//skipped")
    page = files[3].read_text(encoding="utf-8")
    html.parser.HTMLParser().feed(page)
    assert "<script>" not in page
    assert "http" not in page
    assert "prefers-color-scheme" in page
    lines = files[1].read_text(encoding="utf-8").splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + len(gate.TITLES)
    assert all(line.replace("\\|", "").count("|") == 8 for line in table)


def test_plan_progress_and_sync(port: Port) -> None:
    """Evidence ticks what it proves and opens what it does not; a person's tick stays; twice changes nothing."""
    text = (port.folder / "PLAN.md").read_text(encoding="utf-8")
    assert "- [x] rules read" in text
    assert "- [x] scope confirmed" in text
    assert "- [ ] scheduler" in text
    assert plan.sync(port).changed == []
    (ev.folder(port) / "mapping.json").unlink()
    assert plan.sync(port).changed
    assert "- [ ] rules read" in (port.folder / "PLAN.md").read_text(encoding="utf-8")
    progress = plan.progress(port)
    assert progress.to_json()["done"] == 2
    assert "waits for mapping" in progress.text()


def test_sync_leaves_human_text(port: Port) -> None:
    """Only what stands between the markers changes."""
    path = port.folder / "PORT_STATUS.md"
    before = ev.prose(path.read_text(encoding="utf-8"))
    (ev.folder(port) / "parity.json").unlink()
    assert plan.sync(port).changed
    assert ev.prose(path.read_text(encoding="utf-8")) == before
    assert "| transformer |" in path.read_text(encoding="utf-8")


def test_unknown_block(port: Port) -> None:
    """A marker of an unknown name is an error with a suggestion, not silence."""
    marker = "<!-- fvport:begin phases -->\n<!-- fvport:end phases -->\n"
    g.edit(port, "tests/local_tests/toy/PORT_STATUS.md", "", marker)
    with pytest.raises(UsageError, match='Did you mean "phase"'):
        plan.sync(port)


FIELDS = {
    "prep": "model_family workload_types official_ref official_ref_dir official_ref_commit hf_weights_path hf_revision "
    "local_weights_dir source_layout model_index_class components_seen needs_conversion hf_token_env "
    "dependency_changes "
    "official_env_status local_tests_readme port_state_file gitignore_entries_added next_step open_questions "
    "escape_hatch",
    "component": "model_family component component_type mode official_ref_dir official_definition_files "
    "official_instantiation_files official_weight_source fastvideo_target_files local_tests_readme port_state_file "
    "parity_test prototype_key_dumps conversion concerns_or_unknowns files_changed official_files_used parity_status "
    "production_loader_strictness strict_load pytest_output blocker conversion_retry_request readme_updated next_step "
    "escape_hatch",
    "parity": "component_parity pipeline_parity local_tests_readme port_state_file notes escape_hatch",
    "conversion": "conversion_script source_layout converted_weights_dir port_state_file components_written "
    "passthrough_components strict_load component_context_updates blocked_on next_step escape_hatch",
    "pipeline": "model_family mode workload_types modalities official_ref_dir official_pipeline_files official_call "
    "model_index sampling_param components conversion fastvideo_targets concerns files_changed official_files_used "
    "required_config_modules pipeline_class_resolution stage_chain pipeline_config presets registry smoke_test "
    "pipeline_parity example readme_updated port_state_updated blockers next_step escape_hatch",
    "final": "prep_handoff_complete conversion_status components pipeline_smoke pipeline_parity example_status "
    "quality_regression local_tests_readme port_state_file token_values_committed runtime_third_party_model_imports "
    "blockers escape_hatch workspace branch plan summary residual_risks mappings_signed",
}
ESCAPE = {
    *("needs_user_input", "decision_type", "question", "recommended_option", "options", "safe_default"),
    *("blocked_until_answered", "state_snapshot"),
}


@pytest.mark.parametrize("kind", FIELDS)
@pytest.mark.parametrize("state", ["green", "bare"])
def test_handoff_fields(port: Port, kind: str, state: str) -> None:
    """Every field of every block is there, with evidence and without, and the text form holds each name."""
    if state == "bare":
        for file in ev.folder(port).glob("*.json"):
            file.unlink()
        (port.load_tree / "model_index.json").unlink()
    block = handoff.block(port, kind, "transformer" if kind == "component" else None)
    assert set(FIELDS[kind].split()) <= set(block)
    assert set(block["escape_hatch"]) == ESCAPE
    text = handoff.text(block)
    assert all(f"{name}:" in text for name in FIELDS[kind].split())


def test_handoff_unknown_says_the_search(port: Port) -> None:
    """What is not known is `unknown` with where it was looked for; a token is only ever a variable's name."""
    block = handoff.block(port, "prep")
    assert block["hf_weights_path"] == "unknown (looked at: port.lock.json)"
    assert block["hf_token_env"] in (*handoff.TOKENS, "none set")


def test_handoff_mistakes(port: Port) -> None:
    """An unknown kind and a missing component are one sentence each."""
    with pytest.raises(UsageError, match='Did you mean "final"'):
        handoff.block(port, "finl")
    with pytest.raises(UsageError, match="needs a component"):
        handoff.block(port, "component")
