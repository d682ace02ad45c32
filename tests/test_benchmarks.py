# SPDX-License-Identifier: Apache-2.0
"""benchmarks/: the document's shape, and that memory and time are really the tree's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as program
from benchmarks import cases, measure

ROOT = Path(__file__).resolve().parent.parent
KEYS = ["name", "machine", "ours", "baselines", "ratios", "detail"]


def check(document: dict) -> None:
    """The document that the design promises."""
    assert list(document) == KEYS
    for figures in (document["ours"], *document["baselines"].values()):
        assert set(figures) == {"seconds", "peak_mb"}
        assert all(value > 0 for value in figures.values())
    assert set(document["ratios"]) == set(document["baselines"])
    assert set(document["machine"]) == {"cpu", "cores", "memory_gb", "system", "python"}


def test_document(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours, baselines, their ratios, and further commands of ours as detail."""

    def ours() -> measure.Run:
        return measure.Run(2.0, 30.0, 0, "")

    def other() -> measure.Run:
        return measure.Run(4.0, 10.0, 0, "")

    commands = {"ours": ours, "other": other, "fvport more": ours}
    monkeypatch.setitem(cases.CASES, "bake", lambda scratch, quick: cases.Case(commands, lambda runs: {"files": 3}))
    document = program.bench("bake", runs=3)
    check(document)
    assert document["ratios"]["other"] == {"seconds": 0.5, "peak_mb": 3.0}
    assert document["detail"] == {"runs": 3, "fvport more": {"seconds": 2.0, "peak_mb": 30.0}, "files": 3}


def test_runs_are_taken_in_turn() -> None:
    """ours, baseline, ours, baseline: a machine that grows slower does so for both."""
    order: list[str] = []

    def note(name: str) -> measure.Run:
        order.append(name)
        return measure.Run(1.0, 1.0, 0, "")

    measure.in_turn({"ours": lambda: note("ours"), "other": lambda: note("other")}, 3)
    assert order == ["ours", "other"] * 3


def test_failed_command_is_no_measurement() -> None:
    """A command that fails stops the benchmark with what it said."""
    with pytest.raises(SystemExit, match="no such thing"):
        measure.in_turn({"ours": lambda: measure.Run(0.1, 1.0, 2, "no such thing")}, 1)


def test_memory_is_the_whole_trees() -> None:
    """A child's memory counts, at the same time as the parent's."""
    child = "import time; block = bytearray(60_000_000); time.sleep(0.3)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    alone = measure.run([sys.executable, "-c", "import time; time.sleep(0.1)"])
    both = measure.run([sys.executable, "-c", parent])
    assert both.returncode == 0
    assert both.peak_mb > alone.peak_mb + 55
    assert both.seconds > 0.3


def test_output_and_exit_code_come_back() -> None:
    """What a command said and ended with are kept, also a large output."""
    done = measure.run([sys.executable, "-c", "print('x' * 200_000); raise SystemExit(3)"])
    assert done.returncode == 3
    assert len(done.output) == 200_001


def test_trivial_template_is_as_large(tmp_path: Path) -> None:
    """The baseline's template has the port's paths, about its bytes, and plain cookiecutter bakes it."""
    port = tmp_path / "baked" / "some_model"
    (port / "deep").mkdir(parents=True)
    (port / "deep" / "a.py").write_text("x" * 1000)
    (port / "b.md").write_text("y" * 10)
    assert cases.trivial_template(tmp_path / "baked", tmp_path / "template") == (2, 1010)
    from cookiecutter.main import cookiecutter

    made = Path(cookiecutter(str(tmp_path / "template"), no_input=True, output_dir=str(tmp_path / "out")))
    assert len((made / "deep" / "a.py").read_text()) == 1000 + len("trivial\n")


def test_steps_of_the_demo(tmp_path: Path) -> None:
    """Times by step come from the demo's own lines and from the records."""
    record = tmp_path / "port" / ".fvport" / "evidence" / "some_model" / "keys.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"seconds": 2.5}))
    assert cases.steps("bake: 0.8 s\nother\n", tmp_path) == {"bake": 0.8, "check keys": 2.5}


def test_kept_results_have_the_shape() -> None:
    """What is kept under benchmarks/results/ is such a document, of three runs (demo and image may be one)."""
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        document = json.loads(path.read_text())
        assert document["name"] == path.stem
        if path.stem == "zero_edit":  # a share, not a time: every case once, and memory is not watched
            assert document["detail"]["green"] <= document["detail"]["cases"] == len(document["detail"]["rows"])
            continue
        if path.stem == "skeletons":
            assert document["detail"]["keys_green"] <= document["detail"]["classes"] == len(document["detail"]["rows"])
            continue
        if path.stem == "strength":
            detail = document["detail"]
            assert detail["cases"] == sum(row["verdict"] == "equal" for row in detail["rows"]) > 0
            assert detail["total"] == sum(pair["total"] for pair in detail["by_pair"])
            continue
        check(document)
        assert document["detail"]["runs"] >= 3 or path.stem in ("demo", "image")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["startup", "bake", "inspect", "keys"])
def test_quick_run(name: str) -> None:
    """`python -m benchmarks NAME --quick` prints one document and nothing else on standard output."""
    command = [sys.executable, "-m", "benchmarks", name, "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    check(json.loads(done.stdout))


def test_the_demos_steps_are_found_in_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The benchmark reads the demo's own words, signs of life left out."""
    from benchmarks.cases import steps
    from examples import demo

    with demo.step("bake"):
        pass
    said = capsys.readouterr()
    found = steps(said.out + said.err + "parity: running for 5 s ...\n", tmp_path)
    assert list(found) == ["bake"]
