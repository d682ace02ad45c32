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
    port.file.write_text(GOOD.replace("factor = 3", "factor = 2"))
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


def stub(monkeypatch: pytest.MonkeyPatch, names: list[str], run: object) -> None:
    """Every check reads `names` and runs `run`; it expects one item a component."""

    class Check:
        inputs = staticmethod(lambda port: names)
        expected = staticmethod(lambda port: ["transformer", "vae", "whole"])

    Check.run = staticmethod(run)  # type: ignore[attr-defined]
    monkeypatch.setattr(checks, "module", lambda name: Check)


def test_a_fault_of_a_check_is_blocked(port: spec.Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that nobody foresaw leaves a blocked record with its place, never the end of the process."""
    stub(monkeypatch, ["file:a.py"], lambda port, options: {}["gone"])
    record = checks.run_check(port, "keys")
    assert record.verdict == "blocked"
    assert "KeyError: 'gone' (at " in record.items[0].reason
    assert ev.read(port, "keys") == record


def test_inputs_that_cannot_be_told(port: spec.Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a check cannot say what it reads, the record is blocked and names nothing that it was made from."""

    def fail(port: spec.Port) -> list[str]:
        raise BlockedError("the history is cut off", todo="git fetch --unshallow")

    stub(monkeypatch, [], lambda port, options: ev.Evidence("keys", port.slug, items=[ev.Item("x", "pass")]))
    monkeypatch.setattr(checks.module("keys"), "inputs", staticmethod(fail))
    record = checks.run_check(port, "keys")
    assert (record.verdict, record.inputs, record.items[0].todo) == ("blocked", {}, "git fetch --unshallow")


def lock_weights(port: spec.Port) -> Path:
    """Official weights of one component, and their lock."""
    from fvport.weights import lockfile

    file = port.official_weights / "transformer" / "config.json"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"{}" + b" " * 100)
    entry = lockfile.entry(port, port.component("transformer"), lockfile.Hashes(port))
    (port.folder / "port.lock.json").write_text(json.dumps({"components": {"transformer": entry}}))
    return file


