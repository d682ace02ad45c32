# SPDX-License-Identifier: Apache-2.0
"""Encoders of the archetypes keep the whole contract, and faults planted in their source are walked to their stage."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import contract_matrix
import pytest


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One process that boots FastVideo once for all cases."""
    folder = tmp_path_factory.mktemp("contract")
    command = [sys.executable, str(Path(contract_matrix.__file__)), str(folder / "out.json"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads((folder / "out.json").read_text()))


@pytest.mark.heavy
def test_archetypes_keep_the_contract(measured: dict[str, Any]) -> None:
    """No point of the contract differs between an official encoder and what the archetype makes of it."""
    assert {name: found.get("error") or found["points"] for name, found in measured.items()} == {
        name: [] for name in measured
    }
    assert all({"container", "fields", "dtypes"} <= set(found["compared"]) for found in measured.values())
    lacking = {name: set(found["wanted"]) - set(found["compared"]) for name, found in measured.items()}
    assert lacking == {name: set() for name in measured}
    assert any(found["wanted"] == ["padding", "row 1 alone"] for found in measured.values())


@pytest.mark.heavy
@pytest.mark.parametrize("fault", contract_matrix.STAGES)
def test_fault_is_walked(measured: dict[str, Any], fault: str) -> None:
    """The first stage that differs is the fault's."""
    walks = {name: walk for found in measured.values() for name, walk in found["walks"].items()}
    assert walks[fault][0] == contract_matrix.STAGES[fault], walks[fault]
