# SPDX-License-Identifier: Apache-2.0
"""A generated port that ships in bf16 is green in it, and says what it lost."""

from __future__ import annotations

import pytest
from conftest import PortCopy

CONFIG = "fastvideo/configs/pipelines/tiny_wan.py"


@pytest.mark.heavy
def test_a_generated_port_loses_what_the_official_pipeline_loses(port: PortCopy) -> None:
    """Its noise and timesteps stay float32; text and latents lose no more than officially."""
    port.edit(CONFIG, 'dit_precision: str = "fp32"', 'dit_precision: str = "bf16"')
    port.edit(CONFIG, 'precisions: tuple[str, ...] = ("fp32", )', 'precisions: tuple[str, ...] = ("bf16", )')
    ran = port.fvport("check", "pipeline", "--json")
    items = {item["name"]: item for item in ran.json()["items"]}
    assert ran.code == 0, [item for item in items.values() if item["verdict"] != "pass"]
    assert items["as shipped: initial noise"]["metrics"]["lost"] == 0
    text = items["as shipped: conditioning"]["metrics"]
    assert 0 < text["lost"] <= 3 * text["lost_officially"]
    stages = ["timesteps", "initial noise", "conditioning", "latents", "media"]
    assert items["planted: losses as shipped"]["metrics"]["seen_at"] == stages
