# SPDX-License-Identifier: Apache-2.0
"""packet, handoff of a component, prototype's refusals: from the tree and evidence, unknowns with their search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gate_support as g
import pytest
from typer.testing import CliRunner

from fvport import evidence as ev
from fvport.checks import parity
from fvport.cli import app
from fvport.errors import BlockedError, UsageError
from fvport.models import official_prototype, prototype
from fvport.report import handoff, official_files, packet
from fvport.spec import Port

ENCODER = """\
[components.text_encoder]
kind = "text_encoder"
mode = "port"
official = "transformers:UMT5EncoderModel"
native = "fastvideo.models.encoders.toy:ToyEncoder"
config = "fastvideo.configs.models.encoders.toy:ToyEncoderConfig"
weights = "text_encoder"
tokenizer = "tokenizer"
[presets.default]
"""
ORACLE = '''
def build_text_encoder(folder, dtype):
    """The official encoder."""
    from transformers import UMT5EncoderModel

    return UMT5EncoderModel.from_pretrained(folder, dtype=dtype)
'''
FILES = {
    "tests/local_tests/toy/oracle.py": "import torch\n" + ORACLE,
    "tests/local_tests/encoders/test_toy_text_encoder_parity.py": "def test_text_encoder_parity(parity):\n    pass\n",
    "fastvideo/models/encoders/toy.py": "class ToyEncoder:\n    pass\n",
    "fastvideo/configs/models/encoders/toy.py": "class ToyEncoderConfig:\n    pass\n",
    "official_weights/toy/text_encoder/config.json": json.dumps({"d_model": 32}),
    "official_weights/toy/tokenizer/tokenizer_config.json": json.dumps({"pad_token": "<pad>"}),
}


@pytest.fixture
def port(tmp_path: Path) -> Port:
    made = g.make(tmp_path, g.TOML.replace("[presets.default]\n", ENCODER))
    for path, text in FILES.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return made


def red(port: Port, check: str, *items: ev.Item) -> None:
    """A record of a check that stands, with these items."""
    g.green(port, check, items=list(items))


def test_packet_is_complete(port: Port) -> None:
    """Definition with file and line, instantiation with its call and arguments, targets, weights, strict-load word."""
    block = packet.block(port, "text_encoder")
    assert list(block) == list(packet.ORDER)
    definition = block["official_definition_files"][0]
    assert definition["path"].startswith("transformers/models/umt5/modeling_umt5.py:")
    assert definition["symbols"] == ["UMT5EncoderModel"]
    made = block["official_instantiation_files"][0]
    assert made["path"] == "tests/local_tests/toy/oracle.py:3"
    assert made["calls"] == ["UMT5EncoderModel.from_pretrained(folder, dtype=dtype)"]
    assert made["args"] == "official_weights/toy/text_encoder/config.json"
    assert block["component_type"] == "encoder"
    assert block["conversion"]["strict_load"] == "not_run"
    assert packet.missing(port, port.component("text_encoder"), "parity-debug") == []


@pytest.mark.parametrize(
    ("lost", "field"),
    [
        ("tests/local_tests/toy/oracle.py", "official_instantiation_files"),
        ("fastvideo/models/encoders/toy.py", "fastvideo_target_files"),
        ("tests/local_tests/encoders/test_toy_text_encoder_parity.py", "parity_test"),
    ],
)
def test_incomplete_packet_is_refused(port: Port, lost: str, field: str) -> None:
    """A field that parity needs and that is unknown is named with the search, and printed as unknown."""
    (port.root / lost).unlink()
    component = port.component("text_encoder")
    with pytest.raises(BlockedError, match=rf"{field} is unknown \(looked at: .*{Path(lost).name}"):
        packet.require(port, component, "parity-debug")
    assert field in parity.incomplete(port, component)
    assert f"unknown (looked at: {lost}" in json.dumps(packet.block(port, "text_encoder"))


def test_prototype_needs_the_arguments(port: Port) -> None:
    """Without config.json the exact official arguments are unknown: the prototype refuses and says which field."""
    (port.root / "official_weights/toy/text_encoder/config.json").unlink()
    with pytest.raises(BlockedError, match=r"official_instantiation_files \(args\) is unknown .*config\.json"):
        prototype.run(port, "text_encoder")
    with pytest.raises(UsageError, match="nothing with weights to instantiate"):
        prototype.run(port, "scheduler")


def test_a_file_that_only_people_need_stays_unknown(port: Port) -> None:
    """A class whose source is not found is unknown with its search, and refuses nothing."""
    made = g.edit(port, "tests/local_tests/toy/port.toml", "UMT5EncoderModel", "NoSuchEncoder")
    block = packet.block(made, "text_encoder")
    assert block["official_definition_files"][0]["path"] == "unknown (looked at: source of transformers)"
    assert packet.missing(made, made.component("text_encoder"), "parity-debug") == []


def test_class_of_a_clone_is_found(tmp_path: Path) -> None:
    """The clone's own file goes before installed packages; nothing is imported."""
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "text.py").write_text("raise SystemExit\n\n\nclass Odd:\n    pass\n")
    assert official_files.locate("odd.text", "Odd", (tmp_path,)) == f"{tmp_path.name}/odd/text.py:4"
    assert official_files.locate("odd.text", "Even", (tmp_path,)) == ""


