# SPDX-License-Identifier: Apache-2.0
"""Two records of one generation: every fault goes red, at the stage where it is, for the right reason."""

from __future__ import annotations

import html
import json
import shutil
import unicodedata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fvport.checks import _call, pipeline
from fvport.parity import compare, generation, odd_text, walk, walk_floors, walk_media

G = 5.0
STEPS = 3


def sampler(
    seed: int = 0,
    guidance: float = G,
    shift: float = 3.0,
    formula: str = "u",
    noise: float = 0.0,
    steps: int = STEPS,
    start: torch.Tensor | None = None,
    scale_t: float = 1.0,
    swap: bool = False,
    negative: float = -1.0,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Any]:
    """A little flow-matching sampler with a linear denoiser, recorded under the names of both sides."""
    t0 = torch.linspace(1, 1 / 1000, steps, dtype=torch.float64)
    sigmas = torch.cat([shift * t0 / (1 + (shift - 1) * t0), torch.zeros(1, dtype=torch.float64)]).float()
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, 4, 3, 4, 4, generator=generator).to(dtype)
    x = start if start is not None else x
    own = torch.Generator().manual_seed(7)
    out: dict[str, Any] = {"timesteps": sigmas[:-1] * 1000, "sigmas": sigmas, "initial_noise": x.clone()}
    conditions = [torch.full((1, 6, 8), 1.0) + torch.arange(8) / 9, torch.full((1, 6, 8), negative)]

    def shaken(value: torch.Tensor) -> torch.Tensor:
        return value * (1 + noise * torch.randn(value.shape, generator=own))

    for step in range(steps):
        t = sigmas[step] * 1000 * scale_t
        answers = []
        for row, condition in enumerate(conditions):
            answer = shaken(torch.tanh(x.float() * 0.7) + condition.mean() * torch.cos(x.float() + t / 1000))
            if step == 0:
                out[f"eval/000/{row}/encoder_hidden_states"] = shaken(condition)
            out[f"eval/{step:03d}/{row}/timestep"] = t.reshape(1)
            out[f"eval/{step:03d}/{row}/output"] = answer
            answers.append(answer)
        c, u = answers
        guided = (u if formula == "u" else c) + guidance * (c - u)
        out[f"model_output/{step:03d}"] = guided
        index = step if not swap else steps - 1 - step
        x = shaken(x + (sigmas[index + 1] - sigmas[index]) * guided)
        out[f"latents/{step:03d}"] = x.clone()
    out["decode_input"] = shaken(x * 2 + 1)
    out["decoded"] = shaken(torch.sin(out["decode_input"]))
    out["frames"] = (out["decoded"][:, :3].permute(0, 2, 3, 4, 1) / 2 + 0.5).clamp(0, 1)
    return out


OFFICIAL = walk.Capture(sampler())
FLOORS = walk_floors.measure_floors(OFFICIAL.tensors, sampler(noise=2.0**-22))


def first(native: dict[str, Any]) -> walk.Finding | None:
    return walk.first_wrong(walk.walk(OFFICIAL, walk.Capture(native), FLOORS))


def test_the_same_sampler_passes() -> None:
    """An implementation that rounds otherwise passes every stage."""
    findings = walk.walk(OFFICIAL, walk.Capture(sampler(noise=2.0**-23)), FLOORS)
    without = ("audio", "step noise", *walk_media.STAGES)  # of pictures, from noise, with steps that draw nothing
    assert [f.stage for f in findings] == [stage for stage in walk.STAGES if stage not in without]
    assert [f.reason for f in findings if not f.ok] == []


@pytest.mark.parametrize(
    ("fault", "stage"),
    [
        ({"seed": 1}, "initial noise"),
        ({"dtype": torch.bfloat16}, "initial noise"),
        ({"shift": 3.1}, "timesteps"),
        ({"formula": "c"}, "guidance"),
        ({"guidance": 4.999}, "guidance"),
        ({"scale_t": 1.001}, "denoiser"),
        ({"negative": -1.001}, "conditioning"),
        ({"swap": True}, "latents"),
        ({"steps": 2}, "model evaluations"),
    ],
)
def test_a_fault_is_named_where_it_is(fault: dict[str, Any], stage: str) -> None:
    """Noise, schedule, guidance, timestep, prompt and order of steps each go red at their own stage first."""
    found = first(sampler(**fault))
    assert found is not None
    assert found.stage == stage


