# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin (`-p fvport.workspace.outcomes`): each phase's outcome as a line of JSON, to FVPORT_OUTCOMES."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def pytest_runtest_logreport(report: Any) -> None:
    _write(report.nodeid, report.outcome, report.when)


def pytest_collectreport(report: Any) -> None:
    """A file that cannot be collected is a test that failed."""
    if report.failed:
        _write(report.nodeid, "failed", "collect")


def _write(nodeid: str, outcome: str, when: str) -> None:
    with Path(os.environ["FVPORT_OUTCOMES"]).open("a", encoding="utf-8") as out:
        out.write(json.dumps({"nodeid": nodeid, "outcome": outcome, "when": when}) + "\n")
