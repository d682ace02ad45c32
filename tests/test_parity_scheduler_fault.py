# SPDX-License-Identifier: Apache-2.0
"""The self test where there are no weights: a fault in the native scheduler must show in what the test compares."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fvport.parity import compare, faults
from fvport.spec import Component

COMPONENT = Component("scheduler", "scheduler", "reuse", native="a:Scheduler")


class Scheduler:
    def set_timesteps(self, steps: int) -> None:
        self.sigmas = torch.linspace(1, 0, steps + 1)
        self.timesteps = self.sigmas[:-1] * 1000

    def step(self, output: Any, index: int, sample: Any) -> Any:
        return (sample + (self.sigmas[index + 1] - self.sigmas[index]) * output,)


def whole(native: Any) -> dict[str, Any]:
    native.set_timesteps(4)
    sample = torch.linspace(-1, 2, 6).reshape(1, 3, 2)
    for index in range(4):
        sample = native.step(torch.full_like(sample, 0.7), index, sample)[0]
    return {"timesteps": native.timesteps.clone(), "sample": sample}


def schedule_only(native: Any) -> dict[str, Any]:
    native.set_timesteps(4)
    return {"timesteps": native.timesteps.clone()}


def another(native: Any) -> dict[str, Any]:
    return whole(Scheduler())


def self_tested(call: Any, native: Any) -> dict[str, Any]:
    def rerun(case: str, change: Any = None) -> compare.Outputs:
        return compare.Outputs(call(native), {})

    right = rerun("case")
    exact = {name: tensor.double() * (1 + 1e-7) for name, tensor in right.tensors.items()}
    official = SimpleNamespace(outputs=lambda case: compare.Outputs(right.tensors, {}, exact, {}, ""))
    return faults.self_test(COMPONENT, native, official, {"case": right}, rerun)


def test_a_call_that_runs_the_native_scheduler_sees_both_faults() -> None:
    """Schedule and step one percent off are red, and the scheduler is as before."""
    native = Scheduler()
    native.set_timesteps(4)
    before = dict(vars(native))
    found = self_tested(whole, native)
    assert found["seen"], found
    assert {fault["kind"] for fault in found["faults"]} == {"output", "schedule", "step"}
    assert all(torch.equal(value, vars(native)[name]) for name, value in before.items())
    assert set(vars(native)) == set(before)


@pytest.mark.parametrize(("call", "unseen"), [(another, "schedule"), (schedule_only, "step")])
def test_a_call_that_looks_elsewhere_is_red(call: Any, unseen: str) -> None:
    """A call that builds the official scheduler for itself, or never steps, sees no native fault and proves nothing."""
    found = self_tested(call, Scheduler())
    assert not found["seen"]
    assert unseen in found["problem"]


def test_what_no_fault_can_be_planted_in_proves_nothing() -> None:
    """An object without weights, set_timesteps and step gives no self test, and says so."""
    found = self_tested(lambda native: {"x": torch.ones(3)}, SimpleNamespace())
    assert not found["seen"]
    assert "no fault can be planted" in found["problem"]