SKILL = [
    *("component", "mode", "files_changed", "official_files_used", "prototype_key_dumps", "port_state_file"),
    *("concerns_or_unknowns", "parity_test", "parity_status", "production_loader_strictness", "strict_load"),
    *("pytest_output", "blocker", "conversion_retry_request", "readme_updated", "next_step", "escape_hatch"),
]


def test_handoff_of_a_component(port: Port, monkeypatch: Any) -> None:
    """The contract's fields in its order; a pass only from a record that stands, a stale one is said to be stale."""
    g.stub_checks(monkeypatch)
    block = handoff.block(port, "text_encoder")
    assert list(block) == SKILL
    assert (block["parity_status"], block["next_step"]) == ("blocked", "phase_5_conversion")
    red(port, "parity", ev.Item("text_encoder: contract", "pass", component="text_encoder"))
    assert handoff.block(port, "text_encoder")["parity_status"] == "non_skip_pass"
    assert handoff.block(port, "text_encoder")["next_step"] == "none: this component is done"
    made = g.edit(port, "fastvideo/models/dits/toy.py", "pass", "value = 1")
    block = handoff.block(made, "text_encoder")
    assert block["parity_status"] == "blocked (stale)"
    assert "stale" in block["blocker"]
    with pytest.raises(UsageError, match='Did you mean "text_encoder"'):
        handoff.block(port, "text_encodr")


def test_conversion_fault_is_a_retry_request(port: Port, monkeypatch: Any) -> None:
    """Keys that fail become a retry request with names, shapes, evidence and a suspected fix."""
    g.stub_checks(monkeypatch)
    names = {"names": ["encoder.block.0.q.weight"], "count": 1}
    missing = ev.Item(
        "text_encoder: missing",
        "fail",
        '1 native names have no source. Did you mean "x"?',
        names,
        component="text_encoder",
    )
    shape = ev.Item(
        "text_encoder: shape", "fail", "1 of another shape: a is [4], from b [2]", {}, component="text_encoder"
    )
    red(port, "keys", missing, shape)
    block = handoff.block(port, "text_encoder")
    request = block["conversion_retry_request"]
    assert request["failing_keys"] == ["encoder.block.0.q.weight"]
    assert request["expected_actual_shapes"] == ["1 of another shape: a is [4], from b [2]"]
    assert request["suspected_fix"] == "rename"
    assert request["evidence"] == ".fvport/evidence/toy/keys.json"
    assert block["next_step"] == "phase_5_conversion_retry"


@pytest.mark.parametrize(
    ("item", "key", "fix"),
    [
        (
            ev.Item(
                "text_encoder: run",
                "fail",
                "ValueError: the checkpoint has no weights for a.b",
            ),
            "a.b",
            "rename",
        ),
        (
            ev.Item(
                "text_encoder: walk",
                "fail",
                "first stage that differs: layers: ...",
                {
                    "cause": {
                        "native": "layers.0.qkv",
                        "family": "swap",
                        "words": "weight holds its 3 parts in the order [1, 0, 2]; with the official values equal",
                    }
                },
            ),
            "layers.0.qkv: weight holds its 3 parts",
            "fuse",
        ),
    ],
)
def test_parity_finds_a_conversion_fault(port: Port, monkeypatch: Any, item: ev.Item, key: str, fix: str) -> None:
    """Weights that the loader refuses, or that the trace finds wrong, go back to the conversion."""
    g.stub_checks(monkeypatch)
    item.component = "text_encoder"
    red(port, "parity", item)
    block = handoff.block(port, "text_encoder")
    assert block["parity_status"] == "debug_red"
    assert block["conversion_retry_request"]["failing_keys"][0].startswith(key)
    assert block["conversion_retry_request"]["suspected_fix"] == fix
    assert block["next_step"] == "phase_5_conversion_retry"


def test_ordinary_red_asks_nobody(port: Port, monkeypatch: Any) -> None:
    """A red comparison is work, not a question."""
    g.stub_checks(monkeypatch)
    red(port, "keys", ev.Item("text_encoder: keys", "pass", component="text_encoder"))
    red(port, "parity", ev.Item("text_encoder: walk", "fail", "masks: inverted", component="text_encoder"))
    block = handoff.block(port, "text_encoder")
    assert block["blocker"] == "masks: inverted"
    assert block["escape_hatch"]["needs_user_input"] is False
    assert block["next_step"] == "phase_6_continue"


