# SPDX-License-Identifier: Apache-2.0
"""Two rules of `boundary` on conduct: a port does not look for its judge, and leaves FastVideo's own files alone."""

from __future__ import annotations

import ast
import fnmatch
import re
from collections.abc import Iterator

from fvport.checks._imports import _dotted
from fvport.checks._rules import Finding
from fvport.checks._sources import Sources

JUDGE = re.compile(r"^(FVPORT|PYTEST)(_|$)|^(fvport|pytest)$")
STACK = ("inspect.stack", "inspect.currentframe", "sys._getframe", "traceback.extract_stack")
REGISTRATION = (  # what `fvport workspace` edits
    "fastvideo/registry.py",
    "fastvideo/configs/models/*/__init__.py",
    "fastvideo/configs/pipelines/__init__.py",
    "docs/*",
    "mkdocs.yml",
)


def judge_not_looked_for(s: Sources) -> Iterator[Finding]:
    """Nothing that runs for a user looks whether it is being judged: no FVPORT or PYTEST variable, no call stack."""
    for source in s.files:
        if not source.runtime:
            continue
        for node in source.nodes:
            what = ""
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and JUDGE.match(node.value):
                what = f"names {node.value!r}"
            elif isinstance(node, ast.Attribute) and _dotted(node) in STACK:
                what = f"uses {_dotted(node)}"
            if what:
                line = getattr(node, "lineno", 0)
                yield Finding(
                    f"{source.path}:{line}", what, "A port must run alike wherever it runs", s.component_of(source.path)
                )


def fastvideo_left_alone(s: Sources) -> Iterator[Finding]:
    """A file of FastVideo that the port changes is one that registration edits, or is declared with a reason."""
    for source in s.files:
        if source.lines is None or any(fnmatch.fnmatch(source.path, pattern) for pattern in REGISTRATION):
            continue
        if not s.port.fastvideo.edits.get(source.path, "").strip():
            todo = f'Undo it, or declare it in port.toml: [fastvideo] edits = {{ "{source.path}" = "reason" }}'
            yield Finding(source.path, "is FastVideo's own and is changed: every other model depends on it", todo)
