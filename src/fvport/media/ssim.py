# SPDX-License-Identifier: Apache-2.0
"""SSIM as scikit-image defines it, and MS-SSIM as pytorch-msssim (which FastVideo's own suite uses) defines it.

A figure without its definition says little: ten definitions gave 0.905 to 0.985 on one pair of videos.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fvport.media import kernel
from fvport.media.probe import MediaError
from fvport.media.series import Series

Similarity = Series
SMALLEST = 2 * kernel.RADIUS + 1  # pixels: the window's width
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # weights of MS-SSIM's five scales
SMALLEST_MS = 2 * kernel.RADIUS * 2 ** (len(SCALES) - 1) + 1  # the window must fit at the last scale
WINDOW = "gaussian window 11x11, sigma 1.5, population covariance, range 255, RGB uint8, mean over channels"
DEFINITION = f"scikit-image structural_similarity: {WINDOW}, borders of 5 pixels left out"
MS_DEFINITION = f"pytorch-msssim ms_ssim: {WINDOW}, no padding, 5 scales ({', '.join(map(str, SCALES))}), 2x2 mean"


def ssim(a: Any, b: Any) -> float:
    """SSIM of two uint8 frames of shape (height, width, 3). MediaError where they cannot be compared."""
    comparable(a, b, SMALLEST, "SSIM's window of 11 pixels")
    return float(kernel.ssim_cs(a, b)[0].mean())


def ms_ssim(a: Any, b: Any) -> float:
    """MS-SSIM of two uint8 frames of shape (height, width, 3). MediaError where they cannot be compared."""
    comparable(a, b, SMALLEST_MS, f"MS-SSIM's five scales, which need {SMALLEST_MS} pixels a side (take ssim)")
    parts = kernel.ms_parts(a, b, len(SCALES))
    terms = [structure for _, structure in parts[:-1]] + [parts[-1][0]]
    product = 1.0
    for term, weight in zip(terms, SCALES, strict=True):
        product = product * term.clip(min=0) ** weight
    return float(product.mean())  # type: ignore[attr-defined]


def comparable(a: Any, b: Any, smallest: int = 1, what: str = "one pixel") -> None:
    """MediaError unless both are uint8 frames (height, width, channels) of one size that is large enough."""
    if a.shape[:2] != b.shape[:2]:
        raise MediaError(f"frames have other sizes: {a.shape[1]}x{a.shape[0]} and {b.shape[1]}x{b.shape[0]}")
    if a.shape != b.shape:
        raise MediaError(f"frames have other channels: {a.shape[2:]} and {b.shape[2:]}")
    for frame in (a, b):
        if str(frame.dtype) != "uint8" or frame.ndim != 3:
            raise MediaError(f"frames must be uint8 (height, width, channels), one is {frame.dtype} {frame.shape}")
    if min(a.shape[:2]) < smallest:
        raise MediaError(f"frames of {a.shape[1]}x{a.shape[0]} are smaller than {what}")


def compare(a: Iterable[Any], b: Iterable[Any], metric: str = "ssim") -> Series:
    """Frame by frame, a few frames in memory. Videos of other lengths are no pair: MediaError says both lengths."""
    from fvport.media import measures

    return measures.measure(a, b, (metric,))[metric]
