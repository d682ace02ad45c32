# SPDX-License-Identifier: Apache-2.0
"""Faults of text to sound on the real port, each named at its stage. (The whole gate of it: test_pipeline_tiny.py.)

One load of FastVideo generates with all of them: the frame rate of a call, which nothing computes with, says which one
its stages make. The call has a negative prompt and a start behind zero.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import PortCopy

from examples import demo, tiny
from fvport import spec
from fvport.checks import pipeline
from fvport.models import native_pipeline
from fvport.parity import generation, walk

pytestmark = pytest.mark.heavy
STAGES = "fastvideo/pipelines/basic/tiny_stable_audio/stages"
FIRST = 100  # the frame rate of the first fault

FAULTS = {  # fault -> the stage that must be named
    "none": "",
    "other steps": "model evaluations",
    "first level 60": "timesteps",
    "levels of another schedule": "sigmas",
    "noise of another seed": "initial noise",
    "noise without the first level": "initial noise",
    "seconds left out": "conditioning",
    "start left out": "conditioning",
    "start and end swapped": "conditioning",
    "negative prompt ignored": "conditioning",
    "padding not hidden": "conditioning",
    "global token of zeros": "conditioning",
    "guidance c+g(c-u)": "guidance",
    "step noise of another seed": "step noise",
    "step noise of another path": "step noise",
    "no step noise": "step noise",
    "step noise too loud": "latents",
    "prediction taken for noise": "latents",
    "latents divided by a scale": "decode input",
    "sample rate 44100": "audio",
    "not cut": "audio",
    "cut from the beginning": "audio",
    "channels swapped": "audio",
    "half as loud": "audio",
}

BROKEN = """
import sys

_NAMES = {names!r}
_NOW = [""]
_tell, _encode = {prefix}TextAndSecondsStage.forward, {prefix}TextAndSecondsStage._encode
_prepare, _decode = {prefix}SoundLatentStage.forward, {prefix}SoundDecodingStage.forward


def tell(self, batch, fastvideo_args):
    _NOW[0] = _NAMES.get(int(batch.fps or 0), "none")
    kept = batch.negative_prompt
    if _NOW[0] == "negative prompt ignored":
        batch.negative_prompt = ""
    batch = _tell(self, batch, fastvideo_args)
    batch.negative_prompt = kept
    if _NOW[0] == "global token of zeros":
        batch.clip_embedding_pos = batch.clip_embedding_neg = [torch.zeros_like(batch.clip_embedding_pos[0])]
    return batch


def encode(self, texts, seconds, fastvideo_args):
    start, end = seconds
    if _NOW[0] == "start left out":
        start = 0.0
    if _NOW[0] == "start and end swapped":
        start, end = end, start
    if _NOW[0] != "padding not hidden":
        told, front = _encode(self, texts, (start, end), fastvideo_args)
    else:
        whole = self.conditioner.forward
        self.conditioner.forward = lambda text, start, end, attention_mask: whole(text, start, end)
        try:
            told, front = _encode(self, texts, (start, end), fastvideo_args)
        finally:
            del self.conditioner.forward
    if _NOW[0] == "seconds left out":
        told[:, -2:] = 0
    return told, front


def prepare(self, batch, fastvideo_args):
    if _NOW[0] == "noise of another seed":
        batch.generator = torch.Generator("cpu").manual_seed(int(batch.seed) + 1)
    batch = _prepare(self, batch, fastvideo_args)
    scheduler = self.scheduler
    vars(scheduler).pop("_data", None)
    if _NOW[0] == "noise without the first level":
        batch.latents = batch.latents / scheduler.init_noise_sigma
    if _NOW[0] == "first level 60":
        scheduler.timesteps = batch.timesteps = scheduler.timesteps * 1.0466
    if _NOW[0] == "levels of another schedule":
        scheduler.sigmas = scheduler.sigmas * 1.01
    if "step noise" in _NOW[0]:
        noise, config = sys.modules[type(scheduler).__module__].BrownianNoise, scheduler.config
        low, seed = config.sigma_min, int(batch.seed)
        if _NOW[0] == "step noise of another seed":
            seed += 1
        if _NOW[0] == "step noise of another path":
            low /= 2
        path = noise(batch.latents, low, config.sigma_max, [seed])
        factor = {{"no step noise": 0.0, "step noise too loud": 1.1}}.get(_NOW[0], 1.0)
        scheduler._noise = lambda *levels: factor * path(*levels) if factor else torch.zeros_like(batch.latents)
    if _NOW[0] == "prediction taken for noise":
        scheduler._data = lambda output, sample: sample - scheduler.sigmas[scheduler._step_index] * output
    return batch


