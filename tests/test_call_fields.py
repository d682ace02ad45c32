# SPDX-License-Identifier: Apache-2.0
"""Arguments of a call that FastVideo has no field for: added, taken back, shared between ports, and nothing more."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fvport.checks import _call, _conduct, pipeline
from fvport.errors import UsageError
from fvport.parity import declared, generation
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


def told(fields: dict[str, str], **call: Any) -> Any:
    """A port with these fields and this call, as far as calls and the names of items need one."""
    call = {"num_inference_steps": 2, "height": 32, "width": 32, **call}
    return SimpleNamespace(
        fastvideo=SimpleNamespace(fields=fields),
        port=SimpleNamespace(workload_types=("t2v",)),
        official=SimpleNamespace(pipeline=SimpleNamespace(call=call, prompts=("a fox",), seeds=(0,))),
        components={},
    )


@pytest.mark.parametrize(
    ("kind", "value", "other"),
    [
        *(("float", 0.3, 0.21), ("float", 1, 0.7), ("float", 0.0, 0.5), ("float", 1e-6, 7e-7)),
        *(("int", 4, 3), ("int", 1, 2), ("int", 0, 1), ("int", -1, 0), ("bool", True, False), ("bool", False, True)),
        *(("str", "linear", None), ("list", [1], None)),
    ],
)
def test_another_value_is_of_the_fields_type(kind: str, value: Any, other: Any) -> None:
    """Never the same one, never another type; none for what is neither a number nor a bool."""
    found = declared.other(value, kind)
    assert (found, type(found)) == (other, type(other))


def test_every_declared_field_of_the_call_is_varied() -> None:
    """Beside strength: each by itself, with a floor of its own, and the check's pass needs it."""
    port = told(
        {"strength": "float", "eta": "float", "order": "int", "unused": "float"}, strength=0.6, eta=0.3, order=2
    )
    base = generation.Call("p0s0", port.official.pipeline.call, "a fox", "", 0)
    found = {call.varies: call for call in generation.variations(port, base)}
    assert (found["eta"].arguments, found["eta"].own_floor) == ({**base.arguments, "eta": 0.21}, True)
    assert (found["order"].arguments, found["order"].own_floor) == ({**base.arguments, "order": 1}, True)
    assert "unused" not in found
    wanted = pipeline.expected(port)
    assert {"changed: eta", "changed: order", "changed: strength"} <= set(wanted)
    assert (wanted.count("changed: strength"), "changed: unused" in wanted) == (1, False)
    assert _call.unvaried(port) == []


def test_a_field_that_nothing_varies_blocks() -> None:
    """Words have no other value to try: the item that a pass needs is blocked, and says so."""
    port = told({"mode": "str"}, mode="linear")
    (item,) = _call.unvaried(port)
    assert (item.name, item.verdict) == ("changed: mode", "blocked")
    assert "mode is 'linear' in the call, and this field's value was never varied" in item.reason
    assert item.name in pipeline.expected(port)
    base = generation.Call("p0s0", port.official.pipeline.call, "a fox", "", 0)
    assert "mode" not in {call.varies for call in generation.variations(port, base)}
