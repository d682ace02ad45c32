# SPDX-License-Identifier: Apache-2.0
"""The checks mapping, keys and conversion, and the signature, on a port whose native side a test decides."""

from __future__ import annotations

import json

import numpy as np
import pytest
from weights_support import Native, make_port, transformer

from fvport import checks, spec
from fvport.errors import FvportError, UsageError
from fvport.weights import prep, review

TO_V = r"^blocks\.(\d+)\.attn1\.to_v\.(.*)$"


@pytest.fixture
def world(tmp_path, monkeypatch):
    """(port, native): locked, unsigned, everything right."""
    port = make_port(tmp_path)
    prep.run(port)
    return port, Native(monkeypatch, tmp_path / "states")


def verdicts(port, name):
    """{item name: verdict} of a check on the port as it is on disk now."""
    record = checks.module(name).run(spec.load(port.root), checks.Options())
    return {item.name: item.verdict for item in record.items}


def reasons(port, name):
    record = checks.module(name).run(spec.load(port.root), checks.Options())
    return " ".join(item.reason for item in record.items if item.verdict != "pass")


def sign(port):
    return review.review(spec.load(port.root), sign="alice")


# --- the signature ---------------------------------------------------------------------------------------------------


def test_signing_keeps_the_rest_of_the_file(world):
    """A signature adds name, date and digest, and leaves every comment and key of port.toml."""
    port, _ = world
    before = port.file.read_text()
    assert verdicts(port, "mapping") == {"transformer: rules": "pass", "transformer: signature": "fail"}
    assert sign(port).signed == ["transformer"]
    assert verdicts(port, "mapping") == {"transformer: rules": "pass", "transformer: signature": "pass"}
    changed = [line for line in port.file.read_text().splitlines() if line not in before.splitlines()]
    assert len(changed) == 1
    assert 'signed_by = "alice"' in changed[0]
    assert spec.load(port.root).components["transformer"].mapping.passthrough[0] == "table"


def test_a_component_without_a_mapping_table_can_be_signed(world):
    """A port.toml that has no mapping table, or one before sub-tables, is still valid after signing."""
    port, native = world
    text = port.file.read_text()
    line = next(line for line in text.splitlines() if line.startswith("mapping"))
    port.file.write_text(text.replace(line, '[components.transformer.config_ignored]\nx = "because"\n'))
    native.names |= {"^table$": "table", r"^blocks\.(\d+)\.norm([12])\.(.*)$": r"blocks.\1.norm\2.\3"}
    sign(port)
    component = spec.load(port.root).components["transformer"]
    assert component.mapping.signed_by == "alice"
    assert component.config_ignored == {"x": "because"}


def test_a_changed_rule_makes_the_signature_stale(world):
    """A rule changed after the signature is stale, and `diff` says which line changed."""
    port, native = world
    sign(port)
    native.names[r"^blocks\.(\d+)\.attn1\.to_out\.0\.(.*)$"] = r"blocks.\1.attn1.proj.\2"
    assert verdicts(port, "mapping")["transformer: signature"] == "fail"
    assert "changed after alice" in reasons(port, "mapping")
    lines = review.diff(spec.load(port.root)).components["transformer"]
    assert lines["state"].startswith("stale by alice")
    assert [line[0] for line in lines["changes"]] == ["-", "+"]
    assert "proj" in lines["changes"][1]


def test_a_changed_list_makes_the_signature_stale(world):
    """The declared pass-through is part of what was signed."""
    port, _ = world
    sign(port)
    port.file.write_text(port.file.read_text().replace('"table"', '"tab.*"'))
    assert verdicts(port, "mapping") == {"transformer: rules": "pass", "transformer: signature": "fail"}


def test_broken_rules_are_not_signed(world):
    """Rules with an error are refused by number, and port.toml stays as it was."""
    port, native = world
    del native.names[TO_V]
    before = port.file.read_text()
    with pytest.raises(FvportError, match="not signed: FV10"):
        sign(port)
    assert port.file.read_text() == before
    assert not (port.folder / review.SIGNED).exists()


