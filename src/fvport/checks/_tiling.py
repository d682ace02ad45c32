# SPDX-License-Identifier: Apache-2.0
"""Whether production decodes in tiles what the official pipeline decodes whole.

FastVideo's VAE configs tile by default, and only above a size that the gate's own call rarely reaches: the parity of a
small decode says nothing of the seams of a large one. So what decides it is compared, not the pictures.
"""

from __future__ import annotations

from typing import Any

from fvport.evidence import Item
from fvport.spec import Component, Port

Json = dict[str, Any]
ACCEPTED = "use_tiling"
SIZES = {"height": "tile_sample_min_height", "width": "tile_sample_min_width"}
FRAMES = "tile_sample_min_num_frames"


def tiles(c: Component) -> bool:
    """Components that have such an item."""
    return c.kind == "vae" and c.mode in ("port", "reuse")


def accepted(c: Component) -> set[str]:
    """The key of `config_ignored` in which a person says why production tiles."""
    return {ACCEPTED} if tiles(c) else set()


def item(port: Port, c: Component, schema: Json, pipeline: Json) -> Item:
    """`schema`: what FastVideo made of the VAE's config; `pipeline`: the pipeline config's fields."""
    name, config = f"{c.name}: tiling", schema.get("config", {})
    by = [f"{c.name}'s config has use_tiling"] if config.get("use_tiling") else []
    by += ["the pipeline config has vae_tiling"] if pipeline.get("vae_tiling") else []
    if not by:
        return Item(name, "pass", "the whole is decoded at once, as officially", component=c.name)
    if reason := c.config_ignored.get(ACCEPTED, "").strip():
        return Item(name, "pass", f"in tiles, by declaration: {reason}", component=c.name)
    large = "on several GPUs any size" if config.get("use_parallel_tiling") else _large(port, config)
    if not large:
        return Item(name, "pass", f"{' and '.join(by)}; no preset is larger than a tile", component=c.name)
    what = f"{c.name}: {' and '.join(by)}, and the official pipeline decodes the whole: {large} is decoded in"
    todo = (
        "Set vae_tiling and vae_sp to False, and self.vae_config.use_tiling in __post_init__, of the pipeline config; "
        f"or say in components.{c.name}.config_ignored why production tiles: use_tiling"
    )
    return Item(name, "fail", f"{what} tiles, which the gate's small call does not show", component=c.name, todo=todo)


def _large(port: Port, config: Json) -> str:
    """What of the declared presets is larger than a tile, or is not known; '' where nothing is."""
    limits = {**SIZES, **({"num_frames": FRAMES} if config.get("use_temporal_tiling") else {})}
    found, known = [], bool(port.presets)
    for values in port.presets.values():
        for key, limit in limits.items():
            own, most = values[key].value if key in values else None, config.get(limit)
            known &= isinstance(own, int)
            if isinstance(own, int) and not (isinstance(most, int) and own <= most):
                found.append(f"{key} {own}" + (f" (a tile has {most})" if isinstance(most, int) else ""))
    if found:
        return f"the presets' {', '.join(dict.fromkeys(found))}"
    return "" if known else "what is larger than a tile (not every preset says its size)"
