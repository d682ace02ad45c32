# SPDX-License-Identifier: Apache-2.0
"""The video that a video-to-video call begins with: one file, decoded by each side's own library.

A port names its own in port.toml ([official.pipeline] videos). Where it names none, one is drawn: the pictures of
`pictures.py` with something that moves in them, of another size than the call and longer than it, so that resizing and
the number of frames are compared as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fvport import evidence as ev
from fvport.errors import BlockedError
from fvport.parity import pictures
from fvport.spec import Port

LONGER = 16  # frames more than the call uses: the variation with more frames has them
FRAMES = 17  # where the call says none


def takes_clip(port: Port) -> bool:
    """True where a workload of the port is made from a video."""
    return any(workload.startswith("v2") for workload in port.port.workload_types)


def of_call(port: Port, call: dict[str, Any], fps: int) -> Path | None:
    """The video of the gate's calls, None for a workload without one. BlockedError: a declared one is missing."""
    if not takes_clip(port):
        return None
    for name in port.official.pipeline.videos:
        file = port.root / name
        if not file.is_file():
            raise BlockedError(f"the video {name} is not there", where="port.toml [official.pipeline] videos")
        return file
    return _drawn(port, call, fps, 0)


def changed(port: Port, call: dict[str, Any], fps: int) -> Path | None:
    """Another video, for the call in which only the video changes: the second declared one, else a drawn one."""
    if not takes_clip(port):
        return None
    declared = port.official.pipeline.videos[1:]
    if declared and (port.root / declared[0]).is_file():
        return port.root / declared[0]
    return _drawn(port, call, fps, 1)


def inputs(port: Port) -> list[str]:
    """The declared videos as names of a record's inputs."""
    return [f"file:{name}" for name in port.official.pipeline.videos] if takes_clip(port) else []


def _drawn(port: Port, call: dict[str, Any], fps: int, number: int) -> Path:
    """An mp4 under the port's state, named by what was drawn; made once, and both sides read the same bytes."""
    from fvport.media import frames as media

    width, height = call.get("width") or pictures.SIZE[0], call.get("height") or pictures.SIZE[1]
    size = (width * 5 // 4 // 16 * 16, height * 3 // 2 // 16 * 16)  # the codec wants sizes in macroblocks
    drawn = list(frames(*size, int(call.get("num_frames") or FRAMES) + LONGER, number))
    digest = ev.blake3(b"".join(frame.tobytes() for frame in drawn) + f"{size} {fps}".encode())
    file = port.state / "cache" / "clips" / f"{digest.partition(':')[2][:16]}.mp4"
    if not file.is_file():
        part = file.with_name(f"part-{file.name}")
        media.write_mp4(part, drawn, fps)
        part.replace(file)
    return file


def frames(width: int, height: int, count: int, number: int = 0) -> Any:
    """`count` pictures (height, width, 3) uint8: the drawn picture wandering, and a square that goes across it."""
    import numpy as np

    still = pictures.pixels(width, height, number)
    side = max(min(width, height) // 5, 2)
    for n in range(count):
        frame = np.roll(still, (n * 3, n * (5 if number else -4)), axis=(0, 1)).copy()
        x, y = (width - side) * n // max(count - 1, 1), (height - side) * (count - 1 - n) // max(count - 1, 1)
        frame[y : y + side, x : x + side] = 255 - frame[y : y + side, x : x + side]
        yield frame