def test_other_weights_than_the_locked_ones(port: spec.Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """Official files that changed, or that are new, under an untouched lock: no check runs, old records are stale."""
    ran: list[int] = []

    def run(port: spec.Port, options: checks.Options) -> ev.Evidence:
        ran.append(1)
        return ev.Evidence("keys", port.slug, items=[ev.Item("x", "pass")])

    stub(monkeypatch, ["weights:transformer"], run)
    file = lock_weights(port)
    first = checks.run_check(port, "keys")
    assert first.verdict == "pass"
    file.write_bytes(b"{}" + b"\t" * 100)  # same size, other bytes
    changed = ev.digests(port, ["weights:transformer"])
    assert changed != first.inputs
    assert "differs from port.lock.json" in changed["weights:transformer"]
    second = checks.run_check(port, "keys")
    assert (second.verdict, len(ran)) == ("blocked", 1)
    file.write_bytes(b"{}" + b" " * 100)
    assert ev.digests(port, ["weights:transformer"]) == first.inputs
    (file.parent / "more.index.json").write_text("{}")
    assert "is not in port.lock.json" in checks.run_check(port, "keys").items[0].reason


def test_a_record_says_at_what_scale_it_was_made(port: spec.Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the check: one of a tiny twin says so, and the gate that asks for the release's weights is told why."""
    stub(monkeypatch, [], lambda port, options: ev.Evidence("keys", port.slug, items=[ev.Item("x", "pass")]))
    assert checks.run_check(port, "keys").scale == "full"
    assert checks.run_check(port, "keys", checks.Options(scale="tiny")).scale == "tiny"
    kept = ev.read(port, "keys")
    assert kept is not None
    assert kept.scale == "tiny"


def test_weights_without_a_lock(port: spec.Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that were never locked are no evidence: `absent` equals `absent` on any weights."""
    passed = ev.Evidence("keys", port.slug, items=[ev.Item("x", "pass")])
    stub(monkeypatch, ["weights:transformer"], lambda port, options: passed)
    lock_weights(port)
    (port.folder / "port.lock.json").unlink()
    record = checks.run_check(port, "keys")
    assert (record.verdict, record.items[0].todo) == ("blocked", "Run: fvport prep")


def test_prose_in_any_encoding(port: spec.Port) -> None:
    """A page that is no UTF-8 has a digest of its own."""
    page = port.root / "page.md"
    page.write_bytes("größer".encode("latin-1"))
    one = ev.digest(port, "prose:page.md")
    page.write_bytes("grüßer".encode("latin-1"))
    assert ev.digest(port, "prose:page.md") not in (one, "absent")


@pytest.mark.parametrize("text", ["[]", '{"components": 3}', "{", "\x00"])
def test_a_broken_lock_is_one_sentence(port: spec.Port, text: str) -> None:
    """port.lock.json that is no lock is named, not a traceback."""
    (port.folder / "port.lock.json").write_text(text)
    with pytest.raises(UsageError, match=r"port\.lock\.json"):
        ev.digest(port, "weights:transformer")


# --- a run of some components ----------------------------------------------------------------------------------------


def some(port: spec.Port, options: checks.Options) -> ev.Evidence:
    """A check that runs what it is asked for; `whole` belongs to no component."""
    names = options.components or ("transformer", "vae")
    items = [ev.Item(name, "pass", metrics={"n": len(names)}, component=name) for name in names]
    items += [] if options.components else [ev.Item("whole", "pass")]
    device = {"kind": options.device, "name": "x"}
    return ev.Evidence("parity", port.slug, items=items, notes=[f"{n}: seen" for n in names], device=device)


def test_a_partial_run_keeps_the_others(port: spec.Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """`check parity transformer` leaves the vae's items, figures and notes where they were."""
    stub(monkeypatch, ["file:a.py"], some)
    checks.run_check(port, "parity", checks.Options(device="cpu"))
    record = checks.run_check(port, "parity", checks.Options(("transformer",), device="cpu"))
    assert {item.name: item.metrics.get("n") for item in record.items} == {"vae": 2, "whole": None, "transformer": 1}
    assert "vae: seen" in record.notes
    assert any("from the run of" in note for note in record.notes)
    assert ev.read(port, "parity") == record


def test_an_edit_taken_back_costs_one_component(port: spec.Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """A partial run on an edited tree puts the whole record by; when the edit is gone, its other items hold again."""
    stub(monkeypatch, ["file:a.py"], some)
    one = checks.Options(("transformer",), device="cpu")
    checks.run_check(port, "parity", checks.Options(device="cpu"))
    (port.root / "a.py").write_text("edited")
    for _ in range(2):  # the second leaves what the first put by
        assert [item.name for item in checks.run_check(port, "parity", one).items] == ["transformer"]
    (port.root / "a.py").unlink()
    record = checks.run_check(port, "parity", one)
    assert {item.name: item.metrics.get("n") for item in record.items} == {"vae": 2, "whole": None, "transformer": 1}


@pytest.mark.parametrize("text", ["{", '{"schema": 1}', None])
def test_a_record_put_by_is_as_hard_to_forge(
    port: spec.Port, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    """What was put by and then changed by hand gives nothing."""
    stub(monkeypatch, ["file:a.py"], some)
    one = checks.Options(("transformer",), device="cpu")
    checks.run_check(port, "parity", checks.Options(device="cpu"))
    (port.root / "a.py").write_text("edited")
    checks.run_check(port, "parity", one)
    (port.root / "a.py").unlink()
    kept = ev.place(port, "parity", ".before")
    kept.write_text(kept.read_text().replace('"n": 2', '"n": 3') if text is None else text)
    assert [item.name for item in checks.run_check(port, "parity", one).items] == ["transformer"]


@pytest.mark.parametrize("why", ["inputs", "device", "edited", "none", "failed"])
def test_a_partial_run_takes_nothing_over(port: spec.Port, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """Nothing stays that speaks of other inputs or another device, nor of a forged record; red stays red."""
    stub(monkeypatch, ["file:a.py"], some)
    if why != "none":
        checks.run_check(port, "parity", checks.Options(device="cpu"))
    if why == "inputs":
        (port.root / "a.py").write_text("other")
    elif why == "edited":
        file = ev.folder(port) / "parity.json"
        file.write_text(file.read_text().replace("seen", "Seen"))
    elif why == "failed":
        old = ev.read(port, "parity")
        assert old is not None
        old.items[1].verdict = "fail"
        ev.write(port, old)
    device = "cuda" if why == "device" else "cpu"
    record = checks.run_check(port, "parity", checks.Options(("transformer",), device=device))
    if why == "failed":
        assert record.verdict == "fail"
    else:
        assert [item.name for item in record.items] == ["transformer"]
