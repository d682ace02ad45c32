# SPDX-License-Identifier: Apache-2.0
"""Named operations on shapes: what comes out, what does not fit, which are byte moves, which have a way back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fvport.errors import UsageError
from fvport.weights.operations import Operation, Tensor, chain, inverse, moves_bytes


def op(*words):
    return Operation.from_json(list(words))


def f32(*shape):
    return Tensor("F32", shape)


def test_shapes_of_each_operation():
    """Each operation says what comes out of a shape."""
    assert op("split", 0, 3).apply([f32(6, 4)]) == [f32(2, 4)] * 3
    assert op("split", -1, [1, 3]).apply([f32(6, 4)]) == [f32(6, 1), f32(6, 3)]
    assert op("split", 0, 3, 1).apply([f32(6, 4)]) == [f32(2, 4)]
    assert op("fuse", 0).apply([f32(2, 4), f32(3, 4)]) == [f32(5, 4)]
    assert op("transpose", [1, 0]).apply([f32(2, 4)]) == [f32(4, 2)]
    assert op("reshape", [-1, 2]).apply([f32(2, 4)]) == [f32(4, 2)]
    assert op("cast", "bfloat16").apply([f32(2)]) == [Tensor("BF16", (2,))]
    assert op("scale", 0.5).apply([f32(2)]) == [f32(2)]
    assert op("skip", "training only").apply([f32(2)]) == []


@pytest.mark.parametrize(
    ("words", "tensors", "said"),
    [
        (("split", 0, 3), [f32(7, 4)], "7 .* no multiple of 3"),
        (("split", 0, [2, 3]), [f32(6, 4)], r"is not 2 \+ 3"),
        (("split", 2, 2), [f32(6, 4)], "no dimension 2"),
        (("split", 0, 2), [f32(6), f32(6)], "takes one tensor"),
        (("fuse", 0), [f32(2, 4), f32(2, 5)], r"cannot join F32 \[2, 4\] \+ F32 \[2, 5\]"),
        (("fuse", 0), [f32(2, 4), Tensor("BF16", (2, 4))], "cannot join"),
        (("fuse", 0, [0, 2]), [f32(2), f32(2)], "each of 2 tensors once"),
        (("transpose", [1, 0]), [f32(2, 3, 4)], "another rank"),
        (("reshape", [5, -1]), [f32(2, 4)], "do not fit"),
        (("cast", "F32"), [Tensor("I64", (2,))], "no floating dtype"),
    ],
)
def test_what_does_not_fit_is_said(words, tensors, said):
    """A shape that an operation cannot take is named, with the operation."""
    with pytest.raises(UsageError, match=said):
        op(*words).apply(tensors)


BAD = """
["splt", 0, 3] ["split"] ["split", 0, 0] ["split", 0, 3, 3] ["split", "0", 3] ["split", 0, [2, -2]] ["split", true, 2]
["fuse"] ["scale", 0] ["scale", NaN] ["transpose", [0, 0]] ["reshape", [-1, -1]] ["cast", "int8"] ["skip", " "] []
"""


@pytest.mark.parametrize("words", json.loads(f"[{BAD.strip().replace('] [', '], [').replace(chr(10), ', ')}]"))
def test_a_badly_written_operation_is_refused(words):
    """Words that are no operation are an error when they are read, not later."""
    with pytest.raises(UsageError):
        op(*words)


def test_a_misspelt_operation_is_told_the_nearest():
    """The nearest name is offered."""
    with pytest.raises(UsageError, match='Did you mean "split"'):
        op("splt", 0, 3)


def test_byte_moves_are_known():
    """Along the first dimension that counts, splitting and joining are ranges; elsewhere they are arithmetic."""
    assert moves_bytes([op("split", 0, 3)], [f32(6, 4)])
    assert moves_bytes([op("split", 1, 2)], [f32(1, 6, 4)])
    assert not moves_bytes([op("split", 1, 2)], [f32(6, 4)])
    assert not moves_bytes([op("split", 0, 3)], [Tensor("F4", (3, 1))])
    assert moves_bytes([op("transpose", [1, 0, 2])], [f32(1, 5, 2)])
    assert not moves_bytes([op("transpose", [1, 0])], [f32(5, 2)])
    assert moves_bytes([op("cast", "F32")], [f32(2)])
    assert not moves_bytes([op("cast", "F16")], [f32(2)])
    assert moves_bytes([op("split", 0, 2), op("fuse", 0, [1, 0]), op("reshape", [-1])], [f32(6, 4)])


def test_what_has_no_inverse_says_so():
    """Rounding, a scale that is no power of two, one part of a split, and leaving out have no way back."""
    for words in (("cast", "BF16"), ("scale", 0.3), ("split", 0, 2, 0), ("skip", "why")):
        assert inverse([op(*words)], [f32(4)]) is None


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_there_and_back_is_where_it_began(shape, data):
    """An inverse gives the shapes and dtypes back, for any chain of operations that has one."""
    dims = data.draw(st.permutations(range(len(shape))))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    start = [Tensor("BF16", tuple(shape))]
    forth = [op("cast", "F32"), op("scale", 4), op("split", axis, [1] * shape[axis]), op("fuse", axis)]
    forth += [op("transpose", list(dims)), op("reshape", [-1])]
    back = inverse(forth, start)
    assert back is not None
    assert chain(back, chain(forth, start)) == start


@given(st.recursive(st.none() | st.integers(-3, 3) | st.text(max_size=4), lambda x: st.lists(x, max_size=4)))
def test_anything_else_is_a_sentence(data):
    """Reading never ends in anything but an operation or a UsageError; what was read is written as it was."""
    try:
        found = Operation.from_json(data)
    except UsageError:
        return
    assert Operation.from_json(found.to_json()) == found
