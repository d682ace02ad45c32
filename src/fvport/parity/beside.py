# SPDX-License-Identifier: Apache-2.0
"""A port set up once more beside its own state, on another release: `--blocks` and `--scale tiny` compare there.

Every file of the port is there under its own path, FastVideo's tree under the same bytes; what the port's own state,
weights and git hold is not. Nothing of the port itself is changed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from fvport import spec
from fvport.spec import Port
from fvport.weights import convert

ASIDE = (".fvport", ".git", "official_weights", "converted_weights", "__pycache__", "node_modules")
T = TypeVar("T")


def make(port: Port, root: Path, release: Callable[[Port], T]) -> tuple[Port, T]:
    """(the port at `root`, what `release` made). `release` is given the new port and writes its weights and its lock.

    What was there of an earlier run is replaced.
    """
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    ignore = shutil.ignore_patterns(*ASIDE)
    for entry in sorted(port.root.iterdir()):
        if entry.name in ASIDE:
            continue
        if entry == port.reference:  # the official code, a clone at its commit: only read
            (root / entry.name).symlink_to(entry)
        elif entry.is_dir():
            how = _linked if entry.name == "fastvideo" else shutil.copy2
            shutil.copytree(entry, root / entry.name, ignore=ignore, copy_function=how, symlinks=True)
        else:
            shutil.copy2(entry, root / entry.name)
    twin = spec.parse(root / port.file.relative_to(port.root))
    if (own := port.state / "oracle-env").is_dir():
        twin.state.mkdir(exist_ok=True)
        (twin.state / own.name).symlink_to(own.resolve())
    made = release(twin)
    convert.build_load_tree(twin, verify=False)
    return twin, made


def _linked(source: str, target: str) -> None:
    """FastVideo's tree is only read: the same bytes under another name, copied where that cannot be."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