def test_remote_code_is_refused(port: Port) -> None:
    """A release whose class is in no library and that brings its own code: refused, with the escape hatch printed."""
    file = port.root / "official_weights/toy/text_encoder/config.json"
    file.write_text(json.dumps({"auto_map": {"AutoModel": "modeling_odd.OddModel"}}))
    assert "never run" in " ".join(packet.block(port, "text_encoder")["concerns_or_unknowns"])
    assert (
        handoff.block(port, "text_encoder")["escape_hatch"]["needs_user_input"] is False
    )  # transformers has the class
    made = g.edit(port, "tests/local_tests/toy/port.toml", "UMT5EncoderModel", "OddModel")
    hatch = handoff.block(made, "text_encoder")["escape_hatch"]
    assert (hatch["needs_user_input"], hatch["decision_type"]) == (True, "dependency")
    assert "text_encoder/config.json: AutoModel" in hatch["question"]
    assert handoff.block(made, "text_encoder")["next_step"] == "ask_user"
    with pytest.raises(BlockedError, match=r"(?s)never run.*needs_user_input: true"):
        prototype.run(made, "text_encoder")


def test_trusting_oracle_is_asked_about(port: Port) -> None:
    """trust_remote_code=True in oracle.py is a decision of a person, and is said with its line."""
    made = g.edit(port, "tests/local_tests/toy/oracle.py", "dtype=dtype)", "dtype=dtype, trust_remote_code=True)")
    assert "oracle.py:7" in handoff.block(made, "text_encoder")["escape_hatch"]["question"]
    with pytest.raises(BlockedError, match="never run"):
        prototype.run(made, "text_encoder")


def test_absent_library_is_asked_about(port: Port, monkeypatch: Any) -> None:
    """A preprocessor that needs a library which is not there is blocked, and the library is a question."""
    g.stub_checks(monkeypatch)
    reason = "the official tokenizer or preprocessor cannot be loaded: ImportError: requires the torchvision library"
    red(port, "parity", ev.Item("text_encoder: contract", "blocked", reason, component="text_encoder"))
    hatch = handoff.block(port, "text_encoder")["escape_hatch"]
    assert "torchvision" in hatch["question"]
    assert hatch["safe_default"].startswith("nothing is installed")


def test_tokenizer_concerns(port: Port) -> None:
    """No pad token, and padding on the left, are said before anything runs."""
    file = port.root / "official_weights/toy/tokenizer/tokenizer_config.json"
    file.write_text(json.dumps({"padding_side": "left"}))
    words = " ".join(packet.block(port, "text_encoder")["concerns_or_unknowns"])
    assert "no pad token" in words
    assert "pads on the left" in words


def test_verbs(port: Port) -> None:
    """The commands as a user types them: text, JSON, and one sentence for a component that is not there."""
    done = CliRunner().invoke(app, ["packet", "text_encoder", "--port", str(port.root), "--json"])
    assert json.loads(done.stdout)["component"] == "text_encoder"
    done = CliRunner().invoke(app, ["handoff", "text_encoder", "--port", str(port.root)])
    assert "conversion_retry_request:" in done.stdout
    with pytest.raises(UsageError, match='no component "text_encodr"'):
        packet.block(port, "text_encodr")


def test_prototype_differences() -> None:
    """What two tables say without any rule."""
    official = {"q.weight": {"shape": [4, 4]}, "k.weight": {"shape": [4, 4]}, "norm": {"shape": [4]}}
    native = {"qk.weight": {"shape": [8, 4]}, "norm": {"shape": [4]}}
    words = prototype.differences(official, native)
    assert "2 x [4, 4]" in words[0]
    assert "1 x [8, 4]" in words[1]
    assert prototype.differences(official, official) == []


class OddConfig:
    """A library's configuration class: takes everything, knows two fields."""

    def __init__(self, width: int = 4, depth: int = 1, **more: Any) -> None:
        self.width, self.depth = width, depth

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> OddConfig:
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return {"width": self.width, "depth": self.depth}


class OddModel:
    config_class = OddConfig

    def __init__(self, config: OddConfig) -> None:
        self.config = config


def test_config_with_unknown_keys() -> None:
    """Keys of config.json that the official class does not know are told, and the exact arguments are used."""
    config = {"width": 8, "depht": 3, "model_type": "odd", "_name_or_path": "x"}
    make, arguments, unknown = official_prototype.maker(OddModel, config)
    assert unknown == ["depht"]
    assert arguments == {"width": 8, "depth": 1}
    assert make().config.width == 8


def test_official_table_names_ties() -> None:
    """A tied tensor stands once, under its first name, with the other names beside it."""
    import torch

    model = torch.nn.Module()
    model.shared, model.embed = torch.nn.Linear(2, 3, bias=False), torch.nn.Linear(2, 3, bias=False)
    model.embed.weight = model.shared.weight
    assert official_prototype.table(model) == {
        "shared.weight": {"shape": [3, 2], "dtype": "float32", "tied": ["embed.weight"]}
    }
