# SPDX-License-Identifier: Apache-2.0
"""A component check's `conversion_retry_request`: read, and answered key by key from the plan of the conversion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fvport.errors import BlockedError, UsageError, did_you_mean
from fvport.weights.conversion import Conversion, nearest_prefix

NAME = "conversion_retry_request"
KEYS = (
    "component",
    "parity_test",
    "failing_keys",
    "expected_actual_shapes",
    "source_prefix_or_path",
    "evidence",
    "suspected_fix",
)
FIXES = ("rename", "split", "fuse", "skip", "component bucket", "config", "unknown")


def read(file: Path) -> dict[str, Any]:
    """A request from JSON or YAML, alone or below its name. UsageError names the field that is wrong or missing."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BlockedError(f"cannot be read ({error})", where=str(file)) from None
    value = _parsed(text, file)
    value = value.get(NAME, value) if isinstance(value, dict) else value
    if not isinstance(value, dict):
        raise UsageError("is not a table of fields", where=str(file), todo=f"Give: {', '.join(KEYS)}")
    for key in value:
        if key not in KEYS:
            raise UsageError(f'unknown field "{key}".{did_you_mean(str(key), KEYS)}', where=str(file))
    lacking = [key for key in KEYS if key not in value]
    if lacking:
        raise UsageError(f"lacks {', '.join(lacking)} (write unknown where it is not known)", where=str(file))
    if value["suspected_fix"] not in FIXES:
        near = did_you_mean(str(value["suspected_fix"]), FIXES)
        raise UsageError(f"suspected_fix is none of {', '.join(FIXES)}.{near}", where=str(file))
    keys = value["failing_keys"]
    if keys != "unknown" and (not isinstance(keys, list) or any(not isinstance(key, str) for key in keys)):
        raise UsageError("failing_keys must be a list of names", where=str(file))
    return value


def _parsed(text: str, file: Path) -> Any:
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"is not JSON ({str(error)[:200]})", where=str(file)) from None
    try:
        import yaml
    except ImportError:
        raise UsageError("is not JSON, and yaml is not installed", where=str(file)) from None
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"is not YAML ({str(error)[:200]})", where=str(file)) from None


def answer(plan: Conversion, request: dict[str, Any]) -> dict[str, Any]:
    """For each failing key where its tensor comes from, or why there is none; `retry_resolved` once all have a source.

    Whether the values are right is for the check that asked to say: it runs again on the new tree.
    """
    name = request["component"]
    if name not in plan.declaration.parts:
        near = did_you_mean(str(name), plan.declaration.parts)
        known = ", ".join(plan.declaration.parts)
        raise UsageError(f'the declaration has no component "{name}" ({known}).{near}', where=plan.declaration.where)
    made = {item.name: item for item in plan.tensors.get(name, [])}
    keys = request["failing_keys"] if isinstance(request["failing_keys"], list) else []
    said = {key: _said(plan, made, key) for key in keys}
    found = all(entry["state"] == "made" for entry in said.values())
    return {"component": name, "keys": said, "retry_resolved": "yes" if said and found else "no"}


def _said(plan: Conversion, made: dict[str, Any], key: str) -> dict[str, str]:
    if key in made:
        item = made[key]
        return {"state": "made", "from": item.said, "shape": f"{item.tensor.dtype} {list(item.tensor.shape)}"}
    if key in plan.skipped:
        return {"state": "skipped", "reason": plan.skipped[key]}
    near = did_you_mean(key, made) or did_you_mean(key, [k for table in plan.headers.values() for k in table])
    prefix = nearest_prefix(key, [p for part in plan.declaration.parts.values() for p in part.prefixes])
    return {"state": "not declared", "near": near.strip() or (f'prefix "{prefix}"' if prefix else "nothing like it")}


def handoff(block: dict[str, Any], answered: dict[str, Any]) -> dict[str, Any]:
    """The conversion handoff with the answer in the component's own update."""
    updates = [dict(update) for update in block.get("component_context_updates", [])]
    for update in updates:
        if update.get("component") == answered["component"]:
            update["retry_resolved"] = answered["retry_resolved"]
            update["retry_keys"] = answered["keys"]
    return {**block, "component_context_updates": updates}
