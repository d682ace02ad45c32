# SPDX-License-Identifier: Apache-2.0
"""Rules with operations: what they make, what FastVideo's forms cannot hold, and what lint and coverage say of them."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from fvport.errors import UsageError
from fvport.weights import values
from fvport.weights.lint import lint
from fvport.weights.mapping import Placed, Rule, Rules, produced
from fvport.weights.operations import Operation, Tensor
from fvport.weights.regexcost import danger
from fvport.weights.values import Store


def op(*words):
    return Operation.from_json(words)


QKV = tuple(Rule("rename", r"^qkv\.(.*)$", rf"{w}.\1", operations=(op("split", 0, 3, n),)) for n, w in enumerate("qkv"))
SHAPES = {"qkv.weight": (6, 2)}
NATIVE = {f"{word}.weight": (2, 2) for word in "qkv"}


def codes(rules, shapes, native=None, **more):
    return {
        finding.code for finding in lint(Rules(tuple(rules)), shapes, native, **more) if finding.severity == "error"
    }


def test_one_tensor_goes_to_several_targets():
    """Rules of one pattern that take a part each all take the key."""
    placed = Rules(QKV).apply(SHAPES).placed
    assert [item.target for item in placed] == ["q.weight", "k.weight", "v.weight"]
    assert produced(placed[:1], [Tensor("F32", (6, 2))]) == Tensor("F32", (2, 2))
    assert codes(QKV, SHAPES, NATIVE) == set()


def test_rules_with_operations_round_trip_and_leave_old_digests():
    """JSON keeps the operations; a list without any has the digest it always had; FastVideo's forms refuse them."""
    rules = Rules(QKV)
    assert Rules.from_json(rules.to_json()) == rules
    plain = Rules.from_fastvideo({r"^a\.(.*)$": r"b.\1"})
    signed = r'{"exclude":{},"passthrough":[],"rules":[["rename","^a\\.(.*)$","b.\\1",null,null,null]]}'
    assert plain.digest() == "sha256:" + hashlib.sha256(signed.encode()).hexdigest()
    assert rules.digest() != Rules(tuple(Rule(r.form, r.pattern, r.target) for r in QKV)).digest()
    with pytest.raises(UsageError, match="cannot be written"):
        rules.to_fastvideo()


def test_a_skipped_key_has_no_target():
    """`skip` keeps a key out of the targets, with its reason."""
    rule = Rule("rename", r"^ema\.(.*)$", "", operations=(op("skip", "an average of the weights"),))
    assert Rules((rule,)).apply(["ema.a"]).targets() == {}
    assert rule.skip == "an average of the weights"


@pytest.mark.parametrize(
    ("rules", "shapes", "native", "code"),
    [
        (QKV[:2], SHAPES, {"q.weight": (2, 2), "k.weight": (2, 2)}, "FV120"),
        ((*QKV[:2], QKV[1]), SHAPES, None, "FV120"),
        (QKV, {"qkv.weight": (7, 2)}, NATIVE, "FV119"),
        (QKV, SHAPES, {**NATIVE, "q.weight": (3, 2)}, "FV119"),
        ([Rule("rename", r"^(a+)+\.w$", "b.w")], {"a.w": (1,)}, None, "FV117"),
        ([Rule("rename", r"^a.b\.(.*)$", r"c.\1")], {"a.b.w": (1,), "a_b.w": (1,)}, None, "FV118"),
        ([Rule("rename", r"^(.*)\.x$", r"n.\1")], {"a.x": (1,), "b.x": (1,)}, {"n.a": (1,)}, "FV118"),
    ],
)
def test_lint_of_operations_and_patterns(rules, shapes, native, code):
    """A part that goes nowhere or twice, shapes that do not fit, endless patterns, patterns that take too much."""
    assert code in codes(rules, shapes, native)


