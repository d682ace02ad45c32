# SPDX-License-Identifier: Apache-2.0
"""The archetypes: rendered code is whole, native classes equal the official ones, loaders refuse what is not right."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import archetypes_encoders as encoders
import archetypes_support as support
import pytest

from fvport.scaffold import library

HERE = Path(__file__).parent
FACTOR = 3.0
PORTABLE = [
    ("cross_attention_dit", "diffusers:WanTransformer3DModel"),
    ("t5_encoder", "transformers:UMT5EncoderModel"),
    ("t5_encoder", "transformers:T5EncoderModel"),
    ("t5_encoder", "transformers:MT5EncoderModel"),
]
REUSED = [
    ("causal_video_vae", "diffusers:AutoencoderKLWan"),
    ("flow_match_scheduler", "diffusers:FlowMatchEulerDiscreteScheduler"),
    ("flow_match_scheduler", "diffusers:UniPCMultistepScheduler"),
]
TEMPLATES = ("config.py.jinja", "native.py.jinja", "oracle.py.jinja", "parity_test.py.jinja")


@pytest.mark.parametrize("archetype", sorted(library.all_archetypes()))
def test_every_folder_is_whole(archetype: str) -> None:
    """Known keys, a kind and a folder of FastVideo's, official classes by library, and a test with its oracle."""
    found = library.get(archetype)
    known = {"kind", "bucket", "covers", "class_name", "reuse", "passthrough", "exclude", "config_renamed", "tiny"}
    assert set(found.data) <= known | {"config_ignored", "reuse_keeps_names", "libraries"}
    assert found.data["bucket"] in ("encoders", "dits", "vaes", "schedulers", "audio")
    assert found.covers
    assert all(re.fullmatch(r"\w+:\w+", name) for name in found.covers)
    assert found.can_port or found.data.get("reuse")
    assert all(found.template(name) for name in TEMPLATES[2:])
    assert found.data["kind"] == "scheduler" or not found.can_port or found.template("config.py.jinja")


@pytest.mark.parametrize(("archetype", "official"), PORTABLE + REUSED)
@pytest.mark.parametrize("prefix", ["X", "AVeryLongModelNameForVideoGenerationTwo"])
def test_every_template_renders_to_whole_python(archetype: str, official: str, prefix: str) -> None:
    """Each template renders without a checkpoint too, parses, and leaves no template tag behind."""
    p, c = support.context(archetype, official, {}, prefix=prefix)
    for template in TEMPLATES:
        if library.get(archetype).template(template):
            text = support.text(archetype, template, p, c)
            ast.parse(text)
            assert "{{" not in text.replace("{{{", "")
            assert "{%" not in text


@pytest.mark.parametrize(("archetype", "official"), PORTABLE + REUSED)
def test_parity_tests_stay_short_and_oracles_apart(archetype: str, official: str) -> None:
    """A parity test has under 40 lines; the oracle imports nothing of FastVideo or fvport."""
    p, c = support.context(archetype, official, {})
    assert len(support.text(archetype, "parity_test.py.jinja", p, c).splitlines()) < 40
    oracle = ast.parse(support.text(archetype, "oracle.py.jinja", p, c))
    roots = {alias.name.split(".")[0] for n in ast.walk(oracle) if isinstance(n, ast.Import) for alias in n.names}
    roots |= {(n.module or "").split(".")[0] for n in ast.walk(oracle) if isinstance(n, ast.ImportFrom)}
    assert roots <= {"pathlib", "torch", "numpy", "diffusers", "transformers"}


@pytest.mark.parametrize(("archetype", "official"), PORTABLE)
def test_rename_rules_are_anchored(archetype: str, official: str) -> None:
    """Every rename rule of a rendered config matches whole names only."""
    p, c = support.context(archetype, official, {"image_dim": 8})
    text = support.text(archetype, "config.py.jinja", p, c)
    patterns = re.findall(r'^\s+r"(\^[^"]*)":', text, re.MULTILINE)
    assert patterns
    assert all(pattern.endswith("$") for pattern in patterns)


