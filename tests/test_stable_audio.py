# SPDX-License-Identifier: Apache-2.0
"""Text to sound as Stable Audio does it: what a bake writes, its scheduler, and how a sound is recorded and judged."""

from __future__ import annotations

import ast
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from bake_helpers import T5, bake, release

from examples.tiny_stable_audio import make_official as tiny
from fvport.checks import _media, example, pipeline
from fvport.media import sound
from fvport.models import native_capture
from fvport.parity import generation, walk
from fvport.parity.walk_floors import measure_floors
from fvport.scaffold import render

RATE = 16000
CLASSES = {"edm": "EDMDPMSolverMultistepScheduler", "cosine": "CosineDPMSolverMultistepScheduler"}
NUMBER = "{}_number_conditioner.time_positional_embedding.0.weights"
PARTS: dict[str, Any] = {
    "projection_model": (
        "stable_audio",
        "StableAudioProjectionModel",
        {"_class_name": "StableAudioProjectionModel", **tiny.PROJECTION},
        {NUMBER.format(name): (128,) for name in ("start", "end")},
    ),
    "text_encoder": ("transformers", "T5EncoderModel", T5 | {"model_type": "t5"}, {"shared.weight": (512, 32)}),
    "tokenizer": ("transformers", "T5TokenizerFast", {}, {}),
    "transformer": (
        "diffusers",
        "StableAudioDiTModel",
        {"_class_name": "StableAudioDiTModel", **tiny.TRANSFORMER},
        {"proj_in.weight": (48, 8)},
    ),
    "vae": (
        "diffusers",
        "AutoencoderOobleck",
        {"_class_name": "AutoencoderOobleck", **tiny.VAE},
        {"decoder.conv2.weight_g": (2, 1, 1)},
    ),
}
PORTED = "transformer=port,text_encoder=port,projection_model=port,vae=reuse,scheduler=port"


def baked(tmp_path: Path, scheduler: str = "edm", components: str = PORTED) -> Path:
    cls, config = tiny.SCHEDULERS[scheduler]
    parts = {**PARTS, "scheduler": ("diffusers", cls, {"_class_name": cls, **config}, {})}
    weights = release(tmp_path / "w", "StableAudioPipeline", parts)
    return bake(tmp_path, official_weights=str(weights), workload_type="auto", components=components)


def text(root: Path, pattern: str) -> str:
    return "\n".join(file.read_text(encoding="utf-8") for file in sorted(root.glob(pattern)))


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return baked(tmp_path_factory.mktemp("stable_audio"))


# --- what a bake writes ----------------------------------------------------------------------------------------------


def test_a_release_needs_no_decision(port: Path) -> None:
    """Stages, conditioner, native sources, oracle and example are written whole, for one sound."""
    stages = text(port, "fastvideo/pipelines/basic/*/*_pipeline.py")
    order = [line.split('"')[1] for line in stages.splitlines() if "self.add_stage(" in line]
    assert order == [
        *("input_validation_stage", "prompt_encoding_stage", "conditioning_stage", "timestep_preparation_stage"),
        *("latent_preparation_stage", "denoising_stage", "decoding_stage"),
    ]
    assert 'given["projection_model"] = load_conditioner(' in stages
    assert "FVPORT-DECIDE" not in text(port, "**/*.py")
    assert "untried" not in text(port, "tests/local_tests/*/PLAN.md")
    assert "is not covered by the gate" not in text(port, "docs/inference/*.md")
    assert 'workload_type="t2a"' in text(port, "examples/inference/basic/*.py")
    for file in port.glob("**/*.py"):
        ast.parse(file.read_text())


def test_start_and_end_are_part_of_the_gates_call(port: Path) -> None:
    """None means the transformer's window, officially: 512 latents of 16 samples at 16 kHz; the gate ends before it."""
    declared = text(port, "tests/local_tests/*/port.toml")
    assert "audio_start_in_s = 0.0, audio_end_in_s = 0.5 }" in declared
    assert 'audio_end_in_s = { value = 0.512, source = "transformer/config.json' in declared
    assert 'metric = "mr_stft"' in declared
    script = text(port, "examples/inference/basic/*.py")
    assert "--fps" not in script
    assert "run_text_to_latent_similarity_test(" in text(port, "fastvideo/tests/ssim/*.py")
    assert 'parser.add_argument("--audio-end-in-s", type=float, default=0.512)' in script


