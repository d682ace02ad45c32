# SPDX-License-Identifier: Apache-2.0
"""Measures of pictures, frame by frame, in one pass over both videos: a few frames in memory, whatever their length."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from fvport.errors import UsageError, did_you_mean
from fvport.media import ssim
from fvport.media.probe import MediaError
from fvport.media.series import Series

EQUAL = 200.0  # dB of equal frames, which have no finite PSNR


@dataclass(frozen=True)
class Measure:
    """`of` takes two frames and the two before them (None at first) and gives a number; None leaves the frame out."""

    name: str
    of: Callable[[Any, Any, Any, Any], float]
    better: str
    definition: str


def psnr(a: Any, b: Any) -> float:
    """PSNR in dB of two uint8 arrays of one shape, range 255; EQUAL where they are."""
    import math

    error = squared_error(a, b)
    return EQUAL if error == 0 else 10 * math.log10(255.0**2 / error)


def squared_error(a: Any, b: Any) -> float:
    """Mean squared difference of two uint8 arrays, exact in integers."""
    import numpy as np

    difference = np.subtract(a, b, dtype=np.int16).astype(np.int32)
    difference *= difference
    return float(difference.sum(dtype=np.int64)) / int(difference.size)


def temporal(a: Any, b: Any, before_a: Any, before_b: Any) -> float:
    """How differently two videos move: mean |(a - a before) - (b - b before)| of 255. 0 for the first frame."""
    import numpy as np

    if before_a is None:
        return 0.0
    moved = [np.subtract(now, then, dtype=np.int16) for now, then in ((a, before_a), (b, before_b))]
    return float(np.abs(moved[0] - moved[1]).mean(dtype=np.float64)) / 255


def _psnr(a: Any, b: Any, *_: Any) -> float:
    ssim.comparable(a, b)
    return psnr(a, b)


def _temporal(a: Any, b: Any, before_a: Any, before_b: Any) -> float:
    ssim.comparable(a, b)
    return temporal(a, b, before_a, before_b)


def _lpips(a: Any, b: Any, *_: Any) -> float:
    from fvport.media import lpips

    ssim.comparable(a, b, lpips.SMALLEST, f"LPIPS's {lpips.SMALLEST} pixels")
    return lpips.distance(a, b)


MEASURES = {
    measure.name: measure
    for measure in (
        Measure("ssim", lambda a, b, *_: ssim.ssim(a, b), "higher", ssim.DEFINITION),
        Measure("ms_ssim", lambda a, b, *_: ssim.ms_ssim(a, b), "higher", ssim.MS_DEFINITION),
        Measure("psnr", _psnr, "higher", f"dB, range 255, RGB uint8, over all channels at once; equal: {EQUAL:g}"),
        Measure("temporal", _temporal, "lower", "mean |step of a - step of b| / 255, RGB uint8; first frame 0"),
        Measure("lpips", _lpips, "lower", "LPIPS 0.1, AlexNet, RGB in [-1, 1], weights from FVPORT_LPIPS"),
    )
}


def measure(a: Iterable[Any], b: Iterable[Any], names: Iterable[str], workers: int = 0) -> dict[str, Series]:
    """Each measure of each pair of uint8 frames (height, width, 3). MediaError where the two are no pair.

    `workers`: threads (0: one a core, no more than OMP_NUM_THREADS). Frames in memory: three times as many pairs.
    """
    wanted = [find(name) for name in names]
    for one in wanted:
        ready(one.name)
    found = {one.name: Series([], one.better, one.name, one.definition) for one in wanted}
    workers = workers or cores()
    with ThreadPoolExecutor(workers, thread_name_prefix="fvport-media") as pool:
        waiting: deque[Any] = deque()
        for number, pair in enumerate(_pairs(a, b)):
            waiting.append(pool.submit(_one, wanted, number, pair))
            if len(waiting) > 2 * workers:
                _take(waiting, found)
        while waiting:
            _take(waiting, found)
    if wanted and not found[wanted[0].name].values:
        raise MediaError("there is no frame to compare")
    return found


def find(name: str) -> Measure:
    if name not in MEASURES:
        known = ", ".join(MEASURES)
        raise UsageError(f'no measure of pictures is called "{name}" ({known}).{did_you_mean(name, MEASURES)}')
    return MEASURES[name]


def ready(name: str) -> None:
    """BlockedError before any frame is read, where a measure needs what is not on this machine."""
    if name == "lpips":
        from fvport.media import lpips

        lpips.weights()


def cores() -> int:
    """Threads to use: the cores that this process may run on, at most what OMP_NUM_THREADS says."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(allowed, int(asked)) if asked.isdigit() and int(asked) else allowed)


def _one(wanted: list[Measure], number: int, pair: tuple[Any, Any, Any, Any]) -> list[float]:
    try:
        return [measure.of(*pair) for measure in wanted]
    except MediaError as error:
        raise MediaError(error.what if not number else f"frame {number}: {error.what}") from None


def _take(waiting: deque[Any], found: dict[str, Series]) -> None:
    for series, value in zip(found.values(), waiting.popleft().result(), strict=True):
        series.values.append(value)


def _pairs(a: Iterable[Any], b: Iterable[Any]) -> Iterator[tuple[Any, Any, Any, Any]]:
    """(a, b, the a before, the b before); MediaError with both lengths where one ends first."""
    left, right = iter(a), iter(b)
    before: tuple[Any, Any] = (None, None)
    count = 0
    while True:
        x, y = next(left, None), next(right, None)
        if x is None and y is None:
            return
        if x is None or y is None:
            more = count + 1 + sum(1 for _ in (right if x is None else left))
            first, second = (count, more) if x is None else (more, count)
            raise MediaError(f"videos have other lengths: {first} and {second} frames")
        yield x, y, *before
        before, count = (x, y), count + 1
