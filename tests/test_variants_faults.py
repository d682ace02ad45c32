# SPDX-License-Identifier: Apache-2.0
"""A real port of two releases, with the variant's weights exchanged for the base's: red, and the variant is named.

FVPORT_TEST_VARIANTS names a port that is made already (it is copied, with what it has generated).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from examples.tiny_wan_variants import demo
from fvport import checks, gate, spec
from fvport.checks import pipeline
from fvport.models import native_pipeline
from fvport.parity import generation, walk
from fvport.spec import Port

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Port:
    build = tmp_path_factory.mktemp("family")
    demo.demo.environment()
    made = os.environ.get("FVPORT_TEST_VARIANTS")
    root = Path(shutil.copytree(made, build / demo.SLUG, symlinks=True)) if made else demo.prepare(build)
    return spec.load(root)


def test_a_load_tree_with_the_bases_transformer_is_named(port: Port) -> None:
    """The native side generates with the base's weights: same noise, same text, and the denoiser differs."""
    view = port.of(demo.VARIANT)
    with spec.seen_as(view):
        call = generation.calls(view)[0]
        official = generation.official(view, "cpu")
        for file in sorted((view.load_tree / "transformer").glob("*.safetensors")):
            file.unlink()
            file.symlink_to((port.load_tree / "transformer" / file.name).resolve())
        out = view.state / "faults"
        native_pipeline.run(view, [call.native(generation.fps(view))], out, out / "log.txt", "cpu")
    a, b = generation.read(official / call.name), generation.read(out / call.name)
    assert a is not None and b is not None  # noqa: PT018
    first = walk.first_wrong(walk.walk(a, b, pipeline.floors_of(official, call.name)))
    assert first is not None
    assert first.stage == "denoiser"
    assert pipeline._classes(view, a, b).verdict == "pass"


def test_a_release_exchanged_for_the_bases_is_refused(port: Port) -> None:
    """The locked files are others: the check is blocked and says which, the gate's row names the variant."""
    view = port.of(demo.VARIANT)
    view.official_weights.unlink()
    view.official_weights.symlink_to(port.official_weights.resolve())
    record = checks.run_check(view, "keys", checks.Options(device="cpu"))
    assert record.verdict == "blocked"
    assert "port.lock.json" in record.items[0].reason
    row = next(row for row in gate.decide(port).rows if (row.check, row.variant) == ("keys", demo.VARIANT))
    assert row.verdict == "blocked"
    assert any("transformer" in reason for reason in row.reasons), row.reasons
