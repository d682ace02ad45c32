# SPDX-License-Identifier: Apache-2.0
"""A port whose release has to be converted: the verb, the two links that its checks look at, what makes them red."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_convert_tree import damage
from typer.testing import CliRunner
from weights_support import PORT, SCHEDULER, Native, save, save_json, transformer

from fvport import evidence as ev
from fvport import spec
from fvport.checks import Options, conversion, keys, mapping
from fvport.errors import BlockedError, FvportError, UsageError
from fvport.verbs import app
from fvport.verbs import gate as _gate  # noqa: F401 - handoff
from fvport.verbs import weights as _  # noqa: F401 - the verb
from fvport.weights import convert, converter, declaration, prep, retries, review

RAW = PORT.replace('library = "diffusers"', 'library = "diffusers"\nlayout = "monolithic"\nneeds_conversion = true')
SCRIPT = """
PIPELINE = "WanPipeline"
COMPONENTS = {
    "transformer": {
        "class": ["diffusers", "WanTransformer3DModel"],
        "prefix": "dit.",
        "config": {"num_layers": 2, "eps": 1e-6},
        "rename": [[r"^layers\\.", "blocks."], [r"\\.attn\\.", ".attn1."], [r"attn1\\.o\\.", "attn1.to_out.0."]],
        "rules": [[r"(.*)\\.qkv\\.(.*)", [r"\\1.to_q.\\2", r"\\1.to_k.\\2", r"\\1.to_v.\\2"], ["split", 0, 3]]],
    },
    "scheduler": {"class": ["diffusers", "FlowScheduler"], "config": {"shift": 3.0, "new_key": 1}},
    "tokenizer": {"class": ["transformers", "T5TokenizerFast"], "folder": "tokenizer"},
}
SKIP = {r"^ema\\.": "average of training"}
"""


def raw(held):
    """The release's own form of the tiny stack: q, k and v as one, other names, an average beside."""
    found = {"ema.x": np.zeros(3, np.float32)}
    for name, value in held.items():
        new = name.replace("blocks.", "layers.").replace("attn1", "attn").replace("to_out.0", "o")
        if ".to_q." in name:
            parts = [held[name.replace("to_q", part)] for part in ("to_q", "to_k", "to_v")]
            found[f"dit.{new}".replace("to_q", "qkv")] = np.concatenate(parts)
        elif ".to_k." not in name and ".to_v." not in name:
            found[f"dit.{new}"] = value
    return found


