# SPDX-License-Identifier: Apache-2.0
"""Configs hold what nobody expects: null where a class computes a value, a word for a number. No bake crashes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bake_helpers import WAN, bake, release

from fvport.errors import UsageError

NULLS = [(name, key) for name in ("transformer", "vae", "text_encoder") for key in WAN[name][2]]
ODD = [
    ("transformer", "patch_size", -1, "transformer"),
    ("transformer", "out_channels", "x", ""),
    ("text_encoder", "feed_forward_proj", [], "text_encoder"),
    ("vae", "scale_factor_spatial", {"a": 1}, ""),
    ("vae", "z_dim", "x", ""),
]


def odd(folder: Path, name: str, key: str, value: Any) -> Path:
    """A port of a Wan image-to-video release with one odd value in a component's config."""
    library, cls, config, tensors = WAN[name]
    changed = {**WAN, name: (library, cls, {**config, key: value}, tensors)}
    weights = release(folder / "w", "WanImageToVideoPipeline", changed)
    return bake(folder / "out", official_weights=str(weights), workload_type="i2v")


@pytest.mark.heavy
@pytest.mark.parametrize(("name", "key"), NULLS)
def test_null_is_baked_or_named(tmp_path: Path, name: str, key: str) -> None:
    """Null in place of any value: a bake, or one sentence that names the component."""
    said = name
    try:
        odd(tmp_path, name, key, None)
    except UsageError as error:
        said = str(error)
    assert name in said


def test_null_out_channels_are_as_many_as_come_in(tmp_path: Path) -> None:
    """Flux's config says null: the bake goes through, and no mask or picture is thought to lie beside the noise."""
    root = odd(tmp_path, "transformer", "out_channels", None)
    assert not list(root.rglob("image_conditioning.py"))


@pytest.mark.parametrize(("name", "key", "value", "named"), ODD)
def test_an_odd_value_is_baked_or_named(tmp_path: Path, name: str, key: str, value: Any, named: str) -> None:
    """What no template can compute with is refused with the component's name; what only a page shows is baked."""
    if not named:
        assert odd(tmp_path, name, key, value).is_dir()
        return
    with pytest.raises(UsageError, match=f"official config of {named} holds a value"):
        odd(tmp_path, name, key, value)
    assert not list((tmp_path / "out").rglob("*.py"))  # nothing half-baked stays