def test_swapped_steps_inherit() -> None:
    """What differs after the first red stage says which stage was first."""
    findings = walk.walk(OFFICIAL, walk.Capture(sampler(formula="c")), FLOORS)
    later = [f for f in findings if not f.ok][1:]
    assert later
    assert all("after guidance, which differs first" in f.reason for f in later)


@pytest.mark.parametrize(
    ("name", "stage"), [("decode_input", "decode input"), ("decoded", "decode"), ("frames", "frames")]
)
def test_decode_faults_are_told_apart(name: str, stage: str) -> None:
    """Scaling before the VAE, the VAE, and what comes after it are three stages."""
    found = first(OFFICIAL.tensors | {name: OFFICIAL.tensors[name] * 1.0005})
    assert found is not None
    assert found.stage == stage


def test_guidance_dropped_is_a_missing_evaluation() -> None:
    """A native side that never evaluates the negative prompt is told by count."""
    native = {k: v for k, v in OFFICIAL.tensors.items() if not (k.startswith("eval/") and "/1/" in k)}
    found = first(native)
    assert found is not None
    assert "2 times officially, 1 natively" in found.reason


def test_batched_guidance_in_the_other_order_is_the_same() -> None:
    """Negative first or positive first: evaluations are matched by what they were told."""
    native = dict(OFFICIAL.tensors)
    for key, value in OFFICIAL.tensors.items():
        if key.startswith("eval/"):
            head, step, row, rest = key.split("/", 3)
            native[f"{head}/{step}/{1 - int(row)}/{rest}"] = value
    assert first(native) is None


def test_nan_and_missing_frames_are_red() -> None:
    """NaN is not near anything, and a side without frames compared none."""
    bad = first(OFFICIAL.tensors | {"frames": OFFICIAL.tensors["frames"] * float("nan")})
    assert bad is not None
    assert "not finite" in bad.reason
    gone = first({k: v for k, v in OFFICIAL.tensors.items() if k != "frames"})
    assert gone is not None
    assert "showed no" in gone.reason


def test_no_floor_is_no_pass() -> None:
    """Without a measured floor nothing can be near."""
    found = walk.first_wrong(walk.walk(OFFICIAL, OFFICIAL, walk_floors.Floors({})))
    assert found is not None
    assert "no floor" in found.reason


def test_a_floor_that_is_large_proves_nothing() -> None:
    """An official pipeline that differs from itself by a percent cannot be a reference."""
    floors = walk_floors.measure_floors(OFFICIAL.tensors, sampler(noise=1e-2))
    found = walk.first_wrong(walk.walk(OFFICIAL, OFFICIAL, floors))
    assert found is not None
    assert "proves nothing" in found.reason


def test_floors_do_not_grow_with_a_variation() -> None:
    """A variation is judged by the size of the base call's noise, not by its distance from the base call."""
    varied = walk.Capture(sampler(seed=3))
    assert (
        walk.first_wrong(walk.walk(varied, walk.Capture(sampler(seed=3, noise=2.0**-23)), FLOORS.for_variation()))
        is None
    )
    found = walk.first_wrong(walk.walk(varied, walk.Capture(sampler(seed=3, guidance=4.99)), FLOORS.for_variation()))
    assert found is not None
    assert found.stage == "guidance"


def test_other_tokens_are_conditioning() -> None:
    """Padding may differ, the tokens that count may not."""
    ids, mask = torch.tensor([[5, 6, 7, 0, 0]]), torch.tensor([[1, 1, 1, 0, 0]])
    name = "text/text_encoder/0/"
    official = walk.Capture(OFFICIAL.tensors | {f"{name}input_ids": ids, f"{name}attention_mask": mask})
    short = OFFICIAL.tensors | {f"{name}input_ids": ids[:, :3], f"{name}attention_mask": mask[:, :3]}
    other = OFFICIAL.tensors | {f"{name}input_ids": ids + mask, f"{name}attention_mask": mask}
    assert walk.first_wrong(walk.walk(official, walk.Capture(short), FLOORS)) is None
    found = walk.first_wrong(walk.walk(official, walk.Capture(other), FLOORS))
    assert found is not None
    assert found.stage == "conditioning"
    assert "text_encoder is given other tokens" in found.reason


def test_own_steps_are_told_from_inherited_ones() -> None:
    """Begun from the official latents, only the step with a fault of its own differs."""
    forced = OFFICIAL.tensors | {"latents/001": OFFICIAL.tensors["latents/001"] * 1.001}
    assert walk.own_steps(OFFICIAL, walk.Capture(forced), FLOORS) == [1]


# --- the check on records on disk ------------------------------------------------------------------------------------


