# SPDX-License-Identifier: Apache-2.0
"""Image to video: what a bake writes for it, the picture that both sides are given, conditioning that goes missing."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bake_helpers import DIT, WAN, bake, release

from fvport import spec
from fvport.checks import pipeline, ssim
from fvport.errors import BlockedError
from fvport.parity import generation, pictures, walk, walk_floors

JOINED = {**DIT, "in_channels": 36, "image_dim": 24, "added_kv_proj_dim": 48}
TOWER = {"architectures": ["CLIPVisionModel"], "model_type": "clip_vision_model", "hidden_size": 24, "image_size": 32}
TOWER |= {"num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 48, "patch_size": 8}
WITH_TOWER = {
    **WAN,
    "transformer": (*WAN["transformer"][:2], JOINED, WAN["transformer"][3]),
    "image_encoder": ("transformers", "CLIPVisionModel", TOWER, {"vision_model.post_layernorm.weight": (24,)}),
    "image_processor": ("transformers", "CLIPImageProcessor", {}, {}),
}
PORTED = "transformer=port,text_encoder=port,image_encoder=port,vae=reuse,scheduler=reuse"


def baked(tmp_path: Path, parts: dict[str, Any], components: str) -> Path:
    weights = release(tmp_path / "w", "WanImageToVideoPipeline", parts)
    return bake(tmp_path, official_weights=str(weights), workload_type="i2v", components=components)


def text(root: Path, pattern: str) -> str:
    return "\n".join(file.read_text(encoding="utf-8") for file in sorted(root.glob(pattern)))


def test_a_release_with_image_tokens_and_channels_needs_no_decision(tmp_path: Path) -> None:
    """Stages, oracle and example of Wan's image to video are written whole; the registry's order is FastVideo's."""
    root = baked(tmp_path, WITH_TOWER, PORTED)
    stages = text(root, "fastvideo/pipelines/basic/*/*_pipeline.py")
    order = [line.split('"')[1] for line in stages.splitlines() if "self.add_stage(" in line]
    assert order == [
        *("input_validation_stage", "prompt_encoding_stage", "image_encoding_stage", "conditioning_stage"),
        *("timestep_preparation_stage", "latent_preparation_stage", "image_latent_stage", "denoising_stage"),
        "decoding_stage",
    ]
    everything = text(root, "**/*.py") + text(root, "tests/local_tests/*/P*.md")
    assert "FVPORT-DECIDE" not in everything
    assert "cover text to video" not in everything
    assert "hidden_states[-2]" in text(root, "fastvideo/pipelines/basic/*/stages/*.py")
    assert '"--image"' in text(root, "examples/inference/basic/*.py")
    assert 'Image.open(call["image"])' in text(root, "tests/local_tests/*/oracle.py")
    for file in root.glob("fastvideo/**/*.py"):
        ast.parse(file.read_text())


def test_a_release_without_an_image_tower_has_only_the_channels(tmp_path: Path) -> None:
    """Wan 2.2's image to video: no image encoder, so no stage for one."""
    parts = {k: v for k, v in WITH_TOWER.items() if not k.startswith("image")}
    parts["transformer"] = (*WAN["transformer"][:2], {**DIT, "in_channels": 36}, WAN["transformer"][3])
    root = baked(tmp_path, parts, PORTED.replace("image_encoder=port,", ""))
    stages = text(root, "fastvideo/pipelines/basic/**/*.py")
    assert "image_latent_stage" in stages
    assert "ImageEncodingStage" not in stages


@pytest.mark.parametrize("change", [{"in_channels": 48}, {"pos_embed_seq_len": 34}], ids=["no_mask", "last_frame"])
def test_another_way_to_condition_is_left_to_a_person(tmp_path: Path, change: dict[str, Any]) -> None:
    """Other channels, or a last frame too: no stage is guessed, and the place is named."""
    parts = {**WITH_TOWER, "transformer": (*WAN["transformer"][:2], {**JOINED, **change}, WAN["transformer"][3])}
    root = baked(tmp_path, parts, PORTED)
    assert "FVPORT-DECIDE" in text(root, "fastvideo/pipelines/basic/*/*_pipeline.py")
    assert "image_conditioning" not in text(root, "fastvideo/pipelines/basic/**/*.py")
    assert "no stage of the generated pipeline uses it" in text(root, "tests/local_tests/*/PLAN.md")


def test_both_sides_get_one_picture_and_one_call_has_another(tmp_path: Path) -> None:
    """The drawn picture is the same file for both sides and each time; the variation `image` changes it alone."""
    port = spec.load(baked(tmp_path, WITH_TOWER, PORTED))
    calls = {call.name: call for call in generation.calls(port)}
    base, other = calls["p0s0"], calls["image"]
    assert base.official("cpu")["image"] == base.native(16)["arguments"]["image_path"] == base.image
    assert {call.image for name, call in calls.items() if name != "image"} == {base.image}
    assert other.image != base.image
    assert other.varies == "image"
    assert (other.arguments, other.prompt, other.seed) == (base.arguments, base.prompt, base.seed)
    assert generation.calls(port)[0].image == base.image
    assert "changed: image" in pipeline.expected(port)


def test_a_declared_picture_is_read_and_a_missing_one_is_said(tmp_path: Path) -> None:
    """`images` in port.toml names files from the root; one that is not there is no drawn one."""
    root = baked(tmp_path, WITH_TOWER, PORTED)
    file = next(root.glob("tests/local_tests/*/port.toml"))
    file.write_text(file.read_text().replace("\nprompts = ", '\nimages = ["assets/fox.png"]\nprompts = '))
    port = spec.load(root)
    with pytest.raises(BlockedError, match=r"assets/fox\.png"):
        generation.calls(port)
    (root / "assets").mkdir()
    (root / "assets" / "fox.png").write_bytes(b"png")
    assert generation.calls(port)[0].image == str(root / "assets" / "fox.png")
    assert "file:assets/fox.png" in generation.inputs(port)


