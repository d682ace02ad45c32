# SPDX-License-Identifier: Apache-2.0
"""What a media file declares about itself, and whether its container is whole. Nothing is decoded here."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fvport.errors import FvportError

PICTURES = {"png": b"\x89PNG\r\n\x1a\n", "jpeg": b"\xff\xd8\xff"}
EIGHT_BITS = ("L", "RGB", "P", "1")  # Pillow's modes that RGB of 8 bits holds without loss


class MediaError(FvportError):
    """A file that cannot be used as what it should be."""


@dataclass(frozen=True)
class Header:
    """`kind`: video, image or sound. A video may have sound as well: `rate` and `channels` are 0 where it has none."""

    kind: str
    codec: str = ""
    width: int = 0
    height: int = 0
    frames: int = 0  # as declared; 0 where the container does not say
    fps: float = 0.0
    pixel_format: str = ""
    rate: int = 0  # samples a second
    channels: int = 0


def header(path: Path | str) -> Header:
    """Declared facts. MediaError names what is wrong: no such file, empty, truncated, or no medium at all."""
    path = Path(path)
    start = first_bytes(path)
    found = picture(start)
    return _image(path, found) if found else _container(path)


def first_bytes(path: Path) -> bytes:
    if not path.is_file():
        raise MediaError("there is no such file", where=str(path))
    if path.stat().st_size == 0:
        raise MediaError("is empty (0 bytes)", where=str(path))
    with path.open("rb") as file:
        return file.read(16)


def picture(start: bytes) -> str:
    """png, jpeg or webp by the first bytes (a name can lie); '' for anything else."""
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "webp"
    return next((name for name, magic in PICTURES.items() if start.startswith(magic)), "")


def _image(path: Path, codec: str) -> Header:
    from PIL import Image

    whole(path)
    try:
        with Image.open(path) as image:
            image.verify()  # every chunk's checksum
        with Image.open(path) as image:
            if getattr(image, "n_frames", 1) > 1:
                raise MediaError(f"is an animation of {image.n_frames} pictures, not one picture", where=str(path))
            return Header("image", codec, image.width, image.height, 1, 0.0, image.mode.lower())
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise MediaError(f"is truncated or corrupt ({error})", where=str(path)) from None


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The open container; whatever FFmpeg says is one MediaError. Its own messages stay off standard error."""
    import av

    av.logging.set_level(av.logging.PANIC)
    try:
        with av.open(str(path)) as container:
            yield container
    except MediaError:
        raise
    except (av.error.FFmpegError, OSError, ValueError, IndexError) as error:
        raise MediaError(f"is truncated or corrupt ({error})", where=str(path)) from None


def _container(path: Path) -> Header:
    with opened(path) as container:
        whole(path)
        video, sound = container.streams.video[:1], container.streams.audio[:1]
        if not video and not sound:
            raise MediaError("holds neither a picture nor sound", where=str(path))
        told: dict[str, Any] = {}
        if sound:
            told |= {"rate": sound[0].codec_context.sample_rate, "channels": sound[0].codec_context.channels}
        if not video:
            return Header("sound", sound[0].codec_context.name, **told)
        context = video[0].codec_context
        told |= {"width": context.width, "height": context.height, "pixel_format": context.pix_fmt or ""}
        rate = float(video[0].average_rate or 0.0)
        return Header("video", context.name, frames=video[0].frames, fps=rate, **told)


def whole(path: Path) -> None:
    """MediaError where an MP4, RIFF (wav, webp) or PNG container ends before what it declares."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(12)
        if start[4:8] == b"ftyp":
            missing = _boxes(file, size)
        elif start[:4] == b"RIFF":
            declared = struct.unpack("<I", start[4:8])[0]
            missing = declared + 8 - size if declared < 2**32 - 1 else 0  # a stream's writer may leave all ones
        elif start.startswith(PICTURES["png"]):
            missing = _chunks(file, size)
        else:
            return
    if missing > 0:
        raise MediaError(f"is truncated: its container goes on after the {size} bytes that are there", where=str(path))


def _boxes(file: Any, size: int) -> int:
    """Bytes by which a top-level box reaches past the end of the file; 0 where all are whole."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        length, _ = struct.unpack(">I4s", file.read(8))
        if length == 1:
            length = struct.unpack(">Q", file.read(8).ljust(8, b"\0"))[0]
        if length == 0:  # the last box, up to the end
            return 0
        if length < 8:
            return 1
        at += length
    return at - size if at > size else 0


def _chunks(file: Any, size: int) -> int:
    """1 where a PNG's last chunk is not there to its end; what lies after it does not matter."""
    at = 8
    while at + 12 <= size:
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8))
        at += 12 + length
        if kind == b"IEND":
            return 0 if at <= size else 1
    return 1
