# SPDX-License-Identifier: Apache-2.0
"""cookiecutter's door into the template's own package: runs while the questions' answers are rendered.

It finds the template's root (the folder of this file), makes `fvport` importable from there, and gives every template
`p` (the port) and `bake` (what the hook needs). A wrong answer is refused here, before anything is written. Standard
library and jinja2 only; the logic is fvport.scaffold.bridge.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from cookiecutter.exceptions import FailedHookException
from jinja2 import Environment
from jinja2.ext import Extension

ROOT = Path(__file__).resolve().parent
# In a checkout the package lies in src/; in an installed wheel this file is fvport/_template/bake_ext.py.
PACKAGE_PATH = ROOT / "src" if (ROOT / "src" / "fvport").is_dir() else ROOT.parent.parent


def own_package() -> None:
    """Import this template's package, also where an update has rendered another version in this process before."""
    sys.modules.pop(__name__, None)  # the next version brings a door of its own
    known = getattr(sys.modules.get("fvport"), "__file__", None)
    if known and Path(known).resolve().parent != (PACKAGE_PATH / "fvport").resolve():
        for name in [name for name in sys.modules if name.partition(".")[0] == "fvport"]:
            del sys.modules[name]
    if sys.path[:1] != [str(PACKAGE_PATH)]:
        sys.path.insert(0, str(PACKAGE_PATH))


class Bake(Extension):
    """Made anew for each jinja environment that cookiecutter builds (questions, files, hook)."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        own_package()
        from fvport.scaffold import bridge

        # FailedHookException is one that cookiecutter prints as a sentence
        bridge.connect(environment, ROOT, PACKAGE_PATH, refuse=FailedHookException)

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        """An answer is data: braces in it are text, never a template."""
        from fvport.scaffold import bridge

        return source if name else bridge.as_data(source, ROOT)

    def parse(self, parser: Any) -> Any:  # the extension adds no tags
        raise NotImplementedError
