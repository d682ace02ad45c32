# SPDX-License-Identifier: Apache-2.0
"""A declaration is read as literals, never executed; what is wrong in it is named by line and key."""

from __future__ import annotations

import contextlib

import pytest
from convert_support import TEXT
from hypothesis import given
from hypothesis import strategies as st

from fvport.errors import FvportError, UsageError
from fvport.weights import declaration


def test_a_declaration_is_read():
    """Components, rules, operations, skips and plain values of the index come out as written."""
    found = declaration.parse(TEXT + 'INDEX = {"boundary_ratio": None}\nSHARD_BYTES = 10\n', "x.py")
    assert found.pipeline == ("diffusers", "WanPipeline")
    assert list(found.parts) == ["transformer", "vae", "tokenizer", "scheduler"]
    part = found.parts["transformer"]
    assert part.prefixes == ("dit.",)
    step, *rules = part.names.rules
    assert (step.form, step.pattern, step.target) == ("step", r"^layers\.", "blocks.")
    assert [rule.declared for rule in rules] == ["rules[0]"] * 3 + ["rules[1]"] * 2 + ["rules[2]"]
    assert [str(operation) for operation in rules[-1].operations] == ["transpose([1, 0])", "cast(F16)"]
    assert [(rule.output, rule.outputs) for rule in rules[:3]] == [(0, 3), (1, 3), (2, 3)]
    assert found.parts["vae"].config == ("config.json",)
    assert found.parts["tokenizer"].copied
    assert found.index == {"boundary_ratio": None}
    assert found.shard_bytes == 10


def test_nothing_is_executed(tmp_path):
    """Code in the file does not run, wherever it stands."""
    planted = tmp_path / "ran"
    code = f"import pathlib\npathlib.Path({str(planted)!r}).touch()\nOTHER = pathlib.Path({str(planted)!r}).touch()\n"
    declaration.parse(code + TEXT, "x.py")
    with pytest.raises(UsageError, match="SKIP is not a plain literal"):
        declaration.parse(TEXT.partition("SKIP")[0] + f"SKIP = open({str(planted)!r}, 'w')\n", "x.py")
    assert not planted.exists()


def test_a_name_stands_for_what_was_assigned_above():
    """A config may have a name of its own, and be part of another."""
    text = 'BASE = {"a": 1}\nCONFIG = {**BASE, "b": [2]}\n'
    text += 'COMPONENTS = {"t": {"class": "M", "prefix": "", "config": CONFIG}}\n'
    assert declaration.parse(text, "x.py").parts["t"].config == {"a": 1, "b": [2]}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"prefix": "dit."', '"prefx": "dit."', r'COMPONENTS.transformer.prefx is no key .*Did you mean "prefix"'),
        ('["split", 0, 3]', '["splt", 0, 3]', r'rules\[0\] holds a wrong operation.*Did you mean "split"'),
        (r'r"(.*)\.down"', 'r"(.*down"', r"rules\[2\] .* is no regular expression"),
        (r'r"\1.down"', r'r"\2.down"', r"rules\[2\] .* does not go with"),
        ('"average of training"', '""', "SKIP .* needs a reason"),
        ('"folder": "tok"', '"folder": "../tok"', "must be a folder inside the release"),
        ('"folder": "tok"', '"folder": "tok", "prefix": "x"', "is copied as it is"),
        ('["diffusers", "WanTransformer3DModel"]', '["diffusers"]', r'class must be \["library", "Class"\]'),
        ("COMPONENTS =", "COMPONENT =", 'Did you mean "COMPONENT"'),
        ('"vae": {', '"transformer": {', "is there twice"),
        ("SKIP = {", "SKIP = {,", "is not Python"),
        ('[[r"^layers', '[[7, r"^layers', r"rename\[0\] must be"),
    ],
)
def test_what_is_wrong_is_named(old, new, said):
    """A mistake ends as one sentence with the place and, where there is one, the nearest right word."""
    assert old in TEXT
    with pytest.raises(UsageError, match=said):
        declaration.parse(TEXT.replace(old, new, 1), "x.py")


def test_the_digest_is_about_what_is_declared():
    """Comments and layout change nothing; a rule, its place, a reason or another component's prefix do."""
    base = declaration.parse(TEXT, "x.py")
    assert declaration.parse("# a comment\n" + TEXT.replace("    ", "  "), "y.py").digest() == base.digest()
    for old, new in (('"dit."', '"dot."'), ("average", "mean"), ('["split", 0, 3]', '["split", 0, [4, 4, 4]]')):
        other = declaration.parse(TEXT.replace(old, new), "x.py")
        assert other.digest() != base.digest()
        assert other.digest("transformer") != base.digest("transformer")
    vae = declaration.parse(TEXT.replace('"vae."', '"vee."'), "x.py")
    assert vae.digest("transformer") == base.digest("transformer")
    assert vae.digest("vae") != base.digest("vae")


@given(st.text(max_size=60), st.integers(0, len(TEXT)))
def test_any_text_ends_in_a_sentence(text, place):
    """Whatever stands in the file, reading it gives a declaration or an error of ours."""
    for source in (text, TEXT[:place] + text + TEXT[place:], TEXT[:place]):
        with contextlib.suppress(FvportError):
            declaration.parse(source, "x.py")