def make(root, script=SCRIPT):
    release = root / "official_weights/demo"
    save(release / "model.safetensors", raw(transformer()))
    save_json(release / "tokenizer/tokenizer_config.json", {"tokenizer_class": "T5TokenizerFast"})
    files = {
        "tests/local_tests/demo/port.toml": RAW,
        "fastvideo/models/schedulers/flow.py": SCHEDULER,
        "scripts/checkpoint_conversion/demo_to_diffusers.py": script,
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return spec.load(root)


@pytest.fixture
def port(tmp_path):
    found = make(tmp_path)
    assert prep.run(found).open  # locked; the tree waits for the conversion
    return found


@pytest.fixture
def native(monkeypatch, tmp_path):
    return Native(monkeypatch, tmp_path)


def items(record):
    return {item.name: item for item in record.items}


def test_convert_makes_both_trees(port):
    """The release's weights under official names, and the load tree that names the port's classes and links them."""
    result = converter.run(port)
    assert result.made
    assert result.components["transformer"]["tensors"] == 13
    assert result.skipped == {"average of training": 1}
    assert (
        json.loads((port.load_tree / "transformer/config.json").read_text())["_class_name"] == "DemoTransformer3DModel"
    )
    link = port.load_tree / "transformer/diffusion_pytorch_model.safetensors"
    assert link.resolve() == (port.official_tree / "transformer" / link.name).resolve()
    assert not converter.run(port).made


def test_all_checks_are_green_and_say_both_links(port, native):
    """mapping, keys and conversion have items of the first link beside those that any release has."""
    converter.run(port)
    for check, word in ((mapping, "declaration"), (keys, "converted keys"), (conversion, "from the release")):
        record = check.run(port, Options())
        found = items(record)
        assert found[f"transformer: {word}"].verdict == "pass"
        assert set(check.expected(port)) - {"transformer: signature"} <= set(found)
        bad = [name for name, item in found.items() if item.verdict != "pass"]
        assert bad == (["transformer: signature"] if check is mapping else [])
    assert any("average of training" in note for note in mapping.run(port, Options()).notes)


def test_without_a_conversion_everything_is_blocked(port, native):
    """The command is named, and nothing is green."""
    for check in (mapping, keys, conversion):
        with pytest.raises(BlockedError, match="Run: fvport convert"):
            check.run(port, Options())


def test_another_declaration_or_release_makes_the_tree_stale(port):
    """A declaration that changed, or weights that did, need another conversion."""
    converter.run(port)
    script = declaration.script(port)
    script.write_text(SCRIPT.replace("average of training", "a mean"))
    with pytest.raises(BlockedError, match="by another declaration"):
        convert.build_load_tree(port)
    script.write_text(SCRIPT)
    convert.build_load_tree(port)
    file = port.official_weights / "model.safetensors"
    data = file.read_bytes()
    file.unlink()
    file.write_bytes(data)
    with pytest.raises(BlockedError, match="another release"):
        convert.build_load_tree(port)


@pytest.mark.parametrize("name", ["blocks.1.attn1.to_k.weight", "table"])
def test_a_changed_converted_tensor_is_red_and_named(port, native, name):
    """The first link: a value of the converted tree that the release does not give."""
    converter.run(port)
    damage(port.official_tree, "transformer", name, lambda values: values + 1)
    found = items(conversion.run(port, Options()))
    assert name in found["transformer: from the release: differs"].reason
    assert found["load tree"].verdict == "fail"
    with pytest.raises(FvportError, match="was changed after the conversion"):
        keys.run(port, Options())


def test_a_fault_behind_the_conversion_is_red_and_named(port, native):
    """The second link: the converted tree is right, and the loader leaves a tensor out or fills another."""
    converter.run(port)
    native.state["table"] = native.state["table"] * 0
    native.state["blocks.0.norm1.weight"], native.state["blocks.0.norm2.weight"] = (
        native.state["blocks.0.norm2.weight"],
        native.state["blocks.0.norm1.weight"],
    )
    found = items(conversion.run(port, Options()))
    assert found["transformer: from the release"].verdict == "pass"
    assert "table" in found["transformer: zero_filled"].reason
    assert "blocks.0.norm1.weight" in found["transformer: swapped"].reason


def test_a_wrongly_declared_name_is_red_in_keys(port, native):
    """A declaration that fits the release and not the model: what the native side lacks a source for is named."""
    declaration.script(port).write_text(SCRIPT.replace("attn1.to_out.0.", "attn1.out."))
    converter.run(port)
    assert "blocks.{0,1}.attn1.to_out.weight" in items(keys.run(port, Options()))["transformer: missing"].reason


def test_the_signature_covers_the_declaration(port, native):
    """Another declared rule is another mapping: the signature is stale, and records are."""
    from fvport.weights import sides

    converter.run(port)
    review.review(port, sign="alice")
    signed = spec.load(port.root)
    assert items(mapping.run(signed, Options()))["transformer: signature"].verdict == "pass"
    before = ev.digest(signed, "weights:transformer")
    swapped = SCRIPT.replace(r'r"\1.to_q.\2", r"\1.to_k.\2"', r'r"\1.to_k.\2", r"\1.to_q.\2"')
    assert swapped != SCRIPT
    declaration.script(port).write_text(swapped)
    converter.run(signed)
    assert "changed after alice" in items(mapping.run(signed, Options()))["transformer: signature"].reason
    assert ev.digest(signed, "weights:transformer") != before
    assert sides.inputs(signed)


def test_a_changed_tree_makes_records_stale(port):
    """The gate sees a converted file that was written again, without reading it."""
    converter.run(port)
    before = ev.digest(port, "weights:transformer")
    damage(port.official_tree, "transformer", "table", lambda values: values + 1)
    assert ev.digest(port, "weights:transformer") != before


# --- the verb --------------------------------------------------------------------------------------------------------


def run(port, *words):
    return CliRunner().invoke(app, ["convert", "--port", str(port.root), *map(str, words)])


def test_the_verb(port):
    """Text for people, one JSON document for tools."""
    done = run(port)
    assert done.exit_code == 0
    assert "left out: 1 keys, average of training" in done.stdout
    document = json.loads(run(port, "--json").stdout)
    assert document["made"] is False
    assert document["components"]["transformer"]["computed"] == 0


def test_a_release_that_needs_none_is_told(tmp_path):
    """A Diffusers release is not converted."""
    from weights_support import make_port

    with pytest.raises(FvportError, match="needs_conversion is false"):
        converter.run(make_port(tmp_path))


def test_an_undeclared_conversion_is_blocked(port):
    """Without the script the place of it is named."""
    declaration.script(port).unlink()
    with pytest.raises(BlockedError, match=r"demo_to_diffusers\.py: the conversion is not declared"):
        converter.run(port)


def test_the_script_converts_by_itself(port, tmp_path, capsys):
    """SOURCE and TARGET suffice, without a port."""
    converter.main(str(declaration.script(port)), [str(port.official_weights), str(tmp_path / "out")])
    assert "made" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        converter.main(str(declaration.script(port)), [str(tmp_path / "nothing"), str(tmp_path / "out2")])
    assert ended.value.code == 3


# --- a component's check asks again ----------------------------------------------------------------------------------

REQUEST = {
    "component": "transformer",
    "parity_test": "tests/local_tests/transformers/test_demo_transformer_parity.py",
    "failing_keys": ["blocks.0.attn1.to_k.weight", "blocks.0.attn1.to_kk.weight", "ema.x"],
    "expected_actual_shapes": {},
    "source_prefix_or_path": "dit.",
    "evidence": "keys",
    "suspected_fix": "split",
}


def test_a_retry_is_answered_key_by_key(port, native, tmp_path):
    """Where each failing key comes from, or why it does not, in an updated conversion handoff."""
    file = save_json(tmp_path / "request.json", {"conversion_retry_request": REQUEST})
    done = run(port, "--retry", file, "--json")
    assert done.exit_code == 0, done.stdout
    update = next(
        u for u in json.loads(done.stdout)["handoff"]["component_context_updates"] if u["component"] == "transformer"
    )
    assert update["retry_resolved"] == "no"
    states = {key: said["state"] for key, said in update["retry_keys"].items()}
    assert list(states.values()) == ["made", "not declared", "skipped"]
    assert "split(0, 3)" in update["retry_keys"]["blocks.0.attn1.to_k.weight"]["from"]
    assert "to_k.weight" in update["retry_keys"]["blocks.0.attn1.to_kk.weight"]["near"]


def test_a_retry_that_is_resolved_says_so(port, tmp_path):
    """All failing keys have a source now."""
    request = {**REQUEST, "failing_keys": ["blocks.0.attn1.to_k.weight"]}
    assert converter.run(port, retry=request).retry["retry_resolved"] == "yes"


def test_a_red_check_asks_and_is_answered(port, native, tmp_path):
    """From the command line: keys is red, its handoff is the request, and the corrected declaration answers it."""
    from fvport import checks

    declaration.script(port).write_text(SCRIPT.replace("attn1.to_out.0.", "attn1.out."))
    converter.run(port)
    checks.run_check(port, "keys")
    asked = CliRunner().invoke(app, ["handoff", "component", "transformer", "--port", str(port.root), "--json"])
    request = json.loads(asked.stdout)["conversion_retry_request"]
    assert "blocks.0.attn1.out.weight" in request["failing_keys"]
    file = tmp_path / "component_handoff.json"
    file.write_text(asked.stdout)
    first = json.loads(run(port, "--retry", file, "--json").stdout)["retry"]
    assert first["retry_resolved"] == "no"  # the native name has no source yet
    assert first["keys"]["blocks.0.attn1.out.weight"]["state"] == "made"
    declaration.script(port).write_text(SCRIPT)
    again = json.loads(run(port, "--retry", file, "--json").stdout)
    assert "attn1.to_out.0.weight" in again["retry"]["keys"]["blocks.0.attn1.out.weight"]["near"]


def test_a_request_may_be_yaml(port, tmp_path):
    """As the handoff prints it for people."""
    import yaml

    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump({"conversion_retry_request": {**REQUEST, "failing_keys": ["table"]}}))
    done = run(port, "--retry", file)
    assert done.exit_code == 0
    assert "conversion_handoff" in done.stdout


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"suspected_fix": "slpit"}, 'Did you mean "split"'),
        ({"failing_key": []}, 'unknown field "failing_key"'),
        ({"failing_keys": "all"}, "must be a list"),
        ({"evidence": None, "component": "transfomer"}, 'Did you mean "transformer"'),
    ],
)
def test_a_wrong_request_is_refused(port, tmp_path, change, said):
    """A field that is wrong is named."""
    file = save_json(tmp_path / "request.json", {**REQUEST, **change})
    with pytest.raises(UsageError, match=said):
        converter.run(port, retry=retries.read(file))


