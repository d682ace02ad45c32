# SPDX-License-Identifier: Apache-2.0
"""Whether the gate's call is one that proves something: of the model's guidance, and of a variant beside its base."""

from __future__ import annotations

from typing import Any

from fvport import spec
from fvport.evidence import Item
from fvport.parity import declared
from fvport.spec import Port

BASE_CALL = "port:base_call"  # an input of a variant's record: what its own call is held against
WHERE = "port.toml [official.pipeline] call"


def inputs(port: Port) -> list[str]:
    return [BASE_CALL] if port.variant else []


def guides(call: dict[str, Any]) -> bool:
    scale = call.get("guidance_scale")
    return isinstance(scale, int | float) and scale > 1


def weaker(port: Port) -> list[Item]:
    """A call without guidance says nothing of a model whose users guide; nor a variant's that is a lesser base's."""
    for name, preset in port.presets.items():
        given = {key: value.value for key, value in preset.items()}
        if guides(given) and not guides(port.official.pipeline.call):
            reason = f"preset {name} guides with {given['guidance_scale']}, and the gate's call does not guide"
            return [Item("call", "fail", reason, todo=f"Give guidance_scale in {WHERE}")]
    return _beside_base(port, spec.base(port)) if port.variant else []


def unvaried(port: Port) -> list[Item]:
    """Declared fields whose value in the call has no other to be tried with: a stage may have it written in."""
    call, kinds, items = port.official.pipeline.call, port.fastvideo.fields, []
    for name in declared.fields(port):
        if declared.other(call[name], kinds[name]) is None:
            reason = f"{name} is {call[name]!r} in the call, and this field's value was never varied"
            todo = f"Leave {name} out of {WHERE}, or declare it in [fastvideo] fields as a number or bool"
            items.append(Item(f"changed: {name}", "blocked", reason, todo=todo))
    return items


def _beside_base(port: Port, base: Port) -> list[Item]:
    """One frame, a smaller picture or one step would leave out what the base's call shows: frames, order, schedule."""
    call, wrong = port.official.pipeline.call, []
    usual = {key: value.value for key, value in base.presets.get("default", {}).items()}
    usual |= base.official.pipeline.call
    for key in ("num_frames", "height", "width"):
        own, theirs = _number(call.get(key)), _number(usual.get(key))
        if own is None or theirs is None:
            continue
        if own < theirs and (own <= 1 or key != "num_frames"):
            wrong.append(f"{key} is {own}, and the base's is {theirs}")
    preset = {key: value.value for key, value in port.presets.get(port.variant, {}).items()}
    steps, said = (_number(values.get("num_inference_steps")) for values in (call, preset))
    if steps is not None and steps < 2 and (said is None or said >= 2):
        of = f"its preset's {said}" if said is not None else "its preset says no steps"
        also = _number(usual.get("num_inference_steps"))
        wrong.append(f"num_inference_steps is {steps}, {of}" + (f" and the base's {also}" if also is not None else ""))
    if not wrong:
        return []
    reason = f"the call of variant {port.variant} shows less than the base's: {'; '.join(wrong)}"
    todo = f"Give it the base's figures in port.toml [[variants]] call (of {port.variant})"
    return [Item("call", "fail", reason, {"call": call, "base": base.official.pipeline.call}, todo=todo)]


def _number(value: Any) -> int | float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
