# SPDX-License-Identifier: Apache-2.0
"""What a verdict is about: which class is held against which, and why the native side is the one it is."""

from __future__ import annotations

import re

from fvport.spec import Port

# `fvport new` writes its reason behind the table's name; whoever changes the mode changes it there.
_WHY = re.compile(r"^\[components\.(?P<name>\w+)\][ \t]*#[ \t]*(?P<why>\S.*)$", re.MULTILINE)


def components(port: Port) -> list[dict[str, str]]:
    """{name, kind, mode, official, native, why} of each component, in the order of port.toml; `why` may be ''."""
    whys = {found["name"]: found["why"].strip() for found in _WHY.finditer(port.file.read_text(encoding="utf-8"))}
    return [
        {
            "name": name,
            "kind": c.kind,
            "mode": c.mode,
            "official": c.official,
            "native": c.native or c.path,
            "why": c.reason or whys.get(name, ""),
        }
        for name, c in port.components.items()
    ]