def test_another_conditioner_is_left_to_a_person(tmp_path: Path) -> None:
    """Where FastVideo's own transformer is to be reused, no stage is known, and the plan says so at once."""
    root = baked(tmp_path, components=PORTED.replace("projection_model=port", "projection_model=external"))
    assert "text_and_sound" not in text(root, "fastvideo/pipelines/basic/**/*.py")
    assert "FVPORT-DECIDE" in text(root, "fastvideo/pipelines/basic/*/*_pipeline.py")
    assert "cover text to video, not t2a" in text(root, "tests/local_tests/*/PLAN.md")


def test_the_package_that_a_schedulers_noise_needs_is_named(tmp_path: Path, port: Path) -> None:
    """Stable Audio Open's scheduler needs torchsde, on both sides; the plan says so at once, and only then."""
    root = baked(tmp_path, "cosine")
    assert "torchsde" in text(root, "tests/local_tests/*/PLAN.md")
    assert "import torchsde" in text(root, "fastvideo/models/schedulers/*.py")
    assert "torchsde" not in text(port, "tests/local_tests/*/PLAN.md") + text(port, "fastvideo/**/*.py")


# --- the scheduler ---------------------------------------------------------------------------------------------------


def own_scheduler(name: str) -> Any:
    """The native class, without FastVideo: its base class asks for three methods and nothing else."""
    c = SimpleNamespace(official_class=CLASSES[name], native_class="Own")
    source = (
        render.environment()
        .get_template("edm_dpm_scheduler/native.py.jinja")
        .render(p=SimpleNamespace(model="Tiny"), c=c)
    )
    space = ModuleType("own_scheduler").__dict__
    source = source.replace("from fastvideo.models.schedulers.base import BaseScheduler", "class BaseScheduler: pass")
    exec(compile(source, "own_scheduler", "exec"), space)  # noqa: S102 - what the template made
    return space["Own"]


COSINE: list[dict[str, Any]] = [
    {},
    {"sigma_schedule": "karras", "solver_type": "heun"},
    {"solver_order": 1},
    tiny.SCHEDULERS["cosine"][1],
]

