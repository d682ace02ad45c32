# SPDX-License-Identifier: Apache-2.0
"""What is written is what plain numpy makes of the sources, whatever the chain, the shapes, the dtypes and the way."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
from convert_support import plan, release, some, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from weights_support import save

from fvport.errors import BlockedError
from fvport.weights import arithmetic, declaration, manifest, scan, stream, verify
from fvport.weights.operations import Operation, Tensor

SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "I64": np.int64, "U8": np.uint8}


def of(file):
    """{name: (dtype, array)} of a safetensors file, bf16 as its bits."""
    raw = file.read_bytes()
    return {
        name: (info.dtype, np.frombuffer(raw[info.start : info.end], arithmetic.NUMPY[info.dtype]).reshape(info.shape))
        for name, info in manifest.read_header(file).items()
    }


def convert(tmp_path, held, rules, more=""):
    """The tensors that a one-component declaration with these rules makes of `held`, and the plan."""
    root = tmp_path / "release"
    save(root / "m.safetensors", held)
    part = {"class": ["diffusers", "M"], "prefix": "", "rules": rules}
    text = f"COMPONENTS = { ({'part': part})!r}\n{more}"
    made = plan(root, text)
    target = tmp_path / "out"
    if target.exists():
        import shutil

        shutil.rmtree(target)
    write(made, target)
    found = {}
    for file in sorted((target / "part").glob("*.safetensors")):
        found |= of(file)
    return found, made, target


@st.composite
def chains(draw):
    """(dtype, shapes of the sources, operations as lists, arrays that come out as numpy computes them)."""
    dtype = draw(st.sampled_from(["F32", "F16", "BF16", "I64", "U8"]))
    rank = draw(st.integers(1, 4))
    shape = [draw(st.sampled_from([1, 2, 3, 6])) for _ in range(rank)]
    count = draw(st.integers(1, 3))
    words = [["fuse", draw(st.integers(0, rank - 1))]] if count > 1 else []
    kinds = ["split", "transpose", "reshape", "fuse"] + (["cast", "scale"] if dtype in ("F32", "F16", "BF16") else [])
    tensors = [Tensor(dtype, tuple(shape))] * count
    for operation in (Operation.from_json(word) for word in words):
        tensors = operation.apply(tensors)
    for _ in range(draw(st.integers(0, 4))):
        word = _word(draw, draw(st.sampled_from(kinds)), tensors)
        if word is not None:
            words.append(word)
            tensors = Operation.from_json(word).apply(tensors)
    return dtype, [shape] * count, words, len(tensors)


def _word(draw, kind, tensors):
    shape = tensors[0].shape
    axis = draw(st.integers(-len(shape), len(shape) - 1)) if shape else None
    if kind == "fuse" and len(tensors) > 1:
        return ["fuse", axis, draw(st.permutations(range(len(tensors))))]
    if kind == "split" and len(tensors) == 1:
        return ["split", axis, draw(st.sampled_from([n for n in (1, 2, 3) if shape[axis] % n == 0]))]
    if kind == "transpose":
        return ["transpose", list(draw(st.permutations(range(len(shape)))))]
    if kind == "reshape":
        return ["reshape", draw(st.sampled_from([[-1], [*shape[:1], -1], [1, -1]]))]
    if kind == "cast":
        return ["cast", draw(st.sampled_from(["F32", "F16", "BF16", "F64"]))]
    return ["scale", draw(st.sampled_from([0.5, 0.3, -2]))] if kind == "scale" else None


@SLOW
@given(chain=chains(), tile=st.sampled_from([1, 7, 1 << 22]))
def test_any_chain_gives_what_numpy_gives(tmp_path, monkeypatch, chain, tile):
    """Ranges, tiles and views against whole arrays, for chains of every operation on every dtype."""
    monkeypatch.setattr(arithmetic, "TILE", tile)
    monkeypatch.setattr(arithmetic, "RUN", 2)
    monkeypatch.setattr(arithmetic, "IN_MEMORY", 16)
    dtype, shapes, words, outputs = chain
    rng = np.random.default_rng(len(words))
    held = {}
    for n, shape in enumerate(shapes):
        values = rng.standard_normal(shape).astype(np.float32) * 40
        held[f"s{n}"] = (
            (values.view(np.uint32) >> 16).astype(np.uint16) if dtype == "BF16" else values.astype(DTYPES[dtype])
        )
    rule = [sorted(held), [f"t{n}" for n in range(outputs)], *words]
    found, made, target = convert(tmp_path, held, [rule])
    want = verify.outputs(made, made.tensors["part"][0])
    for item in made.tensors["part"]:
        got = found[item.name]
        assert got[0] == item.tensor.dtype
        assert got[1].tobytes() == np.ascontiguousarray(want[item.output]).tobytes()
    assert verify.component(made, target, "part").faults == []


def test_operations_are_what_torch_does(tmp_path):
    """Split, join, transpose, cast and scale give torch's own bytes, bf16 and rounding included."""
    import torch

    a, b = torch.from_numpy(some(6, 4)), torch.from_numpy(some(6, 4, seed=1))
    rules = [
        [["a", "b"], ["x", "y"], ["fuse", 1, [1, 0]], ["split", 0, [2, 4]], ["transpose", [1, 0]], ["cast", "BF16"]],
        ["c", "c", ["scale", 0.3], ["cast", "F16"]],
        ["d", "d", ["scale", 0.7]],
    ]
    d = torch.from_numpy(some(40, seed=3)).to(torch.bfloat16)
    held = {"a": a.numpy(), "b": b.numpy(), "c": a.numpy(), "d": d.view(torch.uint16).numpy()}
    found, _, _ = convert(tmp_path, held, rules)
    first, second = torch.cat([b, a], 1).split([2, 4], 0)
    for name, want in (("x", first), ("y", second)):
        assert found[name][1].tobytes() == want.t().contiguous().to(torch.bfloat16).view(torch.uint16).numpy().tobytes()
    assert found["c"][1].tobytes() == (a * 0.3).to(torch.float16).numpy().tobytes()
    assert found["d"][1].tobytes() == (d * 0.7).view(torch.uint16).numpy().tobytes()


