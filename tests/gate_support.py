# SPDX-License-Identifier: Apache-2.0
"""A whole port made of small text files, for tests of what reads text and records: gate, boundary, docs, report."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from fvport import checks, figures, spec, variants
from fvport import evidence as ev
from fvport.report import plan
from fvport.spec import Port

TOML = """\
schema = 1
[port]
model = "Toy"
slug = "toy"
workload_types = ["t2v"]
[fastvideo]
source = "worktree"
[official]
library = "diffusers"
weights = "official_weights/toy"
[official.pipeline]
class = "diffusers:ToyPipeline"
call = { height = 32, width = 32, num_frames = 5, num_inference_steps = 2 }
prompts = ["a fox"]
[components.transformer]
kind = "dit"
mode = "port"
official = "diffusers:ToyTransformer"
native = "fastvideo.models.dits.toy:ToyNative"
config = "fastvideo.configs.models.dits.toy:ToyConfig"
weights = "transformer"
[components.scheduler]
kind = "scheduler"
mode = "reuse"
official = "diffusers:ToyScheduler"
native = "fastvideo.models.schedulers.base:Scheduler"
weights = "scheduler"
[presets.default]
height = { value = 32, source = "ToyPipeline.__call__" }
[gate]
require_device = "cpu"
"""
SPDX = "# SPDX-License-Identifier: Apache-2.0\n"
FILES = {
    "fastvideo/__init__.py": "",
    "fastvideo/registry.py": "",
    "fastvideo/models/registry.py": '_MODELS = {"OtherModel": ("dits", "other", "OtherModel")}\n',
    "fastvideo/models/dits/base.py": "class BaseDiT:\n    pass\n",
    "fastvideo/models/dits/other.py": "class OtherModel:\n    pass\n\n\nEntryClass = OtherModel\n",
    "fastvideo/configs/models/base.py": "class ModelConfig:\n    pass\n",
    "fastvideo/configs/models/dits/base.py": (
        "from fastvideo.configs.models.base import ModelConfig\n\n\nclass DiTConfig(ModelConfig):\n    pass\n"
    ),
    "fastvideo/configs/models/encoders/base.py": (
        "from fastvideo.configs.models.base import ModelConfig\n\n\nclass TextEncoderConfig(ModelConfig):\n    pass\n"
    ),
    "fastvideo/configs/models/dits/__init__.py": (
        'from fastvideo.configs.models.dits.toy import ToyConfig\n\n__all__ = ["ToyConfig"]\n'
    ),
    "fastvideo/configs/models/dits/toy.py": (
        SPDX + "from fastvideo.configs.models.dits.base import DiTConfig\n\n\nclass ToyConfig(DiTConfig):\n    pass\n"
    ),
    "fastvideo/models/dits/toy.py": (
        SPDX + "import torch\n\nfrom fastvideo.models.dits.base import BaseDiT\n\n\n"
        "class ToyNative(BaseDiT):\n    pass\n\n\nEntryClass = ToyNative\n"
    ),
    "fastvideo/pipelines/basic/toy/toy_pipeline.py": "class ToyFvPipeline:\n    pass\n\n\nEntryClass = ToyFvPipeline\n",
    "examples/inference/basic/basic_toy.py": (
        "import argparse\n\nparser = argparse.ArgumentParser()\n"
        'parser.add_argument("--output")\nparser.add_argument("--seed", type=int)\n'
    ),
    "tests/local_tests/transformers/test_toy_transformer_parity.py": (
        'def test_transformer_parity(parity):\n    parity.compare("transformer", lambda native, case: native(**case))\n'
    ),
    "tests/local_tests/schedulers/test_toy_scheduler_parity.py": (
        'def test_scheduler_parity(parity):\n    parity.compare("scheduler", lambda native, case: native(**case))\n'
    ),
    "tests/local_tests/toy/oracle.py": "import torch\nfrom diffusers import ToyTransformer\n",
    "tests/local_tests/toy/PLAN.md": (
        "# Plan\n\n## Mapping\n\n- [ ] rules read <!-- gate: mapping -->\n- [x] scope confirmed\n\n## Parity\n\n"
        "- [ ] transformer <!-- gate: parity/transformer -->\n- [x] scheduler <!-- gate: parity/scheduler -->\n"
    ),
    "tests/local_tests/toy/PORT_STATUS.md": (
        "# Status\n\n<!-- fvport:begin phase -->\n<!-- fvport:end phase -->\n\n"
        "<!-- fvport:begin components -->\n<!-- fvport:end components -->\n\n"
        "<!-- fvport:begin conversion -->\n<!-- fvport:end conversion -->\n\n"
        "<!-- fvport:begin parity -->\n<!-- fvport:end parity -->\n\n| id | decision |\n| --- | --- |\n"
    ),
    "tests/local_tests/toy/port.lock.json": json.dumps(
        {
            "components": {
                name: {"files": [{"name": f"{name}/{file}", "size": 1, "blake3": "blake3:0"}]}
                for name, file in (("transformer", "config.json"), ("scheduler", "scheduler_config.json"))
            }
        }
    ),
    "tests/local_tests/toy/README.md": "# Toy\n\n<!-- fvport:begin status -->\nnone\n<!-- fvport:end status -->\n",
    "docs/inference/toy.md": (
        "# Toy\n\n## Usage\n\nRun `python examples/inference/basic/basic_toy.py --seed 3` for one video of a fox.\n\n"
        "See [below](#constraints).\n\n"
        "## Constraints\n\nHeight and width are multiples of sixteen, frames four and one.\n\n"
        "## Memory and speed\n\nFits into one gigabyte on a machine without a GPU.\n\n"
        "<!-- fvport:begin figures -->\n<!-- fvport:end figures -->\n\n"
        "## Backend requirements\n\nCompared with TORCH_SDPA, other backends change the last digits.\n"
    ),
    "official_weights/toy/model_index.json": json.dumps({"_class_name": "ToyPipeline", "transformer": ["d", "T"]}),
    "official_weights/toy/transformer/config.json": json.dumps({"_class_name": "ToyTransformer", "layers": 2}),
    "official_weights/toy/scheduler/scheduler_config.json": json.dumps({"_class_name": "Scheduler", "shift": 3.0}),
    "converted_weights/toy/model_index.json": json.dumps({"_class_name": "ToyFvPipeline", "transformer": ["d", "N"]}),
    "converted_weights/toy/transformer/config.json": json.dumps({"_class_name": "ToyNative", "layers": 2}),
    "converted_weights/toy/scheduler/scheduler_config.json": json.dumps({"_class_name": "Scheduler", "shift": 3.0}),
}


class Stub:
    """Stands for a check's module: fixed inputs and expected names."""

    def __init__(self, inputs: list[str], expected: list[str]) -> None:
        self._inputs, self._expected = inputs, expected

    def inputs(self, port: Port) -> list[str]:
        return list(self._inputs)

    def expected(self, port: Port) -> list[str]:
        return list(self._expected)


