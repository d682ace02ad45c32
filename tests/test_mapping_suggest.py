# SPDX-License-Identifier: Apache-2.0
"""`suggest` finds published layouts again, survives renames, and never passes a guess for knowledge."""

from __future__ import annotations

import json
import random
import re

import mapping_layouts
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner
from weights_support import Native, make_port, transformer

from fvport import spec
from fvport.cli import app
from fvport.errors import UsageError
from fvport.weights import prep, suggest_input
from fvport.weights.lint import lint
from fvport.weights.mapping import Rules, produced
from fvport.weights.operations import Tensor
from fvport.weights.suggest import solve, suggest
from fvport.weights.suggest_rules import leaf_pairs

TABLES = {name: mapping_layouts.tables(text) for name, text in mapping_layouts.LAYOUTS.items()}


def pairs(official, native):
    """{(official, native, part): whether it is certain}"""
    found = {}
    for match in solve(official, native).matches.values():
        for index, source in enumerate(match.sources):
            for mine, theirs, _ in leaf_pairs(source, match.target):
                place = index if len(match.sources) > 1 else match.part[0] if match.part else None
                found[mine, theirs, place] = match.sure
    return found


@pytest.mark.parametrize("name", TABLES)
def test_published_layouts_are_mapped_without_a_hand_edit(name):
    """Every key of a published layout goes where the published conversion puts it, merges and splits among them."""
    official, native, truth = TABLES[name]
    assert set(pairs(official, native)) == truth


@pytest.mark.parametrize("name", TABLES)
def test_suggested_rules_are_sound(name):
    """The rule list makes exactly the native names and shapes, takes no key wrongly, and lint finds no error in it."""
    official, native, _ = TABLES[name]
    found = suggest(official, native)
    made = {}
    for target, items in found.rules.apply(official).targets().items():
        made[target] = produced(items, [Tensor("F32", official[item.source]) for item in items]).shape
    assert made == native
    assert [f for f in lint(found.rules, official, native, found.passthrough) if f.severity == "error"] == []
    assert len(found.rules.rules) <= len(mapping_layouts.LAYOUTS[name].strip().splitlines()) * 2


def renamed(native, truth, seed, share):
    """Both with a share of all words replaced by words that mean nothing, one for one, and the order shuffled."""
    dice = random.Random(seed)
    known = {word for name in native for word in re.split(r"[._]", name) if word and not word.isdigit()}
    words = sorted(known - {"weight", "bias"})
    new = {w: f"x{n}{dice.choice('bdfgkz')}uq" if dice.random() < share else w for n, w in enumerate(words)}

    def said(name):
        return "".join(new.get(word, word) for word in re.split(r"([._])", name))

    items = [(said(name), shape) for name, shape in native.items()]
    dice.shuffle(items)
    return dict(items), {(mine, said(theirs), part) for mine, theirs, part in truth}


@settings(max_examples=14, deadline=None, database=None, derandomize=True)
@given(st.sampled_from(sorted(TABLES)), st.integers(0, 10**6), st.sampled_from([0.0, 0.1, 1.0]))
def test_a_pair_without_evidence_is_never_certain(name, seed, share):
    """Whatever is renamed and however it is ordered: what is called certain is right, and no key is taken twice."""
    official, native, truth = mapping_layouts.tables(mapping_layouts.LAYOUTS[name], 2)
    native, truth = renamed(native, truth, seed, share)
    found = pairs(official, native)
    assert {pair for pair, sure in found.items() if sure} <= truth
    assert share or set(found) == truth
    plain = [mine for mine, _, part in found if part is None]
    assert len(plain) == len(set(plain))


def test_twins_without_a_word_between_them_are_marked():
    """Two tensors of one shape whose names say nothing are a guess, and the other candidate is named."""
    official = {"block.foo.weight": (8, 8), "block.bar.weight": (8, 8)}
    native = {"layer.one.weight": (8, 8), "layer.two.weight": (8, 8)}
    found = suggest(official, native)
    assert len(found.ambiguous) == 2
    assert {rival for proposal in found.ambiguous for rival in proposal.rivals} == {"block.foo", "block.bar"}
    assert "guess" in found.text()


def test_names_that_contradict_the_only_shape_are_marked():
    """A unique shape does not make a pair certain when the names say the opposite."""
    found = suggest({"a.key.weight": (3, 5)}, {"a.query.weight": (3, 5)})
    assert len(found.ambiguous) == 1


def test_a_merge_whose_order_no_name_says_is_marked():
    """q, k, v and a feed-forward joined as `linear1`: all four rules are marked."""
    official = {f"s.{n}.attn.to_{w}.weight": (8, 8) for n in range(3) for w in "qkv"}
    official |= {f"s.{n}.proj_mlp.weight": (32, 8) for n in range(3)}
    found = suggest(official, {f"s.{n}.linear1.weight": (56, 8) for n in range(3)})
    assert [(rule.index, rule.count) for rule in found.rules.rules] == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert len(found.ambiguous) == 4


