# SPDX-License-Identifier: Apache-2.0
"""Evidence: a verdict follows from what was compared, and a record knows the tree that it speaks of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_spec import GOOD, put

from fvport import checks, spec
from fvport import evidence as ev
from fvport.errors import BlockedError, UsageError


@pytest.fixture
def port(tmp_path: Path) -> spec.Port:
    put(tmp_path, GOOD)
    return spec.load(tmp_path)


@pytest.mark.parametrize(
    ("verdicts", "whole"),
    [
        ([], "blocked"),
        (["pass"], "pass"),
        (["pass", "blocked"], "blocked"),
        (["pass", "blocked", "fail"], "fail"),
        (["pass", "skipped"], "blocked"),
    ],
)
def test_verdict_follows_from_the_items(verdicts: list[str], whole: str) -> None:
    """Nothing compared is blocked, one failure is fail, and an unknown word is never a pass."""
    record = ev.Evidence("keys", "tiny_wan", items=[ev.Item("x", verdict) for verdict in verdicts])
    assert record.verdict == whole


def test_a_record_survives_the_disk(port: spec.Port) -> None:
    """What is written is what is read."""
    record = ev.Evidence("keys", port.slug, items=[ev.Item("transformer: names", "pass", metrics={"keys": 3})])
    ev.write(port, record)
    assert ev.read(port, "keys") == record
    assert not list(ev.folder(port).glob("*.part"))


@pytest.mark.parametrize("change", [{"verdict": "pass"}, {"status": "non_skip_pass"}, {"schema": 9}, {"extra": 1}])
def test_a_record_edited_by_hand_is_refused(port: spec.Port, change: dict) -> None:
    """A verdict that does not follow from the items, or a foreign field, is not evidence."""
    path = ev.write(port, ev.Evidence("keys", port.slug, items=[ev.Item("x", "fail")]))
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UsageError):
        ev.read(port, "keys")


def test_half_a_record_is_one_sentence(port: spec.Port) -> None:
    """A truncated file is named, not a traceback."""
    path = ev.write(port, ev.Evidence("keys", port.slug))
    path.write_text(path.read_text()[:40])
    with pytest.raises(UsageError, match="is not a record"):
        ev.read(port, "keys")


def test_nan_never_gets_into_a_record(port: spec.Port) -> None:
    """JSON has no NaN; a metric that is one must be said in words."""
    with pytest.raises(ValueError, match="JSON"):
        ev.write(port, ev.Evidence("keys", port.slug, items=[ev.Item("x", "pass", metrics={"a": float("nan")})]))
    assert ev.read(port, "keys") is None


def test_digests_follow_what_they_name(port: spec.Port) -> None:
    """Layout of port.toml does not matter, its values do; a file, a tree and a lock entry change with their content."""
    names = ["port:components.transformer", "file:a.py", "tree:pkg", "weights:transformer", "port:nothing"]
    (port.root / "pkg").mkdir()
    (port.root / "pkg/x.py").write_text("1")
    (port.root / "a.py").write_text("1")
    before = ev.digests(port, names)
    assert before["weights:transformer"] == before["port:nothing"] == "absent"
    port.file.write_text("# a comment\n" + GOOD)
    assert ev.digests(spec.load(port.root), names) == before
    port.file.write_text(GOOD.replace("factor = 3", "factor = 4"))
    (port.root / "pkg/x.py").write_text("2")
    (port.root / "a.py").unlink()
    (port.folder / "port.lock.json").write_text('{"components": {"transformer": {"files": []}}}')
    after = ev.digests(spec.load(port.root), names)
    assert [name for name in names if before[name] != after[name]] == names[:4]
    assert after["file:a.py"] == "absent"


def test_a_tree_that_changes_while_a_check_runs_leaves_no_record(
    port: spec.Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record would speak of a tree that never was."""

    class Check:
        @staticmethod
        def inputs(port: spec.Port) -> list[str]:
            return ["file:a.py"]

        @staticmethod
        def run(port: spec.Port, options: checks.Options) -> ev.Evidence:
            (port.root / "a.py").write_text("now it is there")
            return ev.Evidence("keys", port.slug, items=[ev.Item("x", "pass")])

    monkeypatch.setattr(checks, "module", lambda name: Check)
    with pytest.raises(BlockedError, match=r"a\.py changed while keys ran"):
        checks.run_check(port, "keys")
    assert ev.read(port, "keys") is None


def test_a_missing_asset_leaves_a_blocked_record(port: spec.Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """`blocked` is written down with what is missing and what to run."""

    class Check:
        @staticmethod
        def inputs(port: spec.Port) -> list[str]:
            return []

        @staticmethod
        def run(port: spec.Port, options: checks.Options) -> ev.Evidence:
            raise BlockedError("no weights", todo="Run: fvport prep")

    monkeypatch.setattr(checks, "module", lambda name: Check)
    record = checks.run_check(port, "keys")
    assert (record.verdict, record.items[0].reason, record.items[0].todo) == (
        "blocked",
        "no weights",
        "Run: fvport prep",
    )
    assert ev.read(port, "keys") == record


def test_an_interrupt_leaves_the_old_record(port: spec.Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of a check changes nothing on disk."""
    old = ev.Evidence("keys", port.slug, items=[ev.Item("x", "pass")])
    ev.write(port, old)

    class Check:
        @staticmethod
        def inputs(port: spec.Port) -> list[str]:
            return []

        @staticmethod
        def run(port: spec.Port, options: checks.Options) -> ev.Evidence:
            raise KeyboardInterrupt

    monkeypatch.setattr(checks, "module", lambda name: Check)
    with pytest.raises(KeyboardInterrupt):
        checks.run_check(port, "keys")
    assert ev.read(port, "keys") == old
