# SPDX-License-Identifier: Apache-2.0
"""An encoder's contract is passed only where it was compared: what was not seen is blocked with the reason."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gate_support
import pytest

from fvport import evidence
from fvport.checks import parity
from fvport.contract import facts
from fvport.errors import FvportError
from fvport.parity import contracts, oracle
from fvport.spec import Component, Port

TOKENS = {"facts": {}, "cases": {"plain": {"ids": [[3, 4]], "mask": [[1, 1]]}}}
NATIVE = {**TOKENS, "by": "TextEncodingStage", "staged": True, "own_stage": False}
PIXELS = {"class": "P", "cases": {"wide": {"pixel_values": {"shape": [1], "dtype": "float32", "values": [1.0]}}}}
SEEN = {"cases": {"one": {"container": "BaseEncoderOutput", "fields": {}}}, "behaviour": {}}
ENCODER = Component("text_encoder", "text_encoder", "port", tokenizer="tokenizer")


@pytest.fixture
def port(tmp_path: Path) -> SimpleNamespace:
    """A port of which only the components, the release's folder and the root are looked at."""
    return SimpleNamespace(components={}, official_tree=tmp_path, root=tmp_path)


def judge(
    monkeypatch: Any, port: Any, mine: Any, official: Any = None, encoder: Component = ENCODER, seen: Any = SEEN
) -> tuple[Any, list[str]]:
    """(the item of the contract, notes) of an encoder whose outputs agree."""
    answer = official or {"tokens": {encoder.name: TOKENS}, "processors": {encoder.name: PIXELS}}
    monkeypatch.setattr(facts, "official", lambda port: answer)
    kept = SimpleNamespace(meta={"contract": seen}, cases=[], given=lambda case: {})
    monkeypatch.setattr(oracle, "results", lambda *a, **k: kept)
    found = {"component": encoder.name, "contract": mine, "results": [{"ok": True}]}
    items, notes = parity.contract_items(port, encoder, {"compared": [found]}, "cpu")
    (item,) = [item for item in items if item.name == f"{encoder.name}: contract"]
    return item, notes


def test_a_contract_that_was_compared_passes(monkeypatch: Any, port: Any) -> None:
    """Tokens by FastVideo's stage, and an answer that both sides gave."""
    item, notes = judge(monkeypatch, port, {**SEEN, "tokens": NATIVE})
    assert (item.verdict, item.metrics["compared"]) == ("pass", ["tokenization", "container", "fields", "dtypes"])
    assert any("natively made by TextEncodingStage" in note for note in notes)


@pytest.mark.parametrize("side", ["native", "official", "no module"])
def test_nothing_compared_is_no_pass(monkeypatch: Any, port: Any, side: str) -> None:
    """A test or an oracle that calls a part of the model, so that nothing is seen, leaves the contract blocked."""
    unseen = {"cases": {}, "behaviour": {}, "problem": "the test does not call the component itself"}
    mine = {"native": {**unseen, "tokens": NATIVE}, "official": {**SEEN, "tokens": NATIVE}, "no module": {}}[side]
    item, _ = judge(monkeypatch, port, mine, seen=unseen if side == "official" else SEEN)
    words = "no torch module" if side == "no module" else "does not call the component itself"
    assert (item.verdict, words in item.reason) == ("blocked", True), item


@pytest.mark.parametrize(
    ("native", "official", "verdict", "words"),
    [
        ({"by": "the tokenizer itself (ValueError: x)", "staged": False}, {}, "blocked", "ValueError: x"),
        ({"by": "the tokenizer itself (ValueError: x)", "staged": False, "own_stage": True}, {}, "pass", ""),
        ({"own_stage": True}, {}, "pass", ""),
        ({}, {"cases": {}, "cases_error": "AttributeError: encode_prompt"}, "blocked", "encode_prompt"),
    ],
)
def test_ids_that_the_pipeline_does_not_use(
    monkeypatch: Any, port: Any, native: dict[str, Any], official: dict[str, Any], verdict: str, words: str
) -> None:
    """Ids of the bare tokenizer, or of a stage that the port does not use, are not called tokenization."""
    theirs = {"tokens": {"text_encoder": {**TOKENS, **official}}, "processors": {}}
    item, notes = judge(monkeypatch, port, {**SEEN, "tokens": {**NATIVE, **native}}, theirs)
    assert (item.verdict, words in item.reason) == (verdict, True), item
    assert "tokenization" not in item.metrics["compared"]
    assert verdict == "blocked" or any("text stage of its own" in note for note in notes)


