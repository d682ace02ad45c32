# SPDX-License-Identifier: Apache-2.0
"""pytest plugin: the `parity` fixture of a port's parity tests. Loaded in every pytest run: imports nothing heavy.

    def test_transformer_parity(parity):
        parity.compare("transformer", call)        # call(native, case) -> {output: tensor}, as call_transformer's

A test that used the fixture and compared nothing fails. `FVPORT_PARITY_OUT` names a JSON file for what was found.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

OUT_VARIABLE = "FVPORT_PARITY_OUT"
_found: dict[str, list[dict[str, Any]]] = {"compared": [], "tests": []}


class Parity:
    """What a parity test is given."""

    def __init__(self, path: Path) -> None:
        self.path, self.count = path, 0

    def compare(self, name: str, call: Callable[[Any, Any], Any]) -> None:
        """Compare the native component `name` with the official one on every case of oracle.py."""
        __tracebackhide__ = True
        from fvport import fastvideo_api, spec
        from fvport.errors import FvportError
        from fvport.parity import job, oracle, parallel_rank, session

        split = job.current().what == "parallel"  # one rank of several: its answers are left for `parity.parallel`
        side = parallel_rank.compare_component if split else session.compare_component
        self.count += 1
        try:
            port = spec.load(_root(self.path))
            with oracle.ahead(port, name):
                fastvideo_api.boot(port.root, backend=port.fastvideo.attention_backend)
            done: Any = side(port, name, call)
        except FvportError as error:
            blocked = error.exit_code == 3
            row = {"component": name, "problem": str(error), "blocked": blocked, "todo": error.todo, "passed": False}
            _found["compared"].append({**row, "results": [], "notes": [], "fault": {}})
            pytest.fail(str(error), pytrace=False)
        _found["compared"].append(done.to_json())
        if not done.passed:
            pytest.fail(done.message(), pytrace=False)


def _root(path: Path) -> Path:
    """The port's root above a test file: the folder that holds `tests/local_tests`."""
    for folder in path.parents:
        if (folder / "tests" / "local_tests").is_dir():
            return folder
    return path.parent


@pytest.fixture
def parity(request: pytest.FixtureRequest) -> Parity:
    return Parity(Path(str(request.path)))


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: Any) -> Generator[None, Any, Any]:
    __tracebackhide__ = True
    result = yield
    given = pyfuncitem.funcargs.get("parity")
    if isinstance(given, Parity) and given.count == 0:
        pytest.fail("this parity test compared nothing: call parity.compare(component, call)", pytrace=False)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Generator[None, Any, Any]:
    report = yield
    if os.environ.get(OUT_VARIABLE) and (report.when == "call" or report.outcome != "passed"):
        outcome = "skipped" if hasattr(report, "wasxfail") else report.outcome
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr or "")
        _found["tests"].append({"test": item.nodeid, "outcome": outcome, "when": report.when, "text": text[-4000:]})
    return report


@pytest.hookimpl(trylast=True)
def pytest_collectreport(report: Any) -> None:
    if os.environ.get(OUT_VARIABLE) and report.outcome != "passed":
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr or "")
        _found["tests"].append(
            {"test": report.nodeid, "outcome": report.outcome, "when": "collect", "text": text[-4000:]}
        )


def pytest_sessionfinish() -> None:
    out = os.environ.get(OUT_VARIABLE)
    if out:
        Path(out).write_text(json.dumps(_found, default=str), encoding="utf-8")
