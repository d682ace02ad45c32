# SPDX-License-Identifier: Apache-2.0
"""Arguments of a call that FastVideo has no field for: added, taken back, shared between ports, and nothing more."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fvport.checks import _conduct
from fvport.errors import UsageError
from fvport.workspace import fieldedit, git, pyedit

CLASS = (
    b"class SamplingParam:\n    seed: int = 0\n    fps: int = 24  # a comment\n\n    def update(self):\n        pass\n"
)


def test_a_field_is_added_and_taken_back_to_the_byte() -> None:
    """Behind the last field, with the file's own line ends; one that is there already is left alone."""
    for data in (CLASS, CLASS.replace(b"\n", b"\r\n")):
        edit = fieldedit.of("SamplingParam", "strength", "float")
        new = pyedit.apply(edit, data, "x.py")
        assert b"# a comment\n    strength: float | None = None\n\n" in new.replace(b"\r\n", b"\n")
        assert edit.remove(new, "x.py") == data
        assert pyedit.apply(edit, new, "x.py") == new


def test_a_field_that_another_port_has_too_is_its_as_well(tmp_path: Path) -> None:
    """Two ports of one tree: what the other declares is known, so that taking one back leaves the field."""
    mine, other = (tmp_path / "tests" / "local_tests" / name for name in ("mine", "other"))
    for folder in (mine, other):
        folder.mkdir(parents=True)
        (folder / "port.toml").write_text('[fastvideo]\nfields = { strength = "float" }\n')
    port: Any = SimpleNamespace(slug="mine", fastvideo=SimpleNamespace(fields={"strength": "float"}))
    assert fieldedit.of_others(tmp_path, port) == {"strength": "float"}
    (other / "port.toml").write_text("not TOML")
    assert fieldedit.of_others(tmp_path, port) == {}


@pytest.mark.parametrize(
    ("edit", "fine"),
    [
        (lambda data: data, True),
        (lambda data: data.replace(b"| None = None", b"| None = print()"), False),
        (lambda data: data.replace(b"        pass", b"        return 1"), False),
        (lambda data: data + b"other = 1\n", False),
    ],
)
def test_boundary_accepts_the_field_and_nothing_more(tmp_path: Path, edit: Any, fine: bool) -> None:
    """The file may differ from FastVideo's by the declared line alone: another default or other code is a change."""
    path = "fastvideo/api/sampling_param.py"
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_bytes(CLASS)
    git.git(tmp_path, "init", "-q")
    git.git(tmp_path, "add", ".")
    git.git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x")
    field = fieldedit.of("SamplingParam", "strength", "float")
    file.write_bytes(edit(pyedit.apply(field, CLASS, path)))
    port = SimpleNamespace(root=tmp_path, slug="mine", fastvideo=SimpleNamespace(fields={"strength": "float"}))
    sources: Any = SimpleNamespace(port=port)
    assert _conduct._only_fields(sources, path, "HEAD") is fine


@pytest.mark.parametrize("fields", [{"a b": "float"}, {"strength": "Tensor"}])
def test_a_field_that_cannot_be_one_is_refused(fields: dict[str, str]) -> None:
    """A name or a type that no call's argument has is wrong use of port.toml."""
    port: Any = SimpleNamespace(fastvideo=SimpleNamespace(fields=fields))
    with pytest.raises(UsageError, match="can be no field of a call"):
        fieldedit.of_port(port)
