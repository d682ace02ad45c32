# SPDX-License-Identifier: Apache-2.0
"""The picture that an image-to-video or image-to-image call begins with: one file, read by both sides.

A port names its own in port.toml ([official.pipeline] images). Where it names none, one is drawn: smooth colours,
edges and texture, of another size and shape than the video, so that resizing is compared as well. The one of the
variation is smaller one way and has an alpha channel.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fvport import evidence as ev
from fvport.errors import BlockedError
from fvport.spec import Port

SIZE = (320, 192)  # width and height where the call says none
CHANGED = "other"  # the picture of the variation


def takes_picture(port: Port) -> bool:
    """True where a workload of the port begins with an image."""
    return any(workload.startswith("i2") for workload in port.port.workload_types)


def of_call(port: Port, call: dict[str, Any]) -> Path | None:
    """The picture of the gate's calls, None for a workload without one. BlockedError: a declared one is missing."""
    if not takes_picture(port):
        return None
    for name in port.official.pipeline.images:
        file = port.root / name
        if not file.is_file():
            raise BlockedError(f"the picture {name} is not there", where="port.toml [official.pipeline] images")
        return file
    return _drawn(port, call, 0)


def changed(port: Port, call: dict[str, Any]) -> Path | None:
    """Another picture, for the call in which only the picture changes: the second declared one, else a drawn one."""
    if not takes_picture(port):
        return None
    declared = port.official.pipeline.images[1:]
    if declared and (port.root / declared[0]).is_file():
        return port.root / declared[0]
    return _drawn(port, call, 1)


def inputs(port: Port) -> list[str]:
    """The declared pictures as names of a record's inputs."""
    return [f"file:{name}" for name in port.official.pipeline.images] if takes_picture(port) else []


def _drawn(port: Port, call: dict[str, Any], number: int) -> Path:
    """A PNG under the port's state, named by its content: the same call, the same bytes, on every machine."""
    import io

    from PIL import Image

    width, height = call.get("width") or SIZE[0], call.get("height") or SIZE[1]
    if number:  # smaller one way and larger the other, and see-through: enlarged, cropped elsewhere, its alpha dropped
        drawn = pixels(width * 3 // 5, height * 7 // 4, number)
        picture = Image.fromarray(drawn)
        picture.putalpha(Image.fromarray(drawn[:, :, 0] // 2 + 100))
    else:
        picture = Image.fromarray(pixels(width * 5 // 4, height * 3 // 2, number))
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    digest = ev.blake3(picture.tobytes()).partition(":")[2][:16]
    file = port.state / "cache" / "pictures" / f"{digest}.png"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        part.write_bytes(stream.getvalue())
        part.replace(file)
    return file


def pixels(width: int, height: int, number: int = 0) -> Any:
    """A picture as (height, width, 3) uint8, in integers only: gradients, a disc, stripes."""
    import numpy as np

    y, x = np.mgrid[0:height, 0:width]
    made = np.stack([x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), (x * 3 + y * 5) % 256], axis=-1)
    centre = (width * (1 + number) // (3 + number), height * 2 // 5)
    disc = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < (min(width, height) // 4) ** 2
    made[disc] = (240, 200, 40) if number == 0 else (30, 90, 220)
    made[((x + 2 * y) // 9 % 7 == number)] //= 2
    if number:
        made = made[:, ::-1]
    return np.ascontiguousarray(made.astype(np.uint8))