def test_special_values_survive_casts():
    """Infinities, a NaN, zeros of both signs and what is too large, as torch casts them."""
    import torch

    values = torch.tensor([0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1e-45, 7e4, 3.4e38, 1.00390625])
    for wanted, torch_type, bits in (("BF16", torch.bfloat16, torch.uint16), ("F16", torch.float16, torch.uint16)):
        ours = np.ascontiguousarray(arithmetic.cast(values.numpy(), "F32", wanted)).view(np.uint16)
        theirs = values.to(torch_type).view(bits).numpy()
        nan = np.isnan(values.numpy())
        assert (ours == theirs)[~nan].all()
        back = arithmetic.cast(ours if wanted == "BF16" else ours.view(np.float16), wanted, "F32")
        assert np.isnan(back[nan]).all()


@pytest.mark.parametrize("refused", [("copy_file_range",), ("copy_file_range", "sendfile")])
def test_where_the_kernel_does_not_copy(tmp_path, monkeypatch, refused):
    """Other systems and file systems: the same bytes by sendfile, or in pieces."""

    def no(*_):
        raise OSError(errno.ENOSYS, "not here")

    for name in refused:
        monkeypatch.setattr(os, name, no)
    made = plan(release(tmp_path / "r"))
    write(made, tmp_path / "out")
    assert all(not verify.component(made, tmp_path / "out", name).faults for name in made.tensors)


def test_a_renamed_file_is_one_range(tmp_path):
    """Neighbours are joined: what is only renamed is copied in one call a file."""
    root = tmp_path / "r"
    save(root / "m.safetensors", {f"a.{n}": some(3, 3, seed=n) for n in range(50)})
    made = plan(root, 'COMPONENTS = {"part": {"class": "M", "prefix": "a.", "rename": [["^", "b"]]}}')
    (shard,) = stream.shards(made.tensors["part"], "model", {}, 1 << 30)
    assert len(list(stream.moves(shard))) == 1


