# SPDX-License-Identifier: Apache-2.0
"""How strong a comparison is: faults that ports really had, planted one at a time into a component that agrees.

Each is applied to the one loaded native model and taken back. What becomes of it:

    caught     the comparison of some case went red (or the native side raised); `caught_by` says which measure of what
    blind      it stayed green, and yet another input shows that the model computes something else: `reveal` says which
    harmless   it stayed green, and no other input that was tried shows a difference: it does not count

strength = caught / (caught + blind). A fault that this model has no place for is not counted either.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fvport.errors import FvportError
from fvport.parity import compare
from fvport.parity.catalogue import Fault, Planted, Target, for_kind
from fvport.spec import Component, Tolerance

Rerun = Callable[..., compare.Outputs]  # rerun(case, change=None)
TRACED = ("weights", "numerics")
MOST_PROBED = 3  # cases that other inputs are tried on, the quickest ones
REVEALED = 1e-4  # a relative difference on a probe that no rounding of float32 makes


@dataclass
class Tried:
    """One fault of the catalogue on one component."""

    id: str
    component: str
    group: str
    title: str
    like: str
    words: str = ""
    status: str = ""  # caught | blind | harmless
    caught_by: str = ""
    use: float = 0.0  # how many times its budget the worst measure was
    expected: list[str] = field(default_factory=list)
    localised_to: str | None = None
    localised: bool | None = None  # whether the trace named the right module; None: not traced
    reveal: str = ""


@dataclass
class Strength:
    """Of one component. `to_json` is what is kept and shown."""

    component: str
    tried: list[Tried] = field(default_factory=list)
    none: int = 0  # faults that this model has no place for
    seconds: float = 0.0
    blind_inputs: list[str] = field(default_factory=list)
    traced: bool = False

    def of(self, status: str) -> list[Tried]:
        return [tried for tried in self.tried if tried.status == status]

    @property
    def total(self) -> int:
        return len(self.of("caught")) + len(self.of("blind"))

    @property
    def value(self) -> float:
        return len(self.of("caught")) / self.total if self.total else 0.0

    @property
    def localised(self) -> float | None:
        judged = [t.localised for t in self.tried if t.localised is not None]
        return sum(judged) / len(judged) if judged else None

    def to_json(self) -> dict[str, Any]:
        plain = {"component": self.component, "caught": len(self.of("caught")), "total": self.total}
        plain |= {"strength": round(self.value, 4), "localised": self.localised, "traced": self.traced}
        plain |= {"harmless": len(self.of("harmless")), "no_place": self.none, "seconds": round(self.seconds, 2)}
        return {**plain, "blind_inputs": self.blind_inputs, "faults": [asdict(tried) for tried in self.tried]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Strength:
        tried = [Tried(**fault) for fault in data["faults"]]
        return cls(
            data["component"], tried, data["no_place"], data["seconds"], list(data["blind_inputs"]), data["traced"]
        )


@dataclass(frozen=True)
class Localiser:
    """`name(case)`: the native module that the trace names, None for none. `paired`: the modules it can name."""

    name: Callable[[str], str | None]
    paired: frozenset[str]


def measure(
    component: Component,
    module: Any,
    official: Callable[[str], compare.Outputs],
    right: dict[str, compare.Outputs],
    rerun: Rerun,
    *,
    only: list[Fault] | None = None,
    localise: Localiser | None = None,
    say: Callable[[str], None] = lambda line: None,
    inputs: Mapping[str, Callable[[], compare.Outputs]] | None = None,
    back: Callable[[Fault], None] = lambda fault: None,
) -> Strength:
    """Plant every fault that has a place in `module`; it is as before afterwards, or FvportError says that it is not.

    `right`: the native outputs without a fault, by case; `official(case)` what they are compared with. `inputs`: more
    runs of the native side that a fault may show in, by words; `back(fault)` is called when a fault was taken back.
    """
    clock = time.monotonic()
    result = Strength(component.name, traced=localise is not None)
    target = Target(module, component.kind)
    judge = _Judge(component.tolerance, official, right, rerun)
    judge.prepare(inputs or {})
    for number, fault in enumerate(only if only is not None else for_kind(component.kind)):
        planted = fault.plant(target)
        if planted is None:
            result.none += 1
            continue
        result.tried.append(_try(fault, planted, component.name, judge, localise))
        back(fault)
        if number % 20 == 19:
            say(f"{number + 1} faults, {len(result.of('caught'))} caught")
    judge.unchanged()
    result.seconds = time.monotonic() - clock
    return result


def _try(fault: Fault, planted: Planted, name: str, judge: _Judge, localise: Localiser | None) -> Tried:
    tried = Tried(fault.id, name, fault.group, fault.title, fault.like, planted.words)
    with planted.context:
        found = judge.red()
        if found is not None:
            tried.status, (case, tried.caught_by, tried.use) = "caught", found
            if localise is not None and fault.group in TRACED and planted.expected is not None:
                tried.localised_to = _localised(localise, case)
        else:
            shown = judge.revealed()
            tried.status = "blind" if shown else "harmless"
            tried.reveal = " or ".join(x for x in (fault.reveal, shown) if x) if shown else ""
    tried.expected = list(planted.expected)
    if tried.localised_to is not None:
        tried.localised = right_module(tried.localised_to, tried.expected, localise.paired if localise else frozenset())
    return tried


def _localised(localise: Localiser, case: str) -> str:
    try:
        named = localise.name(case)
        return "(none)" if named is None else named
    except Exception as error:  # noqa: BLE001 - a fault may break the model so that it cannot run
        return f"(the trace raised {type(error).__name__})"


def right_module(named: str, expected: list[str], paired: frozenset[str]) -> bool:
    """The named module is one of those with the fault, or the nearest one around it that has a partner."""
    homes = {_home(name, paired) for name in expected}
    return named in homes or named in expected or ("" in homes and named == "(call)")


def _home(name: str, paired: frozenset[str]) -> str:
    while name and name not in paired:
        name = name.rpartition(".")[0]
    return name


class _Judge:
    """Compares faulty runs, the quickest and most telling case first."""

    def __init__(
        self, tolerance: Tolerance, official: Callable[[str], compare.Outputs], right: dict[str, Any], rerun: Rerun
    ) -> None:
        self.tolerance, self.official, self.right, self.rerun = tolerance, official, right, rerun
        self.hits = dict.fromkeys(right, 0)
        self.times: dict[str, float] = {}
        self.probes: dict[str, tuple[Callable[[], compare.Outputs], compare.Outputs]] = {}

    def cases(self) -> list[str]:
        return sorted(self.right, key=lambda case: (-self.hits[case], self.times.get(case, 0.0)))

    def red(self) -> tuple[str, str, float] | None:
        """(case, words, use) of the first comparison that goes red; None where all stay green."""
        for case in self.cases():
            clock = time.monotonic()
            try:
                wrong = self.rerun(case)
            except Exception as error:  # noqa: BLE001 - a model that raises is not green
                return case, f"{case}: the native side raised {type(error).__name__}", 1e12
            self.times[case] = time.monotonic() - clock
            rows = compare.compare_outputs(self.official(case), wrong, self.tolerance)
            bad = [row for row in rows if not row.ok]
            if bad:
                self.hits[case] += 1
                worst = max(bad, key=lambda row: row.use)
                words = worst.problem.partition(" is ")[0] if worst.metrics.get("budget_use") else worst.problem
                return case, f"{case}/{worst.output}: {words}", min(worst.use, 1e12)
        return None

    def revealed(self) -> str:
        """Words of an input that shows a difference between the faulty and the sound native model, '' for none."""
        for words, (run, sound) in self.probes.items():
            try:
                wrong = run()
            except Exception:  # noqa: BLE001 - it raises where the sound one does not
                return words
            if _apart(wrong, sound) > REVEALED:
                return words
        return ""

    def prepare(self, inputs: Mapping[str, Callable[[], compare.Outputs]]) -> None:
        """The sound model on each probe that it can take: the quickest case of each form of outputs, and `inputs`."""
        quickest: dict[tuple[str, ...], tuple[float, str]] = {}
        for case, outputs in self.right.items():
            clock = time.monotonic()
            self.rerun(case)
            taken = (time.monotonic() - clock, case)
            form = tuple(name.partition(".")[0] for name in outputs.tensors)
            quickest[form] = min(quickest.get(form, taken), taken)
            self.times[case] = taken[0]
        for _, case in sorted(quickest.values())[:MOST_PROBED]:
            for words, change in PROBES.items():
                self._probe(f"{case} with {words}", functools.partial(self.rerun, case, change), self.right[case])
        for words, run in inputs.items():
            self._probe(words, run)

    def _probe(self, words: str, run: Callable[[], compare.Outputs], plain: compare.Outputs | None = None) -> None:
        try:
            sound = run()
        except Exception:  # noqa: BLE001 - not every model takes every probe
            return
        if _apart(sound, plain) > 0:  # a probe that changes nothing shows nothing
            self.probes[words] = (run, sound)

    def unchanged(self) -> None:
        for case in self.cases()[:1]:
            if _apart(self.rerun(case), self.right[case]) > 0:
                raise FvportError("a planted fault was not taken back: the native side is not what it was")


def _noise(name: str, tensor: Any) -> Any:
    import torch

    if not tensor.is_floating_point():
        return tensor
    generator = torch.Generator().manual_seed(len(name) + tensor.numel())
    return torch.randn(tensor.shape, generator=generator).to(tensor) * tensor.abs().mean() * 1.25


def _times(factor: float) -> Callable[[str, Any], Any]:
    return lambda name, tensor: tensor * factor if tensor.is_floating_point() else tensor


def _cut(name: str, tensor: Any) -> Any:
    """Masks whose second half is padding."""
    if "mask" not in name or tensor.dim() < 2:
        return tensor
    other = tensor.clone()
    other[..., tensor.shape[-1] // 2 :] = 0
    return other


PROBES: dict[str, Callable[[str, Any], Any]] = {
    "inputs a hundredth of their size": _times(0.01),
    "inputs ten times their size": _times(10.0),
    "other random inputs": _noise,
    "half of every mask cut off": _cut,
}


def _apart(a: compare.Outputs, b: compare.Outputs | None) -> float:
    """Largest relative difference of two sets of outputs; infinite where they are not of one form."""
    if b is None or a.tensors.keys() != b.tensors.keys():
        return float("inf")
    worst = 0.0
    for name, tensor in a.tensors.items():
        other = b.tensors[name]
        if tensor.shape != other.shape:
            return float("inf")
        if bool(tensor.eq(other).all()):
            continue
        if not tensor.is_floating_point():
            return float("inf")
        size = compare.measures(tensor, other)["rel_l2"]
        worst = max(worst, size if math.isfinite(size) else math.inf)
    return worst
