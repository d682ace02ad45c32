# SPDX-License-Identifier: Apache-2.0
"""One catalogue of errors: every sentence in the code has an entry, an error that is raised finds its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from ci import errors_read, errors_write
from fvport import cli, errors_catalogue, manners, spec, trouble
from fvport.errors import FvportError, UsageError
from fvport.scaffold import new

ROOT = Path(__file__).resolve().parent.parent


def test_every_error_in_the_code_has_an_entry_and_no_entry_is_left_over() -> None:
    """The walk over src/fvport and the catalogue agree, sentence by sentence (`nox -s site_pages` writes it)."""
    there = {place.key for place in errors_read.places()}
    listed = {(e.module, e.kind, e.sentence) for e in errors_catalogue.entries().values()}
    assert there - listed == set()
    assert listed - there == set()
    assert len(there) > 400


CODE = """
from fvport.errors import BlockedError, UsageError
import fvport.errors as errors

class Gone(BlockedError):
    pass

def one(name):
    raise UsageError(f"no {name} here", where="x", todo=f"Bring {name}")

def two(name):
    what = f"{name} is " + "odd"
    return errors.UsageError(what)

def three(flag):
    raise Gone("away" if flag else "lost")

class Reader:
    def four(self):
        self.fail("a.b", "must be a list")
"""


def test_an_error_that_nobody_listed_is_found(tmp_path: Path) -> None:
    """Raised or returned, by a subclass, put together before, in two forms, through a method: all are places."""
    (tmp_path / "room.py").write_text(CODE)
    found = {(place.kind, place.sentence) for place in errors_read.places(tmp_path)}
    assert found == {
        ("UsageError", "no {} here"),
        ("UsageError", "{} is odd"),
        ("BlockedError", "away"),
        ("BlockedError", "lost"),
        ("UsageError", "{}: must be a list"),
    }
    listed = {(e.module, e.kind, e.sentence) for e in errors_catalogue.entries().values()}
    assert {place.key for place in errors_read.places(tmp_path)} - listed != set()


def place(sentence: str, module: str = "spec") -> errors_read.Place:
    return errors_read.Place(module, "UsageError", sentence, "", 1)


def test_an_id_stays_with_its_sentence_and_is_never_given_twice() -> None:
    """Reworded a little it keeps its id; gone, its number is not used again; a new one takes the next."""
    first = errors_write.renewed(
        {"next": 1, "entries": []}, [place("no such folder {}"), place("wholly different: {}")]
    )
    assert [row["id"] for row in first["entries"]] == ["E0001", "E0002"]
    second = errors_write.renewed(first, [place("there is no such folder {}"), place("zzz")])
    assert {row["sentence"]: row["id"] for row in second["entries"]} == {
        "there is no such folder {}": "E0001",
        "zzz": "E0003",
    }
    with pytest.raises(KeyError, match="no family"):
        errors_write.family("a_new_room")


def test_every_family_has_a_page_and_is_used() -> None:
    """No remedy leads to a page that is not there, and no family is for nothing."""
    used = {entry.family for entry in errors_catalogue.entries().values()}
    assert used == set(errors_catalogue.FAMILIES)
    for name, family in errors_catalogue.FAMILIES.items():
        assert (ROOT / "docs" / family.page).is_file(), name
        assert not family.cause.endswith("."), name


RAISED = {
    "no port here (tests/local_tests/*/port.toml)": lambda folder: spec.load(folder),
    '"{}" is not key=value': lambda folder: new.parse(["words"]),
    'unknown key "{}" (fvport new --list names them).{}': lambda folder: new.parse(["modle_name=x"]),
    'no error or rule has the id "{}"': lambda folder: errors_catalogue.by_id("E9999"),
    "no such folder": lambda folder: spec.load(folder / "none"),
}


@pytest.mark.parametrize("sentence", RAISED)
def test_an_error_finds_its_entry(sentence: str, tmp_path: Path) -> None:
    """What was raised is found again by module and sentence, whatever was filled in."""
    with pytest.raises(FvportError) as raised:
        RAISED[sentence](tmp_path)
    entry = errors_catalogue.find(raised.value)
    assert entry is not None
    assert entry.sentence == sentence
    assert entry.exit_code == raised.value.exit_code


def test_a_numbered_rule_is_explained_too() -> None:
    """A rule has its sentence and page, in any case of letters; all that the pages list are known."""
    from ci import site_rules
    from fvport import rules

    found = errors_catalogue.by_id("fv315").to_json()
    assert (found["check"], found["page"]) == ("boundary", "docs/rules/boundary.md#fv315")
    listed = {number: said for page in site_rules.all_rules().values() for number, said in page.items()}
    assert {number: rule.sentence for number, rule in rules.known().items()} == listed


def test_port_toml_errors_are_told_apart(tmp_path: Path) -> None:
    """A complaint of the reader of port.toml is found by its own sentence, not by the form that all of them have."""
    from fvport.portfile import _Reader

    reader = _Reader(tmp_path / "port.toml", "[gate]\nstrength = 2\n")
    with pytest.raises(UsageError) as raised:
        reader.fail("gate.strength", "must be above 0 and at most 1, is 2")
    entry = errors_catalogue.find(raised.value)
    assert entry is not None
    assert entry.sentence == "{}: must be above 0 and at most 1, is {}"


def test_an_unknown_sentence_has_no_entry() -> None:
    """An error from outside (a port's own code) is said without an id, not with a wrong one."""
    assert errors_catalogue.find(FvportError("Something that no line of this package says, for sure")) is None


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    for name in manners.FLAGS.values():
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(sys, "argv", ["fvport", *words])
    monkeypatch.setattr(trouble, "_listen", lambda caught: None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_an_error_says_its_id(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """One line on standard error with the id; with --json id and page; with --verbose cause, remedy and page."""
    assert run(monkeypatch, "status", "--json", "--port", str(tmp_path)) == 3
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["page"] == "reference/port-toml.md"
    assert err.endswith(f"[{told['id']}]\n")
    assert err.count("\n") == 1
    assert run(monkeypatch, "status", "--verbose", "--port", str(tmp_path)) == 3
    assert "  cause  " in capsys.readouterr().err
    assert run(monkeypatch, "explain", told["id"].lower(), "--json") == 0
    assert json.loads(capsys.readouterr().out)["exit_code"] == 3


@pytest.mark.parametrize("flag", [["--debug"], []])
def test_a_traceback_only_with_debug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, flag: list[str]
) -> None:
    """--debug shows where a sentence comes from; without it nobody sees a traceback."""
    assert run(monkeypatch, "status", *flag, "--port", str(tmp_path)) == 3
    assert ("Traceback" in capsys.readouterr().err) is bool(flag)


def test_flags_after_two_dashes_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows `--` goes on as it is."""
    for name in manners.FLAGS.values():
        monkeypatch.setenv(name, "")
    assert manners.taken(["gate", "--quiet", "--", "--verbose"]) == ["gate", "--", "--verbose"]
    assert manners.quiet()
    assert not manners.verbose()