def test_shards_and_index(tmp_path):
    """Above SHARD_BYTES several files and an index, which both libraries read; metadata goes along."""
    held = {f"t{n}": some(4, 4, seed=n) for n in range(5)}
    found, _, target = convert(tmp_path, held, [], "SHARD_BYTES = 130\n")
    assert sorted(found) == sorted(held)
    assert len(list((target / "part").glob("*-of-00003.safetensors"))) == 3
    weights = manifest.read_index(target / "part" / "diffusion_pytorch_model.safetensors.index.json")
    assert sorted(weights.tensors) == sorted(held)
    from safetensors.numpy import load_file

    first = load_file(target / "part" / "diffusion_pytorch_model-00001-of-00003.safetensors")
    assert all(np.array_equal(value, held[name]) for name, value in first.items())


def test_metadata_is_kept(tmp_path):
    """What the release says in its header is said in the converted files."""
    made = plan(release(tmp_path / "r"))
    write(made, tmp_path / "out")
    file = tmp_path / "out/vae/diffusion_pytorch_model.safetensors"
    assert manifest.read_metadata(file) == {"format": "pt", "author": "someone"}


def test_odd_sizes_stay_aligned(tmp_path):
    """Wide elements come first, so that no tensor of a mixed file begins inside one of its elements."""
    held = {"a": np.zeros(3, np.uint8), "b": some(5), "c": np.zeros(1, np.float16), "d": np.zeros(2, np.int64)}
    _, _, target = convert(tmp_path, held, [])
    header = manifest.read_header(target / "part" / "diffusion_pytorch_model.safetensors")
    assert all(info.start % (manifest.BITS[info.dtype] // 8) == 0 for info in header.values())


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "F64"])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_nan_is_found_in_what_is_moved(tmp_path, dtype, sign):
    """One NaN of either sign among a million values, in the middle of a piece; infinities are none."""
    values = np.full(300_001, np.inf, np.float64 if dtype == "F64" else np.float32)
    values[::2] = -np.inf
    held = {"clean": values.copy(), "bad": values}
    held["bad"][200_003] = np.copysign(np.nan, sign)
    if dtype == "BF16":
        held = {name: (value.view(np.uint32) >> 16).astype(np.uint16) for name, value in held.items()}
    if dtype == "F16":
        held = {name: value.astype(np.float16) for name, value in held.items()}
    root = tmp_path / "r"
    if dtype == "F64":
        from safetensors.numpy import save_file

        root.mkdir()
        save_file(held, root / "m.safetensors")
    else:
        save(root / "m.safetensors", held)
    made = plan(root, 'COMPONENTS = {"part": {"class": "M", "prefix": ""}}')
    assert scan.with_nan(root, made.tensors["part"]) == ["bad"]
    assert verify.Verified  # the check counts them
    assert write(made, tmp_path / "out").nan == {"part.bad": 0}
    assert verify.component(made, tmp_path / "out", "part").nan == {"bad": 1}


def test_a_file_that_is_cut_while_it_is_read(tmp_path):
    """A range that ends before its header says so is an error that names the file, not zeros."""
    made = plan(release(tmp_path / "r"))
    file = tmp_path / "r/model.safetensors"
    os.truncate(file, file.stat().st_size - 4)
    with pytest.raises(BlockedError, match=r"was cut while it was read|unmapped|cannot be read"):
        write(made, tmp_path / "out", scan=False)
    assert not (tmp_path / "out").exists()


def test_declared_shapes_of_zero(tmp_path):
    """Empty tensors and scalars are tensors too."""
    held = {"empty": np.zeros((0, 4), np.float32), "one": np.float32(3.5).reshape(())}
    found, made, target = convert(tmp_path, held, [["empty", ["e", "f"], ["split", 1, 2]]])
    assert found["one"][1] == 3.5
    assert found["e"][1].shape == (0, 2)
    assert verify.component(made, target, "part").faults == []
    assert isinstance(made.declaration, declaration.Declaration)
