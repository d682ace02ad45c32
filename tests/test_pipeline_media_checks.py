# SPDX-License-Identifier: Apache-2.0
"""ssim and example: what they say of files that are short, blank, frozen, truncated, missing or of another size."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fvport.checks import example, ssim
from fvport.media import frames
from fvport.parity import generation

FPS = 8


def moving(count: int = 5) -> np.ndarray:
    video = np.zeros((count, 32, 48, 3), np.uint8)
    video[..., 0] = np.linspace(0, 200, 48, dtype=np.uint8)
    for i in range(count):
        video[i, 4 + 2 * i : 14 + 2 * i, 8:20] = 250
    return video


def port(tmp_path: Path, threshold: float = 0.98) -> Any:
    call = {"height": 32, "width": 48, "num_frames": 5}
    return SimpleNamespace(
        root=tmp_path,
        slug="tiny",
        key="tiny",
        port=SimpleNamespace(workload_types=("t2v",)),
        fastvideo=SimpleNamespace(fields={}),
        presets={"default": {"fps": SimpleNamespace(value=FPS)}},
        components={},
        quality=SimpleNamespace(
            metric="ssim", threshold=threshold, reference="official", store="references/", audio_metric=""
        ),
        official=SimpleNamespace(pipeline=SimpleNamespace(call=call, prompts=("a",), seeds=(0,), negative_prompt="")),
    )


def record(folder: Path, video: np.ndarray, written: np.ndarray | None = None, fps: int = FPS) -> Path:
    """A generation's folder: frames before the codec, and a written file where one is given."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    save_file({"frames": torch.from_numpy(video).float()[None] / 255}, folder / "steps.safetensors")
    (folder / "steps.json").write_text("{}")
    if written is not None:
        frames.write_mp4(folder / "a.mp4", written, fps)
    return folder


def judged(tmp_path: Path, video: np.ndarray, written: np.ndarray, fps: int = FPS) -> dict[str, Any]:
    call = generation.Call("p0s0", {}, "a", "", 0)
    official = record(tmp_path / "official", moving())
    native = record(tmp_path / "native", video, written, fps)
    return {item.name: item for item in ssim.against_official(port(tmp_path), call, official, native)}


def test_equal_videos_pass_before_and_after_the_codec(tmp_path: Path) -> None:
    """The same frames, and the file that the same encoder made of them, are similar to the last digit that counts."""
    found = judged(tmp_path, moving(), moving())
    assert set(found) == set(ssim.expected(port(tmp_path)))
    assert {item.verdict for item in found.values()} == {"pass"}
    assert found["p0s0: before the codec"].metrics["worst"] == 1.0
    assert found["p0s0"].metrics["worst"] > 0.999


def test_one_wrong_frame_is_red(tmp_path: Path) -> None:
    """The worst frame decides, not the mean. The file shows truly what was generated, and how far it is off."""
    video = moving()
    video[2] = 255 - video[2]
    found = judged(tmp_path, video, video)
    assert found["p0s0: before the codec"].verdict == "fail"
    assert "frame 2" in found["p0s0: before the codec"].reason
    assert found["p0s0"].verdict == "pass"
    assert found["p0s0"].metrics["against_official_file"] < 0.5


def test_the_written_file_must_show_the_frames_that_were_compared(tmp_path: Path) -> None:
    """Right frames and a file of other ones: red, even where the other ones are near."""
    other = np.clip(moving().astype(int) + 25, 0, 255).astype(np.uint8)
    other[3] = moving()[1]
    found = judged(tmp_path, moving(), other)
    assert found["p0s0: before the codec"].verdict == "pass"
    assert found["p0s0"].verdict == "fail"


def test_an_unsteady_codec_is_no_difference(tmp_path: Path) -> None:
    """Noise whose last bit differs here and there: equal before the codec, a figure after it, and green."""
    random = np.random.default_rng(3)
    noise = random.integers(0, 255, (5, 32, 48, 3), dtype=np.uint8)
    near = noise + (random.random(noise.shape) < 0.002).astype(np.uint8)
    call = generation.Call("p0s0", {}, "a", "", 0)
    official, native = record(tmp_path / "official", noise), record(tmp_path / "native", near, near)
    found = {item.name: item for item in ssim.against_official(port(tmp_path), call, official, native)}
    assert {item.verdict for item in found.values()} == {"pass"}
    assert found["p0s0"].metrics["against_official_file"] < found["p0s0"].metrics["worst"]


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (moving(4), "4 frames, 5"),
        (np.zeros((5, 32, 48, 3), np.uint8), "blank"),
        (np.repeat(moving(1), 5, axis=0), "frozen"),
    ],
)
def test_what_is_wrong_with_the_file_is_said(tmp_path: Path, written: np.ndarray, words: str) -> None:
    """A short, blank or frozen file is red with its reason although the frames before the codec are right."""
    found = judged(tmp_path, moving(), written)
    assert found["p0s0: before the codec"].verdict == "pass"
    assert found["p0s0"].verdict == "fail"
    assert words in found["p0s0"].reason