def test_checkpoint_values_become_field_defaults() -> None:
    """The rendered config holds the checkpoint's own numbers, not the class's defaults."""
    p, c = support.context("cross_attention_dit", "diffusers:WanTransformer3DModel", {"ffn_dim": 77, "eps": 0.5})
    text = support.text("cross_attention_dit", "config.py.jinja", p, c)
    assert "ffn_dim: int = 77" in text
    assert "eps: float = 0.5" in text


def test_decoder_half_of_a_full_checkpoint_is_left_out_by_name() -> None:
    """A T5 release with decoder and head gets rules that leave them out; without them there are none."""
    both = dict.fromkeys(("shared.weight", "decoder.final_layer_norm.weight", "lm_head.weight"), ("F32", (1,)))
    for tensors, expected in ((both, True), ({}, False)):
        p, c = support.context("t5_encoder", "transformers:T5EncoderModel", {}, tensors=tensors)
        assert (r"^decoder\." in support.text("t5_encoder", "config.py.jinja", p, c)) is expected


@pytest.fixture(scope="session")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `archetypes_matrix.py` measured: one process, one import of FastVideo, for all tests below."""
    folder = tmp_path_factory.mktemp("archetypes")
    command = [sys.executable, str(HERE / "archetypes_matrix.py"), str(folder / "out.json"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "out.json").read_text())


@pytest.mark.slow
def test_every_output_is_within_three_floors(matrix: dict[str, Any]) -> None:
    """No output of any configuration differs by more than three times the official model's own fp32 error."""
    wrong = []
    for name, found in matrix.items():
        assert found["cases"], name
        for case, outputs in found["cases"].items():
            wrong += [(name, case, key, *pair) for key, pair in outputs.items() if pair[0] > FACTOR * pair[1]]
    assert not wrong


@pytest.mark.slow
def test_faults_in_new_encoders_are_seen(matrix: dict[str, Any]) -> None:
    """One encoder an archetype: a wrong native source moves some output a hundred times further than fp32's error."""
    for name in encoders.FEW:
        found = matrix[f"archetype {name}"]
        assert found["faults"], name
        assert {fault: size for fault, size in found["faults"].items() if size < 100} == {}
        assert (name, found["unseen"], found["ignored"]) == (name, [], [])


@pytest.mark.slow
def test_half_precision_is_the_official_one(matrix: dict[str, Any]) -> None:
    """In bf16 the native transformer keeps the official's fp32 parts and rounds where it rounds."""
    assert matrix["dit i2v"]["bfloat16"] < 1e-3


@pytest.mark.slow
def test_inputs_see_every_parameter(matrix: dict[str, Any]) -> None:
    """A change of two hundredths in any single native parameter shows in the outputs."""
    assert matrix["dit i2v"]["unseen"] == []
    assert matrix["encoder umt5"]["unseen"] == []


@pytest.mark.slow
def test_rules_and_passthrough_name_every_key(matrix: dict[str, Any]) -> None:
    """Every transformer key has a rule or a passthrough, and each of those has a key."""
    for name, found in matrix.items():
        if name.startswith("dit "):
            assert (name, found["unnamed"]) == (name, {"keys": [], "rules": []})


@pytest.mark.slow
def test_encoder_loads_completely_and_knows_every_official_field(matrix: dict[str, Any]) -> None:
    """load_weights returns exactly the parameters; no official config field is dropped without a reason."""
    for name, found in matrix.items():
        if name.startswith("encoder "):
            assert (name, found["loaded"], found["ignored"]) == (name, True, [])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("unknown key", "encoder.block.0.surprise: no rule"),
        ("part missing", "the part .SelfAttention.q."),
        ("gate missing", "the part .DenseReluDense.wi_1."),
        ("whole missing", "SelfAttention.o.weight: the checkpoint has no weights"),
        ("too large", "SelfAttention.o.weight: shape"),
        ("part too large", "qkv_proj.weight: its parts have"),
        ("no such layer", "encoder.block.9.layer.0.layer_norm.weight: its rule leads to"),
        ("twice", "has these weights already"),
    ],
)
def test_encoder_refuses_a_damaged_checkpoint(matrix: dict[str, Any], damage: str, words: str) -> None:
    """load_weights raises and names the key, whatever is wrong with the weights."""
    assert words in matrix["encoder umt5"]["refusals"][damage]
