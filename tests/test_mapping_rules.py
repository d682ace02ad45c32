# SPDX-License-Identifier: Apache-2.0
"""Rules do what FastVideo does with them, and each numbered finding appears when it should and not otherwise."""

from __future__ import annotations

import ast
import functools
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from weights_support import NAMES_MAPPING, PASSTHROUGH, native_of, transformer

from fvport.errors import UsageError
from fvport.weights import lint
from fvport.weights.mapping import Rules


@functools.cache
def fastvideos_function():
    """FastVideo's own `get_param_names_mapping`, taken from its source so that FastVideo is not imported."""
    file = next(f for f in metadata.files("fastvideo") or [] if str(f).endswith("models/loader/utils.py")).locate()
    tree = ast.parse(Path(str(file)).read_text(encoding="utf-8"))
    function = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "get_param_names_mapping")
    function.returns, function.args.args[0].annotation = None, None
    for inner in ast.walk(function):
        if isinstance(inner, ast.FunctionDef):
            inner.returns = None
    scope: dict[str, Any] = {"re": re}
    exec(compile(ast.Module([function], []), "utils", "exec"), scope)  # noqa: S102
    return scope["get_param_names_mapping"]


NAMES = ["a.0.q", "a.10.q.weight", "ab", "a.a", "q", "a.1.k.bias", "table"]
PATTERNS = [r"^a\.(\d+)\.q(.*)$", r"a\.(\d)", r"a", r"^(.*)\.weight$", r"(q|k)", r"^a\.(\d+)\.(.*)$", r"b$"]


@settings(max_examples=60, deadline=None, database=None)
@given(st.lists(st.tuples(st.sampled_from(PATTERNS), st.sampled_from(["x", r"y.\g<0>"]), st.booleans()), max_size=5))
def test_renames_are_fastvideos(entries):
    """Any rule list gives each name the target, index and count that FastVideo's own function gives it."""
    table = {pattern: (target, 1, 2) if merge else target for pattern, target, merge in entries}
    theirs, ours = fastvideos_function()(table), Rules.from_fastvideo(table)
    for name in NAMES:
        item = ours.place(name)
        assert (item.target, item.index, item.count) == theirs(name)


def test_stacked_rules_fuse_in_the_order_of_their_shards():
    """The first part contained in the name wins; q, k, v and 0, 1 say the order."""
    rules = Rules.from_fastvideo(
        None, [(".qkv_proj", ".v_proj", "v"), (".qkv_proj", ".q_proj", "q"), (".qkv_proj", ".k_proj", "k")]
    )
    found = rules.apply(["l.0.k_proj.weight", "l.0.v_proj.weight", "l.0.q_proj.weight"]).targets()
    assert [item.source for item in found["l.0.qkv_proj.weight"]] == [f"l.0.{p}_proj.weight" for p in "qkv"]
    gate = Rules.from_fastvideo(None, [(".gate_up", ".gate", 0), (".gate_up", ".up", 1)])
    assert [p.source for p in gate.apply(["m.up.w", "m.gate.w"]).targets()["m.gate_up.w"]] == ["m.gate.w", "m.up.w"]


def test_renames_come_before_stacking():
    """A name that a rename takes is not stacked as well; one that none takes may be."""
    rules = Rules.from_fastvideo({r"^enc\.(.*)$": r"encoder.\1"}, [(".qkv", ".q", "q"), (".qkv", ".k", "k")])
    item = rules.place("enc.0.q.weight")
    assert (item.target, item.index, item.rules) == ("encoder.0.q.weight", None, (0,))
    item = rules.place("dec.0.k.weight")
    assert (item.target, item.index, item.count, item.rules) == ("dec.0.qkv.weight", 1, 2, (2,))


def test_rules_round_trip():
    """FastVideo's form and JSON both come back as they were."""
    stacked = [(".qkv", ".q", "q"), (".qkv", ".k", "k")]
    rules = Rules.from_fastvideo(NAMES_MAPPING, stacked)
    assert rules.to_fastvideo() == (NAMES_MAPPING, stacked)
    assert Rules.from_json(rules.to_json()) == rules
    with pytest.raises(UsageError, match="not a rule list"):
        Rules.from_json({"rules": [[1]]})


