# SPDX-License-Identifier: Apache-2.0
"""Measures: equal to the libraries whose definitions they name, streaming, and red where they should be."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fvport.errors import BlockedError, UsageError
from fvport.media import frames, kernel, lpips, measures, sound, spectra, ssim
from fvport.media.series import Series


def scikit(a: np.ndarray, b: np.ndarray) -> float:
    from skimage.metrics import structural_similarity

    return structural_similarity(
        a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=2
    )


def hostile(height: int, width: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pairs on which a careless SSIM differs: flat, saturated, opposite, checkered, noise, one wrong pixel."""
    rng = np.random.default_rng(0)
    size = (height, width, 3)
    ys, xs = np.mgrid[:height, :width]
    chess = (((ys + xs) % 2) * 255).astype(np.uint8)[..., None].repeat(3, 2)
    ramp = (xs * 255 // width).astype(np.uint8)[..., None].repeat(3, 2)
    dot = np.full(size, 225, np.uint8)
    dot[height // 2, width // 2] = 30
    one_channel = ramp.copy()
    one_channel[..., 2] = 255 - one_channel[..., 2]
    return {
        "noise": (rng.integers(0, 256, size).astype(np.uint8), rng.integers(0, 256, size).astype(np.uint8)),
        "flat": (np.full(size, 100, np.uint8), np.full(size, 101, np.uint8)),
        "black and white": (np.zeros(size, np.uint8), np.full(size, 255, np.uint8)),
        "chess": (chess, 255 - chess),
        "dark noise": (np.zeros(size, np.uint8), rng.integers(0, 2, size).astype(np.uint8)),
        "bright noise": (np.full(size, 250, np.uint8), (250 + rng.integers(-1, 2, size)).astype(np.uint8)),
        "dot": (np.full(size, 220, np.uint8), dot),
        "channel": (ramp, one_channel),
        "equal": (ramp, ramp),
    }


@pytest.mark.parametrize("size", [(11, 11), (17, 40), (177, 243), (301, 260)])
@pytest.mark.parametrize("by", ["opencv", "torch"])
def test_ssim_equals_scikit_image(size: tuple[int, int], by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under 1e-5 on every hostile pair and size, small ones in float64 and large ones in float32, by either library."""
    monkeypatch.setattr(kernel, "has_opencv", lambda: by == "opencv")
    for name, (a, b) in hostile(*size).items():
        assert abs(ssim.ssim(a, b) - scikit(a, b)) < 1e-5, name


def test_a_wrong_window_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison with scikit-image has teeth: another sigma, range or covariance differs by far more than 1e-5."""
    a, b = hostile(64, 64)["bright noise"]
    monkeypatch.setattr(kernel, "window", lambda kind="float32": np.full(11, 1 / 11, kind))
    assert abs(ssim.ssim(a, b) - scikit(a, b)) > 1e-4


def test_ms_ssim_by_its_formula() -> None:
    """Five scales, each the mean of 2 x 2 pixels (odd sides padded in front), weights as exponents, clamped at zero."""
    rng = np.random.default_rng(1)
    base = np.cumsum(rng.integers(-9, 10, (181, 230, 3)), axis=1).clip(-120, 120) + 128
    a = base.astype(np.uint8)
    b = (base + rng.integers(-20, 21, base.shape)).clip(0, 255).astype(np.uint8)
    x, y = a.astype(np.float64), b.astype(np.float64)
    value = np.ones(3)
    for scale, weight in enumerate(ssim.SCALES):
        last, structure = _plain_ssim(x, y)
        value *= np.clip(last if scale == 4 else structure, 0, None) ** weight
        x, y = (_half(z) for z in (x, y))
    assert ssim.ms_ssim(a, b) == pytest.approx(value.mean(), abs=1e-6)
    assert ssim.ms_ssim(a, a) == 1.0
    with pytest.raises(frames.MediaError, match="161 pixels"):
        ssim.ms_ssim(a[:160], b[:160])


def _plain_ssim(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from scipy.ndimage import correlate1d

    def f(z: np.ndarray) -> np.ndarray:
        weights = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
        weights /= weights.sum()
        return correlate1d(correlate1d(z, weights, 0), weights, 1)[5:-5, 5:-5]

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mx, my = f(x), f(y)
    structure = (2 * (f(x * y) - mx * my) + c2) / (f(x * x) - mx**2 + f(y * y) - my**2 + c2)
    whole = structure * (2 * mx * my + c1) / (mx**2 + my**2 + c1)
    return whole.mean((0, 1)), structure.mean((0, 1))


def _half(z: np.ndarray) -> np.ndarray:
    z = np.pad(z, [(z.shape[0] % 2, 0), (z.shape[1] % 2, 0), (0, 0)])
    return (z[::2, ::2] + z[1::2, ::2] + z[::2, 1::2] + z[1::2, 1::2]) / 4


def test_psnr_and_temporal_by_hand() -> None:
    """Exact in integers; equal frames have no finite PSNR and count as the largest; a step of one is 1/255."""
    a = np.full((8, 8, 3), 100, np.uint8)
    assert measures.psnr(a, a + 5) == pytest.approx(10 * math.log10(255**2 / 25))
    assert measures.psnr(a, a) == measures.EQUAL
    found = measures.measure([a, a + 1, a + 2], [a, a + 1, a + 4], ["temporal"])["temporal"]
    assert found.values == pytest.approx([0, 0, 2 / 255])
    assert (found.better, found.worst_frame) == ("lower", 2)


def test_what_is_not_a_number_is_the_worst() -> None:
    """NaN never keeps a limit, whichever end is the good one."""
    for better in ("higher", "lower"):
        series = Series([0.5, math.nan, 0.9], better)
        assert series.worst_frame == 1
        assert not series.keeps(0.0)
        assert not series.keeps(1.0)
    assert Series([math.nan]).to_json()["worst"] is None


def test_frames_stream() -> None:
    """However long the videos are, a few pairs are alive at once, and order and length are kept."""
    alive, most = set(), [0]

    class Frame(np.ndarray):
        def __del__(self) -> None:
            alive.discard(id(self))

    def video(shift: int) -> Iterator[Any]:
        for number in range(60):
            frame = np.full((16, 16, 3), number + shift, np.uint8).view(Frame)
            alive.add(id(frame))
            most[0] = max(most[0], len(alive))
            yield frame
            del frame

    found = measures.measure(video(0), video(1), ["ssim", "temporal"], workers=2)
    assert len(found["ssim"].values) == 60
    assert found["ssim"].values == sorted(found["ssim"].values)
    assert most[0] <= 2 * 10


def test_a_file_of_frames_is_read_frame_by_frame(tmp_path: Path) -> None:
    """A record's floats come out as FastVideo quantises them, one at a time, again and again."""
    import torch
    from safetensors.torch import save_file

    video = torch.rand(2, 5, 16, 24, 3)
    save_file({"frames": video}, tmp_path / "a.safetensors")
    stored = frames.Stored(tmp_path / "a.safetensors", item=1)
    assert (stored.shape, len(stored)) == ((5, 16, 24, 3), 5)
    for _ in range(2):
        assert (np.stack(list(stored)) == (video[1] * 255).to(torch.uint8).numpy()).all()
    save_file({"frames": video.fill_(float("nan"))}, tmp_path / "a.safetensors")
    with pytest.raises(frames.MediaError, match="not finite"):
        list(stored)


def test_frames_that_cannot_be_compared_say_which() -> None:
    """The frame's number, sizes, kinds and lengths."""
    a = np.zeros((16, 16, 3), np.uint8)
    cases = [
        ([a, a], [a, a[:12]], "frame 1: frames have other sizes"),
        ([a], [a.astype(np.float32)], "must be uint8"),
        ([a], [a[..., :1]], "other channels"),
        ([a] * 3, [a] * 2, "3 and 2 frames"),
        ([], [], "no frame"),
    ]
    for left, right, words in cases:
        with pytest.raises(frames.MediaError, match=words):
            measures.measure(left, right, ["ssim"])
    with pytest.raises(UsageError, match="Did you mean"):
        measures.measure([a], [a], ["sssim"])


# --- sound ------------------------------------------------------------------------------------------------------------


def noise(rate: int = 16000, seconds: float = 2.3) -> np.ndarray:
    rng = np.random.default_rng(5)
    return (0.1 * rng.normal(size=(2, int(rate * seconds)))).clip(-1, 1).astype(np.float32)


def test_loudness_is_the_recommendations(tmp_path: Path) -> None:
    """BS.1770: a full-scale sine of 997 Hz in one channel is -3.01 LUFS; at 48 kHz the filters are the printed ones."""
    for rate in (44100, 48000):
        t = np.arange(rate * 2) / rate
        meter = sound.Meter(rate, 1)
        meter.add(np.sin(2 * np.pi * 997 * t)[None])
        assert meter.integrated() == pytest.approx(-3.01, abs=0.02)
    shelf, high = sound.k_weighting(48000)
    assert shelf[0] == pytest.approx([1.53512485958697, -2.69169618940638, 1.19839281085285], abs=1e-6)
    assert shelf[1] == pytest.approx([1, -1.69065929318241, 0.73248077421585], abs=1e-6)
    assert high[1] == pytest.approx([1, -1.99004745483398, 0.99007225036621], abs=1e-6)


def test_silence_has_no_loudness() -> None:
    """What passes no gate has no figure, rather than one that can be compared."""
    assert sound.facts(sound.of_array(np.zeros((1, 48000), np.float32), 48000)).loudness is None


def test_distances_of_sound_by_their_formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same over the whole signal at once, whatever the blocks are; 0 for equal sounds."""
    import torch

    x, y = noise(), noise() + 0.01 * np.roll(noise(), 7, 1)
    a, b = sound.of_array(x, 16000), sound.of_array(y, 16000)
    expected = 0.0
    for fft, hop, width in spectra.RESOLUTIONS:
        pad = -(-(x.shape[1] - fft) // hop) * hop + fft - x.shape[1]
        p, q = (
            torch.stft(
                torch.from_numpy(np.pad(z, ((0, 0), (0, pad)))),
                fft,
                hop,
                width,
                torch.hann_window(width),
                center=False,
                return_complex=True,
            )
            .abs()
            .clamp_min(1e-5)
            .double()
            for z in (x, y)
        )
        expected += float((p - q).norm() / p.norm() + (p.log() - q.log()).abs().mean()) / 3
    whole = {name: spectra.measure(a, b, name) for name in spectra.MEASURES}
    assert whole["mr_stft"].mean == pytest.approx(expected, rel=1e-5)
    monkeypatch.setattr(sound, "BLOCK", 3001)
    for name, series in whole.items():
        pieces = spectra.measure(a, b, name)
        assert pieces.values == pytest.approx(series.values, rel=1e-9)
        assert spectra.measure(a, a, name).worst == 0.0
        assert len(series.values) == 3


def test_swapped_channels_and_a_late_start_are_far() -> None:
    """Distances look at each channel and at time: neither hides in a mean."""
    x = noise()
    x[1] *= 0.2
    a = sound.of_array(x, 16000)
    late = np.roll(x, 1600, axis=1)
    for other, least in ((x[::-1], 0.5), (late, 0.1)):
        found = spectra.measure(a, sound.of_array(np.ascontiguousarray(other), 16000), "mel_l1")
        assert found.mean > least


def test_sounds_that_cannot_be_compared_say_why() -> None:
    """Rate, channels, length, NaN, and an array that is no sound."""
    a = sound.of_array(noise(), 16000)
    cases = [
        (sound.of_array(noise(), 8000), "other sample rates: 16000 and 8000"),
        (sound.of_array(noise()[:1], 16000), "other channels: 2 and 1"),
        (sound.of_array(noise()[:, :-9], 16000), "other lengths: 36800 and 36791"),
        (sound.of_array(noise() * np.nan, 16000), "not finite"),
    ]
    for (other, words), name in itertools.product(cases, spectra.MEASURES):
        with pytest.raises(frames.MediaError, match=words):
            spectra.measure(a, other, name)
    with pytest.raises(frames.MediaError, match="channels, samples"):
        sound.of_array(np.zeros((2, 0)), 16000)


# --- LPIPS ------------------------------------------------------------------------------------------------------------


def test_lpips_without_its_weights_is_blocked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Never fetched, never left out in silence: said before a frame is read."""
    a = [np.zeros((64, 64, 3), np.uint8)]
    monkeypatch.delenv(lpips.VARIABLE, raising=False)
    with pytest.raises(BlockedError, match="FVPORT_LPIPS"):
        measures.measure(a, a, ["lpips"])
    monkeypatch.setenv(lpips.VARIABLE, str(tmp_path))
    with pytest.raises(BlockedError, match="not on this machine"):
        measures.measure(a, a, ["lpips"])


def test_lpips_with_weights_on_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """0 for equal frames, more for frames that differ more; broken weights are one sentence."""
    import torch
    from torchvision.models import alexnet

    torch.manual_seed(0)
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in alexnet(weights=None).state_dict().items() if "features" in name}
    made = {name: torch.randn(shape) / max(shape[1:].numel(), 1) ** 0.5 for name, shape in shapes.items()}
    torch.save(made, tmp_path / "alexnet-made.pth")
    widths = (64, 192, 384, 256, 256)
    torch.save({f"lin{i}.model.1.weight": torch.rand(1, n, 1, 1) for i, n in enumerate(widths)}, tmp_path / "alex.pth")
    monkeypatch.setenv(lpips.VARIABLE, str(tmp_path))
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    near, far = (np.clip(a.astype(int) + rng.integers(-d, d + 1, a.shape), 0, 255).astype(np.uint8) for d in (3, 90))
    found = measures.measure([a, a, a], [a, near, far], ["lpips"])["lpips"]
    assert found.values[0] == 0.0 < found.values[1] < found.values[2]
    assert found.worst_frame == 2
    lpips._model.cache_clear()
    (tmp_path / "alex.pth").write_bytes(b"no weights")
    with pytest.raises(BlockedError, match="cannot be read"):
        measures.measure([a], [near], ["lpips"])
