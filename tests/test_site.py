# SPDX-License-Identifier: Apache-2.0
"""The site's pages that are made from code are those of today's code, and the examples on them are true."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ci import site, site_diagrams, site_examples, site_pages, site_reference, site_rules
from fvport.weights import lint
from fvport.weights.mapping import Rules
from fvport.words import CHECKS

DOCS = Path(__file__).resolve().parent.parent / "docs"


def test_no_page_has_drifted() -> None:
    """Rules, port.toml, commands, errors, drawings and blocks are what `nox -s site_pages` writes."""
    assert [path.relative_to(DOCS.parent).as_posix() for path in site_pages.drifted()] == []


def test_a_changed_page_has_drifted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that somebody edited by hand, or that is gone, is named."""
    pages = {tmp_path / "a.md": "made\n", tmp_path / "b.md": "made\n", tmp_path / "c.md": "made\n"}
    (tmp_path / "a.md").write_text("made\n")
    (tmp_path / "b.md").write_text("edited\n")
    monkeypatch.setattr(site_pages, "wanted", lambda: pages)
    assert [path.name for path in site_pages.drifted()] == ["b.md", "c.md"]


def codes(case: dict[str, Any]) -> set[str]:
    rules = Rules.from_fastvideo(case["mapping"])
    found = lint.lint(rules, case["shapes"], case["native"], case.get("passthrough", ()), case.get("exclude"))
    return {finding.code for finding in found}


@pytest.mark.parametrize("number", site_examples.MAPPING)
def test_examples_of_the_mapping_rules_are_true(number: str) -> None:
    """The example that fails raises its number, the one that passes does not."""
    bad, good = site_examples.MAPPING[number]
    assert number in codes(bad)
    assert number not in codes(good)


def test_every_rule_has_its_page_and_two_examples() -> None:
    """Each number that the code knows stands on a page, with what fails and what passes."""
    pages = site_rules.pages()
    families = site_rules.all_rules()
    assert set(families["mapping"]) == set(lint.RULES)
    assert {number: lint.sentence(number) for number in lint.RULES} == families["mapping"]
    for name, rules in families.items():
        for part in re.split(r"^## (?=FV\d)", pages[f"rules/{name}.md"], flags=re.MULTILINE)[1:]:
            assert part[:5] in rules
            assert re.search(r"^(Fails:|\| fails|.*Fails:$)", part, re.MULTILINE), part
            assert re.search(r"^(Passes:|\| passes)", part, re.MULTILINE), part
    assert "FV105" in (DOCS / "rules/index.md").read_text()


def test_every_check_has_a_page_with_its_five_parts() -> None:
    """What it proves, how it goes red, how to read it, what to do, its stock fault."""
    parts = ["What it proves", "How it goes red", "How to read it", "What to do", "Its stock fault"]
    for check in CHECKS:
        text = (DOCS / "gate" / f"{check}.md").read_text()
        assert re.findall(r"^## (.*)$", text, re.MULTILINE) == parts, check
        assert site_reference.faults()[check], check


def test_every_key_of_the_schema_has_a_meaning() -> None:
    """A key without a comment in spec.py or a line in MEANINGS cannot be on the page; nor one that is gone."""
    tables = site_reference.fields()
    assert set(tables) == set(site_reference.TABLES)
    assert all(site_reference.meaning(table, row) for table, rows in tables.items() for row in rows)
    known = {f"{table}.{row['key']}" for table, rows in tables.items() for row in rows}
    assert set(site_reference.MEANINGS) <= known


def test_links_are_followed(tmp_path: Path) -> None:
    """A link to no file and one to no place are broken; addresses outside are listed and not asked."""
    (tmp_path / "a.html").write_text(
        '<h2 id="here">x</h2><a href="b.html#there">1</a><a href="b.html#gone">2</a><a href="none.html">3</a>'
        '<a href="#here">4</a><img src="missing.svg"><a href="https://example.org/x">5</a>'
    )
    (tmp_path / "b.html").write_text('<p id="there"></p>')
    broken, outside = site.links(tmp_path)
    assert broken == ["a.html: b.html#gone", "a.html: missing.svg", "a.html: none.html"]
    assert outside == ["https://example.org/x"]


def test_text_stays_in_its_box() -> None:
    """No title or line of a drawing is wider than its box (8 and 6.6 units a character, at most)."""
    for rows in site_diagrams.DRAWINGS.values():
        for title, below in (box for row in rows for box in row):
            assert len(title) * 8.2 <= site_diagrams.WIDE, title
            assert len(below) * 6.6 <= site_diagrams.WIDE, below


def test_the_sites_tools_are_not_in_the_gates_environment() -> None:
    """Its lock is its own: mkdocs never comes into the environment that judges ports."""
    root = DOCS.parent
    assert "mkdocs-material==" in (root / site.LOCK).read_text()
    assert "mkdocs" not in (root / "docker/gate-cpu.lock").read_text()
