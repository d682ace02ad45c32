# SPDX-License-Identifier: Apache-2.0
"""Distances of two sounds: log-mel L1 and multi-resolution STFT, each channel apart, second by second.

Both work in blocks, so memory does not grow with length. Frames are not centred; the end is padded with zeros.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fvport.errors import UsageError, did_you_mean
from fvport.media import sound as snd
from fvport.media.probe import MediaError
from fvport.media.series import Series
from fvport.media.sound import Sound

FLOOR = 1e-5  # magnitudes under this are this: -100 dB
MEL_FFT, MEL_HOP, MELS = 1024, 256, 80
RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))  # FFT, hop, window: Parallel WaveGAN's three


@dataclass(frozen=True)
class Measure:
    """A distance of two sounds of one rate, length and number of channels."""

    name: str
    run: Callable[[Sound, Sound], Series]
    definition: str


def mel_l1(a: Sound, b: Sound) -> Series:
    """Mean |ln mel(a) - ln mel(b)| of each second (the last may be shorter), and of the whole."""
    import torch
    import torchaudio.functional as taf

    bank = taf.melscale_fbanks(MEL_FFT // 2 + 1, 0.0, a.rate / 2, MELS, a.rate, norm="slaney", mel_scale="slaney")

    def mels(block: Any) -> Any:
        return (_magnitudes(block, MEL_FFT, MEL_HOP, MEL_FFT) @ bank).clamp_min(FLOOR).log()

    sums, counts = _Tally(), _Tally()
    for start, x, y in _framed(a, b, MEL_FFT, MEL_HOP):
        difference = (mels(x) - mels(y)).abs().mean((0, 2))
        seconds = _seconds(start, difference.shape[0], MEL_HOP, a.rate)
        sums.add(seconds, difference)
        counts.add(seconds, torch.ones_like(difference))
    return _series("mel_l1", [s / c for s, c in zip(sums.values, counts.values, strict=True)], sums, counts)


def mr_stft(a: Sound, b: Sound) -> Series:
    """Spectral convergence plus L1 of log magnitudes, mean over the resolutions, of each second and of the whole."""
    per_second: list[list[float]] = []
    whole = 0.0
    for fft, hop, width in RESOLUTIONS:
        sums = [_Tally() for _ in range(4)]  # |A - B|^2, |A|^2, |log A - log B|, count
        for start, x, y in _framed(a, b, fft, hop):
            one, two = (_magnitudes(block, fft, hop, width).clamp_min(FLOOR) for block in (x, y))
            seconds = _seconds(start, one.shape[1], hop, a.rate)
            parts = ((one - two).square(), one.square(), (one.log() - two.log()).abs())
            for tally, part in zip(sums, parts, strict=False):
                tally.add(seconds, part.double().sum((0, 2)))
            sums[3].add(seconds, parts[0].new_full((one.shape[1],), one.shape[0] * one.shape[2]))
        per_second.append([_convergence(*values) for values in zip(*(tally.values for tally in sums), strict=True)])
        whole += _convergence(*(sum(tally.values) for tally in sums)) / len(RESOLUTIONS)
    seconds = [[v for v in group if v is not None] for group in itertools.zip_longest(*per_second)]
    values = [sum(group) / len(group) for group in seconds]  # a frame of the shortest hop may begin one second more
    return Series(values, "lower", "mr_stft", MEASURES["mr_stft"].definition, "second", whole)


def _convergence(error: float, power: float, logs: float, count: float) -> float:
    return float((error / power) ** 0.5 + logs / count)


MEASURES = {
    measure.name: measure
    for measure in (
        Measure(
            "mel_l1",
            mel_l1,
            f"mean |ln mel a - ln mel b|: {MELS} mels (Slaney) of STFT magnitudes, Hann {MEL_FFT}, hop {MEL_HOP}, "
            f"0 to half the sample rate, floor {FLOOR:g}, each channel apart",
        ),
        Measure(
            "mr_stft",
            mr_stft,
            "spectral convergence + mean |ln A - ln B|, mean of STFTs "
            f"{', '.join(f'{fft}/{hop}/{width}' for fft, hop, width in RESOLUTIONS)} (FFT/hop/Hann window), "
            f"floor {FLOOR:g}, each channel apart",
        ),
    )
}


def measure(a: Sound, b: Sound, name: str) -> Series:
    """One distance of two sounds; 0 is equal. MediaError where rate, channels or length differ."""
    if name not in MEASURES:
        known = ", ".join(MEASURES)
        raise UsageError(f'no measure of sound is called "{name}" ({known}).{did_you_mean(name, MEASURES)}')
    if a.rate != b.rate:
        raise MediaError(f"sounds have other sample rates: {a.rate} and {b.rate} Hz")
    if a.channels != b.channels:
        raise MediaError(f"sounds have other channels: {a.channels} and {b.channels}")
    return MEASURES[name].run(a, b)


class _Tally:
    """Sums by second."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def add(self, seconds: Any, numbers: Any) -> None:
        import torch

        first, last = int(seconds[0]), int(seconds[-1])
        sums = torch.zeros(last - first + 1, dtype=torch.float64).index_add_(0, seconds - first, numbers.double())
        self.values += [0.0] * (last + 1 - len(self.values))
        for i, value in enumerate(sums.tolist()):
            self.values[first + i] += value


def _series(name: str, values: list[float], sums: _Tally, counts: _Tally) -> Series:
    whole = sum(sums.values) / sum(counts.values)
    return Series(values, "lower", name, MEASURES[name].definition, "second", whole)


def _seconds(start: int, frames: int, hop: int, rate: int) -> Any:
    """The second in which each frame begins."""
    import torch

    return (start + torch.arange(frames) * hop) // rate


def _magnitudes(block: Any, fft: int, hop: int, width: int) -> Any:
    """(channels, frames, bins)."""
    import torch

    window = torch.hann_window(width)
    found = torch.stft(torch.from_numpy(block), fft, hop, width, window, center=False, return_complex=True)
    return found.abs().transpose(1, 2)


def _framed(a: Sound, b: Sound, fft: int, hop: int) -> Iterator[tuple[int, Any, Any]]:
    """(number of the first sample, a, b): pieces that overlap so that no frame is lost or taken twice."""
    import numpy as np

    held: list[Any] = []
    start = 0
    for pair in snd.same_length(a.blocks(), b.blocks()):
        if not all(np.isfinite(block).all() for block in pair):
            raise MediaError("sound holds samples that are not finite")
        held = [np.concatenate(parts, 1) for parts in zip(held, pair, strict=True)] if held else list(pair)
        frames = (held[0].shape[1] - fft) // hop + 1
        if frames > 0:
            yield start, *(block[:, : (frames - 1) * hop + fft] for block in held)
            start += frames * hop
            held = [block[:, frames * hop :] for block in held]
    if not held:
        raise MediaError("there is no sample to compare")
    rest = held[0].shape[1]
    if start == 0 or rest > fft - hop:  # samples that no frame has reached
        frames = max(0, -(-(rest - fft) // hop)) + 1
        pad = (frames - 1) * hop + fft - rest
        yield start, *(np.pad(block, ((0, 0), (0, pad))) for block in held)
