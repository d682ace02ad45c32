# SPDX-License-Identifier: Apache-2.0
"""Archetypes of transformers and autoencoders: clean sources, parity with the official class, faults that are seen."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import archetypes_dits as dits
import archetypes_support as support
import pytest
import tomllib

from fvport.scaffold import library

HERE = Path(__file__).parent
STYLE = tomllib.loads((HERE / "data" / "fastvideo_style.toml").read_text())
CASES = dits.dit_cases.CASES
FACTOR = 3.0
ULP = 1.2e-7  # of float32: a difference of one rounding is none, also where the floor happens to be smaller
TEMPLATES = ("config.py.jinja", "native.py.jinja", "oracle.py.jinja", "parity_test.py.jinja")
LONG = {"prefix": "AVeryLongModelNameForVideoGenerationTwo", "slug": "a_very_long_model_name_for_video_two"}


def rendered(name: str, **more: Any) -> dict[str, str]:
    case = CASES[name]
    config = json.loads(json.dumps(case.config))
    p, c = support.context(case.archetype, case.official, config, name=case.kind, **more)
    return {template: support.text(case.archetype, template, p, c) for template in TEMPLATES}


@pytest.mark.parametrize("name", CASES)
def test_rendered_files_are_whole(name: str) -> None:
    """Each file parses, holds no template tag, and leaves nothing for a person to write."""
    for template, text in rendered(name).items():
        ast.parse(text)
        assert "{%" not in text, template
        assert "FVPORT-DECIDE" not in text, template


@pytest.mark.parametrize("name", dits.FEW)
def test_formatter_changes_nothing(name: str) -> None:
    """yapf with FastVideo's settings leaves what goes upstream as it is, under a short name and a long one."""
    from yapf.yapflib.yapf_api import FormatCode

    style = "{" + ", ".join(f"{key}: {value}" for key, value in STYLE["yapf"].items()) + "}"
    for more in (LONG, {"prefix": "X", "slug": "x_one"}):
        files = rendered(name, **more)
        for template in ("config.py.jinja", "native.py.jinja"):
            assert not FormatCode(files[template], style_config=style, print_diff=True)[0]


