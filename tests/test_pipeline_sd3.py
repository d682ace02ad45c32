# SPDX-License-Identifier: Apache-2.0
"""Text to image as Stable Diffusion 3 does it: what a bake writes, and what it leaves to a person."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import torch
from bake_helpers import SCHEDULER, T5, bake, release

CLIP = {"architectures": ["CLIPTextModelWithProjection"], "model_type": "clip_text_model", "hidden_size": 12}
CLIP |= {"intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "max_position_embeddings": 77}
CLIP |= {"vocab_size": 100, "projection_dim": 12, "hidden_act": "gelu", "eos_token_id": 1, "layer_norm_eps": 1e-5}
DIT = {"_class_name": "SD3Transformer2DModel", "sample_size": 16, "patch_size": 2, "in_channels": 16, "num_layers": 1}
DIT |= {"attention_head_dim": 24, "num_attention_heads": 2, "joint_attention_dim": 32, "caption_projection_dim": 48}
DIT |= {"pooled_projection_dim": 24, "out_channels": 16, "pos_embed_max_size": 24, "qk_norm": "rms_norm"}
VAE = {"_class_name": "AutoencoderKL", "block_out_channels": [8, 8, 8, 8], "latent_channels": 16, "layers_per_block": 1}
VAE |= {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
VAE |= {"norm_num_groups": 4, "scaling_factor": 1.5, "shift_factor": 0.06, "use_quant_conv": False}
SD3: dict[str, Any] = {
    "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler", SCHEDULER, {}),
    "text_encoder": ("transformers", "CLIPTextModelWithProjection", CLIP, {"text_projection.weight": (12, 12)}),
    "text_encoder_2": ("transformers", "CLIPTextModelWithProjection", CLIP, {"text_projection.weight": (12, 12)}),
    "text_encoder_3": ("transformers", "T5EncoderModel", T5 | {"model_type": "t5"}, {"shared.weight": (512, 32)}),
    "tokenizer": ("transformers", "CLIPTokenizer", {}, {}),
    "tokenizer_2": ("transformers", "CLIPTokenizer", {}, {}),
    "tokenizer_3": ("transformers", "T5Tokenizer", {}, {}),
    "transformer": ("diffusers", "SD3Transformer2DModel", DIT, {"proj_out.weight": (64, 48)}),
    "vae": ("diffusers", "AutoencoderKL", VAE, {"decoder.conv_in.weight": (8, 16, 3, 3)}),
}
PORTED = "transformer=port,vae=port,text_encoder=port,text_encoder_2=port,text_encoder_3=port,scheduler=reuse"


def baked(tmp_path: Path, parts: dict[str, Any], components: str = PORTED) -> Path:
    weights = release(tmp_path / "w", "StableDiffusion3Pipeline", parts)
    return bake(tmp_path, official_weights=str(weights), workload_type="auto", components=components)


def text(root: Path, pattern: str) -> str:
    return "\n".join(file.read_text(encoding="utf-8") for file in sorted(root.glob(pattern)))


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return baked(tmp_path_factory.mktemp("sd3"), SD3)


def test_a_release_with_three_text_encoders_needs_no_decision(port: Path) -> None:
    """Stages, pipeline config and example are written whole, for one image."""
    stages = text(port, "fastvideo/pipelines/basic/*/*_pipeline.py")
    order = [line.split('"')[1] for line in stages.splitlines() if "self.add_stage(" in line]
    assert order == [
        *("input_validation_stage", "prompt_encoding_stage", "conditioning_stage", "timestep_preparation_stage"),
        *("latent_preparation_stage", "denoising_stage", "decoding_stage"),
    ]
    assert "FVPORT-DECIDE" not in text(port, "**/*.py")
    assert "untried" not in text(port, "tests/local_tests/*/PLAN.md")
    assert "pooled_projections" in text(port, "fastvideo/pipelines/basic/*/stages/denoising.py")
    assert 'workload_type="t2i"' in text(port, "examples/inference/basic/*.py")
    for file in port.glob("fastvideo/**/*.py"):
        ast.parse(file.read_text())


def test_an_encoder_with_fewer_positions_is_given_fewer_tokens(port: Path) -> None:
    """CLIP has 77 positions and T5 none; the config says so, and the text stage takes its lengths from there."""
    config = text(port, "fastvideo/configs/pipelines/*.py")
    assert "text_encoder_max_lengths: tuple[int, ...] = (77, 77, TEXT_LENGTH)" in config
    stage = text(port, "fastvideo/pipelines/basic/*/stages/text_and_image.py")
    assert "lengths = fastvideo_args.pipeline_config.text_encoder_max_lengths\n" in stage
    assert "model_max_length" not in stage


def test_the_size_that_the_call_leaves_open_is_the_checkpoints(port: Path) -> None:
    """None means sample_size times the VAE's factor (16 x 8), officially; FastVideo's own default is a video's size."""
    presets = text(port, "fastvideo/pipelines/basic/*/presets.py")
    assert '"height": 128,  # transformer/config.json' in presets
    assert '"width": 128,' in presets
    assert '"num_frames": 1,' in presets


def test_another_set_of_text_encoders_is_left_to_a_person(tmp_path: Path) -> None:
    """Without T5 the shared text stage stands there, and the decision is named."""
    parts = {name: part for name, part in SD3.items() if not name.endswith("_3")}
    root = baked(tmp_path, parts, PORTED.replace("text_encoder_3=port,", ""))
    assert "text_and_image" not in text(root, "fastvideo/pipelines/basic/**/*.py")
    assert "FVPORT-DECIDE" in text(root, "fastvideo/configs/pipelines/*.py")
    assert "text to image is untried" in text(root, "tests/local_tests/*/PLAN.md") + text(root, "**/PORT_STATUS.md")


def test_the_official_float64_run_begins_with_the_same_noise(port: Path) -> None:
    """torch draws another stream in float64; a floor measured from other noise would be as large as the picture."""
    tree = ast.parse(text(port, "tests/local_tests/*/oracle.py"))
    function = next(node for node in tree.body if getattr(node, "name", "") == "_noise_of_float32")
    space: dict[str, Any] = {"torch": torch, "contextlib": __import__("contextlib")}
    exec(compile(ast.Module([function], []), "oracle", "exec"), space)  # noqa: S102 - a function that the template made

    def drawn(dtype: torch.dtype) -> torch.Tensor:
        return torch.randn((2, 64), generator=torch.Generator().manual_seed(3), dtype=dtype)

    assert not torch.equal(drawn(torch.float64).float(), drawn(torch.float32))
    before = torch.randn
    with space["_noise_of_float32"]():
        assert torch.equal(drawn(torch.float64).float(), drawn(torch.float32))
        assert torch.equal(drawn(torch.bfloat16), drawn(torch.float32).bfloat16())
    assert torch.randn is before


def test_the_docs_page_loads_it_as_an_image_model(port: Path) -> None:
    """`VideoGenerator` takes a model for text to video where nobody says otherwise, and refuses one frame."""
    page = text(port, "docs/inference/*.md")
    assert 'num_gpus=1, workload_type="t2i")' in page
    assert "not covered by the gate" not in page
