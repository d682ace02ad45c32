# SPDX-License-Identifier: Apache-2.0
"""A loader of FastVideo whose word is no proof: SigLIP's names what it did not copy, and coverage by value sees it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

CODE = """
import importlib.util, json, sys
from pathlib import Path
from fvport import fastvideo_api
fastvideo_api.boot(Path(importlib.util.find_spec("fastvideo").origin).parent.parent, "cpu")
import torch
from fastvideo.configs.models.encoders import SiglipVisionConfig
from fastvideo.models.encoders.siglip import SiglipVisionModel
from transformers import SiglipVisionConfig as OfficialConfig, SiglipVisionModel as Official
from fvport.weights import mapping, values

shape = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=16)
shape |= dict(patch_size=8, num_channels=3)
official = {
    name if name.startswith("vision_model.") else f"vision_model.{name}": tensor
    for name, tensor in Official(OfficialConfig(**shape, vision_use_head=False)).state_dict().items()
    if "head" not in name
}
config = SiglipVisionConfig()
config.update_model_arch(shape)
rules = mapping.Rules.from_fastvideo(None, config.arch_config.stacked_params_mapping)
found = {}
for case in ("whole", "lacking k"):
    held = dict(official)
    gone = "vision_model.encoder.layers.1.self_attn.k_proj.weight"
    if case == "lacking k":
        held["vision_model.encoder.layers.1.self_attn.k_projection.weight"] = held.pop(gone)
    torch.manual_seed(0)
    native = SiglipVisionModel(config).float()
    for parameter in native.parameters():
        torch.nn.init.normal_(parameter)
    reported = set(native.load_weights((name, tensor.clone()) for name, tensor in held.items()))
    state = {name: tensor for name, tensor in native.named_parameters()}
    found[case] = {
        "not reported": sorted(set(state) - reported),
        "reported and not there": sorted(reported - set(state)),
        "faults": [
            [fault.problem, fault.name]
            for fault in values.compare(
                values.Store.of_arrays(official), rules.apply(official), values.Store.of_arrays(state)
            ).faults
        ],
    }
print(json.dumps(found))
"""


@pytest.mark.heavy
def test_siglips_loader_reports_what_it_did_not_copy(tmp_path):
    """Without k its fused parameter is reported as loaded, and so is a name that the model does not have; compared by
    value, the parameter is named, and a whole checkpoint has no fault."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    fused = "vision_model.encoder.layers.1.self_attn.qkv_proj.weight"
    assert found["whole"] == {"not reported": [], "reported and not there": [], "faults": []}
    lacking = found["lacking k"]
    assert lacking["not reported"] == []
    assert lacking["reported and not there"] == ["vision_model.encoder.layers.1.self_attn.qkv_projection.weight"]
    assert [name for _, name in lacking["faults"]] == [fused]