def test_a_request_that_lacks_fields_is_refused(tmp_path):
    """No field is left out; what is not known is said to be unknown."""
    with pytest.raises(UsageError, match="lacks parity_test"):
        retries.read(save_json(tmp_path / "r.json", {"component": "x"}))
    (tmp_path / "r.yaml").write_text("conversion_retry_request: [")
    with pytest.raises(UsageError, match="is not YAML"):
        retries.read(tmp_path / "r.yaml")


# --- what a reviewer sees of the first link --------------------------------------------------------------------------

ORDER = r'r"\1.to_q.\2", r"\1.to_k.\2", r"\1.to_v.\2"'


def redeclared(port, old, new):
    """The declaration changed and the release converted again."""
    assert old in SCRIPT
    declaration.script(port).write_text(SCRIPT.replace(old, new))
    converter.run(port)


def test_the_review_shows_both_links(port, native):
    """A row for each step, each part of each declared rule and what keeps its name; what is left out, with reasons."""
    converter.run(port)
    found = review.review(port)
    sheet = found.sheets[0]
    rows = {row["rule"]: row for row in sheet.declared}
    split = rows[r"(.*)\.qkv\.(.*) -> \1.to_k.\2 | split(0, 3) (part 1 of 3)"]
    assert (split["keys"], split["before"]) == (2, "dit.layers.0.attn.qkv.weight")
    assert split["after"] == "part 1 of 3 -> blocks.0.attn1.to_k.weight"
    assert (split["shape"], split["exchange"]) == ([12, 4], "the parts")
    assert rows[r"^layers\. => blocks."]["keys"] == 12  # two layers; a split tensor counts once a part
    assert rows["(passes through)"]["before"] == "dit.table"
    assert found.left_out == {"average of training": ["ema.x"]}
    text = found.text()
    assert "official -> converted" in text
    assert "converted -> native" in text
    assert "1 keys, such as ema.x: average of training" in text
    note = next(f for f in sheet.findings if "is split in parts of one shape" in f.message)
    assert (note.code, note.severity) == ("FV113", "note")
    assert "the fused name says where q lies" in note.message


