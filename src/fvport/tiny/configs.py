# SPDX-License-Identifier: Apache-2.0
"""The twin's config.json in the release's own form: its keys and spelling, with only the shrunk values replaced.

A library writes a config as its newest version spells it, and leaves out what the class does not know; a port reads
what the release says.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fvport.tiny import keys

if TYPE_CHECKING:
    from fvport.tiny.release import Part
    from fvport.tiny.shrink import Twin

DTYPES = ("torch_dtype", "dtype")
BOOK = (*DTYPES, "transformers_version", "architectures", "_name_or_path", "_class_name", "_diffusers_version")


def put(twin: Twin, folder: Path) -> str:
    """Replace the config.json that the library wrote; words where the release's form could not be kept."""
    source = json.loads((twin.part.folder / "config.json").read_text(encoding="utf-8"))
    wanted = _plain(_resolved(twin.part, twin.config))
    for absent in (False, True):
        made = _changed(source, twin.shrunk, absent)
        if _plain(_resolved(twin.part, made)) == wanted:
            text = json.dumps(_float32(made), indent=2, ensure_ascii=False) + "\n"
            (folder / "config.json").write_text(text, encoding="utf-8")
            return ""
    return "config.json is spelled as the installed library spells it, not as the release does"


def _changed(source: dict[str, Any], shrunk: dict[str, tuple[Any, Any]], absent: bool) -> dict[str, Any]:
    """The release's JSON with new values where it has the key; `absent`: also where it leaves a default unsaid."""
    made = copy.deepcopy(source)
    for path, (before, after) in shrunk.items():
        try:
            keys.get(made, path)
            made = keys.patched(made, {path: after})
            continue
        except (KeyError, TypeError):
            pass
        last = path.rpartition(".")[2]
        places = [(p, lv) for p, lv in keys.levels(made) if _plain(lv.get(last)) == _plain(before) and last in lv]
        if places:  # older spelling: the same key in another mapping
            made = keys.patched(made, {prefix + last: after for prefix, _ in places})
        elif absent and "." not in path:
            made[path] = after
    return made


def _resolved(part: Part, config: dict[str, Any]) -> Any:
    """The config as the class understands it: defaults filled in, unknown keys and bookkeeping left out."""
    if part.transformers:
        return part.cls.config_class.from_dict(json.loads(json.dumps(config, default=str))).to_dict()
    return {key: config.get(key, part.config[key]) for key in part.defaults}


def _plain(value: Any) -> Any:
    """As JSON would have it, without what says nothing about the model."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items() if k not in BOOK}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _float32(config: dict[str, Any]) -> dict[str, Any]:
    """The twin's tensors are float32: a library that loads by the config's word must not round them."""
    made = copy.deepcopy(config)
    for _, level in keys.levels(made):
        level.update({key: "float32" for key in DTYPES if level.get(key)})
    return made
