# SPDX-License-Identifier: Apache-2.0
"""The catalogue of faults: many, of every kind, each planted where it says, and each taken back without a trace."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import trace_support as ts

from fvport.errors import FvportError
from fvport.parity import compare, strength
from fvport.parity.catalogue import Fault, Planted, Target, all_faults, for_kind
from fvport.parity.strengths import item, summary
from fvport.spec import Component

COMPONENT = Component("net", "dit", "port", native="a:Net")


def test_the_catalogue_is_large_and_mined_from_real_bugs() -> None:
    """At least eighty faults, of many classes and all groups, no name twice."""
    faults = all_faults()
    assert len(faults) >= 80
    assert len({fault.id for fault in faults}) == len(faults)
    assert len({fault.like for fault in faults}) >= 30
    groups = {"weights", "numerics", "masks", "selection", "layout", "scheduler", "vae"}
    assert {fault.group for fault in faults} == groups
    assert all(fault.group == "scheduler" for fault in for_kind("scheduler"))


@pytest.fixture(scope="module")
def model() -> Any:
    return ts.native(ts.official())


def outputs(model: Any, change: Any = None) -> compare.Outputs:
    hidden = ts.inputs()["hidden"]
    hidden = change("one/hidden", hidden) if change else hidden
    with torch.no_grad():
        return compare.Outputs({"out": model(hidden)})


def official(dtype: Any = torch.float64) -> compare.Outputs:
    of, hidden = ts.official(), ts.inputs()["hidden"]
    with torch.no_grad():
        return compare.Outputs({"out": of(hidden)}, {}, {"out": of.to(dtype)(hidden.to(dtype))})


def measured(model: Any, **more: Any) -> strength.Strength:
    known = official()
    right = {"one": outputs(model)}
    return strength.measure(
        COMPONENT, model, lambda case: known, right, lambda case, change=None: outputs(model, change), **more
    )


def test_every_fault_is_taken_back(model: Any) -> None:
    """Parameters, attributes, functions and outputs are as before, whatever was planted."""
    before = {name: p.clone() for name, p in model.named_parameters()}
    plain = {name: dict(vars(m)) for name, m in model.named_modules()}
    functions = (torch.nn.functional.scaled_dot_product_attention, torch.softmax, torch.nn.functional.gelu)
    right = outputs(model).tensors["out"]
    planted = 0
    for fault in all_faults():
        made = fault.plant(Target(model, "dit"))
        if made is None:
            continue
        with made.context:
            planted += 1
        assert all(torch.equal(p, before[n]) for n, p in model.named_parameters()), fault.id
        assert all(vars(m).keys() == plain[n].keys() for n, m in model.named_modules()), fault.id
    assert planted > 60
    assert functions == (torch.nn.functional.scaled_dot_product_attention, torch.softmax, torch.nn.functional.gelu)
    assert torch.equal(outputs(model).tensors["out"], right)


def test_a_good_comparison_sees_them(model: Any) -> None:
    """fp32 within three floors: every fault that changes anything is caught, and each says by what."""
    chosen = [f for f in for_kind("dit") if f.group in ("weights", "numerics") and f.id.partition(".")[0] != "given"]
    found = measured(model, only=chosen[::3])
    assert found.value == 1.0
    assert found.total >= 15
    assert all(t.caught_by.startswith("one/out") for t in found.of("caught"))


def test_a_blind_comparison_is_weak(model: Any) -> None:
    """A tolerance of a thousand floors misses small faults: they are blind spots, with an input that shows them."""
    loose = Component("net", "dit", "port", native="a:Net", tolerance=compare.Tolerance(factor=1e5))
    known = official()
    chosen = [f for f in all_faults() if f.id in ("eps.10.0-all", "scaled.1.001-last", "qkv.0-1-first")]
    right = {"one": outputs(model)}
    rerun = lambda case, change=None: outputs(model, change)  # noqa: E731
    found = strength.measure(loose, model, lambda case: known, right, rerun, only=chosen)
    assert [t.id for t in found.of("caught")] == ["qkv.0-1-first"]
    blind = {t.id: t.reveal for t in found.of("blind")}
    assert "scaled.1.001-last" in blind
    assert "one with" in blind["scaled.1.001-last"]
    assert found.value < 0.6


def test_a_fault_without_effect_does_not_count(model: Any) -> None:
    """An exact gelu has no tanh to be mistaken for: harmless, in neither number."""
    chosen = [f for f in all_faults() if f.id == "activation.tanh_for_erf"]
    found = measured(model, only=chosen)
    assert [t.status for t in found.tried] == ["harmless"]
    assert found.total == 0


def test_a_fault_that_stays_is_an_error(model: Any) -> None:
    """A fault whose undoing fails would spoil all that follow: the run ends with a sentence."""
    import contextlib

    def plant(target: Any) -> Planted:
        @contextlib.contextmanager
        def stay() -> Any:
            target.module.embed.bias.data.add_(1)
            yield

        return Planted("stays", stay(), ["embed"])

    copy = ts.native(ts.official())
    with pytest.raises(FvportError, match="was not taken back"):
        measured(copy, only=[Fault("stays", "weights", "stays", "L01", plant)])


def test_below_the_threshold_is_no_pass() -> None:
    """The item of the gate: enough, too few with what would show them, nothing measured, nothing to plant."""

    def found(*statuses: str) -> dict[str, Any]:
        made = strength.Strength("net")
        made.tried = [
            strength.Tried(f"f{i}", "net", "weights", "t", "L01", "eps of x", status, reveal="small inputs")
            for i, status in enumerate(statuses)
        ]
        return made.to_json()

    good, weak = found(*["caught"] * 20), found(*["caught"] * 18, "blind", "blind")
    assert item(COMPONENT, good, 0.95).verdict == "pass"
    red = item(COMPONENT, weak, 0.95)
    assert (red.verdict, red.metrics["strength"]) == ("fail", 0.9)
    assert "18 of 20" in red.reason
    assert "small inputs" in red.reason
    assert "oracle.py" in red.todo
    assert item(COMPONENT, None, 0.95).verdict == "blocked"
    assert item(COMPONENT, found("harmless"), 0.95).verdict == "blocked"
    data = summary([weak])
    assert (data["caught"], data["total"], data["strength"]) == (18, 20, 0.9)
    assert {"id", "component", "caught_by", "localised_to", "expected"} <= set(data["faults"][0])
    assert len(data["blind_spots"]) == 2


class Scheduler:
    def set_timesteps(self, steps: int) -> None:
        self.sigmas = torch.linspace(1, 0, steps + 1)
        self.timesteps = self.sigmas[:-1] * 1000

    def step(self, output: Any, timestep: Any, sample: Any) -> Any:
        index = int((self.timesteps == timestep).nonzero()[0])
        return (sample + (self.sigmas[index + 1] - self.sigmas[index]) * output,)


def test_a_scheduler_has_faults_of_its_own() -> None:
    """No weights, no modules: tables and steps are what can be wrong, and all are seen and taken back."""
    native = Scheduler()

    def run(case: str, change: Any = None) -> compare.Outputs:
        native.set_timesteps(5)
        sample = torch.linspace(-1, 2, 6)
        for number, t in enumerate(native.timesteps):
            sample = native.step(torch.full_like(sample, 0.7 + 0.1 * number), t, sample)[0]
        return compare.Outputs({"timesteps": native.timesteps.clone(), "sample": sample})

    right = run("one")
    exact = {name: t.double() * (1 + 1e-7) for name, t in right.tensors.items()}
    component = Component("scheduler", "scheduler", "reuse", native="a:Scheduler")
    known = compare.Outputs(right.tensors, {}, exact)
    found = strength.measure(component, native, lambda case: known, {"one": right}, run)
    assert not found.of("blind")
    assert len(found.of("caught")) >= 9
    assert "set_timesteps" not in vars(native)
    assert "step" not in vars(native)
