# SPDX-License-Identifier: Apache-2.0
"""Inside a case's fork: every fault of the catalogue planted in the native model of an equal case, one at a time.

The comparison is the census's own, which is a port's (calibrated, factor 3). What shows that a blind fault is none
that has no effect: a port's probes, and the inputs of the pair's other cases. Three controls: without a fault the case
is equal, also with weights and inputs of other draws; and after each fault the outputs are those from before, bit for
bit.
"""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fvport.audit import judge
from fvport.audit.case import Case
from fvport.parity import compare, faults, lockstep, record, strength, trace, tree
from fvport.spec import Component, Tolerance

KINDS = {"dits": "dit", "vaes": "vae", "upsamplers": "upsampler", "schedulers": "scheduler", "audio": "vocoder"}
TRACE_LIMIT = 256 << 20  # bytes of official activations of one case


def kind_of(case: Case) -> str:
    """The component kind of a case, which says what faults of the catalogue are for it: from the class's folder."""
    bucket = case.native.split(".")[2]
    if bucket == "encoders":
        return case.loader if case.loader in ("image_encoder", "conditioner") else "text_encoder"
    return KINDS[bucket]


@dataclass
class Native:
    """The native object of a case and its inputs. `rerun(case, change=None)` is one call of it."""

    case: Case
    module: Any
    given: Any

    def rerun(self, name: str = "", change: Callable[[str, Any], Any] | None = None) -> compare.Outputs:
        return self.on(self.given, change)

    def on(self, given: Any, change: Callable[[str, Any], Any] | None = None) -> compare.Outputs:
        """The outputs for a copy of `given`, whose tensors `change(name, tensor)` may have changed."""
        from fvport.models import native_audit

        packed: dict[str, Any] = {}
        shape = tree.pack(given, "given", packed)
        tensors = {name: change(name, t.clone()) if change else t for name, t in packed.items()}
        given = tree.unpack(shape, tensors, lambda tensor: tensor.clone())
        return compare.Outputs(*tree.outputs(native_audit.call(self.case, self.module, given)))


def measure(
    case: Case, others: list[Case], *, traced: bool = True, draws: int = 1, only: tuple[str, ...] = ()
) -> dict[str, Any]:
    """`{"verdict", "problem", "draws", "changed", "strength"}`; the last is `strength.Strength.to_json()`.

    `others`: the pair's other cases; `changed`: what was not taken back, or was red without a fault; `draws`: how many
    more draws of weights and inputs must be equal.
    """
    import torch

    from fvport import fastvideo_api
    from fvport.parity.catalogue import for_kind

    fastvideo_api.apply_settings()
    fastvideo_api.init_distributed()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="fvport_audit_") as scratch:
        side, answer, module = sides(case, Path(scratch) / "plain")
        found = {key: answer.get(key, "") for key in ("verdict", "problem")}
        if found["verdict"] != "equal":
            return found
        found["draws"] = [drawn(case, number, Path(scratch)) for number in range(1, draws + 1)]
        native = Native(case, module, side.given)
        right = native.rerun()
        localise = localiser(native, side, Path(scratch)) if traced else None
        back = Back(native, side, right)
        kind = kind_of(case)
        component = Component(case.name, kind, "port", native=case.native, tolerance=Tolerance(factor=judge.FACTOR))
        chosen = [fault for fault in for_kind(kind) if not only or fault.id in only]
        inputs = {f"the inputs of {other.name}": functools.partial(alike, native, other) for other in others}
        known = {case.name: right}
        measured = strength.measure(
            component,
            module,
            lambda name: side.outputs,
            known,
            native.rerun,
            only=chosen,
            localise=localise,
            inputs=inputs,
            back=back,
        )
    return {**found, "changed": back.changed, "strength": measured.to_json()}


def sides(case: Case, folder: Path) -> tuple[Any, dict[str, Any], Any]:
    """(the official side, the census's verdict, the native object) of a case."""
    side = judge.official_side(case)
    judge.write(case, side.model, folder / "model" / case.loader)
    return side, *judge.attempt(case, side, folder / "model" / case.loader)


def drawn(case: Case, number: int, scratch: Path) -> dict[str, Any]:
    """The case with other weights and other inputs: it must be equal again, or the comparison gave a false alarm."""
    other = replace(case, seed=case.seed + 1000 * number)
    _, answer, _ = sides(other, scratch / f"draw{number}")
    return {"seed": other.seed, "verdict": answer["verdict"], "problem": answer.get("problem", "")}


def alike(native: Native, other: Case) -> compare.Outputs:
    """The native side on the inputs of another case of its pair, where it can take them."""
    import torch

    return native.on(other.inputs(torch.Generator().manual_seed(other.seed + 1)))


