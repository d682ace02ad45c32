# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of SSIM and MS-SSIM: one separable gaussian, four filtered planes, bands that stay in the cache.

With s = a + b and d = a - b the five moments of SSIM become four: var(a) + var(b) = (var(s) + var(d)) / 2 and
2 cov(a, b) = (var(s) - var(d)) / 2. Sums are centred before they are squared, so float32 is enough for a mean over many
pixels (under 1e-6 from float64); small frames, where rounding does not average out, are float64. OpenCV filters where
it can be imported; torch does the same where it cannot, and on CUDA.
"""

from __future__ import annotations

import functools
from typing import Any

RADIUS = 5  # scikit-image: int(3.5 * 1.5 + 0.5), a window of 11 pixels
SIGMA = 1.5
RANGE = 255.0
K1, K2 = 0.01, 0.03
BAND = 118  # rows of a band: its planes fit a core's cache, and its borders cost little
SMALL = 256 * 256  # pixels of a frame that is computed in float64
ROWS = 16  # rows that the elementwise part takes at once
_C1, _C2 = 2 * (K1 * RANGE) ** 2, 2 * (K2 * RANGE) ** 2  # doubled: so are all moments here


@functools.cache
def window(precision: str = "float32") -> Any:
    """(11,): the gaussian, adding up to one."""
    import numpy as np

    x = np.arange(-RADIUS, RADIUS + 1)
    weights = np.exp(-0.5 * (x / SIGMA) ** 2)
    return (weights / weights.sum()).astype(precision)


@functools.cache
def has_opencv() -> bool:
    """Whether OpenCV can be imported (its wheel wants libraries of the system that a small image may lack)."""
    try:
        import cv2  # noqa: F401
    except ImportError:
        return False
    return True


def planes(a: Any, b: Any, precision: str = "float32") -> tuple[Any, Any]:
    """(a + b - 255, a - b) as floats, from uint8 of any one shape."""
    total, right = a.astype(precision), b.astype(precision)
    difference = total - right
    total += right
    total -= total.dtype.type(RANGE)
    return total, difference


def precision(shape: tuple[int, ...]) -> str:
    """float64 for small frames (height, width, ...), float32 for others."""
    return "float64" if shape[0] * shape[1] < SMALL else "float32"


def ssim_cs(a: Any, b: Any) -> tuple[Any, Any]:
    """Mean SSIM and mean contrast-structure term of each channel, both float64 (channels,), of uint8 (h, w, c)."""
    if not has_opencv():
        return torch_ssim_cs(a, b)
    kind = precision(a.shape)
    return _bands(a.shape, lambda low, high: planes(a[low:high], b[low:high], kind))


def ms_parts(a: Any, b: Any, scales: int) -> list[tuple[Any, Any]]:
    """(SSIM, contrast-structure) of each channel at each scale; the next scale is the mean of 2 x 2 pixels."""
    total, difference = planes(a, b, precision(a.shape))
    found = []
    for scale in range(scales):
        if scale:
            total, difference = halve(total + RANGE) - RANGE, halve(difference)
            kind = precision(total.shape)
            total, difference = total.astype(kind, copy=False), difference.astype(kind, copy=False)
        found.append(_of_planes(total, difference))
    return found


def halve(plane: Any) -> Any:
    """Mean of 2 x 2 pixels; an odd side is padded with a zero in front, as pytorch-msssim's pooling does."""
    import numpy as np

    odd = [(side % 2, 0) for side in plane.shape[:2]]
    if any(pad for pad, _ in odd):
        plane = np.pad(plane, [*odd, (0, 0)])
    quarter = plane.dtype.type(0.25)
    return (plane[::2, ::2] + plane[1::2, ::2] + plane[::2, 1::2] + plane[1::2, 1::2]) * quarter


