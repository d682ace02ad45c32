# SPDX-License-Identifier: Apache-2.0
"""What a bake says and chooses: sources of every value, modes that make no port, words that the command line has."""

from __future__ import annotations

import ast
import json
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bake_helpers import REPO, T5, WAN, answers, bake, files, release

from fvport import spec
from fvport import words as known
from fvport.errors import UsageError
from fvport.scaffold import covered, finish, new

AUTO = {"workload_type": "auto", "components": "auto"}


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release(tmp_path_factory.mktemp("official") / "wan")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory, wan: Path) -> Path:
    return bake(tmp_path_factory.mktemp("baked"), official_weights=str(wan))


def told(tmp_path: Path, **given: str) -> dict[str, Any]:
    return new.bake(answers(**given), output_dir=tmp_path / "out", no_input=True).to_json()


def constants(path: Path) -> dict[str, Any]:
    """{annotated field or keyword default: its literal} of a generated file's classes."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            try:
                found[node.target.id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return found


# --- the gate of a baked port ----------------------------------------------------------------------------------------


def test_the_workflow_can_plan_a_baked_port(port: Path) -> None:
    """port.toml names every check, and the port's own plan.py makes a job of each of them."""
    said = (port / "tests/local_tests/tiny_wan/port.toml").read_text()
    assert re.search(r"^checks = \[", said, re.MULTILINE)
    assert spec.load(port).gate.checks == spec.CHECKS
    plan = [sys.executable, str(port / "docker/alignment-gate/plan.py"), "--root", str(port)]
    done = subprocess.run(plan, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    jobs = json.loads(done.stdout.partition("matrix=")[2].splitlines()[0])["include"]
    assert {job["check"] for job in jobs} == set(spec.CHECKS)


# --- precision -------------------------------------------------------------------------------------------------------


def restore(folder: Path, dtype: str, tensors: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    """One component's file with tensors of these dtypes (header and zeros)."""
    header, at = {}, 0
    for name, (kind, shape) in tensors.items():
        size = {"F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1}[kind]
        for n in shape:
            size *= n
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * at)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(("stored", "word"), [("F32", "fp32"), ("BF16", "bf16"), ("F16", "fp16")])
def test_precision_is_the_checkpoints(tmp_path: Path, device: str, stored: str, word: str) -> None:
    """The pipeline config computes as the weights are stored, whatever device the gate asks for; the VAE in fp32."""
    folder = release(tmp_path / "w")
    restore(folder / "transformer", stored, {"a.table": ("F32", (1, 6)), "b.weight": (stored, (64, 64))})
    restore(folder / "text_encoder", stored, {"shared.weight": (stored, (512, 32))})
    root = bake(tmp_path / "out", official_weights=str(folder), gate_device=device)
    said = constants(root / "fastvideo/configs/pipelines/tiny_wan.py")
    assert said["dit_precision"] == word
    assert said["text_encoder_precisions"] == (word,)
    assert (said["vae_precision"], said["vae_decode_precision"]) == ("fp32", "fp32")


def test_a_dtype_that_fastvideo_cannot_compute_in_is_said(tmp_path: Path) -> None:
    """fp8 weights: FastVideo's own default, and a sentence that it is assumed."""
    folder = release(tmp_path / "w")
    restore(folder / "transformer", "F8_E4M3", {"b.weight": ("F8_E4M3", (64, 64))})
    said = told(tmp_path, official_weights=str(folder))
    assert any("transformer are stored as F8_E4M3" in text and "assumed" in text for text in said["unknown"])


# --- the workload and the call ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pipeline", "model", "hub", "workload", "source"),
    [
        ("WanPipeline", "Wan image to video edit I2V", "", "t2v", "the call of WanPipeline"),
        ("WanImageToVideoPipeline", "A T2V model", "", "i2v", "WanImageToVideoPipeline"),
        ("FluxPipeline", "Video maker I2V", "", "t2i", "the call of FluxPipeline"),
        ("SanaVideoPipeline", "Plain", "", "t2v", "the call of SanaVideoPipeline"),  # frames, not num_frames
        ("LattePipeline", "Plain", "", "t2v", "the call of LattePipeline"),  # video_length
        ("NewImageToVideoPipeline", "Some T2V", "", "i2v", "the class NewImageToVideoPipeline"),
        ("", "Plain", "Some-Org/Thing-I2V", "i2v", "the hub id Some-Org/Thing-I2V"),
        ("", "Thing T2I", "", "t2i", "the model's name Thing T2I"),
    ],
)
def test_the_workload_is_read_where_it_is_said_to_be(
    tmp_path: Path, pipeline: str, model: str, hub: str, workload: str, source: str
) -> None:
    """The class and its call decide before any name; the sentence names what really decided."""
    weights = hub or (str(release(tmp_path / "w", pipeline)) if pipeline else "")
    said = told(tmp_path, official_weights=weights, model_name=model, model_slug="thing_x", **AUTO)
    assert said["workload"] == workload
    assert any(text.startswith(f"workload {workload}") and source in text for text in said["inferred"])


def test_an_assumed_workload_is_not_called_read(tmp_path: Path) -> None:
    """Where nothing says it, the workload is an open point, not a finding."""
    said = told(tmp_path, official_weights="", workload_type="auto", model_name="Plain", components="auto")
    assert not [text for text in said["inferred"] if text.startswith("workload")]
    assert any("workload t2v is assumed" in text for text in said["unknown"])


def test_values_that_no_signature_says_are_called_assumed(tmp_path: Path, wan: Path) -> None:
    """480x832 and guidance 5.0 are Wan's: for another pipeline they are said to be assumed; for Wan nothing is."""
    said = told(tmp_path, official_weights="Some-Org/Other-T2V", components="auto")
    text = next(text for text in said["unknown"] if "are assumed" in text and "height" in text)
    assert {"height 480", "width 832", "guidance_scale 5.0"} <= set(re.findall(r"\w+ [\d.]+\b", text))
    own = told(tmp_path / "wan", official_weights=str(wan))
    assert not [text for text in own["unknown"] if "assumed" in text]


@pytest.mark.parametrize("workload", ["i2v", "i2i", "t2a", "v2a"])
def test_a_workload_that_no_check_covers_is_said_at_once(tmp_path: Path, wan: Path, workload: str) -> None:
    """The bake, the plan and an open decision say that the media checks cannot pass for this workload."""
    said = told(tmp_path, official_weights=str(wan), workload_type=workload)
    words = f"cover text to video{'' if workload.endswith('a') else f', {covered.PROVEN}'}, not {workload}"
    assert any(words in text for text in said["unknown"])
    assert said["decisions"]
    plan = (Path(said["root"]) / "tests/local_tests/tiny_wan/PLAN.md").read_text()
    assert words in plan
    assert "FVPORT-DECIDE" in plan


# --- modes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["passthrough", "external"])
@pytest.mark.parametrize("name", ["transformer", "scheduler"])
def test_a_denoiser_is_neither_copied_nor_external(tmp_path: Path, wan: Path, name: str, mode: str) -> None:
    """These modes make no port: refused with a sentence, and nothing is written."""
    with pytest.raises(UsageError, match=f"{name}={mode}"):
        told(tmp_path, official_weights=str(wan), components=f"{name}={mode}")
    assert not (tmp_path / "out" / "tiny_wan").exists()


@pytest.mark.parametrize("name", ["vae", "text_encoder"])
def test_what_computes_is_never_passed_through(tmp_path: Path, wan: Path, name: str) -> None:
    """A VAE or an encoder that is only copied would drop out of every comparison."""
    with pytest.raises(UsageError, match="passthrough is for a tokenizer"):
        told(tmp_path, official_weights=str(wan), components=f"{name}=passthrough")


@pytest.mark.parametrize("name", ["vae", "text_encoder"])
def test_an_external_component_leaves_python_that_parses(tmp_path: Path, wan: Path, name: str) -> None:
    """No empty import in the pipeline config, and a line that says what is to be decided."""
    root = bake(tmp_path, official_weights=str(wan), components=f"{name}=external")
    config = (root / "fastvideo/configs/pipelines/tiny_wan.py").read_text()
    ast.parse(config)
    assert f"FVPORT-DECIDE: {name} is external" in config
    assert spec.load(root).components[name].mode == "external"


def test_a_class_without_a_config_is_no_reuse(tmp_path: Path) -> None:
    """Registered by FastVideo, but with no config class that a pipeline config could name."""
    vae = ("diffusers", "LingBotWorld2WanVAE", {}, {"a": (2, 2)})
    folder = release(tmp_path / "w", "WanPipeline", {**WAN, "vae": vae})
    with pytest.raises(UsageError, match="no class with a config"):
        told(tmp_path, official_weights=str(folder), components="vae=reuse")


def test_python_that_does_not_parse_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The hook compiles every file: a broken one ends the bake with its place, in one sentence."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.py").write_text("import x\nfrom  import y\n")
    made = {"files": {}, "checkpoint": "", "weights": "", "summary": {}}
    assert finish.run(made, tmp_path) == 1
    assert "a/b.py:2: invalid syntax" in capsys.readouterr().err