OUT = r'[r"attn1\.o\.", "attn1.to_out.0."]'
NORMS = r'[r"norm1\.", "normx."], [r"norm2\.", "norm1."], [r"normx\.", "norm2."], '


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (ORDER, r'r"\1.to_k.\2", r"\1.to_q.\2", r"\1.to_v.\2"', "is split in the order k, q, v, not q, k, v"),
        (OUT, NORMS + OUT, "norm1 and norm2 are exchanged"),
    ],
)
def test_a_swap_in_the_declaration_is_red_in_mapping(port, native, old, new, said):
    """Shapes fit, the converted tree is what was declared, and the names say that it was swapped: FV114, unsigned."""
    redeclared(port, old, new)
    found = items(mapping.run(port, Options()))
    assert said in found["transformer: FV114"].reason
    assert found["transformer: FV114"].verdict == "fail"
    assert "conversion, after" in found["transformer: FV114"].reason
    with pytest.raises(FvportError, match="not signed: FV114"):
        review.review(port, sign="alice")


def test_a_step_that_takes_more_than_it_means_is_red(port, native):
    """A bare dot in a rename stands for any character: FV118 names the key, and the escaped one is sound."""
    held = raw(transformer()) | {"dit.xattnx.weight": np.ones(2, np.float32)}
    save(port.official_weights / "model.safetensors", held)
    (port.folder / "port.lock.json").unlink()
    prep.run(port)
    redeclared(port, r'r"\.attn\.", ".attn1."', 'r".attn.", ".attn1."')
    reason = items(mapping.run(port, Options()))["transformer: FV118"].reason
    assert "xattnx.weight" in reason
    assert "layers" not in reason