EDM = [
    {},
    {"sigma_schedule": "exponential", "prediction_type": "v_prediction", "sigma_data": 1.0},
    {"solver_order": 1, "thresholding": True},
    {"solver_order": 2, "solver_type": "heun", "lower_order_final": False},
    {"solver_order": 3, "euler_at_final": True},
    {"algorithm_type": "sde-dpmsolver++", "solver_type": "midpoint"},
    {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun", "prediction_type": "v_prediction"},
]


@pytest.mark.parametrize("config", EDM)
def test_the_native_scheduler_steps_as_the_official_one(config: dict[str, Any]) -> None:
    """Tables, scaled inputs and index exactly, each step within a rounding, for short runs and long ones."""
    from diffusers import EDMDPMSolverMultistepScheduler

    for steps in (1, 2, 3, 16):
        a, b = EDMDPMSolverMultistepScheduler(**config), own_scheduler("edm")(**config)
        a.set_timesteps(steps), b.set_timesteps(steps)
        assert torch.equal(a.timesteps, b.timesteps)
        assert torch.equal(a.sigmas, b.sigmas)
        assert a.init_noise_sigma == b.init_noise_sigma
        generator, noises = torch.Generator().manual_seed(3), [torch.Generator().manual_seed(5) for _ in range(2)]
        sample = own = 30 * torch.randn(2, 4, 9, generator=generator)
        for t in a.timesteps:
            output = torch.randn(2, 4, 9, generator=generator)
            assert torch.equal(a.scale_model_input(sample, t), b.scale_model_input(sample, t))
            own = b.step(output, t, sample, generator=noises[1], return_dict=False)[0]
            sample = a.step(output, t, sample, generator=noises[0], return_dict=False)[0]
            assert float((own - sample).abs().max()) <= 1e-6 * float(sample.abs().max())
            assert a.step_index == b.step_index


def noisy_steps(scheduler: Any, seeds: list[int], steps: int = 3) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """(what each step draws, what it gives) of a run with fixed outputs."""
    drawn: list[torch.Tensor] = []
    given = torch.Generator().manual_seed(3)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    scheduler.set_timesteps(steps)
    sample, found = 400 * torch.randn(2, 4, 9, generator=given), []
    for t in scheduler.timesteps:
        output = torch.randn(2, 4, 9, generator=given)
        with native_capture._drawn(drawn.append):
            told = generators if len(generators) > 1 else generators[0]
            sample = scheduler.step(output, t, sample, generator=told, return_dict=False)[0]
        found.append(sample)
    return drawn, found


@pytest.mark.filterwarnings("ignore:Should have t")  # torchsde, of a level one rounding outside its path
@pytest.mark.parametrize(("config", "seeds"), [*((config, [5]) for config in COSINE), ({}, [5, 8])])
def test_the_noise_of_every_step_is_the_official_one(config: dict[str, Any], seeds: list[int]) -> None:
    """Stable Audio's own scheduler: the same Brownian path to the bit, for one seed and for one a sample."""
    from diffusers import CosineDPMSolverMultistepScheduler

    for steps in (1, 3, 16):
        a = noisy_steps(CosineDPMSolverMultistepScheduler(**config), seeds, steps)
        b = noisy_steps(own_scheduler("cosine")(**config), seeds, steps)
        assert len(a[0]) == steps * len(seeds)
        assert all(torch.equal(x, y) for x, y in zip(a[0], b[0], strict=True))
        assert all(float((x - y).abs().max()) <= 1e-6 * float(x.abs().max()) for x, y in zip(a[1], b[1], strict=True))


def record_of_steps(seed: int, factor: float = 1.0) -> walk.Capture:
    drawn, found = noisy_steps(own_scheduler("cosine")(), [seed])
    tensors = {f"latents/{n:03d}": value * factor for n, value in enumerate(found)}
    return walk.Capture(tensors | {f"drawn/{n:03d}/00": value for n, value in enumerate(drawn)})


@pytest.mark.filterwarnings("ignore:Should have t")
def test_noise_of_another_seed_is_named_by_the_walk() -> None:
    """Other noise is named as such; a step that is wrong with the right noise is not; equal latents ask no more."""
    a = record_of_steps(5)
    floors = measure_floors(a.tensors, {name: value * (1 + 1e-6) for name, value in a.tensors.items()})

    def judged(b: walk.Capture) -> walk.Finding:
        found = walk._step_noise(a, b, floors, {})
        assert found is not None
        return found

    assert judged(a).ok
    assert judged(record_of_steps(5, 1.01)).ok
    other = judged(record_of_steps(6))
    assert not other.ok
    assert "the noise that step 0 draws differs (correlation" in other.reason
    silent = {name: value * 2 for name, value in a.tensors.items() if name.startswith("latents")}
    assert judged(walk.Capture(silent)).reason == "step 0 draws noise 1 times officially, 0 times natively"
    assert walk._step_noise(walk.Capture(silent), walk.Capture(silent), floors, {}) is None
    stage, plant = pipeline.FAULTS["step noise of another path"]
    faulty = plant(a, a, a)
    assert faulty is not None
    assert (stage, judged(walk.Capture({**a.tensors, **faulty})).ok) == ("step noise", False)


def test_a_solver_that_is_not_known_is_refused() -> None:
    """Each choice that the native scheduler has no arithmetic for is named."""
    with pytest.raises(ValueError, match="solver_type 'bh1': it is one of midpoint, heun"):
        own_scheduler("edm")(solver_type="bh1")
    assert "torchsde.BrownianInterval" in render.environment().get_template("edm_dpm_scheduler/native.py.jinja").render(
        p=SimpleNamespace(model="Tiny"), c=SimpleNamespace(official_class=CLASSES["cosine"], native_class="Own")
    )


# --- recording and walking -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(640,), (640, 2), (2, 640)])
def test_the_sound_that_is_written_is_recorded(shape: tuple[int, ...]) -> None:
    """(1, channels, samples), whichever way round a pipeline leaves it; none where it leaves none."""
    kept = native_capture._audio({"audio": np.zeros(shape, np.float32)})
    assert tuple(kept.shape) == (1, 1 if len(shape) == 1 else 2, 640)
    assert native_capture._audio({}) is None


def sides(**native: Any) -> tuple[walk.Capture, walk.Capture, Any]:
    generator = torch.Generator().manual_seed(2)
    heard = torch.randn(1, 2, 900, generator=generator)
    noisy = {"audio": heard * (1 + 1e-6)}
    info = {"audio_sample_rate": RATE}
    b = {"audio": native.get("audio", heard)}
    told = {"audio_sample_rate": native.get("rate", RATE)}
    return walk.Capture({"audio": heard}, info), walk.Capture(b, told), measure_floors({"audio": heard}, noisy)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: {"rate": 44100}, "sample rate is 16000 Hz officially, 44100 Hz natively"),
        (lambda x: {"audio": x[..., :-16]}, "900 samples officially, 884 natively"),
        (lambda x: {"audio": x.roll(1, -1)}, "the sound before any file differs"),
        (lambda x: {"audio": x.flip(1)}, "the sound before any file differs"),
        (lambda x: {"audio": x * 1.001}, "the sound before any file differs"),
        (lambda x: {"audio": x[:, :1]}, "has shape (1, 2, 900) officially, (1, 1, 900) natively"),
        (lambda x: {}, ""),
    ],
)
def test_a_wrong_sound_is_named_by_the_walk(change: Any, words: str) -> None:
    """Rate, length, moment, channels and loudness, each in its own words; an equal one is green."""
    first, _, _ = sides()
    found = walk._audio(*sides(**change(first.tensors["audio"])), {})
    assert found is not None
    assert found.ok == (not words)
    assert words in found.reason


