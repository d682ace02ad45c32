# SPDX-License-Identifier: Apache-2.0
"""Production that computes in less than the checkpoint stores is red, unless parity compares it in that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from fvport.checks import _fields as fields
from fvport.checks import _precision
from fvport.spec import Component

SHIPS = {
    "dit_precision": "bf16",
    "vae_precision": "fp32",
    "vae_decode_precision": None,
    "text_encoder_precisions": ["fp32", "fp16"],
    "image_encoder_precision": "fp32",
}
Judge = Callable[..., Any]


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    """The item of a component of a port with a transformer, a VAE and two text encoders, stored in `stored`."""
    kinds = {"transformer": "dit", "vae": "vae", "one": "text_encoder", "two": "text_encoder", "tower": "image_encoder"}
    parts = {name: Component(name, kind, "port") for name, kind in kinds.items()}

    def item(name: str, stored: str = "float32", ignored: dict[str, str] | None = None, **ships: Any) -> Any:
        port: Any = SimpleNamespace(components=parts, load_tree=tmp_path)
        (tmp_path / name).mkdir(exist_ok=True)
        most, few = np.zeros((4, 4), stored), np.zeros(2, "float32")
        save_file({"most": most, "an island": few}, tmp_path / name / "model.safetensors")
        return _precision.item(port, replace(parts[name], config_ignored=ignored or {}), {**SHIPS, **ships})

    return item


@pytest.mark.parametrize(
    ("name", "stored", "ships"),
    [
        ("transformer", "float32", {}),  # bf16: parity runs its blocks in it
        ("transformer", "float16", {"dit_precision": "fp16"}),
        ("vae", "float32", {}),
        ("vae", "float16", {"vae_precision": "fp16"}),  # decoding follows
        ("one", "float16", {}),
        ("two", "float16", {}),
        ("tower", "float32", {"image_encoder_configs": [{}], "image_encoder_precisions": ["bf16"]}),
    ],
)
def test_what_was_computed_or_is_stored_is_green(judge: Judge, name: str, stored: str, ships: dict[str, Any]) -> None:
    """float32 always; the dtype of most values; bfloat16 where the blocks are compared in it."""
    assert judge(name, stored, **ships).verdict == "pass"


@pytest.mark.parametrize(
    ("name", "ships", "said"),
    [
        ("transformer", {"dit_precision": "fp16"}, "dit_precision is fp16, and the checkpoint stores fp32"),
        ("vae", {"vae_precision": "bf16", "vae_decode_precision": "fp32"}, "vae_precision is bf16"),
        ("vae", {"vae_decode_precision": "bf16"}, "vae_decode_precision is bf16"),
        ("vae", {"vae_precision": "fp16"}, "vae_precision is fp16"),
        ("two", {}, "text_encoder_precisions is fp16"),  # its own entry, not the first
        ("two", {"text_encoder_precisions": ["fp32"]}, "text_encoder_precisions is None"),
        ("tower", {"image_encoder_configs": [{}], "image_encoder_precisions": ["fp16"]}, "is fp16"),
    ],
)
def test_what_nobody_computed_is_red(judge: Judge, name: str, ships: dict[str, Any], said: str) -> None:
    """The field, its value and the stored dtype are named, with what to set."""
    found = judge(name, **ships)
    assert (found.verdict, said in found.reason) == ("fail", True), found
    assert "fp32" in found.todo


def test_a_written_reason_is_taken_and_is_no_stale_excuse(judge: Judge) -> None:
    """It is asked for each field, and the gate lists it as a risk."""
    told = {"vae_decode_precision": "frames compared by eye at 720p"}
    found = judge("vae", ignored=told, vae_decode_precision="bf16")
    assert (found.verdict, found.reason) == ("pass", "by declaration: frames compared by eye at 720p")
    assert judge("vae", ignored=told, vae_precision="bf16", vae_decode_precision="bf16").verdict == "fail"
    vae = Component("vae", "vae", "port", config_ignored=told)
    assert fields.stale_excuses(vae, {}, {}) == []
    assert fields.stale_excuses(replace(vae, kind="dit"), {}, {})[0][0] == "stale excuse"


@pytest.mark.parametrize(
    ("name", "value", "verdict"),
    [
        ("vae", "fp16", "fail"),
        ("vae", "fp32", "pass"),
        ("transformer", "bf16", "pass"),
        ("transformer", "fp16", "fail"),
    ],
)
def test_of_an_unheard_dtype_only_what_was_computed_passes(judge: Judge, name: str, value: str, verdict: str) -> None:
    """A release in float8, or in whole numbers, says nothing for float16."""
    field = "vae_precision" if name == "vae" else "dit_precision"
    found = judge(name, "int8", **{field: value})
    assert found.verdict == verdict
    assert verdict == "pass" or "to fp32, or say" in found.todo  # not to what would be red again


def test_weights_that_cannot_be_read_are_blocked(judge: Judge, tmp_path: Path) -> None:
    """What is stored in nothing is no reason to pass."""
    port: Any = SimpleNamespace(components={"vae": Component("vae", "vae", "port")}, load_tree=tmp_path)
    found = _precision.item(port, Component("vae", "vae", "port"), SHIPS)
    assert (found.verdict, "no weights" in found.reason) == ("blocked", True)


def test_an_answer_that_fastvideo_did_not_give_is_blocked(judge: Judge, tmp_path: Path) -> None:
    """Never a pass of nothing."""
    port: Any = SimpleNamespace(components={}, load_tree=tmp_path)
    assert _precision.item(port, Component("vae", "vae", "port"), {}).verdict == "blocked"
