# SPDX-License-Identifier: Apache-2.0
"""Output packing: fields under another name, parts in another order, a missing field, another container."""

from __future__ import annotations

from typing import Any

from fvport.contract import Point
from fvport.contract.red import NEAR, Red

STAGE = "output packing"


def look(red: Red) -> Point | None:
    """The right numbers in another place."""
    return _missing(red) or _swapped(red) or _order(red)


def _missing(red: Red) -> Point | None:
    for case in red.cases:
        lacking = [n for n in red.official[case] if n not in red.native[case]]
        extra = [n for n in red.native[case] if n not in red.official[case]]
        if lacking or extra:
            parts = [f"the native side returns no {', '.join(lacking[:3])}"] if lacking else []
            parts += [f"it returns {', '.join(extra[:3])}, and the official one does not"] if extra else []
            return Point(STAGE, "fields", f"{'; '.join(parts)} (case {case})")
    return None


def _swapped(red: Red) -> Point | None:
    mine, theirs = red.native[red.case], red.official[red.case]
    bad = red.bad(red.case)
    found = []
    for name in bad:
        other = next((n for n in mine if n != name and red.equal(red.case, name, mine[n], theirs[name])), None)
        if other is not None:
            found.append(f"the official {name} is the native {other}")
    return Point(STAGE, "fields swapped", "; ".join(found[:4])) if found else None


def _order(red: Red) -> Point | None:
    """The same slices along a dimension, in another order: tokens of sub-conditioners, parts of a concatenation."""
    for name in red.bad(red.case):
        mine, theirs = red.native[red.case].get(name), red.official[red.case][name]
        if mine is None or mine.shape != theirs.shape or not theirs.is_floating_point():
            continue
        for dim in range(theirs.dim()):
            order = _permutation(mine, theirs, dim)
            if order is not None:
                what = (
                    "tokens" if theirs.dim() == 3 and dim == 1 else "rows" if dim == 0 else f"parts of dimension {dim}"
                )
                words = f"{name} holds the official {what} in another order: {_runs(order)} (official place -> native)"
                return Point(STAGE, "order", words)
    return None


def _permutation(mine: Any, theirs: Any, dim: int) -> list[int] | None:
    """For each official slice along `dim` the native place that holds it; None unless every one has its own."""
    a, b = (t.detach().double().movedim(dim, 0).flatten(1) for t in (mine, theirs))
    count = len(b)
    if not 1 < count <= 4096 or b.shape[1] < 1:
        return None
    scale = b.norm(dim=1).clamp_min(1e-30)
    import torch

    far = torch.cdist(b, a, compute_mode="donot_use_mm_for_euclid_dist") / scale[:, None]
    fits = far <= 10 * NEAR
    places: list[int] = []
    left = set(range(count))
    for row in range(count):
        options = [j for j in torch.nonzero(fits[row]).flatten().tolist() if j in left]
        if not options:
            return None
        pick = row if row in options else options[0]
        places.append(pick)
        left.discard(pick)
    return places if places != list(range(count)) else None


def _runs(order: list[int]) -> str:
    """`0-3 -> 0-3, 4 -> 5, 5 -> 4`: neighbours that move together are one entry; those that stay are left out."""
    runs: list[list[int]] = []  # [first official, first native, count]
    for theirs, mine in enumerate(order):
        if runs and mine - runs[-1][1] == theirs - runs[-1][0] == runs[-1][2]:
            runs[-1][2] += 1
        else:
            runs.append([theirs, mine, 1])

    def span(first: int, count: int) -> str:
        return str(first) if count == 1 else f"{first}-{first + count - 1}"

    return ", ".join(f"{span(t, n)} -> {span(m, n)}" for t, m, n in runs if t != m)


def containers(
    mine: dict[str, Any], theirs: dict[str, Any], wanted: tuple[str, ...] = ("BaseEncoderOutput",), counts: bool = True
) -> list[Point]:
    """The native answer against FastVideo's container and the official answer's fields (`root.about` of both)."""
    found = []
    if mine["container"] not in wanted:
        words = f"the native model returns a {mine['container']}; FastVideo's pipelines read a {wanted[0]}"
        found.append(Point(STAGE, "container", words))
    for name, official in theirs.get("fields", {}).items():
        own = mine["fields"].get(name)
        if own is None or isinstance(own, dict) != isinstance(official, dict):
            continue
        if counts and isinstance(own, dict) and own["count"] != official["count"]:
            words = f"{name} holds {own['count']} tensors, officially {official['count']}"
            found.append(Point(STAGE, "fields", words))
        a, b = (v["first"] if isinstance(v, dict) else v for v in (own, official))
        if a and b and a[0] != b[0]:
            found.append(Point("dtype/autocast", "output dtype", f"{name} is {a[0]}, officially {b[0]}"))
    return found
