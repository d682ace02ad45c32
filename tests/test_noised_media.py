# SPDX-License-Identifier: Apache-2.0
"""Video to video and image to image that begin from a noised input: what a bake writes, calls, media, the walk."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import shutil
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from bake_helpers import DIT, WAN, bake, release
from test_pipeline_sd3 import PORTED as SD3_PORTED
from test_pipeline_sd3 import SD3

from fvport import spec
from fvport.checks import pipeline
from fvport.errors import BlockedError, UsageError
from fvport.parity import clips, declared, generating, generation, walk, walk_floors, walk_media
from fvport.scaffold import context

V2V = "transformer=port,text_encoder=port,vae=reuse,scheduler=reuse"
PIPELINES = {"v2v": ("WanVideoToVideoPipeline", WAN, V2V), "i2i": ("StableDiffusion3Img2ImgPipeline", SD3, SD3_PORTED)}


def baked(tmp_path: Path, workload: str, parts: Any = None, official: str = "") -> Path:
    pipeline_class, usual, components = PIPELINES[workload]
    weights = release(tmp_path / "w", official or pipeline_class, parts or usual)
    return bake(tmp_path, official_weights=str(weights), workload_type="auto", components=components)


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {workload: baked(tmp_path_factory.mktemp(workload), workload) for workload in PIPELINES}


def text(root: Path, pattern: str) -> str:
    return "\n".join(file.read_text(encoding="utf-8") for file in sorted(root.glob(pattern)))


# --- what a bake writes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workload", sorted(PIPELINES))
def test_a_release_needs_no_decision(ports: dict[str, Path], workload: str) -> None:
    """Stages in their order (posterior before noise, noise before it is mixed in), oracle, presets, example, page."""
    root = ports[workload]
    stages = text(root, "fastvideo/pipelines/basic/*/*_pipeline.py")
    order = [line.split('"')[1] for line in stages.splitlines() if "self.add_stage(" in line]
    assert order == [
        *("input_validation_stage", "prompt_encoding_stage", "conditioning_stage", "timestep_preparation_stage"),
        *("media_latent_stage", "latent_preparation_stage", "noised_start_stage", "denoising_stage", "decoding_stage"),
    ]
    assert "FVPORT-DECIDE" not in text(root, "**/*.py")
    plan = text(root, "tests/local_tests/*/PLAN.md")
    assert "cannot pass" not in plan
    assert f"workload {workload}: read from the name" in plan
    thing = "video" if workload == "v2v" else "image"
    assert f'"--{thing}", required=True' in text(root, "examples/inference/basic/*.py")
    assert f"--{thing} " in text(root, "docs/inference/*.md")
    assert "not covered by the gate" not in text(root, "docs/inference/*.md")
    assert f'"{thing}_path": ' in text(root, "fastvideo/tests/ssim/*.py")
    for file in root.glob("**/*.py"):
        ast.parse(file.read_text())


@pytest.mark.parametrize(("workload", "named"), [("v2v", "WanPipeline"), ("i2i", "StableDiffusion3Pipeline")])
def test_a_published_release_names_the_pipeline_from_text(tmp_path: Path, workload: str, named: str) -> None:
    """The same files serve both; the answer decides, the plan says which class is the official one, and why."""
    official, parts, components = PIPELINES[workload]
    weights = release(tmp_path / "w", named, parts)
    given = {"model_name": "A B", "model_slug": "a_b", "official_weights": str(weights), "workload_type": workload}
    p = context.build({**given, "components": components, "fastvideo": "0.2.1", "gate_device": "cpu"}, tmp_path)
    assert (p.official_pipeline, p.renoises) == (official, True)
    assert any(f"the release names {named}" in text for text in p.inferred)


@pytest.mark.parametrize(("workload", "strength"), [("v2v", 0.8), ("i2i", 0.6)])
def test_strength_is_the_official_calls(ports: dict[str, Path], workload: str, strength: float) -> None:
    """In the gate's call, the preset (with its source), the example; and FastVideo is to get a field for it."""
    root, source = ports[workload], PIPELINES[workload][0]
    port = spec.load(root)
    assert port.official.pipeline.call["strength"] == strength
    assert port.fastvideo.fields == {"strength": "float"}
    assert f'"strength": {strength},  # {source}.__call__' in text(root, "fastvideo/pipelines/basic/*/presets.py")
    assert f'"--strength", type=float, default={strength}' in text(root, "examples/inference/basic/*.py")