def test_a_signature_needs_a_name_and_a_component(world):
    """An empty name and an unknown component are wrong use."""
    for name in ("  ", ""):  # "$USER" is empty in a container: the table alone would look like a signature
        with pytest.raises(UsageError, match="needs a name"):
            review.review(world[0], sign=name)
    with pytest.raises(UsageError, match='Did you mean "transformer"'):
        review.review(world[0], "transfomer")


def test_the_table_shows_each_rule(world):
    """The table has every rule with its keys and an example, and the keys that pass through."""
    result = review.review(world[0])
    text = result.text()
    assert "[0 of 3]" in text
    assert "(passes through)" in text
    assert "blocks.0.attn1.to_q.weight" in text
    assert json.dumps(result.to_json())


def test_an_undone_change_is_signed_again(world):
    """The signature is about the rules: back to what was signed, it holds, and diff is empty."""
    port, native = world
    sign(port)
    kept = dict(native.names)
    native.names["^extra$"] = "x"
    assert verdicts(port, "mapping")["transformer: signature"] == "fail"
    native.names = kept
    assert verdicts(port, "mapping")["transformer: signature"] == "pass"
    assert review.diff(spec.load(port.root)).components["transformer"]["changes"] == []


# --- the faults of the gate's table, with a fresh signature where one is possible ------------------------------------


def test_swapped_rules_show_beside_a_fresh_signature(world):
    """q and k exchanged: the rules are red although the digest is signed."""
    port, native = world
    q, k, *_ = native.names
    native.names[q], native.names[k] = native.names[k], native.names[q]
    digest = review.review(port).sheets[0].digest
    mapping = 'signed_by = "x", signed_on = "2026-01-01", digest = "' + digest + '"'
    port.file.write_text(port.file.read_text().replace('signed_by = "", signed_on = "", digest = ""', mapping))
    assert verdicts(port, "mapping") == {"transformer: FV114": "fail", "transformer: signature": "pass"}


@pytest.mark.parametrize(
    ("fault", "code"), [("deleted", "FV104"), ("incomplete", "FV106"), ("two sources", "FV105"), ("typo", "FV102")]
)
def test_rule_faults_are_red_in_mapping_and_keys(world, fault, code):
    """A rule deleted, a merge incomplete, two sources to one target, a rule that never fires: red in both checks."""
    port, native = world
    out = next(name for name in native.names if "to_out" in name)
    if fault == "deleted":
        del native.names[out]
    elif fault == "incomplete":
        del native.names[TO_V]
    elif fault == "typo":
        native.names[out.replace("to_out", "to_uot")] = native.names.pop(out)
    else:
        native.names[r"^blocks\.(\d+)\.norm2\.(.*)$"] = r"blocks.\1.norm1.\2"
    assert verdicts(port, "mapping")[f"transformer: {code}"] == "fail"
    assert "fail" in verdicts(port, "keys").values()


# --- keys ------------------------------------------------------------------------------------------------------------


def test_keys_agree(world):
    """A right port has one passing item for each component."""
    assert verdicts(world[0], "keys") == {"transformer: keys": "pass"}


@pytest.mark.parametrize(
    ("change", "problem", "word"),
    [
        ({"blocks.0.norm3.weight": ((4,), "float32")}, "missing", "blocks.0.norm3.weight"),
        ({"blocks.0.norm1.weight": ((5,), "float32")}, "shape", "[5]"),
        ({"blocks.0.attn1.to_qkv.weight": ((13, 4), "float32")}, "shape", "[13, 4]"),
        ({"blocks.0.norm1.weight": ((4,), "bfloat16")}, "dtype", "BF16"),
        ({"blocks.0.norm1.weight": ((4,), "int64")}, "dtype", "I64"),
    ],
)
def test_keys_that_differ_are_named(world, change, problem, word):
    """Missing names, other shapes, narrower or other dtypes are an item each, with the name."""
    port, native = world
    native.meta_override = change
    assert verdicts(port, "keys") == {f"transformer: {problem}": "fail"}
    assert word in reasons(port, "keys")