@dataclass
class Back:
    """Called when a fault was taken back: green again, and the same outputs bit for bit."""

    native: Native
    side: Any
    right: compare.Outputs
    changed: list[str] | None = None

    def __post_init__(self) -> None:
        self.changed = []

    def __call__(self, fault: Any) -> None:
        again = self.native.rerun()
        rows = compare.compare_outputs(self.side.outputs, again, Tolerance(factor=judge.FACTOR))
        assert self.changed is not None
        if not all(row.ok for row in rows):
            self.changed.append(f"{fault.id}: red after it was taken back")
        elif not faults.equal(again, self.right):
            self.changed.append(f"{fault.id}: other outputs after it was taken back")


# --- the trace --------------------------------------------------------------------------------------------------------


class Official:
    """What `oracle_trace` asks of a run of the oracle, for a case that is in this process."""

    def __init__(self, case: Case, side: Any, job: dict[str, Any]) -> None:
        from fvport.parity import oracle_runner

        self.case, self.side, self.job, self.name = case, side, job, case.name
        self.tree, self.shake, self.ulp = tree, oracle_runner.shake, oracle_runner.ulp
        self.inputs: dict[str, Any] = {}
        self.trees: dict[str, Any] = {}

    def function(self, kind: str) -> Callable[..., Any]:
        from fvport.audit import official

        if kind == "build":
            return lambda folder, dtype: official.copied(self.case, self.side.model)
        return lambda built, given: self.case.ours(built, given)


def recorded(case: Case, side: Any, folder: Path) -> dict[str, Any]:
    """The official activations of a case, as a trace of a port records them; `modules` is empty for a scheduler."""
    from safetensors.torch import save_file

    from fvport.parity import oracle_trace, probe

    folder.mkdir()
    packed: dict[str, Any] = {}
    trees = {"one": tree.pack(side.given, "one", packed)}
    save_file(packed, str(folder / "inputs.safetensors"))
    (folder / "meta.json").write_text(json.dumps({"inputs": trees}), encoding="utf-8")
    job = {"cases": ["one"], "place": str(folder), "out": str(folder), "dtype": "float32", "limit": TRACE_LIMIT}
    job |= {"exact": "all", "device": "cpu", "seed": case.seed, "folder": ""}
    return oracle_trace.Tracer(Official(case, side, job), record, probe).all()


def same_values(official: Any, native: Any) -> dict[str, list[str]]:
    """Official parameters of each native one, by their values: every one was drawn, so equal values are one tensor.

    A fused native parameter is several official ones, one after the other; what is turned or computed is left out.
    """
    starts: dict[tuple[float, ...], list[tuple[str, Any]]] = {}
    for name, parameter in official.named_parameters():
        for flat in {parameter.detach().flatten(), parameter.detach().t().flatten() if parameter.dim() == 2 else None}:
            if flat is not None and flat.numel():
                starts.setdefault(_start(flat), []).append((name, flat))
    found = {}
    for name, parameter in native.named_parameters():
        if names := _tiles(parameter.detach().flatten(), starts):
            found[name] = names
    return found


def _start(flat: Any) -> tuple[float, ...]:
    return tuple(flat[:1].tolist())


def _tiles(flat: Any, starts: dict[tuple[float, ...], list[tuple[str, Any]]]) -> list[str]:
    names = []
    place = 0
    while place < flat.numel():
        rest = flat[place:]
        fits = [(n, t) for n, t in starts.get(_start(rest), []) if t.numel() <= rest.numel() and _same(t, rest)]
        if not fits:
            return []
        names.append(fits[0][0])
        place += fits[0][1].numel()
    return names


def _same(tensor: Any, rest: Any) -> bool:
    return bool(tensor.to(rest.dtype).eq(rest[: tensor.numel()]).all())


def localiser(native: Native, side: Any, scratch: Path) -> strength.Localiser | None:
    """Names the first module that differs by itself; what a sound run has too is left out. None without modules."""
    from fvport.models import native as native_side
    from fvport.parity import activations

    if not hasattr(native.module, "named_modules"):
        return None
    meta = recorded(native.case, side, scratch / "trace")
    if not meta["modules"]:
        return None
    found, store = activations.Activations(scratch / "trace", meta).case("one")

    def run(context: Any) -> None:
        with context:
            native.rerun()

    placed = same_values(side.model, native.module)
    around = native_side.forward_context
    name = native.case.name
    both = trace.Sides(name, "one", native.module, meta["modules"], found, store, placed, run, None, around)
    boundaries, _ = lockstep.forced(both.root, both.pairs, both.found, both.store, both.run)
    sound = lockstep.sizes(lockstep.findings(boundaries))

    def localise(case: str) -> str | None:
        return trace.examine(both, ignore=sound, why=False, drifts=False).native

    judged = frozenset(b.native for b in boundaries if b.local is not None or b.inputs)  # what it can name
    return strength.Localiser(localise, judged)
