# SPDX-License-Identifier: Apache-2.0
"""Production that tiles what the official pipeline decodes whole is red, where a preset is large enough to show it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from fvport.checks import _fields as fields
from fvport.checks import _tiling
from fvport.spec import Component

VAE = Component("vae", "vae", "reuse", official="diffusers:AutoencoderKL", native="fastvideo.models.vaes.x:X")
TILE = {"tile_sample_min_height": 256, "tile_sample_min_width": 256, "tile_sample_min_num_frames": 16}
LARGE = {"height": 480, "width": 256, "num_frames": 81}


def item(sizes: dict[str, Any], config: dict[str, Any], pipeline: dict[str, Any], component: Component = VAE) -> Any:
    preset = {key: SimpleNamespace(value=value) for key, value in sizes.items()}
    port: Any = SimpleNamespace(presets={"default": preset})
    return _tiling.item(port, component, {"config": {**TILE, **config}}, pipeline)


@pytest.mark.parametrize(
    ("config", "pipeline", "said"),
    [
        ({"use_tiling": True}, {"vae_tiling": False}, "vae's config has use_tiling"),
        ({"use_tiling": False}, {"vae_tiling": True}, "the pipeline config has vae_tiling"),
    ],
)
def test_a_default_that_tiles_is_red(config: dict[str, Any], pipeline: dict[str, Any], said: str) -> None:
    """Either switch suffices; the sentence has the sizes that the tile does not hold."""
    found = item(LARGE, config, pipeline)
    assert found.verdict == "fail"
    assert said in found.reason
    assert "height 480 (a tile has 256)" in found.reason
    assert "width" not in found.reason
    assert "num_frames" not in found.reason  # only where time is tiled too
    assert "num_frames 81 (a tile has 16)" in item(LARGE, {**config, "use_temporal_tiling": True}, pipeline).reason
    assert "vae_tiling and vae_sp to False" in found.todo


def test_a_whole_decode_and_small_presets_are_green() -> None:
    """Nothing tiles, or nothing is larger than a tile."""
    assert item(LARGE, {"use_tiling": False}, {"vae_tiling": False}).verdict == "pass"
    assert item({"height": 256, "width": 128}, {"use_tiling": True}, {}).verdict == "pass"
    unknown = _tiling.item(
        SimpleNamespace(presets={"default": {"height": SimpleNamespace(value=64)}}),  # type: ignore[arg-type]
        VAE,
        {"config": {"use_tiling": True}},
        {},
    )
    assert unknown.verdict == "fail"  # a tile of a size that nobody knows


def test_a_size_that_nobody_declares_is_not_called_small() -> None:
    """A preset without a size may be of any."""
    found = item({}, {"use_tiling": True}, {})
    assert (found.verdict, "not every preset says its size" in found.reason) == ("fail", True)


@pytest.mark.parametrize("sizes", [{"num_frames": 9}, {"height": 64}, {"height": 64, "width": None}])
def test_half_a_size_is_none(sizes: dict[str, Any]) -> None:
    """Flux's call says neither height nor width: they follow from the checkpoint."""
    assert item(sizes, {"use_tiling": True}, {}).verdict == "fail"


def test_parallel_tiles_have_any_size() -> None:
    """With several GPUs FastVideo's VAEs tile whatever the size is, where the config says so."""
    found = item({"height": 64, "width": 64}, {"use_tiling": True, "use_parallel_tiling": True}, {})
    assert (found.verdict, "on several GPUs any size" in found.reason) == ("fail", True)
    assert item({"height": 64, "width": 64}, {"use_parallel_tiling": True}, {}).verdict == "pass"


def test_a_written_reason_is_taken_and_is_no_stale_excuse() -> None:
    """A port that has to tile says why; the gate lists it as a risk."""
    told = replace(VAE, config_ignored={"use_tiling": "81 frames do not fit otherwise"})
    found = item(LARGE, {"use_tiling": True}, {}, told)
    assert (found.verdict, found.reason) == ("pass", "in tiles, by declaration: 81 frames do not fit otherwise")
    assert fields.stale_excuses(told, {}, {}) == []
    assert fields.stale_excuses(replace(told, kind="dit"), {}, {})[0][0] == "stale excuse"
    assert item(LARGE, {"use_tiling": True}, {}, replace(VAE, config_ignored={"use_tiling": " "})).verdict == "fail"


def test_only_a_vae_that_fastvideo_builds_is_asked() -> None:
    """Not a transformer, not an external one."""
    assert _tiling.tiles(VAE)
    assert not _tiling.tiles(replace(VAE, mode="external"))
    assert not _tiling.tiles(replace(VAE, kind="dit"))