def test_video_to_video_is_registered_with_a_reason(ports: dict[str, Path]) -> None:
    """FastVideo has no such workload: an empty tuple, and port.toml says why."""
    from fvport.workspace import names

    port = spec.load(ports["v2v"])
    assert "    workload_types=()," in names.register_block(port, with_hub_id=False)
    assert "no V2V workload" in port.port.reason
    assert "    workload_types=(WorkloadType.I2I, )," in names.register_block(spec.load(ports["i2i"]), False)


@pytest.mark.parametrize(
    ("official", "dit", "words"),
    [
        ("CogVideoXVideoToVideoPipeline", {}, "CogVideoXVideoToVideoPipeline yet: both sides are given the video"),
        ("WanVideoToVideoPipeline", {"in_channels": 36}, "no stage of the generated pipeline uses it"),
    ],
)
def test_another_way_is_left_to_a_person(tmp_path: Path, official: str, dit: dict[str, Any], words: str) -> None:
    """Another pipeline, or channels beside the noise: no stage is guessed, and the place is named."""
    parts = {**WAN, "transformer": (*WAN["transformer"][:2], {**DIT, **dit}, WAN["transformer"][3])}
    root = baked(tmp_path, "v2v", parts, official)
    assert "noised_media" not in text(root, "fastvideo/pipelines/basic/**/*.py")
    assert "FVPORT-DECIDE" in text(root, "fastvideo/pipelines/basic/*/*_pipeline.py")
    assert words in text(root, "tests/local_tests/*/PLAN.md")


def test_video_to_audio_says_what_is_missing_and_gives_the_rest(tmp_path: Path) -> None:
    """No library pipeline to take stages from: said so, with what a person names; components are baked as ever."""
    weights = release(tmp_path / "w", "SomeVideoToAudioPipeline", WAN)
    root = bake(tmp_path, official_weights=str(weights), workload_type="auto", components=V2V)
    plan = text(root, "tests/local_tests/*/PLAN.md")
    assert "workload v2a" in plan
    assert "has no pipeline from video to audio" in plan
    assert "official_repo" in plan
    assert "MMAudio" in plan
    assert (root / "fastvideo/models/dits/tiny_wan.py").is_file()
    assert generation.calls(spec.load(root))[0].video.endswith(".mp4")


HELD = {  # argument of the official calls -> where FastVideo's user says the same
    "video": "video_path",
    "image": "image_path",
    "generator": "seed",
    "num_images_per_prompt": "num_videos_per_prompt",
}
CONFIG = ("output_type", "prompt_embeds")  # told to from_pretrained, or to generate_video beside SamplingParam
LEFT = {  # no user of FastVideo can say these for any model: it refuses them by name
    *("timesteps", "return_dict", "attention_kwargs", "callback_on_step_end", "callback_on_step_end_tensor_inputs"),
    *("negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds", "joint_attention_kwargs"),
    *("prompt_2", "prompt_3", "negative_prompt_2", "negative_prompt_3", "clip_skip", "mu"),
    *("ip_adapter_image", "ip_adapter_image_embeds"),
}


@pytest.mark.parametrize(
    ("workload", "file"),
    [
        ("v2v", "wan/pipeline_wan_video2video.py"),
        ("i2i", "stable_diffusion_3/pipeline_stable_diffusion_3_img2img.py"),
    ],
)
def test_every_argument_of_the_official_call_has_its_place(ports: dict[str, Path], workload: str, file: str) -> None:
    """A field of SamplingParam (with the port's own), another name of one, the config, or known to have none."""
    given = set(call_arguments(package("diffusers") / "pipelines" / file))
    own = set(spec.load(ports[workload]).fastvideo.fields)
    fields = set(class_fields(package("fastvideo") / "api/sampling_param.py", "SamplingParam"))
    assert not own & fields
    placed = {name for name in given if HELD.get(name, name) in fields | own} | (given & set(CONFIG))
    assert given - placed <= LEFT
    assert {"strength", "num_inference_steps", "guidance_scale", "latents"} <= placed


def package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    assert found is not None
    return Path(str(found.origin)).parent


