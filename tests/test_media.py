# SPDX-License-Identifier: Apache-2.0
"""Frames, SSIM and references: what they measure, and what they say of files that are wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fvport.media import frames, ssim


def moving(count: int = 5, height: int = 32, width: int = 48) -> np.ndarray:
    """A bright square that moves over a gradient."""
    video = np.zeros((count, height, width, 3), np.uint8)
    video[..., 0] = np.linspace(0, 200, width, dtype=np.uint8)
    for i in range(count):
        video[i, 4 + 2 * i : 14 + 2 * i, 8:20] = 250
    return video


@pytest.fixture
def file(tmp_path: Path) -> Path:
    frames.write_mp4(tmp_path / "a.mp4", moving(), 8)
    return tmp_path / "a.mp4"


def test_decode_gives_every_frame(file: Path) -> None:
    """A written file gives back as many frames of the same size, near the ones that went in."""
    found = list(frames.decode(file))
    assert len(found) == 5
    assert found[0].shape == (32, 48, 3)
    assert ssim.compare(iter(found), iter(moving())).mean > 0.8
    assert frames.rate(file) == pytest.approx(8)


def test_missing_empty_and_foreign_files_are_named(tmp_path: Path) -> None:
    """No file, an empty file and a file that is no video are one clear sentence each."""
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("not a video")
    for name, words in (("none.mp4", "no such file"), ("empty.mp4", "0 bytes"), ("text.mp4", "corrupt")):
        with pytest.raises(frames.MediaError, match=words):
            list(frames.decode(tmp_path / name))


def test_truncated_file_is_named(file: Path) -> None:
    """A file that was cut off is not taken for a short video."""
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(frames.MediaError, match="truncated"):
        list(frames.decode(file))


def test_facts_of_a_good_video(file: Path) -> None:
    """A moving picture has no problem."""
    found = frames.facts(frames.decode(file), frames.rate(file))
    assert (found.width, found.height, found.frames) == (48, 32, 5)
    assert found.problems == []
    assert frames.against(found, frames=5, width=48, height=32, fps=8) == []


@pytest.mark.parametrize(
    ("video", "words"),
    [
        (np.zeros((4, 32, 48, 3), np.uint8), "blank"),
        (np.full((4, 32, 48, 3), 127, np.uint8), "blank"),
        (np.repeat(moving(1), 4, axis=0), "frozen"),
        (np.concatenate([moving(3), np.zeros((1, 32, 48, 3), np.uint8)]), "at least one frame is blank"),
    ],
)
def test_blank_and_frozen_are_said(video: np.ndarray, words: str, tmp_path: Path) -> None:
    """A video without a picture, or without motion, is named before and after the codec."""
    assert any(words in problem for problem in frames.facts(iter(video)).problems)
    frames.write_mp4(tmp_path / "b.mp4", video, 8)
    assert any(words in problem for problem in frames.facts(frames.decode(tmp_path / "b.mp4")).problems)


def test_declared_shape_is_held_against_the_file() -> None:
    """One frame too few, another size and another rate are each said."""
    found = frames.facts(iter(moving(4)), 16.0)
    wrong = frames.against(found, frames=5, width=64, height=32, fps=8)
    assert len(wrong) == 3
    assert "4 frames, 5" in wrong[0]


def test_to_uint8_refuses_nan() -> None:
    """NaN does not become black."""
    import torch

    with pytest.raises(frames.MediaError, match="not finite"):
        frames.to_uint8(torch.full((1, 4, 4, 3), float("nan")))


def test_ssim_is_scikit_images() -> None:
    """The figure equals scikit-image's own with the arguments that the definition names."""
    from skimage.metrics import structural_similarity

    a = moving()[0]
    b = np.clip(a.astype(int) + np.random.default_rng(0).integers(-20, 20, a.shape), 0, 255).astype(np.uint8)
    own = structural_similarity(
        a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=2
    )
    assert ssim.ssim(a, b) == pytest.approx(own, abs=1e-9)
    assert ssim.ssim(a, a) == 1.0


def test_worst_frame_is_kept() -> None:
    """One wrong frame among good ones decides, and is named."""
    other = moving()
    other[3] = 255 - other[3]
    found = ssim.compare(iter(moving()), iter(other))
    assert found.worst_frame == 3
    assert found.worst < 0.5 < found.mean


def test_other_length_and_size_are_no_pair() -> None:
    """Videos are never cut to the shorter one."""
    with pytest.raises(frames.MediaError, match="5 and 4 frames"):
        ssim.compare(iter(moving(5)), iter(moving(4)))
    with pytest.raises(frames.MediaError, match="4 and 5 frames"):
        ssim.compare(iter(moving(4)), iter(moving(5)))
    with pytest.raises(frames.MediaError, match="other sizes"):
        ssim.ssim(moving()[0], moving(width=40)[0])
    with pytest.raises(frames.MediaError, match="no frame"):
        ssim.compare(iter(()), iter(()))


def test_too_small_for_the_window() -> None:
    """A frame smaller than the window is said, not a library's traceback."""
    small = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(frames.MediaError, match="smaller"):
        ssim.ssim(small, small)
