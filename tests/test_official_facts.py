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


class Tokens:
    model_max_length = 77


class Derives:
    """As diffusers' pipelines: what encode_prompt needs is derived in the constructor."""

    def __init__(self, transformer: Any, text_encoder: Any, tokenizer: Any, vae: Any = None) -> None:
        self.tokenizer_max_length = tokenizer.model_max_length
        self.width = transformer.config.joint if transformer is not None else 0
        self.factor = 2 ** len(vae.config["block_out_channels"]) if vae is not None else 8


class CountsLayers(Derives):
    def __init__(self, transformer: Any, text_encoder: Any, tokenizer: Any) -> None:
        self.layers = len(transformer.blocks) if transformer is not None else -1


class WantsWeights(Derives):
    def __init__(self, transformer: Any, text_encoder: Any, tokenizer: Any) -> None:
        self.first = transformer.blocks[0]


class FromFolder:
    def __init__(self, folder: str) -> None:
        raise AssertionError("no constructor of another kind is called")


@pytest.mark.parametrize(
    ("cls", "has"),
    [
        (Derives, {"tokenizer_max_length": 77, "width": 32, "factor": 4}),
        (CountsLayers, {"layers": -1}),
        (WantsWeights, {}),
        (FromFolder, {}),
    ],
)
def test_the_pipeline_without_weights_has_what_its_constructor_derives(
    tmp_path: Path, cls: type, has: dict[str, Any]
) -> None:
    """Stand-ins have the configs; a constructor that wants more gets None, and else the object is bare as ever."""
    for name, config in (("transformer", {"joint": 32}), ("vae", {"block_out_channels": [8, 8]})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    names = ("transformer", "vae", "text_encoder")
    parts = [{"name": name, "official": f"lib:{name}", "folder": str(tmp_path / name)} for name in names]
    given = {"text_encoder": object(), "tokenizer": Tokens()}
    pipe = official_facts.stand_in_pipeline(cls, given, {"components": parts})
    assert {name: getattr(pipe, name, None) for name in has} == has
    assert pipe.text_encoder is given["text_encoder"]
    assert str(pipe.device) == "cpu"


def test_an_encoder_that_is_never_reached_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline that stops after its first encoder: the second has no ids and the reason, not another one's."""
    import torch
    import transformers

    class Stops:
        def __init__(self, one: Any, two: Any, words: Any) -> None: ...

        def encode_prompt(self, prompt: Any) -> None:
            pooled = self.one(torch.ones(1, 5, dtype=torch.long))[0]  # type: ignore[attr-defined]
            assert pooled.ndim == 2  # a class with a projection answers with the pooled state first
            raise RuntimeError("no more")

    config = {"hidden_size": 4, "architectures": ["CLIPTextModelWithProjection"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    part = {"config": str(tmp_path / "config.json"), "tokenizer": str(tmp_path), "tokenizer_name": "words"}
    job: dict[str, Any] = {"encoders": [{**part, "name": "one"}, {**part, "name": "two"}], "pipeline": "lib:Stops"}
    job |= {"prompts": {"plain": ["a fox"]}, "call": {}, "errors": {}}
    monkeypatch.setattr(official_facts, "load", lambda *_: Stops)
    monkeypatch.setattr(official_facts, "signature", lambda _: {})
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda _: Tokens())
    found = official_facts.seen_tokens(job)
    assert found["one"]["plain"]["ids"] == [[1] * 5]
    assert found["two"] == {}
    assert job["errors"] == {"two": "RuntimeError: no more"}
