# SPDX-License-Identifier: Apache-2.0
"""What a bake makes: the tree, what is read from the checkpoint, the same bytes each time."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
import tomllib
from bake_helpers import DIT, REPO, SCHEDULER, T5, VAE, WAN, answers, bake, files, release, safetensors

from fvport import spec
from fvport.scaffold import new

LEFT_OVER = re.compile(rb"\{\{|\{%|\{#|%\}|cookiecutter")
GATE_ONLY = ("noxfile.py", "Makefile", ".github/", "docker/")


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release(tmp_path_factory.mktemp("official") / "wan")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory, wan: Path) -> Path:
    return bake(tmp_path_factory.mktemp("baked"), official_weights=str(wan))


def test_exact_files(port: Path) -> None:
    """The demo's answers make exactly the layout's files."""
    expected = {
        "docs/inference/tiny_wan.md",
        "examples/inference/basic/basic_tiny_wan.py",
        "fastvideo/configs/models/dits/tiny_wan.py",
        "fastvideo/configs/models/encoders/tiny_wan.py",
        "fastvideo/configs/pipelines/tiny_wan.py",
        "fastvideo/models/dits/tiny_wan.py",
        "fastvideo/models/encoders/tiny_wan.py",
        "fastvideo/pipelines/basic/tiny_wan/__init__.py",
        "fastvideo/pipelines/basic/tiny_wan/presets.py",
        "fastvideo/pipelines/basic/tiny_wan/stages/__init__.py",
        "fastvideo/pipelines/basic/tiny_wan/stages/denoising.py",
        "fastvideo/pipelines/basic/tiny_wan/tiny_wan_pipeline.py",
        "fastvideo/tests/ssim/test_tiny_wan_similarity.py",
        "tests/local_tests/encoders/test_tiny_wan_text_encoder_parity.py",
        "tests/local_tests/pipelines/test_tiny_wan_pipeline_parity.py",
        "tests/local_tests/pipelines/test_tiny_wan_pipeline_smoke.py",
        "tests/local_tests/schedulers/test_tiny_wan_scheduler_parity.py",
        "tests/local_tests/tiny_wan/AGENTS.md",
        "tests/local_tests/tiny_wan/PLAN.md",
        "tests/local_tests/tiny_wan/PORT_STATUS.md",
        "tests/local_tests/tiny_wan/README.md",
        "tests/local_tests/tiny_wan/inspection.json",
        "tests/local_tests/tiny_wan/oracle.py",
        "tests/local_tests/tiny_wan/port.lock.json",
        "tests/local_tests/tiny_wan/port.toml",
        "tests/local_tests/transformers/test_tiny_wan_transformer_parity.py",
        "tests/local_tests/vaes/test_tiny_wan_vae_parity.py",
    }
    gate_only = {name for name in files(port) if name.startswith(GATE_ONLY)}
    assert set(files(port)) - gate_only == expected
    assert {"noxfile.py", "Makefile", "docker/alignment-gate/gate-cpu.lock"} <= gate_only
    assert not [name for name in files(port) if name.endswith(".txt")]


def test_values_are_the_checkpoints(port: Path, wan: Path) -> None:
    """Class names, config values and the call come from the release and the official signature."""
    loaded = spec.load(port)
    assert loaded.official.pipeline.cls == "diffusers:WanPipeline"
    assert loaded.components["transformer"].native == "fastvideo.models.dits.tiny_wan:TinyWanTransformer3DModel"
    assert loaded.components["transformer"].mapping.signed_by == ""
    assert "^scale_shift_table$" in loaded.components["transformer"].mapping.passthrough
    assert not [p for p in loaded.components["transformer"].mapping.passthrough if "image_embedder" in p]
    assert loaded.components["vae"].native == "fastvideo.models.vaes.wanvae:AutoencoderKLWan"
    assert loaded.components["text_encoder"].tokenizer == "tokenizer"
    assert loaded.presets["default"]["num_inference_steps"].value == 50
    assert "WanPipeline.__call__" in loaded.presets["default"]["num_inference_steps"].source
    config = (port / "fastvideo/configs/models/dits/tiny_wan.py").read_text()
    assert re.search(r"ffn_dim: int = 64\b", config)
    assert loaded.official.pipeline.call["height"] != loaded.official.pipeline.call["width"]


def test_weights_are_linked_and_no_path_is_written(port: Path, wan: Path) -> None:
    """The local release is linked; no generated file names a folder of this machine."""
    link = port / "official_weights" / "tiny_wan"
    assert link.is_symlink()
    assert link.resolve() == wan.resolve()
    needles = (str(wan).encode(), str(port).encode(), str(REPO).encode())
    assert not [name for name, text in files(port).items() if any(needle in text for needle in needles)]


def test_twice_the_same_bytes(tmp_path: Path, port: Path, wan: Path) -> None:
    """A second bake of the same answers gives the same bytes."""
    assert files(bake(tmp_path, official_weights=str(wan))) == files(port)


def test_inspection_stands_for_the_checkpoint(tmp_path: Path, port: Path) -> None:
    """A bake from inspection.json alone equals the one with the checkpoint, but for the link."""
    inspected = tmp_path / "inspection.json"
    inspected.write_bytes((port / "tests/local_tests/tiny_wan/inspection.json").read_bytes())
    other = bake(tmp_path / "out", official_weights=str(inspected))
    assert files(other) == files(port)
    assert not (other / "official_weights").exists()


MATRIX = {
    "wan_cpu": ("WanPipeline", WAN, {}),
    "wan_auto_cuda": ("WanPipeline", WAN, {"components": "auto", "gate_device": "cuda", "workload_type": "auto"}),
    "wan_all_reuse": ("WanPipeline", WAN, {"components": "transformer=reuse,text_encoder=reuse"}),
    "image_to_video": ("WanImageToVideoPipeline", WAN, {"workload_type": "auto"}),
    "two_denoisers": (
        "WanPipeline",
        {**WAN, "transformer_2": WAN["transformer"]},
        {"components": "transformer=port,transformer_2=port"},
    ),
    "two_encoders": (
        "StableDiffusion3Pipeline",
        {
            "transformer": ("diffusers", "SD3Transformer2DModel", {"num_layers": 2}, {"a": (2, 2)}),
            "text_encoder": ("transformers", "CLIPTextModelWithProjection", {"hidden_size": 8}, {"a": (2, 2)}),
            "text_encoder_2": ("transformers", "UMT5EncoderModel", T5, {"shared.weight": (2, 2)}),
            "text_encoder_3": ("transformers", "UMT5EncoderModel", {**T5, "d_model": 64}, {"shared.weight": (2, 2)}),
            "tokenizer": ("transformers", "CLIPTokenizer", {}, {}),
            "tokenizer_2": ("transformers", "T5Tokenizer", {}, {}),
            "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler", SCHEDULER, {}),
        },
        {"workload_type": "auto", "components": "text_encoder_2=port,text_encoder_3=port"},
    ),
    "nobody_knows_it": (
        "NewThingPipeline",
        {
            "transformer": (
                "diffusers",
                "NewThingTransformer3DModel",
                {"depth": 2, "rates": [0.1] * 40, "None": 1, "theta": None},
                {"a.weight": (2, 2)},
            ),
            "vae": ("diffusers", "NewThingAutoencoder", VAE, {"b": (2,)}),
            "text_encoder": ("transformers", "NewThingTextModel", {"hidden_size": 8}, {"c": (2,)}),
            "image_encoder": ("transformers", "NewThingVisionModel", {"hidden_size": 8}, {"c": (2,)}),
            "scheduler": ("diffusers", "NewThingScheduler", {}, {}),
        },
        {"components": "auto"},
    ),
    "audio": (
        "StableAudioPipeline",
        {
            "transformer": ("diffusers", "StableAudioDiTModel", {"num_layers": 2}, {"a": (2, 2)}),
            "vae": ("diffusers", "AutoencoderOobleck", {"channels": 2}, {"a": (2, 2)}),
            "scheduler": ("diffusers", "CosineDPMSolverMultistepScheduler", {}, {}),
        },
        {"workload_type": "t2a", "components": "auto"},
    ),
    "big": (
        "WanPipeline",
        {**WAN, "transformer": ("diffusers", "WanTransformer3DModel", DIT, {"x": (8000, 8000)})},
        {"gate_device": "cuda"},
    ),
    "v2v": ("WanVideoToVideoPipeline", WAN, {"workload_type": "v2v"}),
    "t2i": ("QwenImagePipeline", WAN, {"workload_type": "t2i"}),
}


@pytest.mark.parametrize("case", MATRIX)
def test_matrix(tmp_path: Path, case: str) -> None:
    """Workloads, devices, component modes: the port is read by spec, Python parses, no tag left over, LF."""
    pipeline, components, changes = MATRIX[case]
    if case == "big":
        folder = release(tmp_path / "w", pipeline, WAN)
        header = json.dumps({"x": {"dtype": "F32", "shape": [8000, 8000], "data_offsets": [0, 256000000]}}).encode()
        with open(folder / "transformer" / "model.safetensors", "wb") as file:  # sparse: no byte of it is read
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(8 + len(header) + 256000000)
    else:
        folder = release(tmp_path / "w", pipeline, components)
    given = {"model_name": "New Model", "components": "auto", "official_weights": str(folder), **changes}
    root = bake(tmp_path / "out", **given)
    whole(root)
    loaded = spec.load(root)
    assert set(loaded.components) == set(components)
    natives = [c.native_class for c in loaded.components.values() if c.mode == "port"]
    assert len(set(natives)) == (len(natives) if case != "two_denoisers" else len(natives) - 1) or natives == []
    for c in loaded.components.values():
        if c.mode == "port":
            assert (root / c.native_file).is_file()
            assert not c.config or (root / c.config_file).is_file()
        if c.needs_parity:
            assert (root / loaded.test_file(c)).is_file()


def whole(root: Path) -> None:
    """Assert what holds for every baked file."""
    for name, text in files(root).items():
        if name.startswith("docker/"):
            continue
        assert b"\r" not in text, name
        assert text.endswith(b"\n") or not text, name
        if name.endswith(".py"):
            ast.parse(text, name)
        elif name.endswith(".json"):
            json.loads(text)
        elif name.endswith(".toml"):
            tomllib.loads(text.decode())
        if not name.startswith((".github/", "fastvideo/", "tests/local_tests/")) or name.endswith((".md", ".toml")):
            assert not LEFT_OVER.search(text.replace(b"{component}", b"")), name


def test_hub_id_without_network(tmp_path: Path) -> None:
    """A hub id bakes what can be known, says what cannot, and never downloads."""
    baked = new.bake(
        answers(official_weights="Some-Org/Wan9-I2V-Diffusers", workload_type="auto", components="auto"), tmp_path, True
    )
    whole(baked.root)
    loaded = spec.load(baked.root)
    assert loaded.hub_id == "Some-Org/Wan9-I2V-Diffusers"
    assert loaded.official_weights == baked.root / "official_weights/tiny_wan"
    assert loaded.port.workload_types == ("i2v",)
    assert any("was not read" in text for text in baked.to_json()["unknown"])
    plan = (baked.root / "tests/local_tests/tiny_wan/PLAN.md").read_text()
    assert "was not read" in plan
    assert "FVPORT-DECIDE" in plan
    assert not (baked.root / "official_weights").exists()


def test_one_file_release_needs_a_conversion(tmp_path: Path) -> None:
    """A release that is one file gets a conversion script, and the link lies in a folder of the slug's name."""
    safetensors(tmp_path / "model.safetensors", {"a.b": (2, 2)})
    root = bake(tmp_path / "out", official_weights=str(tmp_path / "model.safetensors"), components="auto")
    whole(root)
    assert (root / "scripts/checkpoint_conversion/tiny_wan_to_diffusers.py").is_file()
    assert (root / "official_weights/tiny_wan/model.safetensors").is_symlink()
    assert spec.load(root).official.needs_conversion