def test_what_no_native_class_loads_is_looked_at_too(port, native):
    """A converted encoder that stays an external wrapper: its table is shown, and a swap in it is red."""
    part = '"second": {"class": ["transformers", "M"], "prefix": "two.", "rules": [RULE]},\n    "scheduler"'
    good = part.replace("RULE", r'[r"(.*)\.qkv", [r"\1.q", r"\1.k"], ["split", 0, 2]]')
    held = raw(transformer()) | {"two.a.qkv": np.ones((4, 4), np.float32)}
    save(port.official_weights / "model.safetensors", held)
    external = '[components.second]\nkind = "text_encoder"\nmode = "external"\nofficial = "transformers:M"\n'
    external += 'path = "x"\nreason = "y"\n'
    port.file.write_text(port.file.read_text() + external)
    declaration.script(port).write_text(SCRIPT.replace('"scheduler"', good, 1))
    port = spec.load(port.root)
    (port.folder / "port.lock.json").unlink()
    prep.run(port)
    converter.run(port)
    sheet = review.review(port).sheets[-1]
    assert (sheet.component, sheet.mode, sheet.signature) == ("second", "external", "not needed")
    assert sheet.declared[0]["before"] == "two.a.qkv"
    assert "official -> converted" in sheet.text()
    assert "second: FV114" not in items(mapping.run(port, Options()))
    text = declaration.script(port).read_text()
    declaration.script(port).write_text(text.replace(r'[r"\1.q", r"\1.k"]', r'[r"\1.k", r"\1.q"]'))
    converter.run(port)
    assert "k, q, not q, k" in items(mapping.run(port, Options()))["second: FV114"].reason


def test_a_swap_that_is_right_is_accepted_in_writing(port, native):
    """A release that really stores k first: the finding becomes a note with the reason."""
    redeclared(port, ORDER, r'r"\1.to_k.\2", r"\1.to_q.\2", r"\1.to_v.\2"')
    text = port.file.read_text()
    port.file.write_text(text.replace("signed_by", 'accept = { "FV114" = "the release stores k first" }, signed_by', 1))
    found = items(mapping.run(spec.load(port.root), Options()))
    assert found["transformer: rules"].verdict == "pass"


def test_diff_shows_what_changed_in_the_declaration(port, native):
    """A signature that went stale by the declaration says which entry of it."""
    converter.run(port)
    review.review(port, sign="alice")
    redeclared(port, '"eps": 1e-6', '"eps": 1e-5')
    entry = review.diff(spec.load(port.root)).components["transformer"]
    assert entry["state"].startswith("stale by alice")
    assert entry["changes"] == [
        '- conversion.transformer.config: {"eps": 1e-06, "num_layers": 2}',
        '+ conversion.transformer.config: {"eps": 1e-05, "num_layers": 2}',
    ]
