# SPDX-License-Identifier: Apache-2.0
"""The archetypes: folders of templates with an `archetype.json` that says which official classes they cover."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "archetypes"


@dataclass(frozen=True)
class Archetype:
    """One folder. `data` is its archetype.json."""

    name: str
    folder: Path
    data: dict[str, Any]

    @property
    def covers(self) -> tuple[str, ...]:
        return tuple(self.data.get("covers", ()))

    @property
    def can_port(self) -> bool:
        """False for an archetype that only knows how to check a class that FastVideo has."""
        return (self.folder / "native.py.jinja").is_file()

    def template(self, name: str) -> str | None:
        """Path of a template for jinja's loader, or None where this archetype has none of that name."""
        return f"{self.name}/{name}" if (self.folder / name).is_file() else None

    def reuse(self, official: str) -> dict[str, Any]:
        """{native, config, differs}: FastVideo's class for an official one, where this archetype says it."""
        found = self.data.get("reuse") or {}
        by_class = any(":" in name for name in found)  # else one class for all that it covers
        given = found.get(official, {} if by_class else found)
        return given if isinstance(given, dict) else {}

    def differs(self, official: str, config: Mapping[str, Any]) -> str:
        """What FastVideo's class is known to do otherwise with this config, as measured; '' where nothing is.

        An entry of `differs` is about a config with all values of `when` (an absent key is false), any of `keys`, and
        none of the values of `unless` (numbers and names, where `when` only asks whether).
        """
        said = []
        for entry in self.reuse(official).get("differs", []):
            when, keys = entry.get("when", {}), entry.get("keys", [])
            fits = all(bool(config.get(key)) == value for key, value in when.items())
            fits = fits and not any(config.get(key) == value for key, value in entry.get("unless", {}).items())
            if fits and (not keys or any(key in config for key in keys)):
                number = entry.get("finding", "")  # what nobody has put into the census has none
                said.append(f"{entry['why']} ({number} in docs/census.md)" if number else entry["why"])
        return ", ".join(said)

    def class_templates(self, official: str) -> tuple[str, str, str]:
        """(native, config, arch) class names with `{prefix}` in them."""
        names = self.data["class_name"]
        names = names.get(official, names) if isinstance(names, dict) else {"native": names}
        return names.get("native", ""), names.get("config", ""), names.get("arch", "")


@cache
def all_archetypes() -> dict[str, Archetype]:
    """{name: Archetype} of every folder with an archetype.json, in order of name."""
    found = {}
    for file in sorted(HERE.glob("*/archetype.json")):
        found[file.parent.name] = Archetype(file.parent.name, file.parent, json.loads(file.read_text(encoding="utf-8")))
    return found


def get(name: str) -> Archetype:
    return all_archetypes()[name]


def covering(official: str, kind: str) -> Archetype | None:
    """The archetype whose `covers` has `library:Class`, preferring one that can be ported; None where there is none."""
    found = [a for a in all_archetypes().values() if official in a.covers and a.data.get("kind", kind) == kind]
    return next((a for a in found if a.can_port), next(iter(found), None))