def test_what_has_no_partner_is_said():
    """An official key without a native name, and the other way round, are listed and not forced together."""
    found = suggest({"a.weight": (2, 2), "extra.scale": (7,)}, {"a.weight": (2, 2), "b.bias": (9,)})
    assert (found.unplaced, found.missing) == (["extra.scale"], ["b.bias"])
    assert found.passthrough == [r"a\..*"]


def test_a_reversed_container_gets_literal_rules():
    """Layers that one side counts from one are written out; the rules still map every key."""
    official = {f"h.layer{n}.fc{w}.weight": s for n in range(1, 5) for w, s in ((1, (9, 3)), (2, (3, 9)))}
    native = {f"blocks.{n}.{w}.weight": s for n in range(4) for w, s in (("fc_in", (9, 3)), ("fc_out", (3, 9)))}
    found = suggest(official, native)
    assert {item.source: item.target for item in found.rules.apply(official).placed} == {
        f"h.layer{n + 1}.fc{w}.weight": f"blocks.{n}.{fc}.weight"
        for n in range(4)
        for w, fc in ((1, "fc_in"), (2, "fc_out"))
    }


def test_reshapes_and_transposes_are_recognised():
    """A convolution of size one becomes a linear layer, a matrix is turned, each by a named operation."""
    official = {"conv.weight": (8, 4, 1, 1), "turn.weight": (3, 5)}
    found = suggest(official, {"lin.conv.weight": (8, 4), "lin.turn.weight": (5, 3)})
    said = {rule.target: [step.to_json() for step in rule.operations] for rule in found.rules.rules}
    assert said == {r"lin.conv.\1": [["reshape", [8, 4]]], r"lin.turn.\1": [["transpose", [1, 0]]]}


@pytest.mark.parametrize("form", ["json", "safetensors", "folder"])
def test_the_command_without_a_port(tmp_path, form):
    """Headers or a table of names on either side; --json is one document."""
    from safetensors.numpy import save_file

    official = tmp_path / "official"
    official.mkdir()
    save_file({"m.q.weight": np.zeros((2, 2), np.float32)}, official / "model.safetensors")
    (tmp_path / "official.json").write_text('{"m.q.weight": [2, 2]}')
    (tmp_path / "native.json").write_text('{"tensors": {"n.to_q.weight": [[2, 2], "float32"]}}')
    given_ = {"json": tmp_path / "official.json", "safetensors": official / "model.safetensors", "folder": official}
    line = ["mapping", "suggest", "--official", str(given_[form]), "--native", str(tmp_path / "native.json"), "--json"]
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 0, done.output
    rules = json.loads(done.stdout)["components"][0]["rules"]
    assert [rule[1:3] for rule in rules] == [[r"^m\.q\.(.*)$", r"n.to_q.\1"]]


@pytest.mark.parametrize("text", ["[]", "{}", '{"a": "b"}', '{"a": [1.5]}', '{"a": [-1]}', "nonsense"])
def test_a_table_that_is_none_is_refused(tmp_path, text):
    """Anything but {name: shape} ends as one sentence that says the form."""
    from fvport.errors import FvportError

    (tmp_path / "names.json").write_text(text)
    with pytest.raises(FvportError):
        suggest_input.table(tmp_path / "names.json")
    with pytest.raises(UsageError, match="nothing here"):
        suggest_input.table(tmp_path / "gone.json")


def test_a_component_of_a_port(tmp_path, monkeypatch):
    """Inside a port both sides are the component's own, and what port.toml excludes is left out."""
    port = make_port(tmp_path)
    prep.run(port)
    native = Native(monkeypatch, tmp_path / "states")
    found = suggest_input.for_port(spec.load(port.root), "transformer").components[0]
    assert found.component == "transformer"
    assert (found.unplaced, found.missing) == ([], [])
    wanted = Rules.from_fastvideo(native.names).apply(transformer()).targets()
    made = found.rules.apply(transformer()).targets()
    assert {name: [i.source for i in items] for name, items in made.items()} == {
        name: [i.source for i in items] for name, items in wanted.items()
    }


SEGMENTS = st.sampled_from(
    ["a", "b", "0", "1", "2", "10", "attn", "to_q", "q", "norm1", "x#", "(", "weight", "bias", ""]
)
NAMES = st.lists(SEGMENTS, min_size=1, max_size=4).map(".".join)
SHAPES = st.sampled_from([(), (0,), (2,), (2, 2), (4, 2), (6, 2), (2, 3), (2, 3, 1, 1)])


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(st.dictionaries(NAMES, SHAPES, max_size=9), st.dictionaries(NAMES, SHAPES, max_size=9))
def test_any_two_tables_end_in_rules_that_hold(official, native):
    """Odd names and shapes never end in a traceback, and every rule makes names that are there, of their shapes."""
    found = suggest(official, native)
    placed = [name for name in official if name not in found.unplaced]  # the others have no rule to hold
    targets = found.rules.apply(placed).targets()
    passing = [re.compile(pattern) for pattern in found.passthrough]
    for target, items in targets.items():
        if any(item.rules for item in items):
            made = produced(items, [Tensor("F32", official[item.source]) for item in items])
            assert made.shape == native[target]
        elif any(pattern.fullmatch(target) for pattern in passing):
            assert target in native
    json.dumps(found.to_json())
    assert found.text()