def test_sound_is_not_called_tokenization(monkeypatch: Any, port: Any) -> None:
    """FastVideo loads no preprocessor of sound: what the library makes of the files is said to be that."""
    encoder = Component("audio_encoder", "audio_encoder", "port")
    mine = {**SEEN, "processor": {**PIXELS, "by": "transformers", "staged": False}}
    item, notes = judge(monkeypatch, port, mine, encoder=encoder)
    assert (item.verdict, item.metrics["compared"][0]) == ("pass", "preprocessor files")
    assert any("natively made by transformers" in note for note in notes)


@pytest.mark.parametrize(
    ("kind", "processors", "file", "words"),
    [
        ("image_encoder", ["left_processor", "right_processor"], "", "left_processor, right_processor"),
        ("image_encoder", [], "image_processor/preprocessor_config.json", "the release has one (image_processor)"),
        ("text_encoder", [], "tokenizer/spiece.model", "declares no tokenizer"),
        ("image_encoder", [], "", ""),
        ("text_encoder", [], "", ""),
        ("conditioner", [], "", ""),
    ],
)
def test_an_encoder_without_its_tokenizer_or_preprocessor(
    monkeypatch: Any, port: Any, kind: str, processors: list[str], file: str, words: str
) -> None:
    """What port.toml does not name is blocked where there is something to name, and told where there is nothing."""
    port.components = {name: Component(name, "processor", "passthrough") for name in processors}
    if file:
        (port.official_tree / file).parent.mkdir()
        (port.official_tree / file).write_text("{}")
    item, notes = judge(monkeypatch, port, SEEN, encoder=Component(kind, kind, "port"))
    assert item.verdict == ("blocked" if words else "pass")
    assert words in item.reason
    assert bool(words) or kind == "conditioner" or any("none was compared" in note for note in notes)


def test_data_of_an_unheard_form_blocks_its_component_alone(monkeypatch: Any, port: Any) -> None:
    """What raises in the judgement is that component's blocked contract, never the end of the check."""
    item, _ = judge(monkeypatch, port, {**SEEN, "tokens": {**NATIVE, "cases": {"plain": {"ids": 7}}}})
    assert (item.verdict, "TypeError" in item.reason) == ("blocked", True)


def test_a_red_contract_is_red_under_its_name(monkeypatch: Any, port: Any) -> None:
    """The walk says what is wrong; the contract that the gate asks for has run and failed."""
    native = {**NATIVE, "cases": {"plain": {"ids": [[3, 5]], "mask": [[1, 1]]}}}
    item, _ = judge(monkeypatch, port, {**SEEN, "tokens": native})
    assert item.verdict == "fail"


# --- what the gate asks for ------------------------------------------------------------------------------------------


@pytest.fixture
def toy(tmp_path: Path) -> Port:
    made = gate_support.make(tmp_path)
    made.components["tower"] = Component("tower", "image_encoder", "port")
    made.components["image_processor"] = Component("image_processor", "processor", "passthrough")
    return made


def test_the_gate_asks_for_every_contract(toy: Port) -> None:
    """Each encoder's contract is expected, whatever its kind; no other component's is."""
    for kind in ("text_encoder", "audio_encoder", "conditioner"):
        toy.components[kind] = Component(kind, kind, "external")
    toy.components["passed"] = Component("passed", "text_encoder", "passthrough")
    asked = [name for name in parity.expected(toy) if name.endswith(": contract")]
    assert asked == [f"{n}: contract" for n in ("tower", "text_encoder", "audio_encoder", "conditioner")]


def test_a_preprocessor_is_an_input(toy: Port) -> None:
    """What an image encoder is given makes parity stale when it changes: its files, and how it is declared."""
    names = parity.inputs(toy)
    assert {"weights:image_processor", "port:components.image_processor"} <= set(names)
    del toy.components["tower"]
    assert "weights:image_processor" not in parity.inputs(toy)