def test_every_prompt_with_every_seed_is_asked_for(tmp_path: Path) -> None:
    """Two prompts and two seeds are four generations: the gate wants each one's stages, and its media."""
    root = baked(tmp_path, WITH_TOWER, PORTED)
    file = next(root.glob("tests/local_tests/*/port.toml"))
    given = file.read_text().replace("\nseeds = [0]", "\nseeds = [0, 1234]")
    file.write_text(given.replace("\nprompts = [", '\nprompts = ["two boats on a calm lake", '))
    port = spec.load(root)
    names = ["p0s0", "p0s1234", "p1s0", "p1s1234"]
    calls = [call for call in generation.calls(port) if not call.varies]
    assert [call.name for call in calls] == names
    assert len({(call.prompt, call.seed) for call in calls}) == 4
    assert {"latents", *(f"latents ({name})" for name in names[1:])} <= set(pipeline.expected(port))
    assert {*names, *(f"{name}: before the codec" for name in names)} <= set(ssim.expected(port))


def test_pictures_are_no_flat_colours() -> None:
    """Both drawn pictures have detail, and they differ."""
    a, b = pictures.pixels(120, 96), pictures.pixels(120, 96, 1)
    assert a.shape == (96, 120, 3)
    assert min(a.std(), b.std()) > 40
    assert (a != b).mean() > 0.5


# --- conditioning that is not what the official denoiser is told -----------------------------------------------------


def record(image: float = 1.0, channels: float = 1.0, tokens: bool = True, joined: bool = True) -> dict[str, Any]:
    """One step of a generation whose denoiser is told of a picture by tokens and by channels."""
    generator = torch.Generator().manual_seed(0)
    noise, beside = (torch.randn(1, n, 2, 4, 4, generator=generator) for n in (4, 5))
    states, picture = torch.randn(1, 6, 8, generator=generator), torch.randn(1, 3, 8, generator=generator)
    output = noise * 0.5
    made = {"initial_noise": noise, "timesteps": torch.tensor([1000.0]), "eval/000/0/output": output}
    made["eval/000/0/hidden_states"] = torch.cat([noise, beside * channels], 1) if joined else noise
    made["eval/000/0/encoder_hidden_states"] = states
    if tokens:
        made["eval/000/0/encoder_hidden_states_image"] = picture * image
    made |= {"model_output/000": output, "latents/000": noise - output, "frames": output[:, :3].permute(0, 2, 3, 4, 1)}
    return walk.with_latent_condition(made)


OFFICIAL = record()
FLOORS = walk_floors.measure_floors(OFFICIAL, {k: v * (1 + 2.0**-23) for k, v in OFFICIAL.items()})


@pytest.mark.parametrize(
    ("native", "word", "kind"),
    [
        ({"tokens": False}, "no encoder_hidden_states_image", "image_encoder"),
        ({"joined": False}, "no latent_condition", "vae"),
        ({"image": 1.01}, "encoder_hidden_states_image differ", "image_encoder"),
        ({"channels": 0.0}, "latent_condition differ", "vae"),
    ],
)
def test_image_conditioning_that_is_off_is_named(native: dict[str, Any], word: str, kind: str) -> None:
    """Tokens or channels left out, or of another picture: the stage is conditioning, with whose fault it may be."""
    wrong = walk.first_wrong(walk.walk(walk.Capture(OFFICIAL), walk.Capture(record(**native)), FLOORS))
    assert wrong is not None
    assert wrong.stage == "conditioning"
    assert word in wrong.reason
    assert pipeline._kind(wrong) == kind


def test_the_same_conditioning_passes_and_a_planted_gap_does_not() -> None:
    """Equal records agree; the fault that the check plants by itself is seen where it belongs."""
    a, b = walk.Capture(OFFICIAL), walk.Capture(record())
    assert walk.first_wrong(walk.walk(a, b, FLOORS)) is None
    stage, plant = pipeline.FAULTS["image left out"]
    wrong = walk.first_wrong(walk.walk(a, walk.Capture({**OFFICIAL, **plant(a, b, a)}), FLOORS))
    assert wrong is not None
    assert wrong.stage == stage == "conditioning"
    plain = walk.Capture(record(tokens=False, joined=False))
    assert plant(plain, plain, plain) is None


def test_another_picture_on_one_side_is_an_argument_that_differs() -> None:
    """The name of the picture holds its content: a side that was told another one is told so."""
    common: dict[str, Any] = {"arguments": {}, "seed": 0}
    a = SimpleNamespace(info={**common, "image": "a.png"})
    for native, verdict in (("x/a.png", "pass"), ("x/b.png", "fail"), (None, "fail")):
        b = SimpleNamespace(info={"arguments": {"image_path": native, "negative_prompt": ""}, "seed": 0})
        assert pipeline._arguments(a, b).verdict == verdict  # type: ignore[arg-type]


def test_the_docs_page_shows_the_picture_and_hides_nothing(tmp_path: Path) -> None:
    """The page's call and command give the picture that the example asks for; what the gate covers is not denied."""
    page = text(baked(tmp_path, WITH_TOWER, PORTED), "docs/inference/*.md")
    assert 'image_path="picture.png"' in page
    assert "--image picture.png`" in page
    assert "not covered by the gate" not in page