def call_arguments(file: Path) -> list[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name == "__call__":
            return [arg.arg for arg in node.args.args if arg.arg != "self"]
    return []


def class_fields(file: Path, owner: str) -> list[str]:
    nodes = ast.parse(file.read_text(encoding="utf-8")).body
    (found,) = [node for node in nodes if isinstance(node, ast.ClassDef) and node.name == owner]
    return [item.target.id for item in found.body if isinstance(item, ast.AnnAssign)]  # type: ignore[union-attr]


# --- the strength stage ----------------------------------------------------------------------------------------------


def strength_stage(port: Path) -> Any:
    """The port's class, with a base class that makes a table of as many timesteps as it is asked for."""
    source = text(port, "fastvideo/pipelines/basic/*/stages/noised_media.py")
    (node,) = [n for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name.endswith("StrengthStage")]
    space = ModuleType("stage").__dict__
    space |= {"ForwardBatch": Any, "FastVideoArgs": Any, "STRENGTH": 0.8, "TimestepPreparationStage": Base}
    exec(compile(ast.Module([node], []), "stage", "exec"), space)  # noqa: S102 - what the template made
    return space[node.name]


class Base:
    def __init__(self) -> None:
        self.begins: list[int] = []
        self.scheduler = SimpleNamespace(order=1, set_begin_index=self.begins.append)

    def forward(self, batch: Any, fastvideo_args: Any) -> Any:
        batch.timesteps = torch.arange(batch.num_inference_steps)
        return batch


@pytest.mark.parametrize(
    ("workload", "steps", "strength", "first"),
    [
        *(("v2v", 4, 0.8, 1), ("v2v", 5, 0.5, 3), ("v2v", 10, 0.35, 7), ("v2v", 3, 1.0, 0), ("v2v", 50, None, 10)),
        *(("i2i", 4, 0.6, 1), ("i2i", 5, 0.5, 2), ("i2i", 10, 0.35, 6), ("i2i", 3, 1.0, 0), ("i2i", 10, 0.05, 9)),
    ],
)
def test_the_schedule_is_cut_as_each_pipeline_cuts_it(
    ports: dict[str, Path], workload: str, steps: int, strength: float | None, first: int
) -> None:
    """Wan rounds the steps that are run, Stable Diffusion 3 the ones that are not, and tells its scheduler."""
    stage = strength_stage(ports[workload])()
    batch = stage.forward(SimpleNamespace(strength=strength, num_inference_steps=steps), None)
    assert batch.timesteps.tolist() == list(range(first, steps))
    assert stage.begins == ([first] if workload == "i2i" else [])


@pytest.mark.parametrize(("strength", "words"), [(1.2, "share of the schedule"), (0.1, "leaves none of 4 steps")])
def test_a_strength_that_leaves_nothing_is_refused(ports: dict[str, Path], strength: float, words: str) -> None:
    """More than all of the schedule, or none of it, is said and not generated."""
    with pytest.raises(ValueError, match=words):
        strength_stage(ports["v2v"])().forward(SimpleNamespace(strength=strength, num_inference_steps=4), None)


# --- calls and the drawn video ---------------------------------------------------------------------------------------


def test_both_sides_get_one_video_and_one_call_has_another(ports: dict[str, Path]) -> None:
    """One file for all calls but the one that changes it; strength is changed by itself, with a floor of its own."""
    port = spec.load(ports["v2v"])
    calls = {call.name: call for call in generation.calls(port)}
    base, other, weaker = calls["p0s0"], calls["video"], calls["strength"]
    assert base.official("cpu")["video"] == base.native(16)["arguments"]["video_path"] == base.video
    assert {call.video for name, call in calls.items() if name != "video"} == {base.video}
    assert (other.video != base.video, other.arguments) == (True, base.arguments)
    assert (weaker.arguments["strength"], weaker.varies) == (0.56, "strength")
    assert all(call.own_floor for call in calls.values() if call.varies)  # measured, not taken over from the base
    wanted = set(pipeline.expected(port))
    assert {"changed: video", "changed: strength", *walk_media.STAGES} <= wanted
    assert {f"planted: {name}" for name in walk_media.FAULTS} <= wanted


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 20, 50])
@pytest.mark.parametrize("strength", [0.05, 0.1, 0.29, 0.3, 0.5, 0.6667, 0.8, 1.0])
def test_no_call_is_left_without_a_step(steps: int, strength: float) -> None:
    """A short call keeps two steps; another strength leaves one, and runs another number of them."""
    call = {"num_inference_steps": steps, "strength": strength}
    if declared.too_few(call):
        assert int(steps * strength) == 0
        return
    short = declared.short_steps(generation.SHORT, strength)
    assert (int(short * strength) >= 2, int((short - 1) * strength) < 2 or short == generation.SHORT) == (True, True)
    for many in {steps, min(steps, short)}:
        other = declared.other_strength({**call, "num_inference_steps": many})
        assert 0 < other <= 1
        assert int(many * other) >= 1
        assert int(many * other) != int(many * strength) or many == 1