def put(folder: Path, tensors: dict[str, Any], **arguments: Any) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, folder / "steps.safetensors")
    info = {
        "arguments": {"prompt": "a fox", "guidance_scale": G, "negative_prompt": "", **arguments},
        "seed": 0,
        "pipeline": "TinyPipeline",
        "pipeline_file": str(folder.parents[1] / "fastvideo/pipelines/basic/tiny/tiny_pipeline.py"),
        "classes": {"transformer": "TinyTransformer"},
        "scheduler": ["TinyScheduler"],
    }
    (folder / "steps.json").write_text(json.dumps(info))


@pytest.fixture
def sides(tmp_path: Path):
    """(port, official folder, native folder, calls) as generation makes them."""
    component = SimpleNamespace(name="transformer", kind="dit", native_class="TinyTransformer")
    port = SimpleNamespace(
        official=SimpleNamespace(pipeline=SimpleNamespace(call={}, cls="")),
        fastvideo=SimpleNamespace(fields={}),
        root=tmp_path,
        slug="tiny",
        key="tiny",
        variant="",
        variants=(),
        components={"transformer": component},
    )
    calls = [generation.Call("p0s0", {"guidance_scale": G}, "a fox", "", 0)]
    calls.append(generation.Call("seed", {"guidance_scale": G}, "a fox", "", 1, "seed"))
    for side, noise in (("official", 0.0), ("native", 2.0**-23)):
        put(tmp_path / side / "p0s0", sampler(noise=noise))
        put(tmp_path / side / "seed", sampler(seed=1, noise=noise))
    put(tmp_path / "official" / "p0s0.noise", sampler(noise=2.0**-22))
    return port, tmp_path / "official", tmp_path / "native", calls


def verdicts(items: list[Any]) -> dict[str, str]:
    return {item.name: item.verdict for item in items}


def test_planted_faults_are_seen(sides: Any) -> None:
    """Each planted fault is seen at its stage in records that agree."""
    port, official, native, calls = sides
    items = pipeline.planted(port, official, native, calls)
    elsewhere = (
        "step noise of another path",
        *walk_media.FAULTS,
        "image left out",
        "seconds left out",
        "sound of another moment",
    )  # these records know of neither
    here = [name for name in pipeline.FAULTS if name not in elsewhere]
    assert set(verdicts(items)) == {f"planted: {name}" for name in here}
    assert set(verdicts(items).values()) == {"pass"}