# --- what the pages promise ------------------------------------------------------------------------------------------


def test_the_example_starts_from_the_official_defaults(port: Path) -> None:
    """A user gets the official size and steps; the gate's cheaper call stays in port.toml."""
    text = (port / "examples/inference/basic/basic_tiny_wan.py").read_text()
    assert '"--num-inference-steps", type=int, default=50' in text
    assert '"--height", type=int, default=480' in text
    assert spec.load(port).official.pipeline.call["num_inference_steps"] < 50


def test_the_page_says_how_to_get_the_weights(port: Path) -> None:
    """The folder that the usage loads is made by commands that stand above it."""
    page = (port / "docs/inference/tiny_wan.md").read_text()
    weights, usage = page.index("## Getting the weights"), page.index("## Usage")
    assert weights < usage
    assert "nox -s prep workspace" in page[weights:usage]
    assert "nox -s conversion" in page[weights:usage]


def test_pages_name_commands_that_exist(port: Path, tmp_path: Path) -> None:
    """Every `fvport WORD` and `nox -s WORD` of the generated Markdown is a command, every path in it a file or made."""
    from fvport import cli

    commands = {c.name or (c.callback.__name__ if c.callback else "") for c in cli.app.registered_commands}
    commands |= {group.name for group in cli.app.registered_groups}
    sessions = set(re.findall(r"^def (\w+)\(session", (port / "noxfile.py").read_text(), re.MULTILINE))
    made = ("converted_weights/tiny_wan", "official_weights/tiny_wan", ".fvport/", "outputs")
    pages = {name: text.decode() for name, text in files(port).items() if name.endswith(".md")}
    assert len(pages) >= 5
    for name, text in pages.items():
        code = " ; ".join(re.findall(r"`([^`\n]+)`", text) + re.findall(r"^nox .*$", text, re.MULTILINE))
        assert set(re.findall(r"\bfvport ([a-z]+)", code)) <= commands, name
        for words in re.findall(r"nox -s ((?:[a-z]+ ?)+)", code):
            assert set(words.split()) <= sessions, (name, words)
        for path in re.findall(r"(?<![\w./-])((?:fastvideo|tests|examples|scripts|docker|docs)/[\w./-]+\.\w+)", code):
            by_prep = path == "tests/local_tests/helpers/tiny_wan_upstream.py"  # where the official code needs stubs
            assert by_prep or (port / path).is_file(), (name, path)
        for path in re.findall(r"(?<![\w./-])(converted_weights/[\w./-]+)", code):
            assert path.startswith(made), (name, path)
            assert "_mapping" not in path, name
    assert "HF_API_KEY" not in "".join(pages.values())