# --- the official side's answer, kept ---------------------------------------------------------------------------------


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: Any) -> dict[str, Any]:
    """A port with one tokenizer, and the answers that its child gives, in turn."""
    toy = gate_support.make(tmp_path)
    folder = toy.official_tree / "tok"
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text("{}")
    (toy.official_tree / "text_encoder").mkdir()
    config = toy.official_tree / "text_encoder" / "config.json"
    config.write_text('{"d_model": 8}')
    toy.components["text_encoder"] = dataclasses.replace(ENCODER, tokenizer="tok")
    found: dict[str, Any] = {"port": toy, "config": config, "answers": [], "asked": 0}

    def child(port: Port, job: Any, file: Path) -> Any:
        found["asked"] += 1
        answer = {"tokens": {"text_encoder": found["answers"].pop(0)}, "processors": {}}
        file.write_text(json.dumps(answer))
        return answer

    monkeypatch.setattr(facts, "_child", child)
    monkeypatch.setattr(facts, "_wrong", {})
    return found


def test_an_error_is_not_kept(asked: dict[str, Any], monkeypatch: Any) -> None:
    """An error holds for this process alone, so that installing what it lacks helps; a right answer is kept."""
    asked["answers"] = [{"error": "ImportError: sentencepiece"}, {**TOKENS, "cases_error": "boom"}, TOKENS]
    for expected in (1, 1):
        assert facts.official(asked["port"])["tokens"]["text_encoder"]["error"]
        assert asked["asked"] == expected
    for expected in (2, 3, 3):
        monkeypatch.setattr(facts, "_wrong", {})  # another process
        facts.official(asked["port"])
        assert asked["asked"] == expected


def test_the_kept_answer_hangs_on_what_makes_ids(asked: dict[str, Any], monkeypatch: Any) -> None:
    """Another encoder's config, or another version of a library of tokenizers, asks again."""
    asked["answers"] = [TOKENS] * 9
    facts.official(asked["port"])
    asked["config"].write_text('{"d_model": 9}')
    facts.official(asked["port"])
    assert asked["asked"] == 2
    real = evidence.package_digest
    for count, package in enumerate(("sentencepiece", "tokenizers", "ftfy", "pillow"), 3):
        monkeypatch.setattr(evidence, "package_digest", lambda n, p=package: "other" if n == p else real(n))
        facts.official(asked["port"])
        assert asked["asked"] == count, package


def test_no_answer_is_told(monkeypatch: Any, port: Any) -> None:
    """A child that gives nothing leaves the contract blocked with its words."""

    def nothing(port: Any) -> Any:
        raise FvportError("the official tokenizers gave no answer")

    done = contracts.Judged(contracts.Walk())
    monkeypatch.setattr(facts, "official", nothing)
    assert contracts._first_stage(port, ENCODER, {"tokens": NATIVE}, done) == []
    assert "gave no answer" in done.blocked


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("class P:\n    def create(self):\n        self.add_stage('p', TextEncodingStage(x))\n", False),
        ("from a import TextEncodingStage as T\nclass P:\n    def f(self):\n        self.add_stage(T())\n", False),
        (
            "class Mine(TextEncodingStage):\n    pass\ndef f(self):\n    self.add_stage(Mine())\n",
            True,
        ),
        (
            "def f(self):\n    super().create_pipeline_stages(a)\n    self.add_stage(X())\n",
            False,
        ),
        ("PRESETS = (Preset(1),)\n", False),
    ],
)
def test_a_text_stage_of_the_ports_own(tmp_path: Path, text: str, own: bool) -> None:
    """A pipeline that adds its stages and not FastVideo's text stage has one of its own."""
    folder = tmp_path / "fastvideo" / "pipelines" / "basic" / "toy"
    folder.mkdir(parents=True)
    (folder / "toy_pipeline.py").write_text(text)
    assert facts.own_text_stage(SimpleNamespace(root=tmp_path, slug="toy")) == own  # type: ignore[arg-type]


def test_the_oracles_results_hang_on_all_its_own_code() -> None:
    """Every file that the oracle's process loads for the contract is part of the key of what it made."""
    from fvport.parity import oracle_runner

    assert set(oracle_runner.CONTRACT.values()) <= set(oracle.OWN_CODE)