def test_a_planted_fault_that_is_not_seen_is_red(sides: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comparison that cannot see a fault must not pass: here everything is allowed."""
    port, official, native, calls = sides
    wide = walk_floors.Floors({name: dict.fromkeys(compare.MEASURES, 1e-3) for name in OFFICIAL.tensors}, factor=1e9)
    monkeypatch.setattr(pipeline, "floors_of", lambda *_: wide)
    items = verdicts(pipeline.planted(port, official, native, calls))
    assert items["planted: guidance c+g(c-u)"] == "fail"
    assert items["planted: noise of another seed"] == "pass"  # compared exactly


def test_base_call_and_classes_pass(sides: Any) -> None:
    """Records that agree pass every stage, and the class that ran is the port's."""
    port, official, native, calls = sides
    items = pipeline.compare_call(port, official, native, calls[0], pipeline.floors_of(official, "p0s0"))
    assert set(verdicts(items).values()) == {"pass"}
    assert "pipeline class" in verdicts(items)


def test_another_pipelines_class_is_red(sides: Any) -> None:
    """FastVideo's own pipeline with the right numbers is not the port."""
    port, official, native, calls = sides
    info = json.loads((native / "p0s0" / "steps.json").read_text())
    info["pipeline_file"] = str(port.root / "fastvideo/pipelines/basic/wan/wan_pipeline.py")
    (native / "p0s0" / "steps.json").write_text(json.dumps(info))
    items = pipeline.compare_call(port, official, native, calls[0], pipeline.floors_of(official, "p0s0"))
    assert verdicts(items)["pipeline class"] == "fail"


def test_a_default_of_ones_own_is_red(sides: Any) -> None:
    """A native negative prompt that nobody gave shows as an argument."""
    port, official, native, calls = sides
    info = json.loads((native / "p0s0" / "steps.json").read_text())
    info["arguments"]["negative_prompt"] = "Bright tones"
    (native / "p0s0" / "steps.json").write_text(json.dumps(info))
    items = pipeline.compare_call(port, official, native, calls[0], pipeline.floors_of(official, "p0s0"))
    found = next(item for item in items if item.name == "arguments")
    assert found.verdict == "fail"
    assert "Bright tones" in found.reason


def edited(folder: Path, **change: Any) -> None:
    file = folder / "steps.json"
    info = json.loads(file.read_text())
    for key, value in change.items():
        info[key] = {**info[key], **value} if isinstance(value, dict) and key in info else value
    file.write_text(json.dumps(info))


@pytest.mark.parametrize(
    ("official_says", "native_says", "words"),
    [
        ({"arguments": {"flow_shift": 3.0}}, {}, "natively nothing of that name"),
        ({"arguments": {"eta": 0}}, {"arguments": {"eta": None}}, "eta is 0 officially, None natively"),
        ({"defaults": {"num_frames": 81}}, {"arguments": {"num_frames": 49}}, "81 officially, 49 natively"),
        ({"defaults": {"height": None}}, {"arguments": {"height": 480}}, "left to the official pipeline"),
        ({"defaults": {"num_frames": 81}}, {}, "natively nothing of that name"),
    ],
)
def test_an_argument_of_one_side_only_is_red(sides: Any, official_says: Any, native_says: Any, words: str) -> None:
    """Missing on either side is no agreement, 0 is not nothing, and a default of the official call counts."""
    _, official, native, _ = sides
    edited(official / "p0s0", **official_says)
    edited(native / "p0s0", **native_says)
    item = pipeline._arguments(*pipeline._pair(official, native, "p0s0"))
    assert item.verdict == "fail"
    assert words in item.reason


@pytest.mark.parametrize(
    ("classes", "words"),
    [({"transformer": "NotTinyTransformer"}, "ran as transformer"), ({"vae": "Vae"}, "is no module of the pipeline")],
)
def test_classes_go_by_their_exact_names(sides: Any, classes: dict[str, str], words: str) -> None:
    """A class whose name only ends alike, or a declared component that nobody saw, is red."""
    port, official, native, _ = sides
    file = native / "p0s0" / "steps.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"classes": classes}))
    item = pipeline._classes(port, *pipeline._pair(official, native, "p0s0"))
    assert item.verdict == "fail"
    assert words in item.reason


def test_a_variation_that_changes_nothing_is_no_pass(sides: Any) -> None:
    """Where the official side itself does not answer to an argument, two equal answers prove nothing about it."""
    port, official, native, calls = sides
    for side in (official, native):
        (side / "seed" / "steps.safetensors").write_bytes((side / "p0s0" / "steps.safetensors").read_bytes())
    item = pipeline.varied(port, "cpu", official, native, calls)[0]
    assert (item.verdict, item.metrics["official_change"]) == ("blocked", 0.0)
    assert "proves nothing" in item.reason


def test_an_ignored_argument_is_red(sides: Any) -> None:
    """A native side that answers a changed seed with the old noise is caught by the variation."""
    port, official, native, calls = sides
    assert set(verdicts(pipeline.varied(port, "cpu", official, native, calls)).values()) == {"pass"}
    (native / "seed" / "steps.safetensors").write_bytes((native / "p0s0" / "steps.safetensors").read_bytes())
    items = pipeline.varied(port, "cpu", official, native, calls)
    assert verdicts(items)["changed: seed"] == "fail"
    assert items[0].reason.startswith("initial noise")


@pytest.mark.parametrize(("rounding", "verdict"), [(2.0**-18, "pass"), (2.0**-22, "fail")])
def test_a_variation_that_is_red_by_a_little_is_judged_by_its_own_floor(
    sides: Any, monkeypatch: Any, tmp_path: Path, rounding: float, verdict: str
) -> None:
    """Another prompt may be rounded more than the first: what is its own floor decides, and only near the budget."""
    port, official, native, calls = sides
    shutil.rmtree(native / "seed")
    put(native / "seed", sampler(seed=1, noise=2.0**-19))
    put(tmp_path / "own" / "seed.noise", sampler(seed=1, noise=rounding))
    monkeypatch.setattr(generation, "floors", lambda port, device, call: tmp_path / "own")
    assert verdicts(pipeline.varied(port, "cpu", official, native, calls))["changed: seed"] == verdict


def test_a_field_that_is_written_in_is_red(sides: Any) -> None:
    """A native side that takes another declared value for the usual one; what moves the frames alone is a change."""
    port, official, native, calls = sides
    call = generation.Call("field-eta", {"guidance_scale": G}, "a fox", "", 0, "eta", own_floor=True)
    for folder, noise in ((official / call.name, 0.0), (official / f"{call.name}.noise", 2.0**-22)):
        put(folder, sampler(seed=1, noise=noise))
    put(native / call.name, sampler(seed=1, noise=2.0**-23))
    (item,) = pipeline.varied(port, "cpu", official, native, [calls[0], call])
    assert (item.name, item.verdict, item.metrics["official_change"] > 0) == ("changed: eta", "pass", True)
    (native / call.name / "steps.safetensors").write_bytes((native / "p0s0" / "steps.safetensors").read_bytes())
    (item,) = pipeline.varied(port, "cpu", official, native, [calls[0], call])
    assert item.verdict == "fail"
    decoded = walk.Capture({**OFFICIAL.tensors, "frames": OFFICIAL.tensors["frames"] * 0.9}, OFFICIAL.info)
    assert pipeline._change(OFFICIAL, decoded) == 0
    assert pipeline._change(OFFICIAL, decoded, of_media=True) > 0


def test_conditioning_of_another_length_is_a_finding_of_its_own() -> None:
    """Text padded to another length is named with both shapes, and not blamed on the denoiser."""
    native = sampler(noise=2.0**-23)
    native["eval/000/0/encoder_hidden_states"] = native["eval/000/0/encoder_hidden_states"].repeat(1, 2, 1)
    wrong = first(native)
    assert wrong is not None
    assert wrong.stage == "conditioning"
    assert "another length or width" in wrong.reason


def port_of(call: dict[str, Any], preset: dict[str, Any]) -> Any:
    presets = {"default": {key: SimpleNamespace(value=value) for key, value in preset.items()}}
    return SimpleNamespace(
        presets=presets,
        components={},
        official=SimpleNamespace(pipeline=SimpleNamespace(call=call)),
        fastvideo=SimpleNamespace(fields={}),
        variants=(),
        variant="",
    )


def test_a_call_without_guidance_proves_nothing_of_a_model_that_guides() -> None:
    """The gate's call is red where the presets guide and it does not."""
    assert _call.weaker(port_of({"guidance_scale": 5.0}, {"guidance_scale": 4.0})) == []
    assert _call.weaker(port_of({"guidance_scale": 1.0}, {"guidance_scale": 1.0})) == []
    (item,) = _call.weaker(port_of({"guidance_scale": 1.0}, {"guidance_scale": 4.0}))
    assert (item.verdict, "preset default guides with 4.0" in item.reason) == ("fail", True)


def test_another_prompt_is_an_untidy_one() -> None:
    """Whoever cleans nothing, or otherwise, is given other tokens: with a tidy prompt all are equal."""
    given = {"height": 64, "width": 96, "num_frames": 9, "num_inference_steps": 50, "guidance_scale": 5.0}
    base = generation.Call("p0s0", given, "a fox {runs}", "", 0)
    found = {call.name: call for call in generation.variations(port_of(given, {}), base)}
    text = found["prompt"].prompt
    assert text.startswith("a fox {runs},  at 100% {snow},\t")
    cleaned = (html.unescape(text), " ".join(text.split()), text.lower(), unicodedata.normalize("NFKC", text))
    assert all(other != text for other in (*cleaned, html.unescape(html.unescape(text))))
    assert html.unescape(html.unescape(text)) != html.unescape(text)
    assert text == text.strip()  # VideoGenerator strips it
    assert html.unescape(found["negative"].negative_prompt) != found["negative"].negative_prompt
    assert len(found["long"].prompt.split()) >= odd_text.LONG_WORDS  # a call of many steps is probed with it, too
    assert found["long"].arguments["num_inference_steps"] == generation.SHORT


def test_a_short_call_is_probed_beyond_its_own_arguments() -> None:
    """More steps, no guidance, turned, more frames, a prompt past the text's end: each with a floor of its own."""
    given = {"height": 64, "width": 96, "num_frames": 9, "num_inference_steps": 2, "guidance_scale": 5.0}
    found = generation.probes(port_of(given, {}), generation.Call("p0s0", given, "a fox runs", "", 0))
    assert {call.name: call.own_floor for call in found} == dict.fromkeys(
        ("more_steps", "unguided", "size", "frames", "long"), True
    )
    by_name = {call.name: call for call in found}
    assert by_name["more_steps"].arguments["num_inference_steps"] == 8
    assert by_name["size"].arguments["height"] == 96
    assert by_name["frames"].arguments["num_frames"] == 17
    assert len(by_name["long"].prompt.split()) >= odd_text.LONG_WORDS