def _of_planes(total: Any, difference: Any) -> tuple[Any, Any]:
    if has_opencv():
        return _bands(total.shape, lambda low, high: (total[low:high], difference[low:high]))
    import torch

    stacked = torch.stack([torch.from_numpy(plane).permute(2, 0, 1) for plane in (total, difference)])
    similarity, structure = _torch_means(stacked[:1], stacked[1:])
    return similarity[0].cpu().numpy(), structure[0].cpu().numpy()


def _bands(shape: tuple[int, ...], part: Any) -> tuple[Any, Any]:
    """Mean over the valid area: what the window covers whole, as scikit-image crops it."""
    import numpy as np

    height, width, channels = shape
    rows = height - 2 * RADIUS
    sums = np.zeros((2, channels))
    for low in range(0, rows, BAND):
        total, difference = part(low, min(low + BAND, rows) + 2 * RADIUS)
        sums += _band(total, difference, channels)
    similarity, structure = sums / (rows * (width - 2 * RADIUS))
    return similarity, structure


def _band(total: Any, difference: Any, channels: int) -> Any:
    """Sums (2, channels) of SSIM and contrast-structure over the band's valid rows."""
    import cv2
    import numpy as np

    inner, weights = slice(RADIUS, -RADIUS), window(str(total.dtype))

    def filtered(plane: Any) -> Any:
        return cv2.sepFilter2D(plane, -1, weights, weights).reshape(plane.shape)[inner, inner]

    moments = [filtered(plane) for plane in (total, difference, total * total, difference * difference)]
    sums = np.zeros((2, channels))
    for low in range(0, moments[0].shape[0], ROWS):
        similarity, structure = _formula(*(moment[low : low + ROWS] for moment in moments))
        sums += [cv2.sumElems(similarity)[:channels], cv2.sumElems(structure)[:channels]]
    return sums


def _formula(mean_s: Any, mean_d: Any, square_s: Any, square_d: Any) -> tuple[Any, Any]:
    """SSIM and contrast-structure of each pixel from the four filtered planes; numpy arrays or tensors."""
    squared, squared_d = mean_s * mean_s, mean_d * mean_d
    var_s, var_d = square_s - squared, square_d - squared_d
    var_s += _C2
    structure = var_s - var_d
    var_s += var_d
    structure /= var_s
    bright = mean_s + RANGE
    bright *= bright
    bright += _C1
    similarity = bright - squared_d
    bright += squared_d
    similarity /= bright
    similarity *= structure
    return similarity, structure


def torch_ssim_cs(a: Any, b: Any, device: str = "cpu") -> tuple[Any, Any]:
    """The same as `ssim_cs` by torch's convolutions, on any device: frames (h, w, c) or a batch (n, h, w, c)."""
    import torch

    first, second = (torch.as_tensor(x).to(device) for x in (a, b))
    batch = first.ndim == 4
    first, second = (x if batch else x[None] for x in (first, second))
    kind = getattr(torch, precision(tuple(first.shape[1:])))
    first, second = (x.permute(0, 3, 1, 2).to(kind) for x in (first, second))
    similarity, structure = _torch_means(first + second - RANGE, first - second)
    found = [value.cpu().numpy() for value in (similarity, structure)]
    return (found[0], found[1]) if batch else (found[0][0], found[1][0])


def _torch_means(total: Any, difference: Any) -> tuple[Any, Any]:
    """Means over pixels, (batch, channels), of float planes (batch, channels, h, w)."""
    import torch

    channels = total.shape[1]
    kind = str(total.dtype).partition(".")[2]
    weights = torch.from_numpy(window(kind)).to(total.device).reshape(1, 1, -1, 1).expand(4 * channels, 1, -1, 1)
    with torch.inference_mode():
        stacked = torch.cat([total, difference, total * total, difference * difference], 1)
        rows = torch.nn.functional.conv2d(stacked, weights, groups=4 * channels)
        moments = torch.nn.functional.conv2d(rows, weights.transpose(2, 3), groups=4 * channels).chunk(4, 1)
        similarity, structure = _formula(*moments)
        return similarity.mean((2, 3), dtype=torch.float64), structure.mean((2, 3), dtype=torch.float64)
