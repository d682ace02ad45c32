# SPDX-License-Identifier: Apache-2.0
"""Components that are neither encoder, transformer, autoencoder nor scheduler: where they go, and that they load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import bake_helpers as b
import generic_component as generic
import pytest
import tomllib

from fvport import spec
from fvport.checks import Options, boundary
from fvport.scaffold.skeleton import ask, official_tree
from fvport.weights import convert
from fvport.words import module_name

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def baked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(the port's root, what the bake said) for a release of headers with both components."""
    folder = tmp_path_factory.mktemp("generic")
    components: dict[str, Any] = dict(b.WAN)
    for name, model in generic.parts().items():
        model.save_pretrained(folder / "made" / name)
        config = json.loads((folder / "made" / name / "config.json").read_text())
        shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        components[name] = (*generic.INDEX[name], config, shapes)
    release = b.release(folder / "release", components=components)
    given = {"official_weights": str(release), "components": "transformer=reuse"}
    with pytest.MonkeyPatch.context() as patch:  # the same question, without a process of its own

        def tree(library: str, cls: str, config: str) -> tuple[dict[str, Any], str]:
            return official_tree.node(official_tree.build(library, cls, json.loads(config))), ""

        patch.setattr(ask, "_tree", tree)
        patch.setattr(ask, "ASKED", {})
        made = b.new.bake(b.answers(**given), output_dir=folder / "out", no_input=True)
    return made.root, "\n".join(made.summary["inferred"])


def ported(root: Path) -> dict[str, Any]:
    return tomllib.loads(next(root.glob("tests/local_tests/*/port.toml")).read_text())["components"]


def test_an_upsampler_goes_among_the_upsamplers(baked: tuple[Path, str]) -> None:
    """LTX Video's latent upsampler: FastVideo's bucket, a config whose own fields its loader fills, its own library."""
    root, _ = baked
    found = ported(root)["latent_upsampler"]
    assert found["kind"] == "upsampler"
    assert found["official"] == "diffusers.pipelines.ltx:LTXLatentUpsamplerModel"
    assert found["native"].startswith("fastvideo.models.upsamplers.")
    assert found["config"].startswith("fastvideo.configs.models.upsamplers.")
    config = (root / (found["config"].partition(":")[0].replace(".", "/") + ".py")).read_text()
    assert "(UpsamplerConfig):" in config
    for field, value in generic.UPSAMPLER.items():
        assert f"    {field}: int = {value}\n" in config
    pipeline = next((root / "fastvideo/configs/pipelines").glob("*.py")).read_text()
    assert "upsampler_config: tuple[UpsamplerConfig, ...]" in pipeline
    assert '        "upsampler",\n' in next((root / "fastvideo/pipelines/basic").rglob("*_pipeline.py")).read_text()


def test_a_vocoder_goes_to_audio(baked: tuple[Path, str]) -> None:
    """A HiFi-GAN: FastVideo's bucket, a class that takes config.json as a dict and loads strictly."""
    root, _ = baked
    found = ported(root)["vocoder"]
    assert (found["kind"], found["official"]) == ("vocoder", "transformers:SpeechT5HifiGan")
    assert found["native"].startswith("fastvideo.models.audio.")
    assert found["config"].startswith("fastvideo.configs.models.audio.")
    native = (root / (found["native"].partition(":")[0].replace(".", "/") + ".py")).read_text()
    assert "if isinstance(config, dict):" in native
    assert "load_state_dict(state_dict, strict=True" in native


def test_boundary_agrees(baked: tuple[Path, str], tmp_path: Path) -> None:
    """Bucket and bases pass FV308 to FV310; a vocoder among the upsamplers is red in both that concern it."""
    root, _ = baked
    assert red(root) == set()
    file = next(root.glob("tests/local_tests/*/port.toml"))
    before = file.read_text()
    file.write_text(before.replace("fastvideo.models.audio.", "fastvideo.models.upsamplers."))
    assert "FV308" in red(root)
    file.write_text(before)
    config = root / (ported(root)["latent_upsampler"]["config"].partition(":")[0].replace(".", "/") + ".py")
    text = config.read_text()
    config.write_text(text.replace("(UpsamplerConfig):", "(VAEConfig):"))
    assert red(root) == {"FV309"}
    config.write_text(text)


