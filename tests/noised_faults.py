# SPDX-License-Identifier: Apache-2.0
"""Faults put into the stages of a port that begins from a noised input, all in one load of FastVideo.

The frame rate of a call, which nothing computes with, says which fault its stages make.
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

FIRST = 100  # the frame rate of the first fault; no rate of a file is so high, so FastVideo leaves no frame out

FAULTS = {  # of either workload -> the stage that must be named
    "none": "",
    "strength ignored": "model evaluations",
    "first steps in place of the last": "timesteps",
    "schedule shifted": "timesteps",
    "range 0..1": "input pixels",
    "channels turned round": "input pixels",
    "another resize filter": "input pixels",
    "bias of the VAE": "encode",
    "not normalised": "input latents",
    "noise of another seed": "initial noise",
    "noise of the whole schedule's first timestep": "noised start",
    "no noise": "noised start",
    "noise alone": "noised start",
    "noise added and not mixed": "noised start",
    "negative prompt for the prompt": "conditioning",
    "guidance c+g(c-u)": "guidance",
    "latents scaled before decoding": "decode input",
}

BROKEN = """

from fastvideo.models.vision_utils import load_image, load_video, numpy_to_pt, normalize, pil_to_numpy, resize

_NAMES = {names!r}
_NOW = [""]
_cut, _encode = {prefix}StrengthStage.forward, {prefix}MediaLatentStage.forward
_retrieve, _start = {prefix}MediaLatentStage.retrieve_latents, {prefix}NoisedStartStage.forward


