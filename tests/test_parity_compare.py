# SPDX-License-Identifier: Apache-2.0
"""The measured floor as judge: right outputs pass, each way of being wrong is red and says how."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fvport.errors import FvportError
from fvport.parity import compare, faults, session
from fvport.parity.compare import Outputs, compare_output, compare_outputs
from fvport.spec import Component, Tolerance

CALIBRATED = Tolerance()
EPS = compare.EPS


def exact_output(n: int = 4096, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noise(reference: torch.Tensor, size: float, seed: int) -> torch.Tensor:
    """A float32 result that errs like float32 arithmetic does: `size` relative, independent in each element."""
    error = torch.randn(reference.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (reference * (1 + size * error)).float()


def sides(native: torch.Tensor | None = None, size: float = 4 * EPS) -> tuple[Outputs, Outputs]:
    """(official, native); the native one errs as much as the official one unless given."""
    exact = exact_output()
    official = Outputs({"out": noise(exact, size, 1)}, {"out": "a tensor"}, {"out": exact})
    native = noise(exact, size, 2) if native is None else native
    return official, Outputs({"out": native}, {"out": "a tensor"})


def judge(
    native: torch.Tensor | None = None, tolerance: Tolerance = CALIBRATED, size: float = 4 * EPS
) -> compare.Result:
    official, other = sides(native, size)
    return compare_output("out", official, other, tolerance)


def test_equal_error_passes() -> None:
    """A native side that errs as much as the official one is within budget in all four measures."""
    result = judge()
    assert result.ok, result.problem
    assert 0 < result.use < 1
    assert result.metrics["within_1e-4"] is True
    assert result.tolerance["factor"] == 3


def test_bitwise_equal_passes_even_with_a_floor_of_zero() -> None:
    """Outputs equal in float32 and float64 have a floor of zero; its lower bound decides then."""
    exact = exact_output().float().double()
    official = Outputs({"out": exact.float()}, {}, {"out": exact})
    result = compare_output("out", official, Outputs({"out": exact.float()}), CALIBRATED)
    assert result.ok
    assert result.metrics["floor_rel_l2"] == EPS


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("n", [8, 64, 5000])
def test_no_false_alarm_on_independent_rounding(n: int, seed: int) -> None:
    """Rounding errors drawn anew are not a fault, in short outputs either (drift may be zero by luck)."""
    exact = exact_output(n, seed)
    official = Outputs({"out": noise(exact, 4 * EPS, 100 + seed)}, {}, {"out": exact})
    result = compare_output("out", official, Outputs({"out": noise(exact, 4 * EPS, 200 + seed)}), CALIBRATED)
    assert result.ok, result.problem


def one_element(x: torch.Tensor) -> torch.Tensor:
    x[100] += 1e-4
    return x


FAULTS = {
    "scaled by 1e-5": (lambda x: x * (1 + 1e-5), "angle|rel_l2|worst"),
    "one element off": (one_element, "worst"),
    "a bias of 1e-5": (lambda x: x + 1e-5, "drift"),
    "rotated by one": (lambda x: x.roll(1), "rel_l2|angle|worst"),
    "sign": (lambda x: -x, "angle|rel_l2"),
    "bf16 inside": (lambda x: x.bfloat16().float(), "rel_l2|angle|worst"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_small_faults_are_red(name: str) -> None:
    """Faults far below 1e-4 are many floors high: red, with the measure, the budget and the place."""
    change, measure = FAULTS[name]
    result = judge(change(noise(exact_output(), 4 * EPS, 2)))
    assert not result.ok
    assert any(word in result.problem for word in measure.split("|")), result.problem
    assert "times its budget" in result.problem
    assert len(result.metrics["first_worst_index"]) == 1


def test_below_the_classic_figure_is_still_red() -> None:
    """1e-4 is shown and does not decide: an error of 1e-5 is inside it and red."""
    result = judge(noise(exact_output(), 4 * EPS, 2) + 1e-5)
    assert result.metrics["within_1e-4"] is True
    assert not result.ok


@pytest.mark.parametrize(
    ("native", "words"),
    [
        (torch.zeros(4095), "shape"),
        (torch.zeros(4096, dtype=torch.float64), "float64 on the native side, float32 on the official"),
        (torch.full((4096,), math.nan), "not finite, first at index [0]"),
        (torch.full((4096,), 0.5), "constant"),
    ],
)
def test_form_is_judged_before_numbers(native: torch.Tensor, words: str) -> None:
    """Shape, dtype, finiteness and constancy are fails that say which side and what."""
    result = judge(native)
    assert not result.ok
    assert words in result.problem


def test_names_must_agree() -> None:
    """An output that only one side has is red, whichever side it is; nothing on both sides is red too."""
    official, native = sides()
    more = Outputs({**native.tensors, "pooled": torch.ones(3)})
    assert "official side returned no pooled" in compare_outputs(official, more, CALIBRATED)[1].problem
    assert "native side returned no out" in compare_outputs(official, Outputs({}), CALIBRATED)[0].problem
    assert not compare_outputs(Outputs({}), Outputs({}), CALIBRATED)[0].ok


def test_containers_must_agree() -> None:
    """A bare tensor is not the first item of a sequence."""
    official, native = sides()
    native.containers["out"] = "a tensor in a sequence of 2"
    result = compare_output("out", official, native, CALIBRATED)
    assert "sequence of 2" in result.problem


def test_integers_are_exact() -> None:
    """Token ids are equal or not, and the first wrong one is named."""
    ids = torch.arange(12).view(3, 4)
    wrong = ids.clone()
    wrong[1, 2] = 99
    assert compare_output("ids", Outputs({"ids": ids}), Outputs({"ids": ids.clone()}), CALIBRATED).ok
    result = compare_output("ids", Outputs({"ids": ids}), Outputs({"ids": wrong}), CALIBRATED)
    assert "first at index [1, 2]: 99, not 6" in result.problem


def test_a_floor_that_proves_nothing_is_red() -> None:
    """Where the official model differs from itself by a percent, equality with it means nothing."""
    result = judge(size=1e-2)
    assert not result.ok
    assert "proves nothing" in result.problem


def test_no_float64_and_no_noise_is_red() -> None:
    """Without a floor there is no verdict, and the reason is the oracle's."""
    official, native = sides()
    official.exact, official.no_float64 = {}, "RuntimeError: not implemented for Double"
    result = compare_output("out", official, native, CALIBRATED)
    assert "no floor" in result.problem
    assert "not implemented for Double" in result.problem