def red(root: Path) -> set[str]:
    """The rules on buckets and bases that are red."""
    items = boundary.run(spec.load(root), Options()).items
    names = {item.name.split()[0] for item in items if item.verdict != "pass"}
    return names & {"FV308", "FV309", "FV310"}


def test_the_bake_says_where_and_why(baked: tuple[Path, str]) -> None:
    """Folder, base class, config and the name that FastVideo knows it by."""
    said = baked[1]
    assert "latent_upsampler (kind upsampler): fastvideo/models/upsamplers" in said
    assert "UpsamplerConfig" in said
    assert "FastVideo loads it as upsampler" in said
    assert "vocoder (kind vocoder): fastvideo/models/audio" in said


@pytest.mark.parametrize(
    ("name", "kind", "module"),
    [
        ("latent_upsampler", "upsampler", "upsampler"),
        ("spatial_upsampler", "upsampler", "spatial_upsampler"),
        ("temporal_latent_upsampler", "upsampler", "temporal_upsampler"),
        ("upscaler_2", "upsampler", "upsampler_2"),
        ("hifigan", "vocoder", "vocoder"),
        ("vae", "vae", "vae"),
    ],
)
def test_names_that_fastvideo_has_loaders_for(name: str, kind: str, module: str) -> None:
    """A component keeps its name where FastVideo has a loader for it, and has FastVideo's where not."""
    assert module_name(name, kind) == module


def test_the_load_tree_has_it_where_fastvideo_looks() -> None:
    """Files of a folder with another name lie below FastVideo's name too, and nothing else does."""
    plan = convert.Plan({"latent_upsampler/w.safetensors": Path("w"), "vae/w": Path("v")}, {"latent_upsampler/c": "{}"})
    convert._again(plan, "latent_upsampler", "upsampler")
    assert set(plan.links) == {"latent_upsampler/w.safetensors", "upsampler/w.safetensors", "vae/w"}
    assert plan.texts["upsampler/c"] == plan.texts["latent_upsampler/c"]


def test_a_library_that_is_a_pipelines_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The word of a model_index.json is resolved where diffusers has such a folder, and kept where not."""
    (tmp_path / "pipelines" / "ltx").mkdir(parents=True)
    (tmp_path / "pipelines" / "ltx" / "__init__.py").touch()
    monkeypatch.setattr(ask, "_environment", lambda root: ("python", tmp_path))
    words = ("ltx", "other", "diffusers", "transformers", "a.b")
    assert [ask.module(word) for word in words] == ["diffusers.pipelines.ltx", *words[1:]]


GATE = """
import json, subprocess, sys
from pathlib import Path
import generic_component
from fvport.models import warm
folder = Path(sys.argv[1])
release, port = generic_component.release(folder / "release"), folder / "generic_port"
answers = ["model_name=Generic", "model_slug=generic_port", f"official_weights={release}", "workload_type=t2v",
           "gate_device=cpu"]
both = ["latent_upsampler", "vocoder", "--json"]
steps = [["new", "--no-input", "--output-dir", folder, *answers], ["prep"], ["workspace"],
         ["mapping", "review", "--sign", "a test"], ["check", "mapping", *both], ["check", "keys", *both],
         ["check", "config", *both]]
found = []
with warm.session():
    for words in steps:
        more = [] if words[0] == "new" else ["--port", port]
        command = [sys.executable, "-m", "fvport.cli", *map(str, [*words, *more])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found.append([" ".join(map(str, words[:2])), done.returncode, (done.stdout + done.stderr)[-3000:]])
        if done.returncode and words[0] != "check":
            break
(folder / "out.json").write_text(json.dumps(found))
"""


@pytest.mark.heavy
def test_mapping_keys_and_config_are_green_at_once(tmp_path: Path) -> None:
    """Both through FastVideo's own loaders, with nothing written by hand."""
    paths = [str(HERE), str(HERE.parent)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "FVPORT_ENV": sys.prefix, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", GATE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    steps = json.loads((tmp_path / "out.json").read_text())
    assert [code for _, code, _ in steps] == [0] * 7, steps[-1]