def cut(self, batch, fastvideo_args):
    _NOW[0] = _NAMES.get(int(batch.fps or 0), "none")
    kept = batch.strength
    if _NOW[0] == "strength ignored":
        batch.strength = 1.0
    batch = _cut(self, batch, fastvideo_args)
    batch.strength = kept
    count, scheduler = len(batch.timesteps), self.scheduler
    if _NOW[0] == "first steps in place of the last":
        batch.timesteps = scheduler.timesteps[:count]
        scheduler.set_begin_index(0)
    if _NOW[0] == "schedule shifted":
        scheduler.timesteps = scheduler.timesteps * 0.99
        batch.timesteps = scheduler.timesteps[-count:]
    if _NOW[0] == "noise drawn before the posterior":
        torch.randn(1, 16, 1, batch.height // 8, batch.width // 8, generator=batch.generator[0])
    if _NOW[0] == "negative prompt for the prompt":
        batch.prompt_embeds = batch.negative_prompt_embeds
    return batch


def again(batch, resample="lanczos", skip=0):
    frames = load_video(batch.video_path) if batch.video_path else [load_image(batch.image_path)]
    count = batch.num_frames if batch.video_path else 1
    frames = [resize(frame, batch.height, batch.width, resample=resample) for frame in frames[skip:skip + count]]
    return normalize(numpy_to_pt(pil_to_numpy(frames))).permute(1, 0, 2, 3).unsqueeze(0)


def encode(self, batch, fastvideo_args):
    bias, name = self.vae.encoder.conv_in.bias, _NOW[0]
    prepare = {prefix}MediaLatentStage._prepare_control_video_tensor

    def changed(stage, given, *args):
        pixels = prepare(stage, given, *args)
        flat = pixels.ndim == 4
        if name == "range 0..1":
            pixels = pixels / 2 + 0.5
        if name == "channels turned round":
            pixels = pixels.flip(1)
        if name == "another resize filter":
            pixels = again(batch, resample="bilinear")
        if name == "begun a frame later":
            pixels = again(batch, skip=1)
        if name == "frames backwards":
            pixels = pixels.flip(2)
        return pixels.squeeze(2) if flat and pixels.ndim == 5 else pixels

    {prefix}MediaLatentStage._prepare_control_video_tensor = changed
    try:
        if name == "bias of the VAE":
            bias.data += 0.05
        batch = _encode(self, batch, fastvideo_args)
    finally:
        {prefix}MediaLatentStage._prepare_control_video_tensor = prepare
        if name == "bias of the VAE":
            bias.data -= 0.05
    scale, shift = self.vae.scaling_factor, self.vae.shift_factor
    if name == "not normalised":
        batch.video_latent = batch.video_latent / scale + shift
    if name == "times the deviation":
        batch.video_latent = batch.video_latent / scale / scale
    if name == "not shifted":
        batch.video_latent = batch.video_latent + shift * scale
    return batch


def retrieve(self, output, generator=None, sample_mode="sample"):
    if _NOW[0] == "posterior sampled":
        return output.sample(generator)
    if _NOW[0] == "mode of the posterior":
        return output.mode().unsqueeze(2)
    if _NOW[0] == "posterior of another seed":
        generator = torch.Generator("cpu").manual_seed(7)
    return _retrieve(self, output, generator, sample_mode)


def start(self, batch, fastvideo_args):
    left, noise = batch.timesteps, batch.latents
    if _NOW[0] == "noise of another seed":
        batch.latents = torch.randn(noise.shape, generator=torch.Generator("cpu").manual_seed(int(batch.seed) + 1))
    if _NOW[0] == "noise of the whole schedule's first timestep":
        batch.timesteps = self.scheduler.timesteps[:1]
        begin = self.scheduler.begin_index
        self.scheduler._begin_index = None
    batch = _start(self, batch, fastvideo_args)
    if _NOW[0] == "noise of the whole schedule's first timestep":
        self.scheduler._begin_index = begin
    batch.timesteps = left
    if _NOW[0] == "no noise":
        batch.latents = batch.video_latent.to(batch.latents)
    if _NOW[0] == "noise alone":
        batch.latents = noise
    if _NOW[0] == "noise added and not mixed":
        share = float(left[0]) / 1000
        batch.latents = batch.latents + share * batch.video_latent.to(batch.latents)
    return batch


{prefix}StrengthStage.forward, {prefix}MediaLatentStage.forward = cut, encode
{prefix}MediaLatentStage.retrieve_latents, {prefix}NoisedStartStage.forward = retrieve, start
"""


def prepared(release: str, variable: str, build: Path) -> PortCopy:
    """The port before any check; the environment's `variable` names one that is made already (it is copied)."""
    made = os.environ.get(variable)
    demo.environment()
    if not made:
        return PortCopy(tiny.prepare(release, build))
    return PortCopy(Path(shutil.copytree(made, build / release, symlinks=True)))


def named(port: PortCopy, prefix: str, faults: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """{fault: stage that was named} of the faults for which another stage was named than the one that must be."""
    names = {FIRST + index: name for index, name in enumerate(faults)}
    rates = {name: rate for rate, name in names.items()}
    slug = port.root.name
    stages = f"fastvideo/pipelines/basic/{slug}/stages"
    stage = port.root / stages / "noised_media.py"
    stage.write_text(stage.read_text() + BROKEN.format(names=names, prefix=prefix))
    formula = "unconditional + scale * (prediction - unconditional)"
    other = f"(prediction if batch.fps == {rates['guidance c+g(c-u)']} else unconditional)"
    port.edit(f"{stages}/denoising.py", formula, formula.replace("unconditional", other, 1))
    scaled = f"batch.latents = latents * (0.9 if batch.fps == {rates['latents scaled before decoding']} else 1)"
    port.edit(f"{stages}/denoising.py", "        batch.latents = latents\n", f"        {scaled}\n")
    there = spec.load(port.root)
    base = generation.calls(there)[0]
    monkeypatch.setattr(generation, "calls", lambda port: [base])
    official = generation.official(there, "cpu")
    out = port.root / ".fvport" / "faults"
    calls = [base.native(rate) | {"name": name} for rate, name in names.items()]
    native_pipeline.run(there, calls, out, out / "log.txt", "cpu")
    floors, wrong = pipeline.floors_of(official, base.name), {}
    a = generation.read(official / base.name)
    assert a is not None
    for name, wanted in faults.items():
        b = generation.read(out / name)
        assert b is not None, name
        first = walk.first_wrong(walk.walk(a, b, floors))
        print(name, "->", first.stage if first else "", first.reason if first else "green")
        if (first.stage if first else "") != wanted:
            wrong[name] = first.stage if first else "nothing"
    return wrong
