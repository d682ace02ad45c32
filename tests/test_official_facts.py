# SPDX-License-Identifier: Apache-2.0
"""The official side's facts: an error is one component's, and a name `oracle:...` is asked of oracle.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fvport.checks import Options, ssim
from fvport.errors import UsageError
from fvport.models import official_facts

ORACLE = """
class Net:
    def __init__(self, width=8, folder=""):
        self.folder = folder


class Scheduler:
    config = {"shift": 3.0}

    def set_timesteps(self, steps):
        self.timesteps = [float(steps - i) for i in range(steps)]


def build_net(folder, dtype):
    return Net(folder=folder)


def build_scheduler(folder, dtype):
    return Scheduler()


def tokens_text_encoder(folder, prompts):
    return {"ids": [[len(prompt)] for prompt in prompts], "mask": [[1] for _ in prompts]}
"""


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("facts")
    (folder / "oracle.py").write_text(ORACLE, encoding="utf-8")
    part = {"folder": str(folder), "config": str(folder / "config.json")}
    job = {
        "components": [
            {**part, "name": "net", "official": "oracle:build_net"},
            {**part, "name": "gone", "official": "oracle:no_such_function"},
            {**part, "name": "counter", "official": "fractions:Fraction"},
        ],
        "schedulers": [{**part, "name": "scheduler", "official": "oracle:build_scheduler"}],
        "encoders": [{**part, "name": "text_encoder", "tokenizer": str(folder), "tokenizer_name": "tokenizer"}],
        "steps": [2],
        "prompts": {"plain": ["a fox"]},
        "pipeline": "",
        "call": {},
        "oracle": str(folder / "oracle.py"),
    }
    (folder / "job.json").write_text(json.dumps(job))
    command = [sys.executable, "-I", official_facts.__file__, str(folder / "job.json"), str(folder / "out.json")]
    subprocess.run(command, check=True, timeout=100)
    return json.loads((folder / "out.json").read_text())


def test_one_components_error_is_not_the_others(answer: dict[str, Any]) -> None:
    """A class that cannot be found leaves the defaults of the other components as they are."""
    assert set(answer["errors"]) == {"gone"}
    assert "no_such_function" in answer["errors"]["gone"]
    assert set(answer["defaults"]) == {"net", "counter"}


def test_what_oracle_py_builds_is_asked(answer: dict[str, Any]) -> None:
    """Defaults come from the class of what its function builds, schedules from the scheduler that it builds."""
    assert answer["defaults"]["net"] == {"width": 8, "folder": ""}
    assert answer["schedules"]["scheduler"]["tables"]["2"]["timesteps"] == [2.0, 1.0]
    assert answer["schedules"]["scheduler"]["config"] == {"shift": 3.0}
    assert answer["tokens"]["text_encoder"]["plain"] == {"ids": [[5]], "mask": [[1]]}


def test_no_draft_where_the_official_pipeline_is_the_reference(tmp_path: Path) -> None:
    """`--bootstrap` under reference = "official" says that there is nothing to draft, before anything runs."""
    (tmp_path / "fastvideo").mkdir()
    (tmp_path / "fastvideo" / "__init__.py").write_text("")
    quality = SimpleNamespace(metric="ssim", reference="official")
    port: Any = SimpleNamespace(root=tmp_path, slug="tiny", quality=quality)
    with pytest.raises(UsageError, match="no draft to make"):
        ssim.run(port, Options(extra={"bootstrap": True}))
