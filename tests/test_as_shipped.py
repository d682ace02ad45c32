# SPDX-License-Identifier: Apache-2.0
"""In the precision that ships, a port loses no more than the official pipeline does; what it loses is named."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fvport.checks import _shipped
from fvport.errors import BlockedError, FvportError
from fvport.models import native_facts, precisions
from fvport.parity import as_shipped
from fvport.parity.as_shipped import Pair
from fvport.parity.walk import Capture
from fvport.spec import Component

BF16 = torch.bfloat16


def plain() -> dict[str, Any]:
    """A record of two steps in float32."""
    made = torch.Generator().manual_seed(0)
    times = torch.tensor([998.39, 752.4])
    record = {
        "timesteps": times,
        "initial_noise": torch.randn(1, 4, 8, generator=made),
        "eval/000/0/encoder_hidden_states": torch.randn(1, 6, 8, generator=made),
        "eval/000/0/hidden_states": torch.randn(1, 4, 8, generator=made),
        "eval/000/0/output": torch.randn(1, 4, 8, generator=made),
        "frames": torch.rand(1, 2, 4, 4, 3, generator=made),
    }
    for step in range(2):
        record[f"eval/{step:03d}/0/timestep"] = times[step : step + 1]
        record[f"step_timestep/{step:03d}"] = times[step : step + 1]
        record[f"latents/{step:03d}"] = torch.randn(1, 4, 8, generator=made)
    return record


def shipped(**changes: Any) -> dict[str, Any]:
    """The same as a healthy pipeline has it in bf16: text, latents and answers rounded, times and noise not."""
    low = {
        name: value.to(BF16)
        for name, value in plain().items()
        if name.startswith("latents/") or name.endswith(("/encoder_hidden_states", "/output", "/hidden_states"))
    }
    return {**plain(), **low, **changes}


def pair(record: dict[str, Any]) -> Pair:
    return Pair(Capture(plain()), Capture(record))


def wrong(native: dict[str, Any], official: dict[str, Any] | None = None) -> dict[str, str]:
    """{stage: reason} of what is red."""
    found = as_shipped.compare(pair(official or shipped()), pair(native), "bfloat16")
    return {finding.stage: finding.reason for finding in found if not finding.ok}


def test_what_loses_as_the_official_side_does_is_green() -> None:
    """Equal losses, and smaller ones."""
    assert wrong(shipped()) == {}
    assert wrong(plain()) == {}


@pytest.mark.parametrize(
    ("stage", "name", "value", "words"),
    [
        ("timesteps", "eval/001/0/timestep", lambda x: x.to(BF16), "timestep is 5.32e-04 off"),
        ("timesteps", "timesteps", lambda x: x.round(), "timesteps is"),
        ("initial noise", "initial_noise", lambda x: x.to(BF16), "it is bfloat16 natively, float32 officially"),
        ("conditioning", "eval/000/0/encoder_hidden_states", lambda x: x * 1.02, "encoder_hidden_states is 2.00e-02"),
        ("latents", "latents/001", lambda x: x * 1.02, "latents/001 is 2.00e-02 off"),
        ("media", "frames", lambda x: x * math.nan, "not finite"),
        ("media", "frames", lambda x: x[:, :1], "another shape"),
    ],
)
def test_what_a_port_rounds_of_its_own_is_red(stage: str, name: str, value: Any, words: str) -> None:
    """Its stage, argument and size are named."""
    found = wrong(shipped(**{name: value(plain()[name])}))
    assert list(found) == [stage], found
    assert words in found[stage]


def test_latents_are_kept_in_no_less_than_officially() -> None:
    """The dtype itself is compared: what is lost adds up over steps that no short call has."""
    official = shipped(**{"latents/000": plain()["latents/000"]})
    assert wrong(shipped(), official) == {"latents": "after step 0 they are bfloat16, officially float32"}


def test_what_the_official_pipeline_rounds_may_be_rounded() -> None:
    """Flux hands over its timesteps in the dtype of its latents: then they are no fault of a port."""
    low = {name: value.to(BF16) for name, value in plain().items() if name.endswith("/timestep")}
    assert wrong(shipped(**low), shipped(**low)) == {}


def whole(record: dict[str, Any]) -> dict[str, Any]:
    """The same with the whole timesteps that UniPC and DDIM have."""
    return {name: value.round().long() if "timestep" in name else value for name, value in record.items()}


def test_whole_timesteps_are_timesteps() -> None:
    """bfloat16 has no 999 and no 900: a port that casts them hands over others."""
    official = Pair(Capture(whole(plain())), Capture(whole(shipped())))
    cast = {name: value.to(BF16) for name, value in whole(plain()).items() if name.endswith("/timestep")}
    native = Pair(Capture(whole(plain())), Capture({**whole(shipped()), **cast}))
    (found,) = [one for one in as_shipped.compare(official, native, "bfloat16") if not one.ok]
    assert found.stage == "timesteps"
    assert "it is" in found.reason or "timestep is" in found.reason
    assert as_shipped.worse(official, "bfloat16", "timesteps", 0) is not None


@pytest.mark.parametrize(("name", "most"), [("initial_noise", 0.0), ("frames", 0.4), ("latents/000", 0.5)])
def test_an_official_loss_that_is_no_rounding_proves_nothing(name: str, most: float) -> None:
    """Other noise, or another picture: three times of that would let zeros pass."""
    other = shipped(**{name: plain()[name] * most})
    with pytest.raises(BlockedError, match="nothing follows from it"):
        wrong(shipped(**{name: torch.zeros_like(plain()[name])}), other)


def test_an_official_run_that_is_not_finite_proves_nothing() -> None:
    """float16 overflows in some models: then no native loss could be too large."""
    low = shipped(frames=plain()["frames"] * math.nan)
    with pytest.raises(BlockedError, match="frames is not finite"):
        wrong(low, low)


def test_a_larger_loss_is_planted_at_every_stage_and_seen() -> None:
    """The check's own faults: each must be red where it is put."""
    item = _shipped._compared(pair(shipped()), pair(shipped()), "bfloat16")[-1]
    stages = ["timesteps", "initial noise", "conditioning", "latents", "media"]
    assert (item.name, item.verdict, item.metrics["seen_at"]) == (_shipped.PLANTED, "pass", stages)