def test_a_call_that_leaves_no_step_is_refused(tmp_path: Path, ports: dict[str, Path]) -> None:
    """One sentence with both figures, before either side is begun."""
    root = Path(shutil.copytree(ports["v2v"], tmp_path / "port", symlinks=True))
    file = next(root.glob("tests/local_tests/*/port.toml"))
    file.write_text(file.read_text().replace("strength = 0.8", "strength = 0.01"))
    with pytest.raises(UsageError, match=r"strength 0\.01 of \d+ steps is less than one step"):
        generation.calls(spec.load(root))


def test_the_video_is_longer_and_larger_than_the_call(ports: dict[str, Path]) -> None:
    """So that cutting and resizing are compared, also where a call has more frames."""
    import imageio

    port = spec.load(ports["v2v"])
    call = port.official.pipeline.call
    frames = imageio.mimread(clips.of_call(port, call, 16), memtest=False)
    assert len(frames) == call["num_frames"] + clips.LONGER
    assert frames[0].shape != (call["height"], call["width"], 3)
    a, b = (list(clips.frames(64, 48, 5, number)) for number in (0, 1))
    assert all((x != y).mean() > 0.2 for x, y in itertools.pairwise(a))
    assert (a[0] != b[0]).mean() > 0.5


def test_a_declared_video_is_read_and_a_missing_one_is_said(tmp_path: Path, ports: dict[str, Path]) -> None:
    """`videos` in port.toml names files from the root; one that is not there is no drawn one."""
    root = Path(shutil.copytree(ports["v2v"], tmp_path / "port", symlinks=True))
    file = next(root.glob("tests/local_tests/*/port.toml"))
    file.write_text(file.read_text().replace("\nprompts = ", '\nvideos = ["assets/fox.mp4"]\nprompts = '))
    port = spec.load(root)
    with pytest.raises(BlockedError, match=r"assets/fox\.mp4"):
        generation.calls(port)
    (root / "assets").mkdir()
    (root / "assets" / "fox.mp4").write_bytes(b"mp4")
    assert generation.calls(port)[0].video == str(root / "assets" / "fox.mp4")
    assert "file:assets/fox.mp4" in generation.inputs(port)