def test_an_unexpected_key_has_a_hint(world):
    """A target that the native model lacks is listed, layers collapsed, with the nearest native name."""
    port, native = world
    for n in range(2):
        native.state[f"blocks.{n}.attn1.to_output.weight"] = native.state.pop(f"blocks.{n}.attn1.to_out.weight")
    said = reasons(port, "keys")
    assert "blocks.{0,1}.attn1.to_out.weight" in said
    assert 'Did you mean "blocks.0.attn1.to_output.weight"' in said


def test_excluding_everything_is_not_green(world):
    """Exclusions that leave nothing to compare block the rows instead of passing them."""
    port, native = world
    native.names = {}
    everything = 'exclude = { ".*" = "no", "native:.*" = "no" }, signed_by'
    text = port.file.read_text().replace("signed_by", everything, 1)
    port.file.write_text(text)
    assert verdicts(port, "keys") == {"transformer: keys": "blocked"}
    assert verdicts(port, "mapping")["transformer: rules"] == "blocked"
    assert verdicts(port, "conversion")["transformer: values"] == "blocked"


def test_a_wider_float_is_no_difference(world):
    """A float that the load widens exactly is the same key."""
    port, native = world
    native.meta_override = {"table": ((2, 4), "float64")}
    assert verdicts(port, "keys") == {"transformer: keys": "pass"}


def test_missing_weights_are_blocked(world):
    """Without the official weights the check is blocked, not red and not green."""
    port, _ = world
    (port.official_weights / "transformer/diffusion_pytorch_model.safetensors").unlink()
    assert checks.run_check(port, "keys").verdict == "blocked"


# --- conversion ------------------------------------------------------------------------------------------------------


def test_a_right_load_passes(world):
    """Every tensor that the loader made holds its sources."""
    assert verdicts(world[0], "conversion") == {"transformer: values": "pass"}


@pytest.mark.parametrize("fault", ["not copied", "zero-filled", "dropped", "invented", "swapped"])
def test_a_loader_that_lies_is_caught(world, fault):
    """A tensor that was reported and not copied, filled with zeros, dropped, invented or exchanged: named."""
    port, native = world
    name = "blocks.1.attn1.to_out.weight"
    if fault == "not copied":
        native.state[name] = np.ones((4, 4), np.float32)
    elif fault == "zero-filled":
        native.state[name] = np.zeros((4, 4), np.float32)
    elif fault == "dropped":
        del native.state[name]
    elif fault == "invented":
        name = "proj_l.weight"
        native.state[name] = np.zeros(4, np.float32)
    else:
        native.state[name] = transformer()["blocks.0.attn1.to_out.0.weight"]
    problem = {"not copied": "differs", "zero-filled": "zero_filled", "dropped": "missing", "invented": "uncovered"}
    assert verdicts(port, "conversion") == {f"transformer: {problem.get(fault, 'swapped')}": "fail"}
    assert name in reasons(port, "conversion")


def test_a_load_that_made_nothing_is_not_green(world):
    """A state dict without a tensor leaves the row red or blocked."""
    port, native = world
    native.state = {}
    assert verdicts(port, "conversion")["transformer: values"] == "blocked"


def test_a_loader_that_raises_is_an_item(world, monkeypatch):
    """What the loader says is the reason, at the component."""
    from fvport.models import native as models

    def refuse(port, what, name, device="auto"):
        raise FvportError("FastVideo's loader raised KeyError: 'x'")

    monkeypatch.setattr(models, "ask", refuse)
    assert verdicts(world[0], "conversion") == {"transformer: load": "fail"}


@pytest.mark.parametrize("name", ["mapping", "keys", "conversion"])
def test_the_record_depends_on_what_was_read(world, name):
    """Each check names its components as expected, and the lock, the native file and the declaration as inputs."""
    port, _ = world
    module = checks.module(name)
    assert all(item.startswith("transformer: ") for item in module.expected(port))
    needed = {"weights:transformer", "port:components.transformer", "tree:fastvideo", "package:torch"}
    assert needed <= set(module.inputs(port))
    sign(port)
    record = checks.run_check(spec.load(port.root), name)
    assert record.verdict == "pass"
    assert set(module.expected(port)) <= {item.name for item in record.items}