def decode(self, batch, fastvideo_args):
    start, end = batch.audio_start_in_s, batch.audio_end_in_s
    if _NOW[0] == "latents divided by a scale":
        batch.latents = batch.latents / 0.9
    if _NOW[0] == "not cut":
        batch.audio_start_in_s, batch.audio_end_in_s = 0.0, 0.512
    if _NOW[0] == "cut from the beginning":
        batch.audio_start_in_s, batch.audio_end_in_s = 0.0, end - start
    batch = _decode(self, batch, fastvideo_args)
    batch.audio_start_in_s, batch.audio_end_in_s = start, end
    if _NOW[0] == "sample rate 44100":
        batch.extra["audio_sample_rate"] = 44100
    if _NOW[0] == "channels swapped":
        batch.extra["audio"] = batch.extra["audio"][:, ::-1].copy()
    if _NOW[0] == "half as loud":
        batch.extra["audio"] = batch.extra["audio"] / 2
    return batch


{prefix}TextAndSecondsStage.forward, {prefix}TextAndSecondsStage._encode = tell, encode
{prefix}SoundLatentStage.forward, {prefix}SoundDecodingStage.forward = prepare, decode
"""


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> PortCopy:
    """The port before any check; FVPORT_TEST_T2A names one that is made already (it is copied)."""
    build = tmp_path_factory.mktemp("t2a")
    made = os.environ.get("FVPORT_TEST_T2A")
    demo.environment()
    if not made:
        return PortCopy(tiny.prepare("tiny_stable_audio", build))
    return PortCopy(Path(shutil.copytree(made, build / "tiny_stable_audio", symlinks=True)))


def test_faults_of_sound_are_named(sound: PortCopy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Schedule, noise, text, seconds, guidance, steps, decoding, rate, cut and channels: each at its own stage."""
    names = {FIRST + index: name for index, name in enumerate(FAULTS)}
    rates = {name: rate for rate, name in names.items()}
    stage = sound.root / STAGES / "text_and_sound.py"
    stage.write_text(stage.read_text() + BROKEN.format(names=names, prefix="TinyStableAudio"))
    formula = "unconditional + scale * (prediction - unconditional)"
    other = f"(prediction if batch.fps == {rates['guidance c+g(c-u)']} else unconditional)"
    sound.edit(f"{STAGES}/denoising.py", formula, formula.replace("unconditional", other, 1))
    port = spec.load(sound.root)
    base = next(call for call in generation.calls(port) if call.name == "negative")
    base = replace(base, varies="", arguments={**base.arguments, "audio_start_in_s": 0.1})
    monkeypatch.setattr(generation, "calls", lambda port: [base])
    official = generation.official(port, "cpu")
    out = sound.root / ".fvport" / "faults"
    calls = [base.native(rate) | {"name": name} for rate, name in names.items()]
    calls[list(FAULTS).index("other steps")]["arguments"]["num_inference_steps"] = 3
    native_pipeline.run(port, calls, out, out / "log.txt", "cpu")
    floors, wrong = pipeline.floors_of(official, base.name), {}
    a = generation.read(official / base.name)
    assert a is not None
    for name, stage_name in FAULTS.items():
        b = generation.read(out / name)
        assert b is not None, name
        first = walk.first_wrong(walk.walk(a, b, floors))
        print(name, "->", first.stage if first else "", first.reason if first else "green")
        if (first.stage if first else "") != stage_name:
            wrong[name] = first.stage if first else "nothing"
    assert not wrong
