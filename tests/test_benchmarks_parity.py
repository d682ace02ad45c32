# SPDX-License-Identifier: Apache-2.0
"""The benches of a two-sided run and of a gate without changes: what they count, and when they are no measurement."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import gate_incremental, parity
from benchmarks.cases import CASES
from benchmarks.measure import Run

OPEN = "Alignment gate of Tiny Wan (tiny_wan): ok\nThe gate is open. Next: fvport handoff final\n"
CLOSED = "Alignment gate of Tiny Wan (tiny_wan): blocked\n"


def test_both_are_registered() -> None:
    """`python -m benchmarks` knows them."""
    assert {"parity", "gate_incremental"} <= set(CASES)


def test_sides_in_sequence_add_their_times_and_not_their_peaks() -> None:
    """One side is gone before the other begins."""
    both = parity.in_sequence([Run(3.0, 500.0, 0, "a"), Run(2.0, 900.0, 0, "b")])
    assert (both.seconds, both.peak_mb) == (5.0, 900.0)


def test_the_large_transformer_is_about_a_gigabyte() -> None:
    """Counted on the meta device."""
    from diffusers import WanTransformer3DModel

    from examples.tiny_wan import make_official

    with torch.device("meta"):
        model = WanTransformer3DModel(**{**make_official.TRANSFORMER, **parity.LARGE})
    size = sum(p.numel() for p in model.parameters()) * 4
    assert 0.95e9 < size < 1.1e9


ORACLE = """
import torch
asked = []
def build_transformer(folder, dtype):
    asked.append(dtype)
    return dtype
def inputs_transformer(config, seed):
    return {str(n): {"x": torch.ones(2), "ids": torch.ones(1, dtype=torch.long)} for n in range(config["cases"])}
def call_transformer(model, case):
    assert case["x"].dtype == model and case["ids"].dtype == torch.long
    (folder_of_calls / f"{len(list(folder_of_calls.iterdir()))}").touch()
"""


@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_a_bare_official_side_runs_every_case_in_its_dtype(tmp_path: Path, dtype: Any) -> None:
    """Built and called by the port's own oracle.py; ids stay ids."""
    calls, folder = tmp_path / "calls", tmp_path / "weights" / "transformer"
    calls.mkdir()
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"cases": 3}')
    (tmp_path / "oracle.py").write_text(f"import pathlib\nfolder_of_calls = pathlib.Path({str(calls)!r})\n" + ORACLE)
    port = SimpleNamespace(folder=tmp_path, official_tree=tmp_path / "weights")
    assert parity.official_side(port, dtype) > 0
    assert len(list(calls.iterdir())) == 3


def test_a_gate_that_is_not_decided_is_no_measurement() -> None:
    """A full run must end with an open gate; a quick one has some records only, and a closed gate is what it shows."""
    assert gate_incremental.accepted(Run(3.0, 80.0, 0, OPEN), quick=False).returncode == 0
    assert gate_incremental.accepted(Run(3.0, 80.0, 1, CLOSED), quick=False).returncode == 1
    assert gate_incremental.accepted(Run(3.0, 80.0, 1, CLOSED), quick=True).returncode == 0
    assert gate_incremental.accepted(Run(3.0, 80.0, 1, "no bin/fvport"), quick=True).returncode == 1


def test_seconds_beyond_nox_decide() -> None:
    """Medians of both, and the goal of two seconds between them."""
    runs = {"ours": [Run(s, 80.0, 0, "") for s in (2.4, 9.0, 2.6)], "nox": [Run(s, 40.0, 0, "") for s in (0.9, 0.7)]}
    found = gate_incremental.detail(runs, quick=False)
    assert found == {"beyond_nox_seconds": 1.8, "goal_seconds": 2.0, "met": True, "all_checks": True}
    slow = {**runs, "nox": [Run(0.5, 40.0, 0, "")]}
    assert not gate_incremental.detail(slow, quick=True)["met"]


def test_the_empty_session_is_a_noxfile() -> None:
    """One session that does nothing, without an environment of its own."""
    names = [node.name for node in ast.parse(gate_incremental.NOTHING).body if isinstance(node, ast.FunctionDef)]
    assert names == ["nothing"]
    assert 'default_venv_backend = "none"' in gate_incremental.NOTHING
