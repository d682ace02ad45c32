# SPDX-License-Identifier: Apache-2.0
"""What a declaration makes of a release, from headers: every key owned or skipped, and every gap said."""

from __future__ import annotations

import numpy as np
import pytest
from convert_support import TEXT, plan, release, some, tensors, write
from weights_support import save, save_json

from fvport.errors import BlockedError, FvportError
from fvport.weights import manifest, verify
from fvport.weights.fill import copied_files


def test_every_tensor_is_planned(tmp_path):
    """Names, shapes and dtypes of the converted tree, and where each comes from."""
    found = plan(release(tmp_path))
    made = {item.name: item for item in found.tensors["transformer"]}
    assert sorted(made)[:5] == [
        f"blocks.0.{x}" for x in ("down", "gate_up", "to_k.weight", "to_q.weight", "to_v.weight")
    ]
    assert made["blocks.1.to_k.weight"].tensor == ("F32", (4, 4))
    assert made["blocks.0.gate_up"].said == "dit.layers.0.gate + dit.layers.0.up, fuse(0)"
    assert made["blocks.0.down"].tensor == ("F16", (5, 4))
    assert found.skipped == {"ema.dit.x": "average of training"}
    assert found.config(found.declaration.parts["vae"]) == {"_class_name": "AutoencoderKLWan", "z_dim": 16}


def refused(tmp_path, said, text=TEXT, held=None, error=FvportError):
    with pytest.raises(error, match=said):
        plan(release(tmp_path, held), text)


def test_an_unowned_key_is_named_with_the_nearest_prefix(tmp_path):
    """A key that no prefix and no SKIP covers is an error that lists it and says which prefix is nearest."""
    held = {**tensors(), "ditt.extra": some(2), "vea.c": some(1)}
    refused(tmp_path, r'2 keys belong to no component.*ditt.extra, vea.c.*nearest prefix is "dit\."', held=held)


def test_two_owners_are_refused_and_the_longer_prefix_wins(tmp_path):
    """`a.` and `a.b.` may both be prefixes; one prefix of two components may not."""
    refused(tmp_path, "belongs to transformer and to vae", TEXT.replace('"vae."', '["vae.", "dit."]'))
    held = {**tensors(), "dit.vae.q": some(2)}
    found = plan(release(tmp_path / "b", held), TEXT.replace('"vae."', '["vae.", "dit.vae."]'))
    assert "q" in {item.name for item in found.tensors["vae"]}


def test_a_prefix_that_nothing_begins_with_is_refused(tmp_path):
    """A component without a single key is a mistake in its prefix."""
    refused(tmp_path, r'vae: no key of \* begins with "first\."', TEXT.replace('"vae."', '["first.", "vae."]').replace(
        '["first.", "vae."]', '"first."'))  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('r"^layers\\.", "blocks."', 'r"^leyers\\.", "blocks."', r"transformer.rename\[0\] fits no key"),
        (r'r"(.*)\.down", r"\1.down"', r'r"(.*)\.doun", r"\1.down"', r"transformer.rules\[2\] fits no key"),
        ('["split", 0, 3]', '["split", 0, 5]', "dit.layers.0.qkv.weight: split.* no multiple of 5"),
        ('["split", 0, 3]', '["split", 0, 2]', "becomes 2 tensors, and 3 targets are named"),
        (r'r"\1.to_k.weight"', r'r"\1.to_q.weight"', "both become blocks.0.to_q.weight"),
        ('["fuse", 0]', '["fuse", 2]', "has no dimension 2"),
        ('"config.json"', '["config.json", "vae"]', ""),
        ('"folder": "tok"', '"folder": "token"', "the release does not have"),
    ],
)
def test_what_does_not_fit_the_release_is_named(tmp_path, old, new, said):
    """A rule or rename that takes no key, a shape that does not fit, two sources of one name: each by its own words."""
    assert old in TEXT
    text = TEXT.replace(old, new, 1)
    if said:
        refused(tmp_path, said, text)
    else:
        found = plan(release(tmp_path), text)
        with pytest.raises(FvportError, match="has no 'vae' in config"):
            found.config(found.declaration.parts["vae"])


def test_a_group_without_one_of_its_sources_is_refused(tmp_path):
    """A merge of which a part is missing is said with what is there and what is not."""
    held = tensors()
    del held["dit.layers.1.up"]
    refused(tmp_path, r"blocks.1.gate_up is made of dit.layers.1.gate and .*up.*no key fits", held=held)