def test_another_rate_is_red(tmp_path: Path) -> None:
    """A file that plays at another speed is another video."""
    assert "frames a second" in judged(tmp_path, moving(), moving(), fps=16)["p0s0"].reason


def test_no_file_is_red(tmp_path: Path) -> None:
    """A generation that wrote nothing does not pass by its frames alone."""
    native = record(tmp_path / "native", moving())
    item = ssim.judge_file(port(tmp_path), "p0s0", iter(moving()), moving(), native, FPS)
    assert item.verdict == "fail"
    assert "no file" in item.reason


# --- example ---------------------------------------------------------------------------------------------------------


def looked(tmp_path: Path, video: np.ndarray, fps: int = FPS) -> dict[str, Any]:
    frames.write_mp4(tmp_path / "a.mp4", video, fps)
    return {item.name: item for item in example.look(port(tmp_path), tmp_path / "a.mp4")}


def test_a_good_file_passes(tmp_path: Path) -> None:
    """The declared shape and a moving picture."""
    assert {item.verdict for item in looked(tmp_path, moving()).values()} == {"pass"}


@pytest.mark.parametrize(
    ("video", "name", "words"),
    [
        (moving(4), "shape", "4 frames, 5"),
        (np.zeros((5, 32, 48, 3), np.uint8), "content", "blank"),
        (np.repeat(moving(1), 5, axis=0), "content", "frozen"),
        (moving()[:, :, :32], "shape", "width is 32"),
    ],
)
def test_a_bad_file_is_red(tmp_path: Path, video: np.ndarray, name: str, words: str) -> None:
    """One frame too few, blank, frozen and another size are each red where they belong."""
    found = looked(tmp_path, video)
    assert found[name].verdict == "fail"
    assert words in found[name].reason


def test_an_example_that_ends_badly_is_red_with_its_last_words(tmp_path: Path) -> None:
    """The exit code decides, whatever lies in the folder, and the log's error is repeated."""
    log = tmp_path / "log"
    log.write_text("Loading\nTraceback (most recent call last):\nValueError: no such preset\n")
    frames.write_mp4(tmp_path / "a.mp4", moving(), FPS)
    items = example.judge(port(tmp_path), 1, [tmp_path / "a.mp4"], log)
    assert [item.verdict for item in items] == ["fail"]
    assert "no such preset" in items[0].reason


def test_an_example_that_writes_nothing_is_red(tmp_path: Path) -> None:
    """Exit code 0 and no file is no success."""
    items = example.judge(port(tmp_path), 0, [], tmp_path / "log")
    assert items[-1].verdict == "fail"
    assert "0 files" in items[-1].reason


def test_a_truncated_file_is_red(tmp_path: Path) -> None:
    """Half a file is not a short video."""
    frames.write_mp4(tmp_path / "a.mp4", moving(), FPS)
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(data[: len(data) // 2])
    items = example.look(port(tmp_path), tmp_path / "a.mp4")
    assert items[0].verdict == "fail"
    assert "truncated" in items[0].reason


@pytest.mark.parametrize(("value", "rate"), [("24", 24), ("23.976", 23), ("None", 16)])
def test_frames_a_second_are_the_presets(tmp_path: Path, value: str, rate: int) -> None:
    """Without a preset in port.toml the port's presets.py says; where it says no number, it is 16."""
    file = tmp_path / "fastvideo" / "pipelines" / "basic" / "tiny" / "presets.py"
    file.parent.mkdir(parents=True)
    file.write_text(f'DEFAULTS = {{"fps": {value}}}\n')
    bare = port(tmp_path)
    bare.presets = {}
    assert generation.fps(bare) == rate


def test_the_example_is_told_the_declared_call(tmp_path: Path) -> None:
    """Its own defaults are the official ones: the check passes port.toml's cheaper call, and only what it offers."""
    script = tmp_path / "basic.py"
    script.write_text('parser.add_argument("--height")\nparser.add_argument("--negative-prompt")\n# "--seed"\n')
    declared = port(tmp_path)
    declared.load_tree = tmp_path / "tree"
    declared.official.pipeline.negative_prompt = "-- ugly"
    words = example.command_line(declared, script, tmp_path / "out")
    assert words[1:6] == [str(script), "--output", str(tmp_path / "out"), "--model", str(tmp_path / "tree")]
    assert words[6:] == ["--height=32", "--negative-prompt=-- ugly", "--seed=0"]


def test_the_line_to_run_by_hand_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    """Relative to the port's root, with the port's tree first: what a person types, and what a record may hold."""
    port: Any = SimpleNamespace(root=tmp_path, fastvideo=SimpleNamespace(attention_backend="TORCH_SDPA"))
    words = [sys.executable, str(tmp_path / "examples" / "basic.py"), "--model", str(tmp_path / "w"), "--prompt=a fox"]
    line = example.by_hand(port, words)
    python = Path(sys.executable).name
    assert line.startswith("PYTHONPATH=. ")
    assert line.endswith(f"=TORCH_SDPA {python} examples/basic.py --model w '--prompt=a fox'")
    assert str(tmp_path) not in line
