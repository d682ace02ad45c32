# SPDX-License-Identifier: Apache-2.0
"""Every rule of `docs` red and green, and figures that are older than the code."""

from __future__ import annotations

from pathlib import Path

import gate_support as g
import pytest

from fvport import evidence as ev
from fvport import figures, gate, spec
from fvport.checks import Options, docs
from fvport.report import plan
from fvport.spec import Port

PAGE = "docs/inference/toy.md"


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Port:
    port = g.make(tmp_path)
    g.stub_checks(monkeypatch, docs=docs)
    for check in figures.CHECKS:
        g.green(port, check)
    plan.sync(port)
    return port


def red(port: Port) -> dict[str, str]:
    items = docs.run(spec.load(port.root), Options()).items
    return {item.name.split()[0]: item.reason for item in items if item.verdict != "pass"}


def test_green(port: Port) -> None:
    """A page with its sections and synced figures passes every rule."""
    record = docs.run(port, Options())
    assert red(port) == {}
    assert [item.name for item in record.items] == docs.expected(port)


@pytest.mark.parametrize(
    ("rule", "old", "new", "said"),
    [
        ("FV402", "## Constraints", "## Other", "no section on constraints"),
        ("FV402", "## Backend requirements", "## End", "no section on backend requirements"),
        ("FV402", "Height and width are multiples of sixteen, frames four and one.", "None.", "says nothing"),
        ("FV403", "<!-- fvport:begin figures -->", "<!-- begin -->", "has no block"),
        ("FV404", "max_abs 1.25e-06", "max_abs 1.00e-07", "not what its evidence says"),
        ("FV405", "## Usage", "TODO\n\n## Usage", "TODO"),
        ("FV405", "## Usage", "{{ p.model }}\n\n## Usage", "{{"),
        ("FV406", "(#constraints)", "(#constrain)", "no such heading"),
        ("FV406", "(#constraints)", "(../nowhere.md)", "not there"),
        ("FV407", "--seed 3", "--sead 3", "--sead is no option"),
        ("FV407", "python examples", "see examples", "does not say"),
    ],
)
def test_fault(port: Port, rule: str, old: str, new: str, said: str) -> None:
    """Each rule goes red for its own reason."""
    g.edit(port, PAGE, old, new)
    assert said in red(port).get(rule, f"{rule} is green")


def test_page_removed(port: Port) -> None:
    """Without the page the check is red, whatever else."""
    (port.root / PAGE).unlink()
    assert "is not there" in red(port)["FV401"]


def test_example_removed(port: Port) -> None:
    """A page whose example is gone is red."""
    (port.root / docs.example_path(port)).unlink()
    assert "is not there" in red(port)["FV407"]


def test_figures_older_than_the_code(port: Port) -> None:
    """When the code that the figures came from changes, the page is red until they are taken again."""
    g.edit(port, "fastvideo/models/dits/toy.py", "import torch", "import torch  # changed")
    assert "older than the code" in red(port)["FV404"]
    plan.sync(port)
    assert "has no figures of" in red(port)["FV404"]
    for check in figures.CHECKS:
        g.green(port, check)
    plan.sync(port)
    assert red(port) == {}


def test_figures_from_another_machine(port: Port) -> None:
    """On a machine without that evidence, figures of the same inputs still hold."""
    for check in figures.CHECKS:
        (ev.folder(port) / f"{check}.json").unlink()
    assert red(port) == {}


def test_sync_is_no_cycle(port: Port) -> None:
    """A sync changes no digest of the docs check, and the gate sees a figure that was edited after the check."""
    g.green(port, "docs")
    before = ev.digests(port, docs.inputs(port))
    g.green(port, "example", seconds=3.5)
    plan.sync(port)
    assert ev.digests(port, docs.inputs(port)) == before
    row = gate.decide(port).row("docs")
    assert row is not None
    assert row.state == "current"
    g.edit(port, PAGE, "max_abs 1.25e-06", "max_abs 0.0")
    row = gate.decide(port).row("docs")
    assert row is not None
    assert (row.verdict, row.state) == ("blocked", "stale")


def test_a_page_filled_after_a_red_check_is_looked_at_again(port: Port) -> None:
    """The first `gate --run` finds an empty block; after `plan --sync` the next one runs docs again, and no sooner."""
    full = (port.root / PAGE).read_text()
    g.edit(port, PAGE, full[full.index("| parity |") : full.index("<!-- fvport:end figures -->")], "")
    g.green(port, "docs", items=docs.run(port, Options()).items)
    row = gate.decide(port).row("docs")
    assert row is not None
    assert (row.verdict, row.state) == ("fail", "current")
    assert "docs" not in gate.to_run(port)
    plan.sync(port)
    row = gate.decide(port).row("docs")
    assert row is not None
    assert (row.verdict, row.state) == ("blocked", "stale")
    assert "docs" in gate.to_run(port)


def test_a_check_with_many_items_says_that_there_are_more(port: Port) -> None:
    """A page with 12 rows of 30 does not pass for the whole."""
    items = [ev.Item(f"transformer: {i}", "pass", "", {"rel_l2": 1e-7 * i}) for i in range(1, 31)]
    record = g.green(port, "parity", items=items)
    rows = figures._rows(record)
    assert len(rows) == figures.MOST + 1
    assert "and 18 more" in rows[-1]
    assert len(figures._rows(g.green(port, "parity", items=items[: figures.MOST]))) == figures.MOST


def test_prose_is_an_input(port: Port) -> None:
    """Words that a person changes make the record stale."""
    before = ev.digests(port, docs.inputs(port))
    g.edit(port, PAGE, "one gigabyte", "two gigabytes")
    assert ev.digests(port, docs.inputs(port)) != before


def test_a_page_in_another_encoding(port: Port) -> None:
    """FV401: a page that is no UTF-8 is red with its line, not a traceback."""
    page = port.root / "docs/inference/toy.md"
    page.write_bytes(page.read_bytes() + "größer\n".encode("latin-1"))
    items = [item for item in docs.run(port, Options()).items if item.name.startswith("FV401 ")]
    assert "is not UTF-8 text" in items[0].reason
