# SPDX-License-Identifier: Apache-2.0
"""Classes of many families at their real sizes (meta device only): same structure when tiny, and the twin computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fvport.tiny import release, shrink, structure, values

BLOCKS = [128, 256, 512, 512]
KL = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
SD35 = {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536, "pos_embed_max_size": 384}
CLASSES: dict[str, dict[str, Any]] = {  # the library's own defaults are a released model's sizes, with these changes
    "WanTransformer3DModel": {},
    "FluxTransformer2DModel": {"guidance_embeds": True},
    "SD3Transformer2DModel": SD35 | {"qk_norm": "rms_norm", "dual_attention_layers": list(range(13))},
    "HunyuanVideoTransformer3DModel": {},
    "LTXVideoTransformer3DModel": {},
    "PixArtTransformer2DModel": {},
    "AutoencoderKL": KL | {"block_out_channels": BLOCKS, "layers_per_block": 2, "latent_channels": 16},
    "AutoencoderKLWan": {},
    "T5EncoderModel": {"d_model": 4096, "d_ff": 10240, "num_layers": 24, "num_heads": 64},
    "CLIPTextModel": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "eos_token_id": 49407},
    "Qwen2Model": {"num_key_value_heads": 4},
    "Gemma2Model": {},
    "Qwen3MoeModel": {},
    "Wav2Vec2Model": {},
}


def part(name: str, changes: dict[str, Any], folder: Path) -> release.Part:
    import diffusers
    import transformers

    folder.mkdir()
    config: dict[str, Any] = {"_class_name": name} | changes
    if not hasattr(diffusers, name):
        made = getattr(transformers, name).config_class(**changes).to_dict()
        config = json.loads(json.dumps(made | {"architectures": [name]}, default=str))
    (folder / "config.json").write_text(json.dumps(config))
    return release.read(folder).parts[folder.name]


def twin_of(one: release.Part) -> shrink.Twin:
    return shrink.plan(release.Release(one.folder, False, {one.name: one}))[one.name]


@pytest.mark.parametrize("name", list(CLASSES))
def test_the_structure_stays(name: str, tmp_path: Path) -> None:
    """Every kind of layer, tensor and switch is there; the twin has less than 1.1 million parameters."""
    one = part(name, CLASSES[name], tmp_path / "part")
    twin = twin_of(one)
    before, after = (structure.kind(shrink.build(one, config)) for config in (one.config, twin.config))
    assert structure.difference(before, after) == ""
    assert before == after
    assert twin.after < 1_100_000, twin


def test_switches_that_only_a_config_shows(tmp_path: Path) -> None:
    """Kinds of attention, grouped heads, dual layers and experts are still of more than one kind."""
    gemma = twin_of(part("Gemma2Model", {}, tmp_path / "gemma")).config
    assert set(gemma["layer_types"]) == {"sliding_attention", "full_attention"}
    assert len(gemma["layer_types"]) == gemma["num_hidden_layers"]
    assert 1 < gemma["num_key_value_heads"] < gemma["num_attention_heads"]
    sd3 = twin_of(part("SD3Transformer2DModel", CLASSES["SD3Transformer2DModel"], tmp_path / "sd3")).config
    assert 0 < len(sd3["dual_attention_layers"]) < sd3["num_layers"] - 1
    pixart = twin_of(part("PixArtTransformer2DModel", {}, tmp_path / "pixart"))
    assert "would lose additional_condition_proj" in pixart.kept["sample_size"]  # a switch that is read from a size


def test_the_rest_follows_what_the_user_sets(tmp_path: Path) -> None:
    """A width, a depth or heads that are set: what stands in a relation to them keeps it."""

    def config(name: str, **given: int) -> dict[str, Any]:
        one = part(name, CLASSES[name], tmp_path / f"{name}{len(given)}")
        return shrink.plan(release.Release(one.folder, False, {one.name: one}), {one.name: given})[one.name].config

    encoder = config("T5EncoderModel", d_model=48)
    assert encoder["num_heads"] * encoder["d_kv"] == encoder["d_model"] == 48
    assert encoder["d_ff"] < 200
    gemma = config("Gemma2Model", num_hidden_layers=6, num_attention_heads=8)
    assert len(gemma["layer_types"]) == gemma["num_hidden_layers"] == 6
    assert gemma["num_attention_heads"] == 8
    flux = config("FluxTransformer2DModel", attention_head_dim=32)
    assert sum(flux["axes_dims_rope"]) == flux["attention_head_dim"] == 32


def test_the_twins_compute(tmp_path: Path) -> None:
    """With drawn values, real memory and a forward: finite, and not a constant."""
    import torch

    def made(name: str) -> Any:
        one = part(name, CLASSES[name], tmp_path / name)
        return values.randomise(one.build(twin_of(one).config), name)

    ids = torch.tensor([[3, 7, 11, 5]])
    with torch.no_grad():
        found = {n: made(n)(ids).last_hidden_state for n in ("T5EncoderModel", "CLIPTextModel", "Gemma2Model")}
        vae = made("AutoencoderKL")
        found["vae"] = vae.decode(vae.encode(torch.rand(1, 3, 32, 48)).latent_dist.mode()).sample
        flux = made("FluxTransformer2DModel")
        found["flux"] = flux(
            hidden_states=torch.rand(1, 6, flux.config.in_channels),
            encoder_hidden_states=torch.rand(1, 4, flux.config.joint_attention_dim),
            pooled_projections=torch.rand(1, flux.config.pooled_projection_dim),
            timestep=torch.tensor([0.5]),
            guidance=torch.tensor([3.5]),
            img_ids=torch.rand(6, 3),
            txt_ids=torch.zeros(4, 3),
        ).sample
    for name, tensor in found.items():
        assert bool(torch.isfinite(tensor).all()), name
        assert float(tensor.std()) > 0, name
