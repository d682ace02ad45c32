# SPDX-License-Identifier: Apache-2.0
"""Sound of a file or an array, in blocks; what is wrong with it that nobody has listened to; loudness by BS.1770."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fvport.media import probe
from fvport.media.probe import MediaError

BLOCK = 1 << 17  # samples of a block
SILENT = 1e-4  # peak (of 1) under which there is nothing to hear: -80 dB
CLIPPED = 0.01  # share of samples at full scale over which sound is clipped
LOUDNESS = "ITU-R BS.1770-4 integrated loudness (LUFS): K weighting, 400 ms blocks, gates at -70 LUFS and -10 LU"


@dataclass(frozen=True)
class Sound:
    """`blocks()` starts anew each time: float32 (channels, at most BLOCK samples) in [-1, 1]."""

    rate: int
    channels: int
    source: Any  # a file, or an array (channels, samples)

    def blocks(self) -> Iterator[Any]:
        if isinstance(self.source, Path):
            yield from _decoded(self.source, self.channels)
            return
        for start in range(0, self.source.shape[1], BLOCK):
            yield self.source[:, start : start + BLOCK]


def of_file(path: Path | str) -> Sound:
    """The first sound of a file. MediaError where there is none."""
    path = Path(path)
    found = probe.header(path)
    if not found.rate:
        raise MediaError("has no sound in it", where=str(path))
    return Sound(found.rate, found.channels, path)


def of_array(samples: Any, rate: int) -> Sound:
    """Sound of a tensor or array (samples,), (channels, samples) or (1, channels, samples)."""
    import numpy as np

    array = np.asarray(samples, dtype=np.float32)
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    array = array[None] if array.ndim == 1 else array
    if array.ndim != 2 or array.shape[1] == 0 or rate <= 0:
        raise MediaError(f"sound must be (channels, samples) with a rate; it is {array.shape} at {rate} Hz")
    return Sound(int(rate), array.shape[0], array)


def _decoded(path: Path, channels: int) -> Iterator[Any]:
    import av
    import numpy as np

    with probe.opened(path) as container:
        stream = container.streams.audio[0]
        stream.codec_context.options = {"err_detect": "explode"}
        turn = av.AudioResampler(format="fltp")
        held, length, seen = [], 0, 0
        try:
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise MediaError(f"its sound is corrupt after {seen} samples", where=str(path))
                for part in turn.resample(frame):
                    held.append(part.to_ndarray())
                    length += part.samples
                    seen += part.samples
                if length >= BLOCK:
                    yield np.concatenate(held, 1)
                    held, length = [], 0
        except (OSError, ValueError) as error:
            raise MediaError(f"its sound is truncated or corrupt after {seen} samples", where=str(path)) from error
        if not seen:
            raise MediaError("holds no sample that can be decoded", where=str(path))
        if held:
            yield np.concatenate(held, 1)
    probe.whole(path)


@dataclass
class Facts:
    """What a sound holds. `loudness` is None where nothing passes the gate (silence, or under 400 ms)."""

    rate: int
    channels: int
    samples: int = 0
    peak: float = 0.0
    rms: float = 0.0
    clipped: float = 0.0  # share of samples at full scale
    loudness: float | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return self.samples / self.rate


def facts(sound: Sound) -> Facts:
    """Length, peak, loudness and what is wrong, in one pass."""
    import numpy as np

    found, meter, square, full = Facts(sound.rate, sound.channels), Meter(sound.rate, sound.channels), 0.0, 0
    for block in sound.blocks():
        if not np.isfinite(block).all():
            raise MediaError("sound holds samples that are not finite")
        found.samples += block.shape[1]
        found.peak = max(found.peak, float(np.abs(block).max()))
        square += float((block.astype(np.float64) ** 2).sum())
        full += int((np.abs(block) >= 1.0 - 2.0**-15).sum())
        meter.add(block)
    count = max(found.samples * found.channels, 1)
    found.rms, found.clipped, found.loudness = math.sqrt(square / count), full / count, meter.integrated()
    if found.samples == 0:
        found.problems.append("there is no sample")
    elif found.peak < SILENT:
        found.problems.append(f"it is silent: no sample is above {found.peak:.1e} of 1")
    elif found.clipped > CLIPPED:
        found.problems.append(f"it is clipped: {found.clipped:.1%} of its samples are at full scale")
    return found


def against(found: Facts, *, rate: int | None, channels: int | None, samples: int | None, slack: int = 0) -> list[str]:
    """Sentences for each declared number that the sound does not keep; None is not compared.

    `slack`: samples by which a codec that works in blocks may pad the end (0 for wav).
    """
    wrong = []
    if rate is not None and rate != found.rate:
        wrong.append(f"its sample rate is {found.rate} Hz, {rate} Hz is declared")
    if channels is not None and channels != found.channels:
        wrong.append(f"it has {found.channels} channels, {channels} are declared")
    if samples is not None and abs(samples - found.samples) > slack:
        wrong.append(f"it has {found.samples} samples ({found.seconds:.3f} s), {samples} are declared")
    return wrong


class Meter:
    """Integrated loudness of a stream: mean squares of the K-weighted sound in steps of 100 ms, gated at the end."""

    def __init__(self, rate: int, channels: int) -> None:
        import numpy as np

        self.rate, self.step = rate, round(rate / 10)
        self.filters = k_weighting(rate)
        self.states = [np.zeros((channels, 2)) for _ in self.filters]
        self.rest = np.zeros((channels, 0))
        self.squares: list[Any] = []  # (channels,) for each 100 ms
        self.weights = np.array([1.0, 1.0, 1.0, 0.0, 1.41, 1.41] if channels == 6 else [1.0] * channels)

    def add(self, block: Any) -> None:
        """Take the next samples, (channels, samples)."""
        import numpy as np
        from scipy.signal import lfilter

        sound = block.astype(np.float64)
        for i, (b, a) in enumerate(self.filters):
            sound, self.states[i] = lfilter(b, a, sound, axis=1, zi=self.states[i])
        sound = np.concatenate([self.rest, sound], 1)
        steps = sound.shape[1] // self.step
        whole, self.rest = sound[:, : steps * self.step], sound[:, steps * self.step :]
        self.squares += list((whole.reshape(whole.shape[0], steps, self.step) ** 2).mean(2).T)

    def integrated(self) -> float | None:
        """LUFS, or None where no block of 400 ms passes the gates."""
        import numpy as np

        if len(self.squares) < 4:
            return None
        power = np.stack(self.squares) @ self.weights
        blocks = np.convolve(power, np.full(4, 0.25), "valid")
        gated = blocks[blocks > 10 ** ((-70 + 0.691) / 10)]
        if gated.size:
            gated = gated[gated > gated.mean() / 10]
        return float(-0.691 + 10 * np.log10(gated.mean())) if gated.size else None


def k_weighting(rate: int) -> list[tuple[Any, Any]]:
    """(b, a) of BS.1770's shelf and high pass at this rate, by the bilinear transform of their analogue prototypes."""
    shelf_gain, shelf_q, shelf_at = 10 ** (3.999843853973347 / 20), 0.7071752369554196, 1681.974450955533
    pass_q, pass_at = 0.5003270373238773, 38.13547087602444
    k = math.tan(math.pi * shelf_at / rate)
    middle = shelf_gain**0.4996667741545416
    norm = 1 + k / shelf_q + k * k
    shelf_b = [shelf_gain + middle * k / shelf_q + k * k, 2 * (k * k - shelf_gain)]
    shelf_b.append(shelf_gain - middle * k / shelf_q + k * k)
    shelf = ([x / norm for x in shelf_b], [1.0, 2 * (k * k - 1) / norm, (1 - k / shelf_q + k * k) / norm])
    k = math.tan(math.pi * pass_at / rate)
    norm = 1 + k / pass_q + k * k
    return [shelf, ([1.0, -2.0, 1.0], [1.0, 2 * (k * k - 1) / norm, (1 - k / pass_q + k * k) / norm])]


def same_length(a: Iterable[Any], b: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Both streams in blocks of one length; MediaError with both lengths where one ends first."""
    import numpy as np

    sides = [iter(a), iter(b)]
    held: list[Any] = [None, None]
    counts = [0, 0]
    while True:
        for i, side in enumerate(sides):
            while held[i] is None or held[i].shape[1] == 0:
                held[i] = next(side, None)
                if held[i] is None:
                    break
                counts[i] += held[i].shape[1]
        if held[0] is None and held[1] is None:
            return
        if held[0] is None or held[1] is None:
            other = 1 if held[0] is None else 0
            counts[other] += sum(block.shape[1] for block in sides[other])
            raise MediaError(f"sounds have other lengths: {counts[0]} and {counts[1]} samples")
        length = min(block.shape[1] for block in held)
        yield np.asarray(held[0][:, :length]), np.asarray(held[1][:, :length])
        held = [block[:, length:] for block in held]