def test_the_digest_is_about_the_rules():
    """A rule's text, its place and the lists change the digest; where it was declared does not."""
    one = Rules.from_fastvideo({"a": "b", "c": "d"}, source="here")
    assert one.digest() == Rules.from_fastvideo({"a": "b", "c": "d"}, source="there").digest()
    others = [Rules.from_fastvideo({"c": "d", "a": "b"}).digest(), Rules.from_fastvideo({"a": "b", "c": "e"}).digest()]
    others += [one.digest(["x"]), one.digest([], {"x": "because"}), one.digest(accept={"FV114": "because"})]
    assert len({one.digest(), *others}) == 6


# --- lint ------------------------------------------------------------------------------------------------------------

SHAPES = {name: array.shape for name, array in transformer().items()}
NATIVE = {name: array.shape for name, array in native_of(transformer()).items()}


def codes(mapping=None, shapes=None, native=None, passthrough=PASSTHROUGH, severity="error", stacked=None, **more):
    rules = Rules.from_fastvideo(NAMES_MAPPING if mapping is None else mapping, stacked)
    found = lint.lint(rules, shapes or SHAPES, NATIVE if native is None else native, passthrough, **more)
    return {finding.code for finding in found if finding.severity == severity}


def changed(old: str, new: Any, value: Any = None) -> dict[str, Any]:
    """NAMES_MAPPING with one pattern replaced (`new` a pattern), or its target (`value`), or removed (`new` None)."""
    table: dict[str, Any] = {}
    for pattern, target in NAMES_MAPPING.items():
        if old not in pattern:
            table[pattern] = target
        elif new is not None:
            table[new or pattern] = target if value is None else value
    return table


def test_good_rules_have_no_error():
    """The rules of the fixture are clean, and still name the parts that share a shape for the reviewer."""
    assert codes() == set()
    assert "FV113" in codes(severity="note")


def test_groups_that_keep_their_names_are_one_note():
    """Nobody can doubt a pairing of equal names, so thirty of them do not hide the one that was chosen."""
    official = {f"blocks.{n}.{name}.w": (4, 4) for n in range(2) for name in ("q", "k", "v", "fc1", "fc2")}
    found = lint.lint(Rules.from_fastvideo({}), official, official, (r".*",))
    kept = [f for f in found if f.code == "FV113"]
    assert len(kept) == 1
    assert "2 groups of tensors of one shape keep their official names: q/k/v of blocks.#.*.w" in kept[0].message
    assert "blocks.0.fc2.w" in kept[0].names


def qkv(part: str, index: int) -> tuple[str, int, int]:
    return (r"blocks.\1.attn1.to_qkv.\2", index, 3)


def exchanged() -> dict[str, Any]:
    """NAMES_MAPPING with the merge places of q and k exchanged."""
    table = dict(NAMES_MAPPING)
    q, k, *_ = table
    table[q], table[k] = table[k], table[q]
    return table


NORM2 = r"^blocks\.(\d+)\.norm2\.(.*)$"
OUT = r"^blocks\.(\d+)\.attn1\.to_out\.0\.(.*)$"
RED = {
    "FV101 bad regex": ("FV101", {"mapping": {**NAMES_MAPPING, "(": "x"}}),
    "FV101 bad group": ("FV101", {"mapping": {**NAMES_MAPPING, "^x$": r"\3"}}),
    "FV101 bad list": ("FV101", {"passthrough": ["("]}),
    "FV102 unused": ("FV102", {"mapping": {**NAMES_MAPPING, r"^block\.(\d+)\.x$": "y"}}),
    "FV103 shadowed": ("FV103", {"mapping": {OUT.replace("0", "."): r"blocks.\1.attn1.to_out.\2", **NAMES_MAPPING}}),
    "FV104 undeclared": ("FV104", {"passthrough": ["table"]}),
    "FV104 rule deleted": ("FV104", {"mapping": changed("to_out", None)}),
    "FV105 collision": ("FV105", {"mapping": {**NAMES_MAPPING, NORM2: r"blocks.\1.norm1.\2"}}),
    "FV106 incomplete": ("FV106", {"mapping": changed("to_v", None)}),
    "FV107 same index": ("FV107", {"mapping": changed("to_v", "", qkv("v", 1))}),
    "FV107 another count": ("FV107", {"mapping": changed("to_v", "", (r"blocks.\1.attn1.to_qkv.\2", 2, 4))}),
    "FV107 out of range": ("FV107", {"mapping": changed("to_v", "", qkv("v", 3))}),
    "FV110 no target": ("FV110", {"mapping": changed("to_out", "", r"blocks.\1.attn1.to_uot.\2")}),
    "FV111 no source": ("FV111", {"native": {**NATIVE, "extra.weight": (4,)}}),
    "FV114 q and k exchanged": ("FV114", {"mapping": exchanged()}),
    "FV116 no reason": ("FV116", {"exclude": {"table": " "}}),
}  # fmt: skip


