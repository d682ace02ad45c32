# SPDX-License-Identifier: Apache-2.0
"""The census is complete: every native class has a case or a reason, every finding its cases, the page both."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fvport.audit import findings, inventory, leftout, page, run, show

REPO = Path(__file__).resolve().parent.parent
GREEN = [
    *("umt5", "t5", "clip_text", "clip_vision/wan_i2v", "siglip_vision", "qwen3", "wan", "sd3", "z_image"),
    *("hunyuan_video/trimmed", "autoencoder_kl", "wan_vae", "flow_match_euler"),
]
RED = ["bert"]


def unaccounted(models: Path | None = None) -> list[str]:
    """Native classes with neither a case nor a reason."""
    covered = {case.native for case in run.cases()} | set(leftout.LEFT_OUT)
    return [name for name in inventory.classes(models) if name not in covered]


def test_every_native_class_has_a_case_or_a_reason() -> None:
    """Against the installed FastVideo: none forgotten, no reason for a class that is gone or has a case."""
    assert unaccounted() == []
    there, tested = inventory.classes(), {case.native for case in run.cases()}
    assert [name for name in leftout.LEFT_OUT if name not in there] == []
    assert [name for name in leftout.LEFT_OUT if name in tested] == []
    assert all(reason.strip() for reason in leftout.LEFT_OUT.values())


@pytest.mark.parametrize(
    ("file", "text", "name"),
    [
        ("dits/new_one.py", "class NewDiT:\n    pass\n\n\nEntryClass = NewDiT\n", "dits.new_one:NewDiT"),
        ("vaes/new_two.py", "class A:\n    pass\n\n\nEntryClass = [A]\n", "vaes.new_two:A"),
        ("schedulers/new_three.py", "class NewScheduler(object):\n    pass\n", "schedulers.new_three:NewScheduler"),
    ],
)
def test_a_new_native_class_is_noticed(tmp_path: Path, file: str, text: str, name: str) -> None:
    """A FastVideo with one class more fails the completeness test and is named."""
    models = tmp_path / "models"
    shutil.copytree(inventory.root(), models, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    (models / file).write_text(text)
    assert unaccounted(models) == [f"fastvideo.models.{name}"]


def test_there_are_enough_cases_and_each_has_its_own_name() -> None:
    """A census has at least seventy cases; a name is one case."""
    names = [case.name for case in run.cases()]
    assert len(names) >= 70
    assert len(set(names)) == len(names)
    assert set(GREEN + RED) <= set(names)


def test_findings_name_cases_that_exist() -> None:
    """Each finding has its own id and at least one case, a change, and text in every field."""
    names = {case.name for case in run.cases()}
    ids = [finding.id for finding in findings.all_findings()]
    assert len(set(ids)) == len(ids)
    for finding in findings.all_findings():
        assert set(finding.cases) <= names, finding.id
        assert all([finding.cases, finding.title, finding.what, finding.change]), finding.id
        assert finding.fix or "none tried" in finding.change, finding.id


def row(name: str, verdict: str = "equal", **more: Any) -> dict[str, Any]:
    return {
        "case": name,
        "what": "a <b> | c",
        "official": "diffusers:A",
        "native": "fastvideo.models.x:B",
        "verdict": verdict,
        "worst": {"value": 1e-7, "times_budget": 0.3},
        "floor": 2e-7,
        "floor_from": "float64",
        "seconds": 1.0,
        "peak_mb": 1.0,
        "problem": "",
        "finding": None,
        "findings": [],
        "places": {},
        "tried": None,
        "control": None,
        "explained": None,
        **more,
    }


def census(*rows: dict[str, Any]) -> dict[str, Any]:
    return {
        "fastvideo": "9.9",
        "versions": {"torch": "1", "diffusers": "2", "transformers": "3"},
        "cases": list(rows),
        "findings": [],
        "gone": ["FV-X9"],
        "left_out": [{"native": "m:C", "reason": "no twin"}],
        "control": {"noise": 0.02, "green": 1, "caught": 0, "missed": ["one"]},
        "counts": {word: sum(r["verdict"] == word for r in rows) for word in ("equal", "differs", "blocked")},
        "unexplained": [r["case"] for r in rows if r["explained"] is False],
        "seconds": {"boot": 1.0, "total": 2.0},
    }


def test_what_is_unexplained_or_missed_is_shown_everywhere() -> None:
    """Terminal, Markdown and HTML name an unexplained case and a control that saw nothing; text is escaped."""
    made = census(row("one", control={"caught": False}), row("two", "differs", explained=False))
    told = show.text(made)
    assert "no longer seen: FV-X9" in told
    assert "unexplained: two" in told
    assert "missed: one" in told
    assert "CONTROL MISSED" in told
    markdown = page.markdown(made)
    assert "- `two`" in markdown
    assert "missed: one" in markdown
    assert "&lt;b&gt;" in markdown
    assert "Unexplained: two" in page.html(made)


def test_unknown_case_is_one_sentence_with_a_suggestion() -> None:
    """Exit code 2, before anything is imported."""
    command = [sys.executable, "-m", "fvport.cli", "audit", "cosmos3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert 'no case "cosmos3"' in done.stderr
    assert "cosmos2" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_page_that_cannot_be_written_is_said_before_the_census(tmp_path: Path) -> None:
    """A folder in the place of a page: exit code 2 at once, not after minutes."""
    command = [sys.executable, "-m", "fvport.cli", "audit", "cosmos2", "--html", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "cannot be written" in done.stderr


def test_list_names_families_and_cases() -> None:
    """`--list` with a family gives its cases, as JSON too."""
    command = [sys.executable, "-m", "fvport.cli", "audit", "--list", "--json", "cosmos2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    names = json.loads(done.stdout)
    assert "cosmos2/fps24" in names
    assert all(name.startswith("cosmos2") for name in names)


def test_the_page_holds_every_case_and_every_finding() -> None:
    """docs/census.md was made after the last case and finding were added, and nothing in it is unexplained."""
    text = (REPO / "docs" / "census.md").read_text()
    assert [case.name for case in run.cases() if f"| `{case.name}`" not in text] == []
    assert [finding.id for finding in findings.all_findings() if f"### {finding.id}:" not in text] == []
    assert ", 0 unexplained." in text
    assert not re.search(r"/(work|tmp|home)/", text)


@pytest.mark.heavy
def test_the_whole_census() -> None:
    """The census itself: known greens equal, known reds not, nothing unexplained, the control caught."""
    command = [sys.executable, "-m", "fvport.cli", "audit", "--json", "--control"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
    made = json.loads(done.stdout)
    verdicts = {r["case"]: r["verdict"] for r in made["cases"]}
    assert {name: verdicts[name] for name in GREEN} == dict.fromkeys(GREEN, "equal")
    assert all(verdicts[name] != "equal" for name in RED)
    assert made["unexplained"] == []
    assert made["control"]["missed"] == []
    assert all(
        ":" in finding["native"] and finding["native"].rpartition(":")[2].isdigit() for finding in made["findings"]
    )
    assert done.returncode == 0