def test_a_native_side_without_sound_is_red() -> None:
    """A pipeline that only leaves its placeholder of frames made nothing."""
    a, b, floors = sides()
    found = walk._audio(a, walk.Capture({}, b.info), floors, {})
    assert found is not None
    assert (found.ok, found.reason) == (False, "the native side made no sound")


def test_planted_faults_of_sound_change_the_record() -> None:
    """Another moment, and seconds left out, of a record that has them; none of one that has not."""
    a, b, _ = sides()
    told = walk.Capture({**b.tensors, "eval/000/0/global_hidden_states": torch.ones(1, 1, 4)}, b.info)
    stage, plant = pipeline.FAULTS["sound of another moment"]
    assert stage == "audio"
    assert torch.equal(plant(a, told, a)["audio"], b.tensors["audio"].roll(1, -1))  # type: ignore[index]
    stage, plant = pipeline.FAULTS["seconds left out"]
    assert stage == "conditioning"
    assert not plant(a, told, a)["eval/000/0/global_hidden_states"].any()  # type: ignore[index]
    assert plant(a, b, a) is None


def test_the_seconds_are_the_conditioners() -> None:
    """What is wrong in the global token is sent to the component that makes it, not to the text encoder."""
    finding = walk.Finding("conditioning", False, "", {"of": "global_hidden_states"})
    assert pipeline._kind(finding) == "conditioner"


# --- calls and files -------------------------------------------------------------------------------------------------


def test_start_and_end_are_changed_one_at_a_time() -> None:
    """Later begun and earlier ended, each with a floor of its own; a call without seconds has no such variation."""
    base = generation.Call("p0s0", {"audio_start_in_s": 0.0, "audio_end_in_s": 0.5}, "a fox", "", 0)
    found = generation._other_seconds(base)
    assert [call.arguments for call in found] == [
        {"audio_start_in_s": 0.125, "audio_end_in_s": 0.5},
        {"audio_start_in_s": 0.0, "audio_end_in_s": 0.375},
    ]
    assert all(call.own_floor for call in found)
    assert generation._other_seconds(generation.Call("p0s0", {}, "a fox", "", 0)) == []