@pytest.mark.parametrize("case", RED)
def test_each_finding_appears(case):
    """Each fault is found under its own number."""
    code, change = RED[case]
    assert code in codes(**change)


def test_order_and_identity_are_notes():
    """A rule that could take another's key, and one that renames nothing, are told to the reviewer."""
    general = {**changed("to_out", None), OUT: NAMES_MAPPING[OUT], r"^blocks\.(\d+)\.(.*)$": r"blocks.\1.\2"}
    assert {"FV109", "FV112"} <= codes(general, passthrough=["table"], severity="note")


def test_an_idle_list_is_a_note():
    """A declared pass-through that concerns no key is told."""
    assert "FV116" in codes(passthrough=[*PASSTHROUGH, "never"], severity="note")


def test_a_single_digit_group_is_caught():
    """`blocks\\.(\\d)` takes `blocks.1` out of `blocks.10`: the rest of the number would be glued on."""
    shapes = {f"blocks.{n}.norm1.weight": (4,) for n in range(12)}
    found = codes({r"^blocks\.(\d)": r"layers.\1"}, shapes, dict(shapes), [])
    assert "FV108" in found


def test_a_pattern_that_replaces_twice_is_caught():
    """`re.sub` replaces everywhere; an unanchored pattern may hit a second place."""
    assert "FV108" in codes({"norm": "ln"}, {"norm.norm.weight": (4,)}, {"ln.ln.weight": (4,)}, [])


ATTN = {"b.attn1.w": (4,), "b.attn2.w": (4,)}
PLAIN = {"a.to_q.weight": (4, 4), "a.to_k.weight": (4, 4)}
SWAPS = [
    ({"^a.to_q.(.*)$": r"a.q_proj.\1", "^a.to_k.(.*)$": r"a.k_proj.\1"}, PLAIN, False),
    ({"^a.to_q.(.*)$": r"a.k_proj.\1", "^a.to_k.(.*)$": r"a.q_proj.\1"}, PLAIN, True),
    ({"^a.norm_q$": "a.norm_k", "^a.norm_k$": "a.norm_q"}, {"a.norm_q": (4,), "a.norm_k": (4,)}, True),
    ({"^b.attn1.(.*)$": r"b.cross_attn.\1", "^b.attn2.(.*)$": r"b.self_attn.\1"}, ATTN, True),
    ({"^b.attn1.(.*)$": r"b.self_attn.\1", "^b.attn2.(.*)$": r"b.cross_attn.\1"}, ATTN, False),
    ({"^m.gate$": ("m.gate_up", 1, 2), "^m.up$": ("m.gate_up", 0, 2)}, {"m.gate": (4,), "m.up": (4,)}, True),
    ({"^m.gate$": ("m.up_gate", 1, 2), "^m.up$": ("m.up_gate", 0, 2)}, {"m.gate": (4,), "m.up": (4,)}, False),
    ({"^m.gate$": ("m.gate_up", 0, 2), "^m.up$": ("m.gate_up", 1, 2)}, {"m.gate": (4,), "m.up": (4,)}, False),
    ({"^n.scale$": "n.shift", "^n.shift$": "n.scale"}, {"n.scale": (4,), "n.shift": (4,)}, True),
    ({"^x.norm1$": "x.norm2", "^x.norm2$": "x.norm1"}, {"x.norm1": (4,), "x.norm2": (4,)}, True),
    ({"^x.norm1.w$": "y.norm2.w", "^x.norm2.w$": "y.norm1.w"}, {"x.norm1.w": (4,), "x.norm2.w": (4,)}, True),
    ({"^e.linear_1$": "e.fc_out", "^e.linear_2$": "e.fc_in"}, {"e.linear_1": (4,), "e.linear_2": (4,)}, True),
    ({"^e.linear_1$": "e.fc_in", "^e.linear_2$": "e.fc_out"}, {"e.linear_1": (4,), "e.linear_2": (4,)}, False),
    ({"^t.txt_in$": "t.img_in", "^t.img_in$": "t.txt_in"}, {"t.txt_in": (4,), "t.img_in": (4,)}, True),
    ({"^blocks.1.w$": "blocks.2.w", "^blocks.2.w$": "blocks.1.w"}, {"blocks.1.w": (4,), "blocks.2.w": (4,)}, True),
]  # fmt: skip


