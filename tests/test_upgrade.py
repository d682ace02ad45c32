# SPDX-License-Identifier: Apache-2.0
"""`fvport upgrade`: from schema to schema with a change list, people's edits kept; the gate says what is behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gate_support as g
import pytest

from fvport import __version__, gate, spec, upgrade
from fvport.errors import UsageError
from fvport.spec import Port

SOURCE = 'SOURCE = os.environ.get("FVPORT_SOURCE", "git+https://somewhere/template@v{}")'


@pytest.fixture
def port(tmp_path: Path) -> Port:
    return g.make(tmp_path)


def renamed(document: Any) -> list[str]:
    """A step as the next schema may bring it: a key gets another name, and its value and comment go along."""
    document["gate"]["needs_device"] = document["gate"].pop("require_device")
    return ["gate.require_device is gate.needs_device now"]


def added(document: Any) -> list[str]:
    document["gate"]["words"] = 3
    return ["gate.words = 3, as it was before"]


LATER = (*upgrade.STEPS, upgrade.Step(1, renamed), upgrade.Step(2, added))


def test_nothing_to_do_changes_nothing(port: Port) -> None:
    """A port of this schema is left to the byte, and no report is written."""
    before = port.file.read_bytes()
    done = upgrade.run(port.root)
    assert (done.changes, port.file.read_bytes()) == ({}, before)
    assert "nothing to do" in done.text()
    assert not (port.state / "report" / "upgrade.md").exists()


def test_a_draft_without_a_schema(port: Port) -> None:
    """It cannot be read, which says what to run; then it can, and the rest is as it was."""
    text = port.file.read_text().replace("schema = 1\n", "")
    port.file.write_text(text)
    with pytest.raises(UsageError, match="fvport upgrade"):
        spec.load(port.root)
    done = upgrade.run(port.root)
    assert port.file.read_text() == "schema = 1\n" + text
    assert spec.load(port.root).slug == port.slug
    assert list(done.changes) == ["tests/local_tests/toy/port.toml"]
    assert "schema 0 to 1" in Path(done.report).read_text()


def test_two_steps_keep_what_people_wrote(port: Port) -> None:
    """Comments, order, spacing and line endings of everything that no step names stay to the byte."""
    text = port.file.read_text().replace("[gate]\n", "# ours\n[gate]  # shut\n").replace("\n", "\r\n")
    port.file.write_bytes(text.encode())
    done = upgrade.run(port.root, steps=LATER, schema=3, read=lambda file: None)
    new = port.file.read_bytes().decode()
    kept = [
        line for line in text.split("\r\n") if line and "require_device" not in line and not line.startswith("schema")
    ]
    assert [line for line in new.split("\r\n") if line in kept] == kept
    assert "schema = 3\r\n" in new
    assert 'needs_device = "cpu"' in new
    assert [said.partition(": ")[0] for said in done.changes["tests/local_tests/toy/port.toml"]] == [
        "schema 1 to 2",
        "schema 2 to 3",
    ]


def test_a_result_that_cannot_be_read_changes_nothing(port: Port) -> None:
    """The step's outcome is refused by the reader: the file is as it was, no part lies about."""
    before = port.file.read_bytes()
    with pytest.raises(UsageError, match="was left as it is"):
        upgrade.run(port.root, steps=LATER, schema=2)
    assert port.file.read_bytes() == before
    assert [file.name for file in port.folder.iterdir() if file.name.endswith(".part")] == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("schema = 1", "schema = 9", "is not one that this fvport"),
        ("schema = 1", 'schema = "x"', "is not one that this fvport"),
        ("schema = 1", "schema = -1", "no way leads from schema -1"),
        ("schema = 1", "schema = ", "is not valid TOML"),
    ],
)
def test_what_cannot_be_upgraded_is_said(port: Port, old: str, new: str, said: str) -> None:
    """One sentence, and the file stays."""
    port.file.write_text(port.file.read_text().replace(old, new, 1))
    before = port.file.read_bytes()
    with pytest.raises(UsageError, match=said):
        upgrade.run(port.root)
    assert port.file.read_bytes() == before


@pytest.mark.parametrize(("pin", "said"), [("0.0.9", "fvport upgrade"), ("99.0", "newer"), (__version__, "")])
def test_the_gate_says_when_the_port_is_behind(port: Port, pin: str, said: str) -> None:
    """The pin is the noxfile's; the gate names both versions among its risks."""
    (port.root / "noxfile.py").write_text(f"import os\n{SOURCE.format(pin)}\n")
    found = [risk for risk in gate.decide(port).risks if "pins fvport" in risk]
    assert (said in found[0] and pin in found[0]) if said else not found


def test_the_pin_follows(port: Port) -> None:
    """An older pin is brought to this version, in the one line; a newer one is left."""
    noxfile = port.root / "noxfile.py"
    noxfile.write_text(f"import os\n{SOURCE.format('0.0.9')}\nMINE = 1\n")
    done = upgrade.run(port.root)
    assert noxfile.read_text() == f"import os\n{SOURCE.format(__version__)}\nMINE = 1\n"
    assert done.changes == {"noxfile.py": [f"pins fvport v{__version__}, was v0.0.9"]}
    noxfile.write_text(f"import os\n{SOURCE.format('99.0')}\n")
    assert not upgrade.run(port.root).changes