def declared(tmp_path: Path, **call: float) -> Any:
    (tmp_path / "tree" / "vae").mkdir(parents=True, exist_ok=True)
    (tmp_path / "tree" / "vae" / "config.json").write_text('{"sampling_rate": 16000, "audio_channels": 2}')
    return SimpleNamespace(
        official_tree=tmp_path / "tree",
        components={"vae": SimpleNamespace(kind="vae", weights="vae", name="vae")},
        official=SimpleNamespace(pipeline=SimpleNamespace(call=call)),
    )


def tone(samples: int = 8000, channels: int = 2, rate: int = RATE, level: float = 0.3) -> sound.Sound:
    wave = level * np.sin(2 * np.pi * 440 * np.arange(samples) / rate)
    return sound.of_array(np.stack([wave] * channels).astype(np.float32), rate)


def wav(tmp_path: Path, **made: Any) -> Path:
    _media.write_wav(tmp_path / "a.wav", tone(**made))
    return tmp_path / "a.wav"


@pytest.mark.parametrize(
    ("made", "name", "words"),
    [
        ({}, "", ""),
        ({"samples": 6000}, "shape", "it has 6000 samples (0.375 s), 8000 are declared"),
        ({"channels": 1}, "shape", "it has 1 channels, 2 are declared"),
        ({"rate": 44100}, "shape", "its sample rate is 44100 Hz, 16000 Hz is declared"),
        ({"level": 0.0}, "content", "it is silent"),
        ({"level": 3.0}, "content", "it is clipped"),
    ],
)
def test_the_examples_sound_is_looked_at(tmp_path: Path, made: dict[str, Any], name: str, words: str) -> None:
    """Rate, channels and length by the call and the official VAE; silence and clipping as what it holds."""
    file = wav(tmp_path, **made)
    found = {
        item.name: item for item in example.look(declared(tmp_path, audio_start_in_s=0.0, audio_end_in_s=0.5), file)
    }
    assert {item.name for item in found.values() if item.verdict == "fail"} == ({name} if name else set())
    assert not name or words in found[name].reason


@pytest.mark.parametrize(("cut", "words"), [(3000, "truncated"), (10, "the written file")])
def test_a_broken_sound_of_the_example_is_red(tmp_path: Path, cut: int, words: str) -> None:
    """A file that ends early, and one whose header is gone, are said to be so and nothing else."""
    file = wav(tmp_path)
    file.write_bytes(file.read_bytes()[:cut])
    (item,) = example.look(declared(tmp_path, audio_start_in_s=0.0, audio_end_in_s=0.5), file)
    assert item.verdict == "fail"
    assert words in item.reason


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:9000]), "the written file is truncated"),
        (lambda file: file.write_bytes(b"RIFF" + bytes(200)), "the written file"),
        (lambda file: wav(file.parent, samples=6000), "6000 samples (0.375 s), 8000 are declared"),
        (lambda file: wav(file.parent, level=0.0), "it is silent"),
        (lambda file: wav(file.parent, rate=44100), "its sample rate is 44100 Hz, 16000 Hz is declared"),
        (lambda file: wav(file.parent, level=0.1), "differs by mr_stft"),
    ],
)
def test_a_harmed_file_is_red_in_ssim(tmp_path: Path, harm: Any, words: str) -> None:
    """The written file is judged by itself: what was right before it may be cut, silenced or mislabelled in it."""
    file, reference = wav(tmp_path), tone()
    assert _media.judge_sound_file("p0s0", reference, file, "mr_stft", 0.1, True).verdict == "pass"
    harm(file)
    item = _media.judge_sound_file("p0s0", reference, file, "mr_stft", 0.1, True)
    assert item.verdict == "fail"
    assert words in item.reason


def test_a_sound_of_no_declared_length_is_not_passed(tmp_path: Path) -> None:
    """Without start and end in the call nothing says how long the sound must be."""
    found = {item.name: item for item in example.look(declared(tmp_path), wav(tmp_path))}
    assert found["shape"].verdict == "blocked"
    assert "nothing says its samples" in found["shape"].reason