def test_noise_serves_where_float64_cannot() -> None:
    """The floor is then the model's answer to one-ulp noise, against its own float32 output."""
    official, _ = sides()
    official.exact = {}
    official.noisy = {"out": noise(official.tensors["out"].double(), 4 * EPS, 7)}
    near = Outputs({"out": noise(official.tensors["out"].double(), 4 * EPS, 8)})
    result = compare_output("out", official, near, CALIBRATED)
    assert result.ok
    assert result.metrics["floor_from"] == "noise"
    assert not compare_output("out", official, Outputs({"out": near.tensors["out"] * 1.0001}), CALIBRATED).ok


def test_fixed_tolerance_needs_a_reason_when_far_above_the_floor() -> None:
    """A fixed tolerance decides by itself; hundreds of floors wide it is refused without a written reason."""
    wrong = noise(exact_output(), 4 * EPS, 2) + 1e-3
    loose = Tolerance(mode="fixed", atol=1e-2)
    assert "no written reason" in judge(wrong, loose).problem
    assert judge(wrong, Tolerance(mode="fixed", atol=1e-2, reason="official uses bf16 inside")).ok
    assert "times the fixed tolerance" in judge(wrong, Tolerance(mode="fixed", atol=1e-4, reason="r")).problem


# --- the self test ---------------------------------------------------------------------------------------------------


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.q(x).softmax(-1) * self.k(x)


class Official:
    """Stands for an oracle's result of one case."""

    def __init__(self, net: Net, x: torch.Tensor) -> None:
        self.net, self.x = net, x

    def outputs(self, _: str) -> Outputs:
        import copy

        exact = copy.deepcopy(self.net).double()(self.x.double()).detach()
        return (
            Outputs({"out": self.kept}, {}, {"out": exact})
            if hasattr(self, "kept")
            else Outputs({}, {}, {"out": exact})
        )


