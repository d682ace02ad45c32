# SPDX-License-Identifier: Apache-2.0
"""Faults of video to video on the real port, each named at its stage. (The whole gate of it: test_pipeline_tiny.py.)"""

from __future__ import annotations

import pytest
from conftest import PortCopy
from noised_faults import FAULTS, named, prepared

pytestmark = pytest.mark.heavy
OF_VIDEO = {
    **FAULTS,
    "begun a frame later": "input pixels",
    "frames backwards": "input pixels",
    "posterior sampled": "input latents",
    "posterior of another seed": "",  # its mode is taken, whatever the seed
    "times the deviation": "input latents",
}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> PortCopy:
    return prepared("tiny_wan_v2v", "FVPORT_TEST_V2V", tmp_path_factory.mktemp("v2v"))


def test_faults_of_a_noised_video_are_named(port: PortCopy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strength, schedule, frames, filter, range, VAE, posterior, normalisation, noise and its level: each by name."""
    assert named(port, "TinyWanV2v", OF_VIDEO, monkeypatch) == {}
