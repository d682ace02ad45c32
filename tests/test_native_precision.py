# SPDX-License-Identifier: Apache-2.0
"""bf16 on a machine without a GPU: the gains of norms are what they are on one, so that layers after them can run."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fvport import fastvideo_api
from fvport.models import cpu_platform

# As the loaders build: in the default dtype of what ships. The answer of a norm goes to a layer of the same weights.
BUILT = """
import torch
torch.set_default_dtype(torch.{dtype})
from fastvideo.layers.layernorm import RMSNorm
norm, linear = RMSNorm(4), torch.nn.Linear(4, 4)
print(norm.weight.dtype, linear(norm(torch.randn(2, 4))).dtype)
"""


def said(dtype: str, root: Path, **env: str) -> subprocess.CompletedProcess[str]:
    found = importlib.util.find_spec("fastvideo")
    assert found is not None
    assert found.origin
    (root / "fastvideo").symlink_to(Path(found.origin).parent)
    given = fastvideo_api.child_environment(root, "cpu") | env
    code = BUILT.format(dtype=dtype)
    return subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True, check=False)


def test_a_gain_has_the_dtype_of_what_ships(tmp_path: Path) -> None:
    """FastVideo's own RMSNorm in a child that fvport starts, as an example is: what follows it runs."""
    ran = said("bfloat16", tmp_path)
    assert ran.stdout.split() == ["torch.bfloat16"] * 2, ran.stderr


@pytest.mark.heavy
@pytest.mark.skipif(torch.cuda.is_available(), reason="where there is CUDA the gain is right")
def test_without_the_adaptation_the_next_layer_raises(tmp_path: Path) -> None:
    """What is adapted is really there: where FastVideo mends it, this says so."""
    ran = said("bfloat16", tmp_path, **{cpu_platform.VARIABLE: "as it is"})
    assert "dtype" in ran.stderr.splitlines()[-1], ran.stderr