def test_a_comparison_that_sees_nothing_is_red(monkeypatch: Any) -> None:
    """Were the limits as wide as a fault is large, no pass would count."""
    monkeypatch.setattr(as_shipped, "worse", lambda side, dtype, stage, by: side)
    item = _shipped._compared(pair(shipped()), pair(shipped()), "bfloat16")[-1]
    assert (item.verdict, "was not seen" in item.reason) == ("fail", True)


def test_nothing_is_planted_where_the_official_side_rounds() -> None:
    """It is named, so that nobody takes it for seen."""
    low = {name: value.to(BF16) for name, value in plain().items() if "timestep" in name}
    item = _shipped._compared(pair(shipped(**low)), pair(shipped(**low)), "bfloat16")[-1]
    assert item.metrics["rounded_officially_or_exact"] == ["timesteps"]


def test_an_oracle_that_takes_no_notice_of_a_dtype_is_seen() -> None:
    """Its run in bf16 is its float32 run again: nothing follows from it."""
    assert as_shipped.ignored(pair(plain()))
    assert not as_shipped.ignored(pair(shipped()))
    assert not as_shipped.ignored(pair({**plain(), "eval/000/0/output": torch.zeros(3)}))  # of another shape


@pytest.mark.parametrize(
    ("ships", "coarsest"),
    [
        ({}, "float32"),
        ({"dit_precision": "bf16"}, "bfloat16"),
        ({"text_encoder_precisions": ["fp16"]}, "float16"),
        ({"dit_precision": "fp16", "text_encoder_precisions": ["bf16"]}, "bfloat16"),
        ({"vae_decode_precision": "bf16"}, "bfloat16"),
        ({"image_encoder_precision": "fp16"}, "float16"),
    ],
)
def test_the_coarsest_precision_that_ships(ships: dict[str, Any], coarsest: str) -> None:
    """Of all that generates: a port that ships one part of it in less is not one that ships in float32."""
    kinds = {"transformer": "dit", "text_encoder": "text_encoder", "vae": "vae", "image_encoder": "image_encoder"}
    port: Any = SimpleNamespace(components={name: Component(name, kind, "port") for name, kind in kinds.items()})
    full = {"dit_precision": "fp32", "text_encoder_precisions": ["fp32"], "vae_precision": "fp32"}
    assert precisions.coarsest(port, {**full, "image_encoder_precision": "fp32", **ships}) == coarsest


def test_what_is_not_the_ports_is_blocked_and_what_is_fails(monkeypatch: Any, tmp_path: Path) -> None:
    """An official side that ends is no finding about the port; a port that does not generate as it ships is one."""
    port: Any = SimpleNamespace(components={"transformer": Component("transformer", "dit", "port")})
    monkeypatch.setattr(native_facts, "facts", lambda port, device: {"pipeline_config": {"dit_precision": "bf16"}})
    monkeypatch.setattr(as_shipped, "call", lambda port: SimpleNamespace(name="short"))
    monkeypatch.setattr(as_shipped, "pair", lambda *a: pair(shipped()))

    def raises(*_: Any) -> Any:
        raise FvportError("it was killed")

    monkeypatch.setattr(as_shipped, "official", raises)
    assert {item.verdict for item in _shipped.items(port, "cpu", tmp_path, tmp_path)} == {"blocked"}
    monkeypatch.setattr(as_shipped, "official", lambda *a: tmp_path)
    monkeypatch.setattr(as_shipped, "native", raises)
    items = _shipped.items(port, "cpu", tmp_path, tmp_path)
    assert {(item.verdict, "does not generate: it was killed" in item.reason) for item in items} == {("fail", True)}


@pytest.mark.parametrize(
    ("facts", "verdict", "words"),
    [
        ({}, "blocked", "did not say"),
        ({"pipeline_config": {"dit_precision": "fp32"}}, "pass", "ships in float32"),
    ],
)
def test_what_ships_in_float32_was_compared(monkeypatch: Any, facts: Any, verdict: str, words: str) -> None:
    """Nothing runs again; and nothing is passed where nobody knows what ships."""
    monkeypatch.setattr(native_facts, "facts", lambda port, device: facts)
    port: Any = SimpleNamespace(components={"transformer": Component("transformer", "dit", "port")})
    items = _shipped.items(port, "cpu", None, None)  # type: ignore[arg-type]
    assert [item.name for item in items] == _shipped.names()
    assert {item.verdict for item in items} == {verdict}
    assert all(words in item.reason for item in items)