def test_linters_find_nothing(tmp_path: Path) -> None:
    """ruff with FastVideo's rules, codespell with its words."""
    for name in dits.FEW:
        for template, text in rendered(name, **LONG).items():
            (tmp_path / f"{name}_{template.removesuffix('.jinja')}").write_text(text, encoding="utf-8")
    rules = STYLE["ruff"]["lint"]
    config = tmp_path / "ruff.toml"
    config.write_text(f"line-length = 120\n[lint]\nselect = {rules['select']}\nignore = {rules['ignore']}\n")
    words = ["codespell_lib", "--ignore-words-list", STYLE["codespell_ignore"], "."]
    for tool in (["ruff", "check", "--no-cache", "--config", str(config), "."], words):
        done = subprocess.run([sys.executable, "-m", *tool], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("archetype", sorted({case.archetype for case in CASES.values()}))
def test_covered_classes_have_a_case(archetype: str) -> None:
    """Each class that these archetypes cover is in the case table."""
    covers = {name.partition(":")[2] for name in library.get(archetype).covers}
    assert {case.cls for case in CASES.values() if case.archetype == archetype} <= covers
    if archetype not in dits.ELSEWHERE:
        assert covers == {case.cls for case in CASES.values() if case.archetype == archetype}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every case through FastVideo, in one process of its own."""
    folder = tmp_path_factory.mktemp("dits")
    command = [sys.executable, str(HERE / "archetypes_dits.py"), str(folder / "out.json"), str(folder)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "out.json").read_text())


@pytest.mark.heavy
@pytest.mark.parametrize("name", CASES)
def test_native_equals_official(measured: dict[str, Any], name: str) -> None:
    """Every output of every input is within three times the official model's own floor; a rule names every key."""
    found = measured[name]
    assert_close(found["cases"])
    assert found["unnamed"] == []
    assert found["unused"] == []


@pytest.mark.heavy
@pytest.mark.parametrize("name", dits.SCHEDULES)
def test_native_scheduler_equals_the_official_one(measured: dict[str, Any], name: str) -> None:
    """Tables, steps, the index, noise that is added and a timestep a token: bit for bit, for each kind of schedule."""
    assert measured["schedules"][name] == []


def test_scheduler_source_is_clean() -> None:
    """The native schedulers parse and are as the formatter leaves them."""
    from yapf.yapflib.yapf_api import FormatCode

    style = "{" + ", ".join(f"{key}: {value}" for key, value in STYLE["yapf"].items()) + "}"
    for name, official in (("flow_match", "FlowMatchEulerDiscreteScheduler"), ("unipc", "UniPCMultistepScheduler")):
        p, c = support.context(f"{name}_scheduler", f"diffusers:{official}", {})
        text = support.text(f"{name}_scheduler", "native.py.jinja", p, c)
        assert not FormatCode(text, style_config=style, print_diff=True)[0]


@pytest.mark.heavy
@pytest.mark.parametrize("name", dits.SPLIT)
def test_two_processes_equal_one(measured: dict[str, Any], name: str) -> None:
    """The sequence split over two gloo processes gives the official output too, also where it splits unevenly."""
    assert_close(measured["split"][name])


def assert_close(cases: dict[str, Any]) -> None:
    for case, outputs in cases.items():
        for output, (difference, floor) in outputs.items():
            assert difference <= FACTOR * max(floor, ULP), f"{case}.{output}: {difference} against {floor}"


@pytest.mark.heavy
@pytest.mark.parametrize("fault", dits.FAULTS)
def test_faults_are_seen(measured: dict[str, Any], fault: str) -> None:
    """A source with one thing wrong is far outside of what passes."""
    assert measured[dits.FAULTS[fault][0]]["faults"][fault] > 10 * FACTOR


def test_reuse_names_what_fastvideo_has() -> None:
    """Where an archetype names FastVideo's own class, the facts read from FastVideo's sources name the same one."""
    from fvport.scaffold import facts

    known = facts.fastvideo()
    for archetype in ("cross_attention_dit", "joint_attention_dit"):
        for official, named in library.get(archetype).data["reuse"].items():
            assert named["native"] == facts.registered(official.partition(":")[2])["native"], official
            assert {named["config"].partition(":")[2], named["arch"]} <= set(known["config_classes"]), official


def test_a_class_that_fastvideo_has_not_is_no_reuse() -> None:
    """An archetype of several families answers with a family's own class, never with another family's."""
    found = library.get("cross_attention_dit")
    assert found.reuse("diffusers:CosmosTransformer3DModel")["native"].endswith(":CosmosTransformer3DModel")
    assert found.reuse("diffusers:LTXVideoTransformer3DModel") == {}


def test_only_the_switches_of_a_release_are_written() -> None:
    """Code for an image, a control network, padding or learned positions stands only where the release has them."""
    plain, all_of_it = rendered("cosmos_2")["native.py.jinja"], rendered("cosmos_2_5_transfer")["native.py.jinja"]
    first = rendered("cosmos")["native.py.jinja"]
    for word in ("k_img", "controlnet", "crossattn_proj"):
        assert word in all_of_it
        assert word not in plain + first
    for word in ("padding_mask", "LearnedPositions"):
        assert word in first
        assert word not in plain


def test_a_pattern_of_two_families_is_named_once() -> None:
    """Names that two families of an archetype keep stand once in port.toml."""
    from fvport.scaffold.components import ComponentContext

    names = ("transformer_blocks.0.attn1.norm_q.weight", "transformer_blocks.0.attn2.to_q.weight", "proj_out.weight")
    data = library.get("cross_attention_dit").data
    c = ComponentContext("transformer", "dit", "port", tensors=dict.fromkeys(names, ("F32", (2,))), data=data)
    c.archetype = "cross_attention_dit"
    assert len(c.passthrough) == len(set(c.passthrough)) == 3


def test_first_frame_is_apart_only_where_it_is_given() -> None:
    """A conditioning of the first frame's own stands only where the release replaces its tokens."""
    plain = rendered("hunyuan_video")["native.py.jinja"]
    given = rendered("hunyuan_video_first_frame")["native.py.jinja"]
    for word in ("FirstFrameNorm", "without_noise", "_each("):
        assert word in given
        assert word not in plain
    assert "with _masked(words)" in plain


def test_image_features_are_read_only_where_the_release_has_them() -> None:
    """Z-Image's several images a sample and their features stand only where siglip_feat_dim is given."""
    plain, omni = rendered("zimage")["native.py.jinja"], rendered("zimage_omni")["native.py.jinja"]
    for word in ("siglip_refiner", "image_noise_mask", "_each("):
        assert word in omni
        assert word not in plain
