# SPDX-License-Identifier: Apache-2.0
"""A registered port in the real FastVideo: what resolves to what, and FastVideo's own tests before and after."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from workspace_helpers import make_port, write

from fvport import workspace
from fvport.spec import Port
from fvport.workspace import upstream_tests

pytestmark = pytest.mark.heavy

RESOLVE = """
import json, sys
import fastvideo
from fastvideo.registry import _get_config_info, get_preset_selection
from fastvideo.api.presets import get_presets_for_family
answers = {}
for path in json.loads(sys.argv[1]):
    info = _get_config_info(path)
    answers[path] = [info.pipeline_config_cls.__name__, info.pipeline_cls_name, *get_preset_selection(path)]
presets = [preset.name for preset in get_presets_for_family("tiny_wan")]
import fastvideo.configs.models.dits as dits
import fastvideo.configs.pipelines as pipelines
asked = ((dits, "TinyWanConfig"), (pipelines, "TinyWanPipelineConfig"))
exported = [name in module.__all__ for module, name in asked]
report = {"file": fastvideo.__file__, "answers": answers, "presets": presets, "exported": exported}
print("ANSWER " + json.dumps(report))
"""


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Port:
    """A hand-made port on a tree made from the installed wheel."""
    found = make_port(tmp_path_factory.mktemp("real tree") / "p")
    workspace.make(found)
    return found


def _model(root: Path, name: str, pipeline: str) -> str:
    write(root, {f"{name}/model_index.json": json.dumps({"_class_name": pipeline, "_diffusers_version": "0.42.1"})})
    return str(root / name)


def test_the_port_resolves_to_the_port_and_wan_to_wan(port: Port, tmp_path: Path) -> None:
    """Load tree, official folder and pipeline name give the port's config; all others keep FastVideo's."""
    mine = [
        _model(tmp_path, "converted_weights/tiny_wan", "TinyWanPipeline"),
        _model(tmp_path, "official_weights/tiny_wan", "WanPipeline"),
        _model(tmp_path, "renamed", "TinyWanPipeline"),
        _model(port.root, "converted_weights/tiny_wan", "TinyWanPipeline") + "/",
    ]
    others = {
        _model(tmp_path, "models/tiny_wan", "WanPipeline"): "WanT2V480PConfig",
        _model(tmp_path, "converted_weights/tiny_wan_v2", "WanPipeline"): "WanT2V480PConfig",
        _model(tmp_path, "x/Wan2.1-T2V-14B-Diffusers", "WanPipeline"): "WanT2V720PConfig",
        _model(tmp_path, "converted_weights/mmaudio", "MMAudioPipeline"): "MMAudioV2AConfig",
        "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": "WanT2V480PConfig",
    }
    command = [sys.executable, "-c", RESOLVE, json.dumps([*mine, *others])]
    env = os.environ | {"PYTHONPATH": str(port.root), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("ANSWER "))
    found = json.loads(line.removeprefix("ANSWER "))
    assert Path(found["file"]).is_relative_to(port.root)
    expected = ["TinyWanPipelineConfig", "TinyWanPipeline", "tiny_wan_default", "tiny_wan"]
    assert {path: found["answers"][path] for path in mine} == dict.fromkeys(mine, expected)
    assert {path: found["answers"][path][0] for path in others} == others
    assert found["presets"] == ["tiny_wan_default"]
    assert found["exported"] == [True, True]


def test_fastvideos_own_tests_pass_as_before(port: Port) -> None:
    """Every API and contract test that passes on FastVideo alone passes on the tree with the port registered."""
    assert upstream_tests.compare(port.root, "HEAD~2") == []