def self_tested(call: Any) -> tuple[dict[str, Any], Net]:
    import copy

    net, x = Net(), torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    official = Official(copy.deepcopy(net), x)
    official.kept = net(x).detach()
    rerun = lambda _: Outputs({"out": call(net, x).detach()})  # noqa: E731
    component = Component("net", "dit", "port")
    return faults.self_test(component, net, official, {"case": rerun("case")}, rerun), net


def test_stock_faults_are_seen_and_taken_out_again() -> None:
    """An output fault, a swap and a scaled row each go red, and the weights are as before."""
    before = [p.clone() for p in Net().parameters()]
    found, net = self_tested(lambda net, x: net(x))
    assert found["seen"], found
    assert {fault["kind"] for fault in found["faults"]} == {"output", "swap", "row"}
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_a_call_that_does_not_use_the_native_class_is_caught() -> None:
    """A test that returns numbers of its own is green in every comparison; no weight fault changes it."""
    other = Net()
    found, _ = self_tested(lambda net, x: other(x))
    assert not found["seen"]
    assert "stayed green" in found["problem"]


def test_red_message_fits_a_screen_and_ends_in_the_order_to_look() -> None:
    """Many red outputs make a short text whose last line names component, case, output, size and where to look."""
    official, native = sides(exact_output().float() * 1.01)
    row = compare_output("out", official, native, CALIBRATED)
    done = session.Compared("transformer", "m:C", "f.py", [("batch2", row)] * 40)
    text = done.message()
    assert len(text.splitlines()) <= 24
    last = text.splitlines()[-1]
    assert last.startswith("transformer, case batch2: out ")
    assert last.endswith("mapping, attention backend, scheduler/sigma/timestep, activation logging.")


def test_first_differing_hidden_state_is_named() -> None:
    """Outputs that come in depth tell where it begins."""
    good, bad = compare.Result("hidden_states/000", True), compare.Result("hidden_states/001", False, "x")
    words = session.locate([("ragged", good), ("ragged", bad), ("ragged", compare.Result("hidden_states/002", False))])
    assert "first differing hidden_states: index 1 in case ragged" in words
    assert "those before it agree" in words


class Inputs:
    """Inputs of one case by name, as an oracle's result holds them."""

    def __init__(self, **tensors: torch.Tensor) -> None:
        self.tensors = {"inputs": {f"case/{name}": tensor for name, tensor in tensors.items()}}


def test_an_input_that_changes_nothing_is_called_blind() -> None:
    """A mask that the native side ignores is named; one that it uses is not."""
    given = Inputs(x=torch.randn(2, 3), mask=torch.ones(2, 3, dtype=torch.long), ids=torch.arange(6).view(2, 3))

    def rerun(_: str, change: Any = lambda name, tensor: tensor) -> Outputs:
        now = {key: change(key, tensor) for key, tensor in given.tensors["inputs"].items()}
        return Outputs({"out": now["case/x"] + now["case/ids"]})

    assert faults.blind_inputs(given, {"case": rerun("case")}, rerun) == ["mask"]


@pytest.mark.parametrize(
    ("output", "found"),
    [
        ("hidden_states.03", ("hidden_states", 3)),
        ("x/000", ("x", 0)),
        ("sample", ("sample", None)),
        ("last_hidden_state.padding", ("last_hidden_state.padding", None)),
    ],
)
def test_series_are_told_from_names(output: str, found: tuple[str, int | None]) -> None:
    """Layers and steps are one series, shown as one item with the worst of them."""
    assert compare.series(output) == found


def test_a_case_that_raises_says_how_the_others_came_out() -> None:
    """Whether one input is too much for the class, or nothing of it works: the sentence tells the two apart."""
    good, bad = Outputs({"out": torch.arange(4)}), Outputs({"out": torch.arange(4) + 1})
    official: Any = SimpleNamespace(outputs=lambda case: good)
    component: Any = SimpleNamespace(tolerance=CALIBRATED)
    raised = {"b": FvportError("net, case b: the native side raised ValueError"), "e": FvportError("again")}
    found = session._of_all(raised, official, {"a": good, "c": bad, "d": good}, component)
    said = "Of its other cases 1 raised too (e), 1 differ (c), 2 agree (a, d)"
    assert found.what == f"net, case b: the native side raised ValueError. {said}"
    assert session._of_all({"b": raised["b"]}, official, {}, component).what == raised["b"].what
