# SPDX-License-Identifier: Apache-2.0
"""The tutorial's port: a class that FastVideo lacks and no archetype covers, from bake to green component checks."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.sana_video import demo, person


def test_an_edit_that_fits_no_place_is_not_made_in_silence() -> None:
    """The skeleton of another fvport may look otherwise: then the tutorial's edit says so."""
    with pytest.raises(ValueError, match="0 places hold: else:"):
        person.once("nothing of it", person.SOFTMAX, person.LOCAL)
    with pytest.raises(ValueError, match="2 places hold"):
        person.once("a a", "a", "b")


@pytest.mark.heavy
def test_the_tutorial_ends_green(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names and keys with no edit; config, conversion and parity with a person's; nothing of boundary in the class."""
    assert demo.main(["--build", str(tmp_path)]) == 0, capsys.readouterr().out
    said = capsys.readouterr().out
    assert said.count(" pass ") == len(demo.BEFORE) + len(demo.AFTER)
    assert "0 findings in the transformer" in said