@pytest.mark.parametrize(("mapping", "shapes", "wrong"), SWAPS)
def test_names_that_contradict_look_swapped(mapping, shapes, wrong):
    """Sources and targets whose names say different parts are an error; agreeing names are none."""
    escaped = {pattern.replace(".", r"\.").replace(r"(\.*)", "(.*)"): target for pattern, target in mapping.items()}
    native = {item.target: (1,) for item in Rules.from_fastvideo(escaped).apply(shapes).placed}
    found = codes(escaped, shapes, native, [])
    assert ("FV114" in found) is wrong


def test_a_swapped_stacked_rule_looks_swapped():
    """A stacked rule that gives `.q_proj` the place of k is an error, too."""
    stacked = [(".qkv_proj", ".q_proj", "k"), (".qkv_proj", ".k_proj", "q"), (".qkv_proj", ".v_proj", "v")]
    shapes = {f"l.0.{part}_proj.weight": (4, 4) for part in "qkv"}
    assert codes({}, shapes, {"l.0.qkv_proj.weight": (12, 4)}, [], stacked=stacked) == {"FV114"}


def test_an_accepted_finding_needs_a_reason():
    """A finding that a person says is right becomes a note with the reason; without a reason it stays."""
    swap = {"^n\\.scale$": "n.shift", "^n\\.shift$": "n.scale"}
    shapes = {"n.scale": (4,), "n.shift": (4,)}
    assert "FV114" in codes(swap, shapes, dict(shapes), [], accept={"FV114": ""})
    assert "FV114" not in codes(swap, shapes, dict(shapes), [], accept={"FV114 n\\..*": "the release names them so"})
    assert "FV114" in codes(swap, shapes, dict(shapes), [], accept={"FV114 other": "elsewhere"})


def test_a_lost_tensor_is_never_accepted():
    """What loses or mixes tensors stays an error, whatever reason is written."""
    table = {**NAMES_MAPPING, NORM2: r"blocks.\1.norm1.\2"}
    assert "FV105" in codes(table, accept={"FV105": "because"})


def test_reuse_keeps_only_what_loses_tensors():
    """An existing class's rules may be untidy; a collision among them is still an error."""
    unused = {**NAMES_MAPPING, r"^never$": "x"}
    assert codes(unused, reuse=True) == set()
    both = {**NAMES_MAPPING, r"^blocks\.(\d+)\.norm2\.(.*)$": r"blocks.\1.norm1.\2"}
    assert "FV105" in codes(both, reuse=True)


def test_excluded_keys_and_native_buffers():
    """What is excluded, on either side, with a reason, is no finding but a note."""
    exclude = {"extra": "training only", "native:rope.*": "computed at construction"}
    shapes, native = {**SHAPES, "extra": (4,)}, {**NATIVE, "rope.freqs": (4,)}
    assert codes(shapes=shapes, native=native, exclude=exclude) == set()
    assert codes(shapes=shapes, native=native) == {"FV104", "FV110", "FV111"}


def test_every_rule_has_a_sentence():
    """Each number has one sentence that says what it is about."""
    assert len(lint.RULES) == 20
    assert all(lint.sentence(code).endswith(".") for code in lint.RULES)


def test_lint_of_a_large_model_is_quick():
    """Two thousand keys are looked at in well under two seconds of work."""
    tensors = {name: np.empty(0).shape for n in range(300) for name in transformer(1)}
    shapes = {name.replace("blocks.0", f"blocks.{n}"): (4, 4) for n in range(340) for name in tensors}
    assert len(shapes) > 2000
    assert lint.lint(Rules.from_fastvideo(NAMES_MAPPING), shapes, None, PASSTHROUGH) != []