def test_a_key_in_two_files_is_refused(tmp_path):
    """The same key twice in a release is named with both files, unless one of the files is left out with a reason."""
    root = release(tmp_path)
    save(root / "vae_fp16.safetensors", {"vae.a": some(4, 4)})
    with pytest.raises(FvportError, match=r"both become a \(in model.safetensors and in vae_fp16.safetensors\)"):
        plan(root)
    found = plan(root, TEXT.replace("SKIP = {", 'SKIP = {"file:*_fp16.safetensors": "a rounded copy", '))
    assert found.notes == ["vae_fp16.safetensors is left out: a rounded copy"]


def test_files_of_a_component(tmp_path):
    """A component may own whole files, whose keys another component's prefix would cover as well."""
    root = release(tmp_path)
    save(root / "second/model.safetensors", {"dit.x": some(2)})
    text = TEXT.replace('"prefix": "vae."', '"prefix": ["vae.", "dit.x"], "files": ["model.safetensors", "second/*"]')
    assert plan(root, text).tensors["vae"][-1].sources[0].file in ("model.safetensors", "second/model.safetensors")


def test_a_part_may_be_left_out(tmp_path):
    """A target may be a skip with a reason: rows that are padding, for one."""
    old = r'r"\1.to_v.weight"]'
    found = plan(release(tmp_path), TEXT.replace(old, '{"skip": "nothing reads it"}]'))
    assert "dit.layers.0.qkv.weight [part 2]" in found.skipped
    assert "blocks.0.to_v.weight" not in {item.name for item in found.tensors["transformer"]}


def test_a_missing_shard_and_a_cut_file_are_blocked(tmp_path):
    """An index that names what is not there, and a file that ends early, end as one sentence."""
    root = release(tmp_path)
    save_json(root / "model.safetensors.index.json", {"weight_map": {"dit.x": "model-00002-of-00002.safetensors"}})
    with pytest.raises(BlockedError, match=r"names the shard 'model-00002-of-00002\.safetensors'"):
        plan(root)
    (root / "model.safetensors.index.json").unlink()
    raw = (root / "model.safetensors").read_bytes()
    (root / "model.safetensors").write_bytes(raw[:-8])
    with pytest.raises(BlockedError, match="is truncated"):
        plan(root)


def test_a_skip_that_fits_nothing_is_only_told(tmp_path):
    """Releases of one family differ in what they carry beside the weights."""
    held = {name: value for name, value in tensors().items() if not name.startswith("ema")}
    assert plan(release(tmp_path, held)).notes == ["SKIP '^ema\\\\.' fits no key"]


def test_a_pickled_file_is_planned_by_its_bytes(tmp_path):
    """A torch.save file's tensors are ranges as well; a view with strides is refused by name."""
    import torch

    root = release(tmp_path)
    torch.save({"model": {"x": torch.arange(6.0).reshape(2, 3)}}, root / "extra.pt")
    text = TEXT.replace('"prefix": "vae."', '"prefix": ["vae.", "model."]')
    made = {item.name: item for item in plan(root, text).tensors["vae"]}
    source = made["x"].sources[0]
    raw = (root / "extra.pt").read_bytes()[source.info.start : source.info.end]
    assert np.frombuffer(raw, np.float32).tolist() == list(range(6))
    torch.save({"model": {"x": torch.arange(6.0).reshape(2, 3).t()}}, root / "extra.pt")
    with pytest.raises(BlockedError, match=r"holds model\.x as a view with strides"):
        plan(root, text)


def test_a_tokenizer_may_lie_beside_the_weights(tmp_path):
    """One folder for both: `only` names what is copied, and the weight files beside it are read as ever."""
    root = release(tmp_path)
    save_json(root / "tokenizer.json", {})
    text = TEXT.replace('"folder": "tok"', '"folder": ".", "only": ["tokenizer.json"]')
    found = plan(root, text)
    assert found.tensors["transformer"]
    assert copied_files(found, found.declaration.parts["tokenizer"]) == ["tokenizer.json"]