def test_shared_words_are_the_questions_words() -> None:
    """cookiecutter.json's choices are the words that port.toml knows."""
    asked = json.loads((REPO / "cookiecutter.json").read_text())["workload_type"]
    assert tuple(asked) == ("auto", *known.WORKLOADS)
    assert T5["num_layers"] == 2


def test_a_transformer_that_no_pipeline_was_tried_with_is_told() -> None:
    """Text to video of another class than Wan's: the bake says what its denoising stage hands over."""
    from types import SimpleNamespace

    def told(cls: str) -> list[str]:
        p = SimpleNamespace(is_generated=True, dit=SimpleNamespace(official_class=cls), scheduler=None, unknown=[])
        covered.say(p)
        return p.unknown

    assert told("WanTransformer3DModel") == []
    assert "packed tokens" in told("LTXVideoTransformer3DModel")[0]


def test_a_port_of_reused_components_is_told_how_native_code_comes(tmp_path: Path) -> None:
    """Nothing is there to sign then; where one component is the port's own, its rules are."""
    from fvport.scaffold import finish

    reused = {"transformer": {"mode": "reuse", "archetype": "cross_attention_dit"}}
    whole = {
        "model": "M",
        "components": reused,
        "inferred": [],
        "unknown": [],
        "decisions": [],
        "needs_conversion": False,
    }
    said = finish.next_steps(whole, tmp_path)
    assert "components=NAME=port" in said
    assert "mapping review" not in said
    own = finish.next_steps({**whole, "components": {"transformer": {"mode": "port", "archetype": "x"}}}, tmp_path)
    assert "components=NAME=port" not in own
    assert "mapping review" in own