@pytest.mark.parametrize("slug", ["tiny_wan", "quite_another"])
def test_slug_equal_and_not_equal_to_the_derived_one(tmp_path: Path, wan: Path, slug: str) -> None:
    """Every name follows the slug, whatever the model's name says."""
    root = bake(tmp_path, official_weights=str(wan), model_slug=slug)
    assert root.name == slug
    whole(root)
    loaded = spec.load(root)
    prefix = "TinyWan" if slug == "tiny_wan" else "QuiteAnother"
    assert loaded.components["transformer"].native_class == f"{prefix}Transformer3DModel"
    other = "quite_another" if slug == "tiny_wan" else "tiny_wan"
    text = b"".join(v for k, v in files(root).items() if not k.startswith("docker/"))
    assert other.encode() not in text


def test_two_ports_on_one_tree(tmp_path: Path, wan: Path) -> None:
    """Two ports share the gate-only files, byte for byte, and no other file."""
    one = files(bake(tmp_path, official_weights=str(wan), model_name="Tiny Wan"))
    two = files(
        bake(tmp_path, official_weights=str(wan), model_name="Other Wan", workload_type="i2v", gate_device="cuda")
    )
    shared = set(one) & set(two)
    assert all(name.startswith(GATE_ONLY) for name in shared)
    assert all(one[name] == two[name] for name in shared)
    assert "noxfile.py" in shared


def test_demo_leaves_nothing_to_decide(port: Path) -> None:
    """A release that the archetypes cover leaves no decision and no placeholder behind."""
    pattern = re.compile(rb"FVPORT-DECIDE|\bTODO\b|\bFIXME\b|NotImplementedError")
    names = [n for n, t in files(port).items() if pattern.search(t) and not n.startswith("docker/")]
    assert names == []


def test_skeleton_says_what_is_to_decide(tmp_path: Path) -> None:
    """A class that no archetype covers is a skeleton with one clear line for each decision, and the plan names it."""
    pipeline, components, changes = MATRIX["nobody_knows_it"]
    folder = release(tmp_path / "w", pipeline, components)
    root = bake(tmp_path / "out", official_weights=str(folder), **changes)
    native = (root / "fastvideo/models/dits/tiny_wan.py").read_text()
    assert native.count("FVPORT-DECIDE") == 1
    assert "NewThingTransformer3DModel" in native
    assert "depth: int = 2" in (root / "fastvideo/configs/models/dits/tiny_wan.py").read_text()
    assert "No archetype covers NewThingTransformer3DModel" in (root / "tests/local_tests/tiny_wan/PLAN.md").read_text()