BAD = [r"^(a+)+$", r"^(.*)*x$", r"^((\w+)\.?)*weight$", r"(x+x+)+y", r"^(\d+|\w+)*\.w$", r"^(a|a.)*$x"]
BAD += [r"^(.*)\.(.*)\.(.*)\.(.*)$", r"^(?:[a-z]+_?)+\.weight$", r"^(\w*\d*)+$"]
GOOD = [r"^blocks\.(\d+)\.attn\.(.*)$", r"^(.*)\.to_gate\.(.*)$", r"^(\w+\.)+weight$", r"^([^.]+\.)*weight$", r"a|b"]
GOOD += [r"^(.*)\.(q|k|v)\.(.*)$", r"^(layers\.\d+\.)*x$", r"^x\.(?!proj\.)(.*)$", r"^a(?:\.proj)?\.(weight|bias)$"]


@pytest.mark.parametrize("pattern", BAD)
def test_patterns_that_backtrack_badly_are_refused(pattern):
    """Told without running them, in lint and before any name is matched."""
    assert danger(pattern)
    with pytest.raises(UsageError, match="backtracks"):
        Rules((Rule("rename", pattern, "b"),)).place("a" * 60)


@pytest.mark.parametrize("pattern", GOOD)
def test_patterns_that_people_write_are_left_alone(pattern):
    """What FastVideo's own rules look like has no danger."""
    assert danger(pattern) == ""


def compared(rules, official, native):
    found = values.compare(Store.of_arrays(official), Rules(tuple(rules)).apply(official), Store.of_arrays(native))
    return [fault.problem for fault in found.faults]


WHOLE = np.arange(12, dtype=np.float32).reshape(6, 2) + 1
PARTS = {"q.weight": WHOLE[:2], "k.weight": WHOLE[2:4], "v.weight": WHOLE[4:]}


def test_values_are_compared_up_to_the_named_operation():
    """Split, turned, joined inside, cast and scaled tensors are compared bit for bit with what the operation makes."""
    assert compared(QKV, {"qkv.weight": WHOLE}, PARTS) == []
    turn = [Rule("rename", "^qkv", "t", operations=(op("transpose", [1, 0]), op("scale", 0.5)))]
    assert compared(turn, {"qkv.weight": WHOLE}, {"t.weight": np.ascontiguousarray(WHOLE.T) * np.float32(0.5)}) == []
    half = [Rule("rename", "^qkv", "t", operations=(op("cast", "F16"),))]
    assert compared(half, {"qkv.weight": WHOLE}, {"t.weight": WHOLE.astype(np.float16)}) == []
    side = [Rule("rename", f"^{w}\\.", "j.", n, 2, operations=(op("fuse", 1),)) for n, w in enumerate("qk")]
    inside = {"j.weight": np.concatenate([WHOLE[:2], WHOLE[2:4]], 1)}
    assert compared(side, {"q.weight": WHOLE[:2], "k.weight": WHOLE[2:4]}, inside) == []


@pytest.mark.parametrize(
    ("native", "problem"),
    [
        ({**PARTS, "k.weight": PARTS["q.weight"]}, "differs"),
        ({**PARTS, "k.weight": PARTS["k.weight"] + np.float32(1e-6)}, "differs"),
        ({**PARTS, "v.weight": np.zeros((2, 2), np.float32)}, "zero_filled"),
        ({**PARTS, "v.weight": WHOLE}, "shape"),
        ({**PARTS, "v.weight": PARTS["v.weight"].astype(np.float16)}, "dtype"),
    ],
)
def test_a_part_that_is_wrong_is_found(native, problem):
    """The wrong part, a changed value, zeros, the whole instead of the part, a narrower float."""
    assert compared(QKV, {"qkv.weight": WHOLE}, native) == [problem]


def test_merges_need_an_order():
    """Two sources of one target without an index cannot be joined."""
    with pytest.raises(UsageError, match="no order"):
        produced([Placed("a", "t"), Placed("b", "t")], [Tensor("F32", (1,)), Tensor("F32", (1,))])
