# SPDX-License-Identifier: Apache-2.0
"""Frames of a written file, one at a time, and what is wrong with a video that nobody has looked at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fvport.media import kernel, probe
from fvport.media.probe import MediaError

__all__ = [
    "Clip",
    "Facts",
    "MediaError",
    "Stored",
    "Watcher",
    "against",
    "decode",
    "facts",
    "rate",
    "to_uint8",
    "write_mp4",
]

BLANK = 1.0  # a frame whose pixels deviate less than this (of 255) shows one colour
FROZEN = 0.02  # mean difference (of 255) of neighbouring frames under which nothing moves; a codec alone makes more


@dataclass
class Facts:
    """What a file holds."""

    width: int = 0
    height: int = 0
    frames: int = 0
    fps: float = 0.0
    deviation: float = 0.0  # largest standard deviation of any frame, of 255
    least_deviation: float = 255.0  # the blankest frame's
    motion: float = 0.0  # largest mean difference of neighbouring frames, of 255
    problems: list[str] = field(default_factory=list)


def decode(path: Path | str) -> Iterator[Any]:
    """uint8 RGB frames of shape (height, width, 3), in order; a picture is one. MediaError names what is wrong.

    One frame is held at a time. A decoder that repairs what it cannot read would hide it, so it is told not to.
    """
    path = Path(path)
    if probe.picture(probe.first_bytes(path)):
        yield _picture(path)
        return
    shown = 0
    with probe.opened(path) as container:
        if not container.streams.video:
            raise MediaError("has no picture in it", where=str(path))
        stream = container.streams.video[0]
        if stream.codec_context is None:  # what says how to decode it is not there
            probe.whole(path)
            raise MediaError("is truncated or corrupt: nothing in it says how it is coded", where=str(path))
        stream.codec_context.options = {"err_detect": "explode"}
        try:
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise MediaError(f"frame {shown} is corrupt", where=str(path))
                yield frame.to_ndarray(format="rgb24")
                shown += 1
        except (OSError, ValueError) as error:  # FFmpeg's errors are one or the other
            raise MediaError(f"is truncated or corrupt after {shown} frames ({error})", where=str(path)) from None
        if stream.frames and shown < stream.frames:
            raise MediaError(f"is truncated: {shown} of {stream.frames} frames can be decoded", where=str(path))
        if shown == 0:
            probe.whole(path)  # a cut through the index leaves nothing to count: it is cut off all the same
            raise MediaError("holds no frame that can be decoded", where=str(path))
    probe.whole(path)


def _picture(path: Path) -> Any:
    """One picture as uint8 RGB; what 8 bits of RGB cannot hold (alpha, 16 bits) is an error, never cut off."""
    import numpy as np
    from PIL import Image

    mode = probe.header(path).pixel_format
    if mode.upper() not in probe.EIGHT_BITS:
        raise MediaError(f"its pixels are {mode}, not RGB of 8 bits", where=str(path))
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise MediaError(f"is truncated or corrupt ({error})", where=str(path)) from None


def rate(path: Path | str) -> float:
    """Frames a second as the file declares them; 0.0 for a picture."""
    return probe.header(path).fps


@dataclass(frozen=True)
class Clip:
    """A file that can be gone through again and again without being held: each pass decodes it anew."""

    path: Path

    def __iter__(self) -> Iterator[Any]:
        return decode(self.path)


@dataclass(frozen=True)
class Stored:
    """Frames (batch, time, height, width, 3) of one video in a safetensors file, read one by one as uint8.

    Floats in [0, 1] are quantised as FastVideo writes them; uint8 is taken as it is.
    """

    file: Path
    name: str = "frames"
    item: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """(time, height, width, channels)."""
        from safetensors import safe_open

        with safe_open(self.file, "pt") as held:
            return tuple(held.get_slice(self.name).get_shape()[-4:])

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        from safetensors import safe_open

        with safe_open(self.file, "pt") as held:
            part = held.get_slice(self.name)
            batched = len(part.get_shape()) == 5
            for number in range(part.get_shape()[-4]):
                frame = part[self.item, number] if batched else part[number]
                yield frame.numpy() if str(frame.dtype) == "torch.uint8" else to_uint8(frame)


class Watcher:
    """Fills `Facts` frame by frame; at most two frames are held."""

    def __init__(self, found: Facts) -> None:
        self.found, self.before = found, None

    def see(self, frame: Any) -> None:
        import numpy as np

        found, size = self.found, (frame.shape[1], frame.shape[0])
        if found.frames and size != (found.width, found.height):
            found.problems.append(f"frame {found.frames} is {size[0]}x{size[1]}, the first is not")
        found.width, found.height = size
        deviation = _deviation(frame)
        found.deviation = max(found.deviation, deviation)
        found.least_deviation = min(found.least_deviation, deviation)
        if self.before is not None and self.before.shape == frame.shape:
            moved = float(np.abs(np.subtract(frame, self.before, dtype=np.int16)).mean(dtype=np.float64))
            found.motion = max(found.motion, moved)
        self.before = frame
        found.frames += 1

    def done(self) -> None:
        self.found.problems += _looks(self.found)


def _deviation(frame: Any) -> float:
    """Largest standard deviation of a channel, of 255."""
    if kernel.has_opencv():
        import cv2

        return float(cv2.meanStdDev(frame)[1].max())
    return float(max(frame[..., channel].std(dtype="float64") for channel in range(frame.shape[-1])))


def facts(frames: Iterable[Any], fps: float = 0.0) -> Facts:
    """Size, length, how much is to be seen and how much moves, in one pass."""
    watcher = Watcher(Facts(fps=fps))
    for frame in frames:
        watcher.see(frame)
    watcher.done()
    return watcher.found


def _looks(found: Facts) -> list[str]:
    if found.frames == 0:
        return ["there is no frame"]
    problems = []
    if found.deviation < BLANK:
        problems.append(f"it is blank: no frame deviates by more than {found.deviation:.2f} of 255")
    elif found.frames > 1 and found.motion < FROZEN:
        problems.append(f"it is frozen: neighbouring frames differ by {found.motion:.3f} of 255 at most")
    if found.deviation >= BLANK and found.least_deviation < BLANK:
        problems.append("at least one frame is blank among others that are not")
    return problems


def against(found: Facts, *, frames: int | None, width: int | None, height: int | None, fps: float | None) -> list[str]:
    """Sentences for each declared number that the file does not keep; None is not compared."""
    wrong = []
    for name, want, have in (
        ("frames", frames, found.frames),
        ("width", width, found.width),
        ("height", height, found.height),
    ):
        if want is not None and want != have:
            wrong.append(
                f"it has {have} {name}, {want} are declared" if name == "frames" else f"{name} is {have}, not {want}"
            )
    if fps is not None and abs(found.fps - fps) > 0.01 * fps:
        wrong.append(f"it plays at {found.fps:.3g} frames a second, {fps:.3g} are declared")
    return wrong


def to_uint8(frames: Any) -> Any:
    """A tensor (..., height, width, 3) in [0, 1] as uint8, quantised as FastVideo writes it (cut, not rounded)."""
    import torch

    if not bool(frames.isfinite().all()):
        raise MediaError("frames hold values that are not finite", where="before the codec")
    return (frames.float() * 255).clamp(0, 255).to(torch.uint8).numpy()


def write_mp4(path: Path, frames: Iterable[Any], fps: float) -> None:
    """Written with the encoder and settings that FastVideo uses for its files (imageio, mp4)."""
    import imageio

    path.parent.mkdir(parents=True, exist_ok=True)
    with imageio.get_writer(path, fps=fps, format="mp4") as writer:
        for frame in frames:
            writer.append_data(frame)