STUBS = {name: Stub(["port:components", "file:fastvideo/models/dits/toy.py"], ["transformer"]) for name in spec.CHECKS}


def make(root: Path, toml: str = TOML) -> Port:
    """Write the toy port under `root`."""
    for path, text in {**FILES, "tests/local_tests/toy/port.toml": toml}.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return spec.load(root)


def edit(port: Port, path: str, old: str, new: str) -> Port:
    """Replace text in one file of the port (appends where `old` is '')."""
    file = port.root / path
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new) if old else text + new, encoding="utf-8")
    return spec.load(port.root)


def stub_checks(monkeypatch: Any, **own: Any) -> None:
    """Every check's module becomes a stub, but for `own`."""
    monkeypatch.setattr(checks, "module", lambda name: own.get(name, STUBS[name]))


def green(port: Port, check: str, **changes: Any) -> ev.Evidence:
    """Write a record of `check` that holds: all expected names passed, every input as it is now."""
    module = checks.module(check)
    items = [
        ev.Item(name, "pass", "compared", {"max_abs": 1.25e-6}, component=name if name in port.components else "")
        for name in module.expected(port)
    ]
    record = ev.Evidence(check, port.slug, items=items, inputs=ev.digests(port, variants.inputs(port, module, check)))
    record.device, record.started, record.dirty = {"kind": "cpu", "name": "test"}, ev.now(), False
    record = dataclasses.replace(record, **changes)
    ev.write(port, record)
    return record


def all_green(port: Port) -> None:
    """A record of every check of the gate, then the figures on the docs page."""
    for check in port.gate.checks:
        green(port, check)
    assert figures.wanted(port)
    plan.sync(port)


def tamper(port: Port, check: str, change: Any) -> None:
    """Edit a record on disk as a person would."""
    path = ev.folder(port) / f"{check}.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")