FORMS = [
    # (rule, {made: how numpy makes it of x (6, 4), y (6, 4)})
    ([["x", "y"], ["a", "b"], ["fuse", 0], ["split", 0, 2]], {"a": lambda x, y: x, "b": lambda x, y: y}),
    ([["x", "y"], ["a", "b"], ["fuse", 1], ["split", 0, [2, 4]]],
     {"a": lambda x, y: np.concatenate([x, y], 1)[:2], "b": lambda x, y: np.concatenate([x, y], 1)[2:]}),
    ([["x", "y"], ["b", "a"], ["transpose", [1, 0]]], {"a": lambda x, y: y.T, "b": lambda x, y: x.T}),
    ([["x", "y"], "a", ["fuse", 0, [1, 0]]], {"a": lambda x, y: np.concatenate([y, x])}),
    ([["x", "y"], "a", ["transpose", [1, 0]], ["fuse", 0], ["reshape", [2, 24]]],
     {"a": lambda x, y: np.concatenate([x.T, y.T]).reshape(2, 24)}),
    (["(x|y)", [r"\1.a", {"skip": "padding"}, r"\1.c"], ["split", 0, 3]],
     {"x.a": lambda x, y: x[:2], "x.c": lambda x, y: x[4:], "y.a": lambda x, y: y[:2], "y.c": lambda x, y: y[4:]}),
    (["x", "a", ["split", 0, 3], ["fuse", 0, [2, 0, 1]]],
     {"a": lambda x, y: np.concatenate([x[4:], x[:4]]), "y": lambda x, y: y}),
    (["x", ["a", "b"], ["split", 0, 2], ["transpose", [1, 0]]],
     {"a": lambda x, y: x[:3].T, "b": lambda x, y: x[3:].T, "y": lambda x, y: y}),
    ([["x", "y"], ["a", "b"], ["skip", "nothing reads them"]], {}),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "want"), FORMS, ids=range(len(FORMS)))
def test_every_form_of_a_rule_gives_what_numpy_gives(tmp_path, rule, want):
    """Several sources, several targets, operations before and after they are joined: written, and compared with values
    that this test makes itself."""
    held = {"x": some(6, 4), "y": some(6, 4, seed=1), "z": some(2)}
    save(tmp_path / "r/model.safetensors", held)
    found = plan(tmp_path / "r", f'COMPONENTS = {{"t": {{"class": "M", "prefix": "", "rules": [{rule!r}]}}}}')
    write(found, tmp_path / "out")
    weights = manifest.read_weights(tmp_path / "out/t")
    assert sorted(weights.tensors) == sorted([*want, "z"])
    raw = (tmp_path / "out/t/diffusion_pytorch_model.safetensors").read_bytes()
    for name, made in want.items():
        info, values = weights.tensors[name], made(held["x"], held["y"])
        assert info.shape == values.shape
        assert raw[info.start : info.end] == np.ascontiguousarray(values).tobytes(), name
    assert not verify.component(found, tmp_path / "out", "t").faults
    if {"skip": "padding"} in (rule[1] if isinstance(rule[1], list) else []):
        assert found.skipped == {"x [part 1]": "padding", "y [part 1]": "padding"}


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ([["x", "y"], "a"], r"rules\[0\] has 2 sources, and nothing joins them"),
        ([["x", "x"], "a", ["fuse", 0]], "names one source twice"),
        ([["x", "y"], "a", ["split", 0, 2], ["fuse", 0]], "splits before it joins"),
        ([["x"], [{"skip": " "}]], "needs a target, or a reason"),
        (["(x+)+y", "a"], "backtracks badly"),
        (["x", ["a", "b", "c"], ["split", 0, 2]], "x becomes 2 tensors, and 3 targets are named"),
        ([["x", "q"], "a", ["fuse", 0]], "a is made of x and q, and no key fits that"),
    ],
)
def test_a_rule_that_says_nothing_is_refused(tmp_path, rule, said):
    """What cannot be meant ends as one sentence with the rule's place or the key."""
    save(tmp_path / "r/model.safetensors", {"x": some(6, 4), "y": some(6, 4)})
    with pytest.raises(FvportError, match=said):
        plan(tmp_path / "r", f'COMPONENTS = {{"t": {{"class": "M", "prefix": "", "rules": [{rule!r}]}}}}')


def test_two_experts_with_the_same_keys(tmp_path):
    """Two files of one component each, every key in both: ownership is by file."""
    for name, seed in (("high", 1), ("low", 2)):
        save(tmp_path / f"r/{name}/model.safetensors", {"blocks.0.w": some(3, 3, seed=seed)})
    parts = {name: {"class": "M", "prefix": "", "files": [f"{name}/*"]} for name in ("high", "low")}
    found = plan(tmp_path / "r", f"COMPONENTS = {parts!r}")
    write(found, tmp_path / "out")
    for name in ("high", "low"):
        assert found.tensors[name][0].sources[0].file == f"{name}/model.safetensors"
        assert not verify.component(found, tmp_path / "out", name).faults