def test_a_video_replaced_at_its_path_is_generated_from_again(
    tmp_path: Path, ports: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What either side made of another file of the same name is no answer: both keys hold the content."""
    root = Path(shutil.copytree(ports["v2v"], tmp_path / "port", symlinks=True))
    file = next(root.glob("tests/local_tests/*/port.toml"))
    file.write_text(file.read_text().replace("\nprompts = ", '\nvideos = ["fox.mp4"]\nprompts = '))
    seen: dict[str, list[Any]] = {"official": [], "native": []}

    def kept(port: Any, side: Any, wanted: list[Any]) -> Path:
        seen[side.name].append(side.folder(wanted).name)
        return tmp_path / side.name

    monkeypatch.setattr(generating, "kept_folder", kept)
    for content in (b"one", b"one", b"two"):
        (root / "fox.mp4").write_bytes(content)
        generation.native(spec.load(root), "cpu")
    for keys in seen.values():
        assert [key == keys[0] for key in keys] == [True, True, False]


# --- the walk --------------------------------------------------------------------------------------------------------


def record(
    pixels: float = 0.0,
    encoded: float = 1.0,
    latents: float = 1.0,
    seed: int = 2,
    level: float = 800.0,
    share: float = 0.8,
    taken: float = 800.0,
    told: bool = True,
) -> dict[str, Any]:
    """One step from a noised input, as a recorder leaves it."""
    generator = torch.Generator().manual_seed(0)
    shown, mean, output = (torch.randn(1, 4, 2, 4, 4, generator=generator) for _ in range(3))
    clean, noise = mean * 0.7 * latents, torch.randn(mean.shape, generator=torch.Generator().manual_seed(seed))
    start = (1 - share) * clean + share * noise
    made = {
        "timesteps": torch.tensor([1000.0, 800.0]),
        "media/0/pixels": shown + pixels,
        "media/0/encoded": mean * encoded,
        "initial_noise": start,
        "step_timestep/000": torch.tensor([taken]),
        "eval/000/0/hidden_states": start,
        "eval/000/0/output": output,
        "model_output/000": output,
        "latents/000": start - output,
        "frames": output[:, :3].permute(0, 2, 3, 4, 1),
    }
    begin = {"start/latents": clean, "start/noise": noise, "start/timestep": torch.tensor([level])}
    return made | (begin if told else {})


OFFICIAL = record()
FLOORS = walk_floors.measure_floors(OFFICIAL, {k: v * (1 + 2.0**-23) for k, v in OFFICIAL.items()})


@pytest.mark.parametrize(
    ("native", "stage", "words"),
    [
        ({"taken": 1000.0}, "timesteps", "step 0 is taken at timestep 800 officially, 1000 natively"),
        ({"pixels": 0.01}, "input pixels", "what the VAE is given to encode differ"),
        ({"encoded": 1.001}, "encode", "what the VAE makes of it"),
        ({"latents": 1.01}, "input latents", "the input's latents differ"),
        ({"seed": 3}, "initial noise", "other seed, generator or dtype"),
        ({"level": 1000.0}, "noised start", "the noise is that of timestep 800 officially, 1000 natively"),
        ({"share": 0.79}, "noised start", "what the first step begins from differs"),
    ],
)
def test_each_stage_of_a_noised_input_is_named(native: dict[str, Any], stage: str, words: str) -> None:
    """Cut, pixels, VAE, normalisation, noise, its level and its share: the first that differs."""
    wrong = walk.first_wrong(walk.walk(walk.Capture(OFFICIAL), walk.Capture(record(**native)), FLOORS))
    assert wrong is not None
    assert (wrong.stage, words in wrong.reason) == (stage, True)
    assert pipeline._kind(wrong) == {"timesteps": "scheduler", "encode": "vae"}.get(stage, "")


def test_an_input_that_nothing_encodes_is_named() -> None:
    """A native side that begins with noise alone has ignored the call's input."""
    native = {k: v for k, v in OFFICIAL.items() if not k.startswith(("media/", "start/"))}
    wrong = walk.first_wrong(walk.walk(walk.Capture(OFFICIAL), walk.Capture(native), FLOORS))
    assert wrong is not None
    assert (wrong.stage, "encodes nothing" in wrong.reason) == ("input pixels", True)


def test_a_pipeline_that_noises_by_itself_is_judged_by_what_it_begins_from() -> None:
    """No call of the scheduler's function is no fault: the first step's sample is compared, and a wrong one is seen."""
    a = walk.Capture(OFFICIAL)
    assert walk.first_wrong(walk.walk(a, walk.Capture(record(told=False)), FLOORS)) is None
    wrong = walk.first_wrong(walk.walk(a, walk.Capture(record(told=False, seed=3)), FLOORS))
    assert wrong is not None
    assert wrong.stage == "noised start"


def test_an_official_pipeline_that_noises_by_itself_is_said(ports: dict[str, Path]) -> None:
    """Its stages are not passed for want of a record: they are blocked, and the place to record them is named."""
    port = spec.load(ports["v2v"])
    items = pipeline.unseen(port, walk.Capture(record(told=False)))
    assert [item.name for item in items] == list(walk_media.STAGES)
    assert {(item.verdict, "start/noise" in item.todo) for item in items} == {("blocked", True)}
    assert pipeline.unseen(port, walk.Capture(OFFICIAL)) == []


@pytest.mark.parametrize("name", [*walk_media.FAULTS, "noise of another seed"])
def test_planted_faults_of_a_noised_input_are_seen(name: str) -> None:
    """What the check plants by itself is seen where it belongs, also where the native side noises by itself."""
    stage, plant = pipeline.FAULTS[name]
    a, other = walk.Capture(OFFICIAL), walk.Capture(record(seed=9))
    for b in (walk.Capture(record()), walk.Capture(record(told=False))):
        planted = plant(a, b, other)
        if planted is None:
            assert "start/noise" not in b.tensors
            continue
        wrong = walk.first_wrong(walk.walk(a, walk.Capture({**b.tensors, **planted}), FLOORS))
        assert wrong is not None
        assert wrong.stage == stage
