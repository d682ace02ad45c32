# SPDX-License-Identifier: Apache-2.0
"""Faults of image to image on the real port, each named at its stage. (The whole gate of it: test_pipeline_tiny.py.)"""

from __future__ import annotations

import pytest
from conftest import PortCopy
from noised_faults import FAULTS, named, prepared

pytestmark = pytest.mark.heavy
OF_IMAGE = {
    **FAULTS,
    "mode of the posterior": "input latents",
    "posterior of another seed": "input latents",
    "noise drawn before the posterior": "input latents",  # the stages in another order
    "not shifted": "input latents",
}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> PortCopy:
    return prepared("tiny_sd3_i2i", "FVPORT_TEST_I2I", tmp_path_factory.mktemp("i2i"))


def test_faults_of_a_noised_image_are_named(port: PortCopy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strength, schedule, filter, range, VAE, posterior, order of draws, scale, noise and its level: each by name."""
    assert named(port, "TinySd3I2i", OF_IMAGE, monkeypatch) == {}
