# SPDX-License-Identifier: Apache-2.0
"""What `fvport inspect` foresees of each component is what `fvport new` then makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from weights_support import release

from fvport import quick
from fvport.scaffold import native_side


@pytest.mark.parametrize(
    ("official", "kind", "config", "mode", "why"),
    [
        ("diffusers:WanTransformer3DModel", "dit", {}, "reuse", "registers WanTransformer3DModel"),
        ("diffusers:UniPCMultistepScheduler", "scheduler", {"use_flow_sigmas": True}, "port", "differs: "),
        ("diffusers:NobodysTransformer2DModel", "dit", {}, "port", "no archetype covers it yet"),
        ("transformers:AutoTokenizer", "tokenizer", {}, "passthrough", "files that the pipeline reads"),
    ],
)
def test_each_native_side(official: str, kind: str, config: dict, mode: str, why: str) -> None:
    """FastVideo's class where it is the official one, a port where it is known to differ, else what covers it."""
    side = native_side.of(official, official.partition(":")[2], kind, config)
    assert (side.mode, why in side.why) == (mode, True), side


def test_a_skeleton_is_called_one() -> None:
    """A component that a person must write is not called like one that an archetype writes."""
    skeleton = native_side.of("diffusers:Nobodys", "Nobodys", "dit", {})
    written = native_side.of("diffusers:UniPCMultistepScheduler", "UniPCMultistepScheduler", "scheduler", {})
    assert "a skeleton" in skeleton.text()
    assert "a skeleton" not in written.text()


def test_inspect_says_it(tmp_path: Path) -> None:
    """The text names each component's native side before the next step; the JSON is inspection.json's."""
    folder = release(tmp_path)
    text = quick.inspect(str(folder), "main", False)
    assert "  scheduler: port (a skeleton, which a person writes): no archetype covers it yet\n" in text
    assert "  transformer: reuse: FastVideo" in text
    assert text.index("new would make") < text.index("Next: ")
    assert set(json.loads(quick.inspect(str(folder), "main", True))) >= {"schema", "components"}
