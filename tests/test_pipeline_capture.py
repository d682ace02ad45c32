# SPDX-License-Identifier: Apache-2.0
"""The watch on a FastVideo pipeline: what it writes, that it leaves nothing behind, and teacher forcing."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fvport.models import native_capture, native_pipeline


class Scheduler:
    timesteps = torch.tensor([1000.0, 500.0])
    sigmas = torch.tensor([1.0, 0.5, 0.0])

    def step(self, model_output: Any, timestep: Any, sample: Any, return_dict: bool = True) -> Any:
        return (sample - 0.5 * model_output,)


class Denoiser(torch.nn.Module):
    def forward(self, hidden_states: Any, encoder_hidden_states: Any, timestep: Any) -> Any:
        return hidden_states * encoder_hidden_states[0].mean()


class Vae(torch.nn.Module):
    def decode(self, latents: Any) -> Any:
        return latents * 2


class Base:
    def __init__(self) -> None:
        self.modules = {"scheduler": Scheduler(), "transformer": Denoiser(), "vae": Vae()}
        self.stages = [SimpleNamespace(scheduler=self.modules["scheduler"])]
        self.post_init_called = True

    def forward(self, batch: Any, args: Any) -> Any:
        raise NotImplementedError


class Pipeline(Base):
    """Has a `forward` of its own, as some pipelines do."""

    def forward(self, batch: Any, args: Any) -> Any:
        x = torch.ones(1, 3, 2, 4, 4)
        for t in Scheduler.timesteps:
            rows = torch.cat([x, x])
            c, u = self.modules["transformer"](rows, [torch.ones(2, 5)], timestep=t.repeat(2)).chunk(2)
            x = self.modules["scheduler"].step(u + 2 * (c - u), t, x, return_dict=False)[0]
        batch.output = self.modules["vae"].decode(x)
        return batch


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> type:
    monkeypatch.setattr(Base, "__init__", Base.__init__)
    monkeypatch.setattr(Pipeline, "forward", Pipeline.forward)
    native_capture.watch_all(Base)
    return Base


def generate(folder: Path, force: str = "") -> tuple[dict[str, Any], Pipeline]:
    folder.mkdir(parents=True)
    (folder / "capture.json").write_text(json.dumps({"force": force}))
    pipeline = Pipeline()
    batch = SimpleNamespace(output_path=str(folder), seed=0, prompt="a", output=None)
    pipeline.forward(batch, SimpleNamespace(pipeline_config=SimpleNamespace(dit_precision="fp32")))
    return load_file(folder / "steps.safetensors"), pipeline


def test_a_generation_is_recorded(base: type, tmp_path: Path) -> None:
    """Noise, tables, split evaluations, guided output, latents and decode are there by the names of both sides."""
    found, _ = generate(tmp_path / "a")
    assert found["initial_noise"].eq(1).all()
    assert found["eval/000/1/timestep"].tolist() == [1000.0]
    assert found["eval/001/0/output"].shape == (1, 3, 2, 4, 4)
    assert found["latents/000"].unique().tolist() == [0.5]
    assert found["frames"].shape == (1, 2, 4, 4, 3)
    info = json.loads((tmp_path / "a" / "steps.json").read_text())
    assert info["evaluations"] == [2, 2]
    assert info["classes"]["vae"] == "Vae"


def test_nothing_is_left_behind(base: type, tmp_path: Path) -> None:
    """After the call scheduler, VAE and denoiser are as they were."""
    _, pipeline = generate(tmp_path / "a")
    assert "step" not in vars(pipeline.modules["scheduler"])
    assert "decode" not in vars(pipeline.modules["vae"])
    assert not pipeline.modules["transformer"]._forward_hooks


def test_forced_latents_start_the_next_step(base: type, tmp_path: Path) -> None:
    """Each step records its own result and hands on the official one."""
    save_file({"latents/000": torch.full((1, 3, 2, 4, 4), 8.0)}, tmp_path / "official.safetensors")
    found, _ = generate(tmp_path / "a", str(tmp_path / "official.safetensors"))
    assert found["latents/000"].unique().tolist() == [0.5]
    assert found["latents/001"].unique().tolist() == [4.0]


def test_a_call_that_asks_for_nothing_is_not_watched(base: type, tmp_path: Path) -> None:
    """Without a request beside the output a pipeline runs as ever."""
    batch = SimpleNamespace(output_path=str(tmp_path), seed=0)
    Pipeline().forward(batch, SimpleNamespace())
    assert list(tmp_path.iterdir()) == []


def test_the_worker_that_failed_is_quoted_and_not_the_pipe_that_closed(tmp_path: Path) -> None:
    """A worker's traceback comes behind its logger's prefix; the EOFError of the process that waited is no cause."""
    worker = "\x1b[1;36m(Worker pid=7)\x1b[0;0m ERROR 11-22 08:02:29.316 [multiproc_executor.py:591] "
    said = [
        "Traceback (most recent call last):",
        "    raise StageError(message)",
        "x.StageError: image_embeds is empty",
    ]
    ends = ["INFO shutting down", "EOFError", "RuntimeError: Forward execution thread failed.", "    raise EOFError"]
    log = tmp_path / "a.log"
    log.write_text("\n".join([*(worker + line for line in said), *ends, "EOFError"]) + "\n")
    assert native_pipeline.last_words(log) == "x.StageError: image_embeds is empty"
    log.write_text("EOFError\n")
    assert native_pipeline.last_words(log) == "EOFError"
