# SPDX-License-Identifier: Apache-2.0
"""Baked files pass FastVideo's formatter and linters as they are, whatever the checkpoint holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tomllib
from bake_helpers import DIT, SCHEDULER, T5, WAN, bake, release
from test_pipeline_sd3 import PORTED as SD3_PORTED
from test_pipeline_sd3 import SD3

STYLE = tomllib.loads((Path(__file__).parent / "data" / "fastvideo_style.toml").read_text())
LONG = {
    **DIT,
    "rates": [0.123456789] * 40,
    "names": ["a long name of a thing"] * 9,
    "tree": {"a": [1] * 60, "b": "c" * 90},
}
CASES = {
    "covered": ("WanPipeline", WAN, {}),
    "another_slug": (
        "WanVideoToVideoPipeline",
        WAN,
        {"model_slug": "a_rather_long_name_of_a_video_model_v2", "workload_type": "v2v"},
    ),
    "reuse": ("WanPipeline", WAN, {"components": "transformer=reuse", "gate_device": "cuda"}),
    "external": (
        "WanImageToVideoPipeline",
        WAN,
        {"components": "text_encoder=external,vae=external", "workload_type": "i2v"},
    ),
    "two_encoders": (
        "WanPipeline",
        {
            **WAN,
            "text_encoder_2": ("transformers", "UMT5EncoderModel", {**T5, "d_model": 64}, {"shared.weight": (2, 2)}),
        },
        {"components": "text_encoder=port,text_encoder_2=port,transformer=port"},
    ),
    "image_to_video": (
        "WanImageToVideoPipeline",
        {
            **WAN,
            "transformer": (*WAN["transformer"][:2], {**WAN["transformer"][2], "in_channels": 36}, {}),
            "image_encoder": ("transformers", "CLIPVisionModel", {"hidden_size": 24}, {"c": (2,)}),
            "image_processor": ("transformers", "CLIPImageProcessor", {}, {}),
        },
        {"components": "transformer=port,image_encoder=port", "workload_type": "i2v"},
    ),
    "image_to_image": ("StableDiffusion3Img2ImgPipeline", SD3, {"workload_type": "auto", "components": SD3_PORTED}),
    "two_denoisers": (
        "WanPipeline",
        {**WAN, "transformer_2": WAN["transformer"]},
        {"components": "transformer=port,transformer_2=port"},
    ),
    "skeletons": (
        "NewThingPipeline",
        {
            "transformer": ("diffusers", "NewThingTransformer3DModel", LONG, {"a": (2, 2)}),
            "vae": ("diffusers", "NewThingAutoencoder", {"a": None, "b": 1.5}, {"b": (2,)}),
            "text_encoder": ("transformers", "NewThingTextModel", {"hidden_size": 8}, {"c": (2,)}),
            "image_encoder": ("transformers", "NewThingVisionModel", {}, {"c": (2,)}),
            "scheduler": ("diffusers", "NewThingScheduler", SCHEDULER, {}),
        },
        {"components": "auto"},
    ),
}


MORE = ("image_to_image",)  # whose parts other cases have, but for one file


@pytest.fixture(scope="module", params=[pytest.param(n, marks=[pytest.mark.heavy] * (n in MORE)) for n in CASES])
def port(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pipeline, components, given = CASES[request.param]
    folder = tmp_path_factory.mktemp("style")
    return bake(folder, official_weights=str(release(folder / "w", pipeline, components)), **given)


def tool(port: Path, *words: str) -> str:
    """What a linter finds in the port; '' where it is content."""
    done = subprocess.run([sys.executable, "-m", *words], cwd=port, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_formatter_changes_nothing(port: Path) -> None:
    """yapf with FastVideo's settings leaves every generated Python file as it is."""
    style = "{" + ", ".join(f"{key}: {value}" for key, value in STYLE["yapf"].items()) + "}"
    assert tool(port, "yapf", "--style", style, "--diff", "--recursive", ".") == ""


def test_ruff_finds_nothing(port: Path, tmp_path: Path) -> None:
    """ruff with FastVideo's rules."""
    rules = STYLE["ruff"]["lint"]
    config = tmp_path / "ruff.toml"
    config.write_text(f"line-length = 120\n[lint]\nselect = {rules['select']}\nignore = {rules['ignore']}\n")
    assert tool(port, "ruff", "check", "--no-cache", "--config", str(config), ".") == ""


def test_codespell_finds_nothing(port: Path) -> None:
    """codespell with FastVideo's word list, on everything but the lock files."""
    words = ["--ignore-words-list", STYLE["codespell_ignore"], "--skip", "*.lock,./official_weights"]
    assert tool(port, "codespell_lib", *words, ".") == ""


@pytest.mark.heavy
def test_mypy_finds_nothing(port: Path) -> None:
    """mypy as FastVideo's hook calls it, on the files that the hook covers (models, tests and examples are exempt)."""
    names = [
        str(f.relative_to(port)) for part in ("configs", "pipelines") for f in (port / "fastvideo" / part).rglob("*.py")
    ]
    flags = [flag if flag != "3.10" else "3.11" for flag in STYLE["mypy"]]
    assert tool(port, "mypy", "--no-incremental", *flags, *sorted(names)) == ""
