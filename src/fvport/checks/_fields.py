# SPDX-License-Identifier: Apache-2.0
"""Comparisons of `config` as plain functions on JSON: fields, load tree, schedules, tokens, presets."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fvport.checks import _precision, _tiling
from fvport.contract import tokens
from fvport.evidence import Item
from fvport.spec import Component, Port
from fvport.words import FRAMES

Json = dict[str, Any]
REWRITTEN = ("_class_name", "architectures")  # what the load tree says anew, so that FastVideo finds the port's class
BOOKKEEPING = {  # what libraries write of themselves; no model reads it
    *REWRITTEN,
    *("_diffusers_version", "_name_or_path", "model_type", "torch_dtype", "dtype", "transformers_version", "auto_map"),
}
MISSING = object()


def field_items(c: Component, source: Json, defaults: Json, schema: Json) -> list[Item]:
    """Official JSON `source` (and the class's `defaults` where it is silent) against what FastVideo made of it.

    `schema` is `models.native`'s answer: `arch`, `config`, `arguments` after it. Each official field must be
    there with the same value; `config_renamed` says under which other name, `config_ignored` what and why.
    """
    after = {**schema.get("config", {}), **schema.get("arguments", {}), **schema.get("arch", {})}
    found: list[tuple[str, str, str]] = []
    official = {**defaults, **source}
    for key, value in source.items():
        if key in BOOKKEEPING:
            continue
        renamed = c.config_renamed.get(key)
        mine = after.get(renamed or key, MISSING)
        where = f"{key}" + (f" (as {renamed})" if renamed else "")
        if mine is not MISSING and not same(value, mine):
            found.append(("different value", where, f"official {short(value)}, native {short(mine)}"))
        elif mine is MISSING and key not in c.config_ignored:
            found.append(("dropped", where, f"official {short(value)}, and the native config has no such field"))
    for key, value in defaults.items():
        mine = after.get(c.config_renamed.get(key, key), MISSING)
        if key in source or key in BOOKKEEPING or mine is MISSING or key in c.config_ignored:
            continue
        if not same(value, mine):
            what = f"the official class takes {short(value)} where the file is silent, native {short(mine)}"
            found.append(("defaulted", key, what))
    found += stale_excuses(c, official, after)
    name = f"{c.name}: fields"
    if not found:
        count = sum(key not in BOOKKEEPING for key in source)
        excused = len(c.config_ignored) + len(c.config_renamed)
        figures = {"fields": count, "renamed": len(c.config_renamed), "ignored": len(c.config_ignored)}
        reason = f"{count} official fields arrive" + (f", {excused} by declaration" if excused else "")
        return [Item(name, "pass", reason, figures, component=c.name)]
    todo = f"Give the native config the field, or say it in components.{c.name}.config_renamed or config_ignored"
    return [
        Item(f"{name}: {key}", "fail", f"{c.name}.{key} {kind}: {what}", component=c.name, todo=todo)
        for kind, key, what in found
    ]


def stale_excuses(c: Component, official: Json, after: Json) -> list[tuple[str, str, str]]:
    """Excuses for fields that do not exist, or that give no reason."""
    found = []
    for key, native in c.config_renamed.items():
        if key not in official:
            found.append(("stale excuse", key, "config_renamed names it, and the official config has no such field"))
        elif native not in after:
            found.append(
                ("stale excuse", key, f"config_renamed says {native}, and the native config has no such field")
            )
    known = BOOKKEEPING | _tiling.accepted(c) | _precision.accepted(c)
    for key, reason in c.config_ignored.items():
        if key not in official and key not in known:
            found.append(("stale excuse", key, "config_ignored names it, and the official config has no such field"))
        elif not reason.strip():
            found.append(("excuse without a reason", key, "config_ignored must say why"))
    return found


def same(a: Any, b: Any) -> bool:
    """Equal as JSON: a tuple is a list, 1 is 1.0, but True is not 1; infinity and enum names as they are written."""
    if isinstance(a, dict) and isinstance(b, dict):
        return {str(k) for k in a} == {str(k) for k in b} and all(
            same(v, b.get(k, b.get(str(k)))) for k, v in a.items()
        )
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b or (math.isnan(a) and math.isnan(b))
    return a == b or (isinstance(a, float) and repr(a) == b)


def short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


# --- the load tree ---------------------------------------------------------------------------------------------------


def file_differences(old: Path, new: Path, c: Component, *, rewritten: bool) -> list[tuple[str, str]]:
    """(field, sentence) for each difference between an official JSON file and the load tree's that nobody declared."""
    name = f"{old.parent.name}/{old.name}"
    if not new.is_file():
        return [(name, f"{name} is not in the load tree")]
    try:
        a, b = (json.loads(file.read_text(encoding="utf-8")) for file in (old, new))
    except ValueError as error:
        return [(name, f"{name} is not JSON ({error})")]
    if not isinstance(a, dict) or not isinstance(b, dict):
        return [] if a == b else [(name, f"{name} is another one")]
    found = []
    for key in sorted({*a, *b}):
        if rewritten and (key in REWRITTEN or (key in c.config_ignored and key not in b)):
            continue
        x, y = a.get(key, MISSING), b.get(key, MISSING)
        if x is MISSING and rewritten and key in c.config_renamed.values():
            continue
        if y is MISSING and rewritten and c.config_renamed.get(key) in b:
            y = b[c.config_renamed[key]]
        if x is MISSING or y is MISSING or not same(x, y):
            said = [("nothing" if v is MISSING else short(v)) for v in (x, y)]
            found.append(
                (f"{name} {key}", f"{name}: {key} is {said[0]} in the official file and {said[1]} in the load tree")
            )
    return found


def index_problems(old: Json, new: Json, port: Port) -> list[tuple[str, str]]:
    """Differences of model_index.json beyond the rewritten class names."""
    found = []
    if new.get("_class_name") == old.get("_class_name"):
        what = f"_class_name is still the official {old.get('_class_name')}: FastVideo would take its own pipeline"
        found.append(("_class_name", what))
    names = {c.weights or c.name for c in port.components.values()} | set(port.components)
    names |= {c.tokenizer for c in port.components.values()}
    for key in sorted({*old, *new}):
        if key.startswith("_"):
            continue
        x, y = old.get(key), new.get(key)
        if isinstance(x, list) and x and x[0] is None:
            continue  # an optional part that the release does not have
        if isinstance(x, list) and isinstance(y, list):
            continue
        if not same(x, y):
            what = f"{key} is {short(x)} in the official index and {short(y)} in the load tree's"
            if x is None or y is None or key in names:
                found.append((key, what))
    return found


# --- schedules and tokens --------------------------------------------------------------------------------------------


def schedule_items(name: str, theirs: Json, ours: Json) -> list[Item]:
    """One item; red names the first step that differs and which settings (shift ...) are not the official ones."""
    settings = []
    for key, value in theirs["config"].items():
        mine = ours["config"].get(key, MISSING)
        if not key.startswith("_") and mine is not MISSING and not same(value, mine):
            settings.append(f"{key} official {short(value)}, native {short(mine)}")
    shift, flow = theirs["config"].get("shift"), ours.get("flow_shift")
    if shift is None:
        shift = theirs["config"].get("flow_shift")
    if flow is not None and shift is not None and not same(shift, flow):
        settings.append(f"shift official {short(shift)}, the pipeline config's flow_shift {short(flow)}")
    differ, worst = [], 0.0
    for steps, table in theirs["tables"].items():
        for what in ("timesteps", "sigmas"):
            a, b = table[what], ours["tables"].get(steps, {}).get(what, [])
            if len(a) != len(b):
                differ.append(f"{steps} steps: {len(b)} {what}, official {len(a)}")
                continue
            allowed = 2e-6 * max([abs(x) for x in a] or [0.0])
            for index, (x, y) in enumerate(zip(a, b, strict=True)):
                worst = max(worst, abs(x - y))
                if not abs(x - y) <= allowed:
                    differ.append(f"{steps} steps: {what}[{index}] is {y:.6g}, official {x:.6g}")
                    break
    figures = {"step_counts": len(theirs["tables"]), "worst": worst}
    if not differ and not settings:
        counts = ", ".join(theirs["tables"])
        reason = f"timesteps and sigmas are the official ones for {counts} steps"
        return [Item(f"{name}: schedule", "pass", reason, figures, component=name)]
    reason = "; ".join([*settings[:3], *differ[:2]])
    todo = "Set flow_shift in the pipeline config, or the load tree's scheduler_config.json, to the official value"
    if not settings:
        todo = "No setting differs, so set_timesteps computes otherwise: give the port a scheduler of its own "
        todo += f"(fvport new ... components={name}=port); the site's census names what FastVideo's classes do"
    return [Item(f"{name}: schedule differs", "fail", f"{name} schedule: {reason}", figures, component=name, todo=todo)]


def token_items(name: str, theirs: Json, ours: Json) -> list[Item]:
    """One item a case of prompts that differs, with the reason: length, padding, truncation, the first id, the mask."""
    items = []
    for case, official in theirs.items():
        native = ours["cases"].get(case)
        problem = _tokens_differ(official, native) if native else "the native side gave none"
        if problem:
            todo = f"Native tokenizer arguments: {short(ours.get('kwargs', {}))}"
            reason = f"{name} tokens of the {case} prompt: {problem}"
            items.append(Item(f"{name}: tokens {case}", "fail", reason, component=name, todo=todo))
    if items:
        return items
    if not theirs:
        return [Item(f"{name}: tokens", "blocked", f"{name}: no prompt was tokenized", component=name)]
    reason = f"ids and masks are the official ones for {', '.join(theirs)} prompts"
    bare = [case for case, one in theirs.items() if one["mask"] is None and masks(one) != masks(ours["cases"][case])]
    if bare:  # whether that matters hangs on what the native class makes of a mask, which parity measures
        reason = f"ids are the official ones for {', '.join(theirs)} prompts; officially the encoder is given no mask"
        reason += " and natively one: the contract in parity says whether the native class reads it"
    return [Item(f"{name}: tokens", "pass", reason, {"cases": len(theirs)}, component=name)]


def _tokens_differ(official: Json, native: Json) -> str:
    a, b = official["ids"], native["ids"]
    lengths = [{len(row) for row in ids} for ids in (a, b)]
    if len(a) != len(b) or lengths[0] != lengths[1]:
        shapes = [
            f"{len(ids)} x {'/'.join(map(str, sorted(length)))}" for ids, length in zip((a, b), lengths, strict=True)
        ]
        return f"shape {shapes[1]}, official {shapes[0]} (padding, maximum length or truncation)"
    for row, (x, y) in enumerate(zip(a, b, strict=True)):
        if x != y:
            at = next(n for n, (i, j) in enumerate(zip(x, y, strict=True)) if i != j)
            return f"id {at} of row {row} is {y[at]}, official {x[at]}"
    theirs = masks(official)
    if official["mask"] is not None and (None in theirs or theirs != masks(native)):
        return "the ids agree, the attention mask does not"
    return ""


def masks(side: Json) -> list[list[int] | None]:
    """One value a token, also of a mask as attention takes it; all ones where none is handed over."""
    return [tokens._row_mask(side, row) for row in range(len(side["ids"]))]


# --- presets ---------------------------------------------------------------------------------------------------------


def preset_items(port: Port, signature: Json, native: Json, pipeline: Json | None = None) -> list[Item]:
    """Declared presets with their sources, the registered ones, and the official call's defaults agree."""
    if not native:
        return [Item("presets", "fail", "FastVideo gave no presets for this model")]
    found: list[tuple[str, str]] = []
    named = [signature[name] for name in FRAMES if name in signature]  # Sana Video's call says frames
    signature = {**signature, "num_frames": named[0]} if named else signature
    registered = native["registered"]
    for name, values in port.presets.items():
        full = next((n for n in (f"{port.slug}_{name}", name) if n in registered), "")
        if not full:
            found.append(
                (name, f'preset "{port.slug}_{name}" is not registered (there are: {", ".join(registered) or "none"})')
            )
            continue
        has = {**_moved(values, native, pipeline or {}, _positions(port)), **registered[full]["defaults"]}
        found += [(f"{name}.{k}", what) for k, what in _preset_problems(values, has, signature)]
        for key in registered[full]["defaults"]:
            if key not in native["fields"]:
                found.append(
                    (f"{name}.{key}", f"preset {full}: SamplingParam has no field {key}, so FastVideo drops it")
                )
    found += _selected(port, native)
    if not registered:
        found.append(("registered", f"FastVideo has no preset of family {port.slug}"))
    if not found:
        count = sum(len(values) for values in port.presets.values())
        return [Item("presets", "pass", f"{count} declared defaults are registered and are the official call's")]
    todo = "Correct presets.py, or port.toml [presets] with the source of the value"
    return [Item(f"presets: {key}", "fail", what, todo=todo) for key, what in found]


def _selected(port: Port, native: Json) -> list[tuple[str, str]]:
    """Of several presets in one port each release gets its own: what SamplingParam is on this load tree."""
    if not (port.variant or port.variants):
        return []
    of, found = f"variant {port.variant}" if port.variant else "the base", []
    held = native["registered"].get(port.preset_name, {}).get("defaults", {})
    for key, value in port.presets.get(port.variant or "default", {}).items():
        if key not in held or key not in native["fields"]:  # of the pipeline config, which `_moved` looks up
            continue
        if not _same_default(value.value, native["selected"].get(key)):
            said = f"{key} is {short(native['selected'].get(key))} for the load tree of {of}"
            found.append((key, f"{said}, {short(value.value)} in port.toml"))
    return found


def _positions(port: Port) -> list[int]:
    """How many tokens each text encoder can take at most, by its official config; 0 where that does not say."""
    found = []
    for c in port.components.values():
        if c.kind == "text_encoder" and c.mode != "passthrough":
            file = port.official_tree / (c.weights or c.name) / "config.json"
            config = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
            limit = config.get("max_position_embeddings")
            found.append(limit if isinstance(limit, int) else 0)
    return found


def _moved(declared: Json, native: Json, pipeline: Json, positions: Sequence[int] = ()) -> Json:
    """Declared values that the pipeline config has, under its own name; a preset that has them too goes before."""
    found = {}
    lengths = pipeline.get("text_encoder_max_lengths") or []
    for key in declared:
        if key in pipeline and key not in native["fields"]:
            found[key] = pipeline[key]
        if key in ("max_sequence_length", "max_length") and lengths:
            found[key] = _length(lengths, positions, declared[key].value)
    return found


def _length(lengths: list[Any], positions: Sequence[int], declared: Any) -> Any:
    """The length of all encoders that could take the declared one; the list where they differ.

    One with fewer positions is given these: what the official pipeline gives it is compared by its tokens.
    """
    if not isinstance(declared, int) or len(positions) != len(lengths):
        positions, declared = [0] * len(lengths), 0
    free = [n for n, limit in zip(lengths, positions, strict=True) if not n == limit < declared]
    return free[0] if len(set(free)) == 1 else lengths


def _preset_problems(declared: Json, defaults: Json, signature: Json) -> list[tuple[str, str]]:
    found = []
    for key, value in declared.items():
        mine = defaults.get(key, MISSING)
        if mine is MISSING or not _same_default(value.value, mine):
            said = "nothing" if mine is MISSING else short(mine)
            where = "the registered preset and the pipeline config"
            found.append((key, f"{key} is {said} in {where}, {short(value.value)} in port.toml"))
        if not value.source.strip():
            found.append((key, f"{key} has no source in port.toml"))
        theirs = signature.get(key, MISSING)
        if "__call__" in value.source and theirs is not MISSING and not _same_default(theirs, value.value):
            found.append((key, f"{key} is {short(value.value)}, and {value.source} says {short(theirs)}"))
    for key, mine in defaults.items():
        theirs = signature.get(key, MISSING)
        if key not in declared and theirs not in (MISSING, "<required>") and not _same_default(theirs, mine):
            found.append(
                (key, f"{key} is {short(mine)} with no source, and the official call's default is {short(theirs)}")
            )
    return found


def _same_default(official: Any, native: Any) -> bool:
    """No negative prompt is the empty one."""
    return same(official, native) or (official in (None, "") and native in (None, ""))
