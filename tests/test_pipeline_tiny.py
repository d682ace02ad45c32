# SPDX-License-Identifier: Apache-2.0
"""Each tiny release from nothing to a green gate, and faults of image conditioning on the real port.

One load of FastVideo generates with all the faults: the frame rate of a call, which nothing computes with, says which
one its stages make.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from conftest import PortCopy

from examples import demo, tiny
from fvport import spec
from fvport.checks import pipeline
from fvport.models import native_pipeline
from fvport.parity import generation, walk

pytestmark = pytest.mark.heavy
STAGES = "fastvideo/pipelines/basic/tiny_wan_i2v/stages"
FIRST = 100  # the frame rate of the first fault

IMAGE = "encoder_hidden_states_image"
BESIDE = walk.BESIDE_NOISE
FAULTS = {  # fault -> what the finding is of
    "none": "",
    "mask after the picture": BESIDE,
    "picture before the noise": BESIDE,
    "mask inverted": BESIDE,
    "mask of the last frame": BESIDE,
    "first frame in 0..1": BESIDE,
    "first frame with another mean and std": BESIDE,
    "first frame resized by another filter": BESIDE,
    "latents without the VAE's mean and std": BESIDE,
    "posterior sampled": BESIDE,
    "no picture beside the noise": BESIDE,
    "tokens of another mean and std": IMAGE,
    "tokens of another resize": IMAGE,
    "tokens of the last layer": IMAGE,
    "tokens all zero": IMAGE,
    "tokens ignored": IMAGE,
    "tokens ignored without the prompt": IMAGE,
}

BROKEN = """

_NAMES = {names!r}
_NOW = [""]
_encode, _join = {prefix}ImageEncodingStage.forward, {prefix}ImageLatentStage.forward
_prepare, _retrieve = {prefix}ImageLatentStage.preprocess, {prefix}ImageLatentStage.retrieve_latents


def encode(self, batch, fastvideo_args):
    _NOW[0] = _NAMES.get(int(batch.fps or 0), "none")
    processor, picture = self.image_processor, batch.pil_image
    if _NOW[0] == "tokens of another mean and std":
        self.image_processor = lambda **given: processor(**given, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    if _NOW[0] == "tokens of another resize":
        self.image_processor = lambda **given: processor(**given, resample=2)
    try:
        batch = _encode(self, batch, fastvideo_args)
    finally:
        self.image_processor = processor
    if _NOW[0] == "tokens of the last layer":
        with set_forward_context(current_timestep=0, attn_metadata=None):
            pixels = processor(images=picture, return_tensors="pt")
            batch.image_embeds[-1] = self.image_encoder(**pixels, output_hidden_states=True).hidden_states[-1]
    if _NOW[0] == "tokens all zero":
        batch.image_embeds[-1] = torch.zeros_like(batch.image_embeds[-1])
    return batch


def join(self, batch, fastvideo_args):
    batch = _join(self, batch, fastvideo_args)
    mask, picture = batch.image_latent[:, :4], batch.image_latent[:, 4:]
    if _NOW[0] == "mask after the picture":
        mask, picture = picture, mask
    if _NOW[0] == "mask inverted":
        mask = 1 - mask
    if _NOW[0] == "mask of the last frame":
        mask = mask.flip(2)
    if _NOW[0] == "no picture beside the noise":
        mask, picture = mask * 0, picture * 0
    if _NOW[0] == "latents without the VAE's mean and std":
        picture = picture / self.vae.scaling_factor + self.vae.shift_factor
    batch.image_latent = torch.cat([mask, picture], dim=1)
    if _NOW[0] == "tokens ignored":
        batch.image_embeds.clear()
    return batch


def prepare(self, image, *args, **kwargs):
    if _NOW[0] == "first frame resized by another filter":
        image = image.resize((kwargs["width"], kwargs["height"]), resample=2)
    pixels = _prepare(self, image, *args, **kwargs)
    if _NOW[0] == "first frame in 0..1":
        pixels = pixels / 2 + 0.5
    if _NOW[0] == "first frame with another mean and std":
        mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        pixels = (pixels / 2 + 0.5 - mean) / std
    return pixels


def retrieve(self, output, generator=None, sample_mode="argmax"):
    if _NOW[0] == "posterior sampled":
        return output.sample(torch.Generator("cpu").manual_seed(7))
    return _retrieve(self, output, generator, sample_mode)


{prefix}ImageEncodingStage.forward, {prefix}ImageLatentStage.forward = encode, join
{prefix}ImageLatentStage.preprocess, {prefix}ImageLatentStage.retrieve_latents = prepare, retrieve
"""


@pytest.mark.parametrize("release", sorted(tiny.RELEASES))
def test_a_tiny_release_from_nothing_to_a_green_gate(release: str, tmp_path: Path) -> None:
    """Bake, prep, workspace, signature and all eleven checks on a CPU, with no edit by hand."""
    assert tiny.main([release, "--build", str(tmp_path)]) == 0


@pytest.fixture(scope="module")
def i2v(tmp_path_factory: pytest.TempPathFactory) -> PortCopy:
    """The image-to-video port before any check; FVPORT_TEST_I2V names one that is made already (it is copied)."""
    build = tmp_path_factory.mktemp("i2v")
    made = os.environ.get("FVPORT_TEST_I2V")
    demo.environment()
    if not made:
        return PortCopy(tiny.prepare("tiny_wan_i2v", build))
    return PortCopy(Path(shutil.copytree(made, build / "tiny_wan_i2v", symlinks=True)))


def test_faults_of_image_conditioning_are_named(i2v: PortCopy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Channel order, mask, normalisation, resize filter, tokens: conditioning is the first stage that differs."""
    names = {FIRST + index: name for index, name in enumerate(FAULTS)}
    stage = i2v.root / STAGES / "image_conditioning.py"
    stage.write_text(stage.read_text() + BROKEN.format(names=names, prefix="TinyWanI2v"))
    rates = {name: rate for rate, name in names.items()}
    denoising, joined = f"{STAGES}/denoising.py", "[noisy, batch.image_latent.to(noisy)]"
    backwards = f"[:: -1 if batch.fps == {rates['picture before the noise']} else 1]"
    i2v.edit(denoising, f"torch.cat({joined}, dim=1)", f"torch.cat({joined}{backwards}, dim=1)")
    mask = "batch.negative_attention_mask, "
    without = f"[] if batch.fps == {rates['tokens ignored without the prompt']} else "
    i2v.edit(denoising, f"{mask}batch.image_embeds", f"{mask}{without}batch.image_embeds")
    port = spec.load(i2v.root)
    base = generation.calls(port)[0]
    monkeypatch.setattr(generation, "calls", lambda port: [base])
    official = generation.official(port, "cpu")
    out = i2v.root / ".fvport" / "faults"
    calls = [base.native(rate) | {"name": name} for rate, name in names.items()]
    native_pipeline.run(port, calls, out, out / "log.txt", "cpu")
    floors, wrong = pipeline.floors_of(official, base.name), {}
    a = generation.read(official / base.name)
    assert a is not None
    for name, of in FAULTS.items():
        b = generation.read(out / name)
        assert b is not None, name
        first = walk.first_wrong(walk.walk(a, b, floors))
        found = (first.stage, first.metrics.get("of")) if first else ("nothing", "")
        print(name, "->", first.stage if first else "", first.reason if first else "green")
        if found != (("conditioning", of) if of else ("nothing", "")):
            wrong[name] = found
    assert not wrong
