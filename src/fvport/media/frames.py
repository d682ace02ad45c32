# SPDX-License-Identifier: Apache-2.0
"""Frames of a written file, one at a time, and what is wrong with a video that nobody has looked at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fvport.errors import FvportError

BLANK = 1.0  # a frame whose pixels deviate less than this (of 255) shows one colour
FROZEN = 0.02  # mean difference (of 255) of neighbouring frames under which nothing moves; a codec alone makes more


class MediaError(FvportError):
    """A file that cannot be used as what it should be."""


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
    """uint8 RGB frames of shape (height, width, 3), in order. MediaError names what is wrong with the file."""
    import av

    path = Path(path)
    if not path.is_file():
        raise MediaError("there is no such file", where=str(path))
    if path.stat().st_size == 0:
        raise MediaError("is empty (0 bytes)", where=str(path))
    shown = 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise MediaError("has no picture in it", where=str(path))
            declared = container.streams.video[0].frames
            for frame in container.decode(video=0):
                if frame.is_corrupt:
                    raise MediaError(f"frame {shown} is corrupt", where=str(path))
                yield frame.to_ndarray(format="rgb24")
                shown += 1
    except (av.error.FFmpegError, av.error.InvalidDataError, ValueError) as error:
        raise MediaError(f"is truncated or corrupt after {shown} frames ({error})", where=str(path)) from None
    if shown == 0:
        raise MediaError("holds no frame that can be decoded", where=str(path))
    if declared and shown < declared:
        raise MediaError(f"is truncated: {shown} of {declared} frames can be decoded", where=str(path))


def rate(path: Path | str) -> float:
    """Frames a second as the file declares them; 0.0 for a picture."""
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                return 0.0
            stream = container.streams.video[0]
            return float(stream.average_rate or 0.0)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise MediaError(f"cannot be opened ({error})", where=str(path)) from None


def facts(frames: Iterable[Any], fps: float = 0.0) -> Facts:
    """Size, length, how much is to be seen and how much moves, in one pass; at most two frames are held."""
    import numpy as np

    found, before = Facts(fps=fps), None
    for frame in frames:
        size = (frame.shape[1], frame.shape[0])
        if found.frames and size != (found.width, found.height):
            found.problems.append(f"frame {found.frames} is {size[0]}x{size[1]}, the first is not")
        found.width, found.height = size
        deviation = float(frame.reshape(-1, frame.shape[-1]).astype(np.float32).std(axis=0).max())
        found.deviation = max(found.deviation, deviation)
        found.least_deviation = min(found.least_deviation, deviation)
        if before is not None and before.shape == frame.shape:
            moved = float(np.abs(frame.astype(np.int16) - before.astype(np.int16)).mean())
            found.motion = max(found.motion, moved)
        before = frame
        found.frames += 1
    found.problems += _looks(found)
    return found


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
    """A tensor (time, height, width, 3) in [0, 1] as uint8, quantised as FastVideo writes it (cut, not rounded)."""
    import torch

    if not bool(frames.isfinite().all()):
        raise MediaError("frames hold values that are not finite", where="before the codec")
    return (frames.float() * 255).clamp(0, 255).to(torch.uint8).numpy()


def write_mp4(path: Path, frames: Any, fps: int) -> None:
    """Written with the encoder and settings that FastVideo uses for its files (imageio, mp4)."""
    import imageio

    path.parent.mkdir(parents=True, exist_ok=True)
    imageio.mimsave(path, list(frames), fps=fps, format="mp4")  # type: ignore[arg-type]
