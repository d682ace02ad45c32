# SPDX-License-Identifier: Apache-2.0
"""SSIM as scikit-image defines it: gaussian window (sigma 1.5), population covariance, range 255, mean over channels.

A figure without its definition says little: ten definitions gave 0.905 to 0.985 on one pair of videos.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from fvport.media.frames import MediaError

DEFINITION = "scikit-image structural_similarity, gaussian window sigma 1.5, population covariance, range 255, RGB mean"
SMALLEST = 11  # pixels: the window's width


@dataclass
class Similarity:
    """Per frame; `worst` decides, because one wrong frame in a hundred is a wrong video."""

    values: list[float] = field(default_factory=list)

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    @property
    def worst(self) -> float:
        return min(self.values)

    @property
    def worst_frame(self) -> int:
        return self.values.index(self.worst)


def ssim(a: Any, b: Any) -> float:
    """SSIM of two uint8 frames of shape (height, width, 3). MediaError where they cannot be compared."""
    from skimage.metrics import structural_similarity

    if a.shape != b.shape:
        raise MediaError(f"frames have other sizes: {a.shape[1]}x{a.shape[0]} and {b.shape[1]}x{b.shape[0]}")
    if min(a.shape[:2]) < SMALLEST:
        raise MediaError(f"frames of {a.shape[1]}x{a.shape[0]} are smaller than SSIM's window of {SMALLEST} pixels")
    return float(
        structural_similarity(
            a,
            b,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
            channel_axis=2,
        )
    )


def compare(a: Iterable[Any], b: Iterable[Any]) -> Similarity:
    """Frame by frame, two frames in memory. Videos of other lengths are no pair: MediaError says both lengths."""
    found = Similarity()
    left, right = iter(a), iter(b)
    while True:
        x, y = next(left, None), next(right, None)
        if x is None and y is None:
            break
        if x is None or y is None:
            more = sum(1 for _ in (right if x is None else left)) + 1
            counts = (len(found.values), len(found.values) + more)
            first, second = counts if x is None else counts[::-1]
            raise MediaError(f"videos have other lengths: {first} and {second} frames")
        found.values.append(ssim(x, y))
    if not found.values:
        raise MediaError("there is no frame to compare")
    return found
