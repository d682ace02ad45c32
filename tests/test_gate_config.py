# SPDX-License-Identifier: Apache-2.0
"""What `config` compares, each fault red by name; and the rules of `smoke` on a fabricated tree."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import gate_support as g
import pytest

from fvport import spec
from fvport.checks import _fields as fields
from fvport.checks import config, smoke
from fvport.errors import BlockedError
from fvport.evidence import Item
from fvport.spec import Component, Port, PresetValue

DIT = Component("transformer", "dit", "port")
SOURCE = {"_class_name": "X", "eps": 1e-6, "layers": 2, "patch": [1, 2, 2], "theta": 10000}
AFTER = {"arch": {"eps": 1e-6, "layers": 2, "patch": [1, 2, 2], "theta": 10000.0, "qk": "rms"}}


def reasons(items: list[Item]) -> str:
    return "; ".join(item.reason for item in items if item.verdict != "pass")


def check(component: Component = DIT, source: Any = None, defaults: Any = None, after: Any = None) -> list[Item]:
    return fields.field_items(component, source or SOURCE, defaults or {}, after or AFTER)


def test_fields_green() -> None:
    """When every official field arrives with its value there is one passed item."""
    items = check()
    assert [(i.name, i.verdict, i.component) for i in items] == [("transformer: fields", "pass", "transformer")]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"arch": {**AFTER["arch"], "eps": 1e-5}}, "eps different value: official 1e-06, native 1e-05"),
        ({"arch": {k: v for k, v in AFTER["arch"].items() if k != "eps"}}, "eps dropped"),
        ({"arch": {**AFTER["arch"], "patch": [1, 2]}}, "patch different value"),
        ({"arch": {**AFTER["arch"], "layers": True}}, "layers different value"),
    ],
)
def test_fields_red(change: dict[str, Any], said: str) -> None:
    """A dropped field and another value are red, with the component and the field."""
    assert said in reasons(check(after=change))


def test_moved_field_counts() -> None:
    """A field that lies on the model config or among the constructor's arguments has arrived."""
    arch = {k: v for k, v in AFTER["arch"].items() if k not in ("eps", "theta")}
    assert reasons(check(after={"arch": arch, "config": {"eps": 1e-6}, "arguments": {"theta": 10000}})) == ""


def test_renamed_and_ignored() -> None:
    """A declared new name or a reason excuses a field; the renamed field's value still counts."""
    after = {"arch": {"epsilon": 1e-6, "layers": 2, "patch": [1, 2, 2]}}
    excused = replace(DIT, config_renamed={"eps": "epsilon"}, config_ignored={"theta": "nothing reads it"})
    assert reasons(check(excused, after=after)) == ""
    after["arch"]["epsilon"] = 1e-5
    assert "eps (as epsilon) different value" in reasons(check(excused, after=after))


@pytest.mark.parametrize(
    ("excuse", "said"),
    [
        ({"config_ignored": {"gone": "why"}}, "gone stale excuse"),
        ({"config_renamed": {"gone": "eps"}}, "gone stale excuse"),
        ({"config_renamed": {"eps": "gone"}}, "eps"),
        ({"config_ignored": {"eps": " "}}, "excuse without a reason"),
    ],
)
def test_stale_excuse(excuse: dict[str, Any], said: str) -> None:
    """An excuse for a field that does not exist is red."""
    assert said in reasons(check(replace(DIT, **excuse)))


def test_ignoring_does_not_hide_another_value() -> None:
    """config_ignored cannot excuse a field that the native config has with another value."""
    ignored = replace(DIT, config_ignored={"eps": "no matter"})
    assert "eps different value" in reasons(check(ignored, after={"arch": {**AFTER["arch"], "eps": 1e-5}}))


def test_defaulted() -> None:
    """Where the file is silent the official class's default counts, not the native one."""
    assert "qk defaulted" in reasons(check(defaults={"qk": "rms_across_heads"}))
    assert reasons(check(defaults={"qk": "rms", "unknown": 1})) == ""


def tables(shift: float, steps: int = 4) -> dict[str, Any]:
    sigmas = [shift * s / (1 + (shift - 1) * s) for s in (1.0, 0.75, 0.5, 0.25)][:steps]
    table = {"timesteps": [1000 * s for s in sigmas], "sigmas": [*sigmas, 0.0]}
    return {"config": {"shift": shift}, "tables": {"4": table}}


def test_scheduler() -> None:
    """Equal schedules pass to float32 rounding; another shift is red and named."""
    assert reasons(fields.schedule_items("scheduler", tables(3.0), tables(3.0 + 1e-9))).count("timesteps") == 0
    red = fields.schedule_items("scheduler", tables(3.0), tables(5.0))
    assert red[0].component == "scheduler"
    assert "shift official 3.0, native 5.0" in red[0].reason
    assert "4 steps: timesteps[1] is" in red[0].reason


def test_scheduler_flow_shift() -> None:
    """The pipeline config's flow_shift counts as the shift."""
    ours = {**tables(5.0), "config": {"shift": 3.0}, "flow_shift": 5.0}
    assert "flow_shift 5.0" in reasons(fields.schedule_items("scheduler", tables(3.0), ours))


def test_scheduler_lengths() -> None:
    """A step more or fewer is red."""
    assert "3 timesteps, official 4" in reasons(fields.schedule_items("s", tables(3.0), tables(3.0, 3)))


@pytest.mark.parametrize(
    ("ids", "mask", "said"),
    [
        ([[1, 2, 0]], [[1, 1, 0]], ""),
        ([[1, 2]], [[1, 1]], "shape 1 x 2, official 1 x 3"),
        ([[1, 3, 0]], [[1, 1, 0]], "id 1 of row 0 is 3, official 2"),
        ([[1, 2, 0]], [[1, 1, 1]], "the attention mask does not"),
    ],
)
def test_tokens(ids: Any, mask: Any, said: str) -> None:
    """Padding, truncation, ids and masks each have their sentence."""
    theirs = {"plain": {"ids": [[1, 2, 0]], "mask": [[1, 1, 0]]}}
    ours = {"cases": {"plain": {"ids": ids, "mask": mask}}, "kwargs": {}}
    found = reasons(fields.token_items("text_encoder", theirs, ours))
    assert said in found if said else found == ""


def test_no_tokens_is_no_pass() -> None:
    """Nothing tokenized is blocked."""
    assert fields.token_items("text_encoder", {}, {"cases": {}})[0].verdict == "blocked"


@pytest.fixture
def port(tmp_path: Path) -> Port:
    return g.make(tmp_path)


NATIVE = {
    "registered": {"toy_default": {"defaults": {"height": 32}, "workload": "t2v"}},
    "fields": ["height", "guidance_scale", "negative_prompt", "num_frames"],
}


@pytest.mark.parametrize(
    ("defaults", "signature", "said"),
    [
        ({"height": 32}, {"height": 32}, ""),
        ({"height": 32, "negative_prompt": ""}, {"height": 32, "negative_prompt": None}, ""),
        (
            {"height": 64},
            {"height": 32},
            "height is 64 in the registered preset and the pipeline config, 32 in port.toml",
        ),
        ({"height": 32}, {"height": 48}, "ToyPipeline.__call__ says 48"),
        ({"height": 32, "guidance_scale": 3.0}, {"height": 32, "guidance_scale": 5.0}, "guidance_scale is 3.0"),
        ({"height": 32, "heigth": 3}, {"height": 32}, "SamplingParam has no field heigth"),
        ({"height": 32, "num_frames": 81}, {"height": 32, "frames": 49}, "num_frames is 81"),
    ],
)
def test_presets(port: Port, defaults: Any, signature: Any, said: str) -> None:
    """Presets agree with port.toml, with the official call's defaults, and with FastVideo's own fields."""
    native = {**NATIVE, "registered": {"toy_default": {"defaults": defaults}}}
    found = reasons(fields.preset_items(port, signature, native))
    assert said in found if said else found == ""


def test_unregistered_preset(port: Port) -> None:
    """A declared preset that FastVideo does not have is red."""
    other = replace(port, presets={"fast": {"height": PresetValue(32, "readme")}})
    assert '"toy_fast" is not registered' in reasons(fields.preset_items(other, {}, NATIVE))


def test_preset_that_moved(port: Port) -> None:
    """A default that is no sampling parameter of FastVideo must be in its pipeline config."""
    other = replace(port, presets={"default": {"max_sequence_length": PresetValue(512, "ToyPipeline.__call__")}})
    native = {**NATIVE, "registered": {"toy_default": {"defaults": {}}}}
    assert reasons(fields.preset_items(other, {}, native, {"text_encoder_max_lengths": [512]})) == ""
    assert "is 256" in reasons(fields.preset_items(other, {}, native, {"text_encoder_max_lengths": [256]}))
    assert "is nothing" in reasons(fields.preset_items(other, {}, native, {}))


@pytest.mark.parametrize(
    ("lengths", "positions", "seen"),
    [
        ([77, 77, 256], [77, 77, 0], 256),
        ([77, 77, 512], [77, 77, 0], 512),
        ([77, 64, 256], [77, 77, 0], [77, 64, 256]),
        ([77, 77, 256], [0, 0, 0], [77, 77, 256]),
        ([256, 256], [77, 0], 256),
        ([77, 256], [77], [77, 256]),
        ([77], [77], [77]),
        ([256, 128], [512, 512], [256, 128]),
    ],
)
def test_an_encoder_with_fewer_positions_does_not_hide_the_declared_length(
    lengths: list[int], positions: list[int], seen: Any
) -> None:
    """Of several text encoders those that take no more than they are given are left out; any other length is seen."""
    assert fields._length(lengths, positions, 256) == seen


def rewrite(port: Port, path: str, **changes: Any) -> None:
    file = port.root / path
    data = json.loads(file.read_text(encoding="utf-8")) | changes
    file.write_text(json.dumps({k: v for k, v in data.items() if v is not None}), encoding="utf-8")


def test_load_tree_green(port: Port) -> None:
    """Only class names are rewritten in a good load tree."""
    for c in port.components.values():
        assert reasons(config.tree_items(port, c)) == ""
    assert reasons(config.index_items(port)) == ""


def test_load_tree_edited(port: Port) -> None:
    """A value, a dropped key and a new key in the load tree's JSON are red by name."""
    transformer = port.components["transformer"]
    rewrite(port, "converted_weights/toy/transformer/config.json", layers=3)
    assert "layers is 2 in the official file and 3" in reasons(config.tree_items(port, transformer))
    rewrite(port, "converted_weights/toy/transformer/config.json", layers=None, more=1)
    found = reasons(config.tree_items(port, transformer))
    assert "layers is 2 in the official file and nothing" in found
    assert "more is nothing in the official file" in found


def test_load_tree_shift(port: Port) -> None:
    """Another shift in the load tree's scheduler config is red."""
    rewrite(port, "converted_weights/toy/scheduler/scheduler_config.json", shift=5.0)
    assert "shift is 3.0" in reasons(config.tree_items(port, port.components["scheduler"]))


def test_index_names_the_official_pipeline(port: Port) -> None:
    """A load tree whose index still names the official pipeline is red."""
    rewrite(port, "converted_weights/toy/model_index.json", _class_name="ToyPipeline")
    assert "still the official" in reasons(config.index_items(port))
    rewrite(port, "converted_weights/toy/model_index.json", _class_name="ToyFvPipeline", transformer=None)
    assert "transformer" in reasons(config.index_items(port))


def test_blocked_without_weights(port: Port) -> None:
    """Without the official folder the load tree's item is blocked."""
    shutil.rmtree(port.official_weights)
    assert config.tree_items(port, port.components["transformer"])[0].verdict == "blocked"


def test_expected_names(port: Port) -> None:
    """The gate asks for an item of each kind."""
    assert set(config.expected(port)) == {
        *("presets", "model_index", "transformer: fields", "scheduler: schedule"),
        "transformer: precision",
        *("transformer: load tree", "scheduler: load tree"),
    }


# --- smoke -----------------------------------------------------------------------------------------------------------


def seen(port: Port, **changes: Any) -> smoke.Seen:
    """What FastVideo answers of a good port, with changes."""
    root = port.root.resolve()
    parts = {
        "transformer": {"class": "fastvideo.models.dits.toy:ToyNative", "file": f"{root}/fastvideo/models/dits/toy.py"},
        "scheduler": {"class": "fastvideo.models.schedulers.base:Scheduler", "file": f"{root}/s.py"},
    }
    resolution = {
        "config": {"class": "c:C", "file": f"{root}/fastvideo/configs/pipelines/toy.py"},
        "pipeline": {"class": "p:P", "file": f"{root}/fastvideo/pipelines/basic/toy/toy_pipeline.py"},
        "family": "toy",
        "preset": "toy_default",
    }
    native: dict[str, Any] = {
        "classes": {name: {"asked": name, **value} for name, value in parts.items()},
        "resolutions": {"load tree": resolution, "official folder": dict(resolution)},
        "presets": {"registered": {"toy_default": {"workload": "t2v"}}},
        "schedules": {"scheduler": parts["scheduler"]},
    }
    value = {"class": parts["transformer"]["class"], "pipeline_config": "fastvideo.configs.pipelines.toy:C"}
    loads = {"transformer": {"value": {**value, "config_class": port.components["transformer"].config}}}
    for path, new in changes.items():
        target: Any = {"native": native, "loads": loads}
        *parents, last = path.split("__")
        for key in parents:
            target = target[key.replace("_folder", " folder").replace("_tree", " tree")]
        target[last] = new
    return smoke.Seen(port, native, [], loads)


def red(subject: smoke.Seen) -> dict[str, str]:
    return {i.name.split()[0]: i.reason for i in smoke.RULES.items(subject) if i.verdict != "pass"}


def test_smoke_green(port: Port) -> None:
    """A port that resolves to itself passes every rule of smoke."""
    assert red(seen(port)) == {}
    assert smoke.expected(port) == [rule.id for rule in smoke.RULES]


def test_registered_name(port: Port) -> None:
    """A native class with a name that FastVideo registers is red by name, discovered or in the table."""
    g.edit(port, "fastvideo/models/dits/other.py", "OtherModel", "ToyNative")
    assert "native class given a registered name" in red(seen(port))["FV603"]
    g.edit(port, "fastvideo/models/dits/other.py", "ToyNative", "OtherModel")
    g.edit(port, "fastvideo/models/registry.py", "OtherModel", "ToyNative")
    assert "native class given a registered name" in red(seen(port))["FV603"]


def test_official_folder_as_load_tree(port: Port) -> None:
    """The official folder in the load tree's place is red by name, whole or one component's config."""
    shutil.rmtree(port.load_tree)
    port.load_tree.symlink_to(port.official_weights.resolve())
    assert "official folder loaded instead of the load tree" in red(seen(port))["FV601"]
    port.load_tree.unlink()
    g.make(port.root)
    own = port.load_tree / "transformer/config.json"
    own.unlink()
    own.symlink_to(port.official_weights.resolve() / "transformer/config.json")
    found = red(seen(port))
    assert "official folder loaded instead of the load tree" in found["FV601"]
    assert "names ToyTransformer, not ToyNative" in found["FV602"]


def test_no_load_tree(port: Port) -> None:
    """Without a load tree smoke is red and says how to build it."""
    shutil.rmtree(port.load_tree)
    assert "there is no load tree" in red(seen(port))["FV601"]


def test_detector_last(port: Port) -> None:
    """A block that is not first is red by name."""
    from fvport.workspace.registration import Problem

    problem = Problem("fastvideo/registry.py", "the block of ToyConfig is not first: WanConfig stands before it")
    late = replace(seen(port), registration=[problem])
    assert "detector registered last" in red(late)["FV604"]


@pytest.mark.parametrize(
    ("path", "new", "rule", "said"),
    [
        ("native__classes__transformer", {"asked": "X", "error": "no"}, "FV605", "X does not resolve"),
        ("native__classes__transformer__class", "a:B", "FV605", "resolves to a:B"),
        ("native__classes__transformer__file", "/x/y.py", "FV605", "/x/y.py"),
        ("native__resolutions__official_folder__family", "wan", "FV606", "preset family wan"),
        ("native__resolutions__load_tree__pipeline", {"class": "w:W", "file": "/w.py"}, "FV606", "pipeline w:W"),
        ("native__resolutions__load_tree__config", {"class": "w:W", "file": "/w.py"}, "FV606", "config w:W"),
        ("native__resolutions__load_tree__preset", "other", "FV606", "default preset other"),
        ("native__presets__registered", {}, "FV607", "none is registered"),
        ("native__schedules__scheduler", {"error": "unexpected keyword"}, "FV608", "unexpected keyword"),
        ("loads__transformer", {"error": "boom"}, "FV608", "boom"),
        ("loads__transformer__value", {"class": "a:B"}, "FV608", "a:B"),
        ("loads__transformer__value", {"class": "", "pipeline_config": "x:Y"}, "FV609", "x:Y"),
    ],
)
def test_smoke_fault(port: Port, path: str, new: Any, rule: str, said: str) -> None:
    """Each answer of FastVideo that is not the port's is red by its rule."""
    assert said in red(seen(port, **{path: new})).get(rule, f"{rule} is green")


def test_inputs_are_known_schemes(port: Port) -> None:
    """Every input of the two checks can be digested."""
    from fvport import evidence as ev

    assert ev.digests(spec.load(port.root), [*config.inputs(port), *smoke.inputs(port)])


TOKENIZER = """
[components.text_encoder]
kind = "text_encoder"
mode = "reuse"
official = "transformers:T"
native = "fastvideo.models.encoders.t:T"
weights = "text_encoder"
tokenizer = "tokenizer"
"""


def test_files_that_make_token_ids(port: Port) -> None:
    """merges.txt and spiece.model decide ids like any JSON: they are inputs, and the load tree's must be the same."""
    g.edit(port, "tests/local_tests/toy/port.toml", "[presets.default]", TOKENIZER + "[presets.default]")
    port = spec.load(port.root)
    for base in (port.official_weights, port.load_tree):
        (base / "text_encoder").mkdir(parents=True)
        (base / "tokenizer").mkdir(parents=True)
        (base / "tokenizer/spiece.model").write_bytes(b"\x00one")
        (base / "tokenizer/merges.txt").write_text("a b")
    names = config.inputs(port)
    assert "file:official_weights/toy/tokenizer/spiece.model" in names
    assert "file:converted_weights/toy/tokenizer/merges.txt" in names
    assert "weights:text_encoder" in names
    assert not [name for name in names if "//" in name or name.endswith(".safetensors")]
    encoder = port.components["text_encoder"]
    assert reasons(config.tree_items(port, encoder)) == ""
    (port.load_tree / "tokenizer/spiece.model").write_bytes(b"\x00two")
    assert "tokenizer/spiece.model is another one" in reasons(config.tree_items(port, encoder))
    (port.load_tree / "tokenizer/merges.txt").unlink()
    assert "tokenizer/merges.txt is not in the load tree" in reasons(config.tree_items(port, encoder))


def test_an_index_that_is_no_json(port: Port) -> None:
    """A broken model_index.json is a failed item with a sentence."""
    (port.load_tree / "model_index.json").write_text("{")
    item = config.index_items(port)[0]
    assert item.verdict == "fail"
    assert "is not JSON" in item.reason


def test_a_library_that_never_answers(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """An official library that hangs is blocked after the limit, not a traceback."""
    from fvport.models import native_facts
    from fvport.parity import oracle

    script = port.root / "sleep.sh"
    script.write_text("#!/bin/sh\nexec sleep 30\n")
    script.chmod(0o755)
    monkeypatch.setattr(oracle, "official_folder", lambda port, c: port.official_weights)
    monkeypatch.setattr(oracle, "_python", lambda port: str(script))
    monkeypatch.setattr(native_facts, "questions", lambda port: EMPTY)
    monkeypatch.setattr(config, "LIMIT", 0.2)
    with pytest.raises(BlockedError, match="no answer within"):
        config.official_facts(port)


EMPTY: dict[str, Any] = {"schedulers": [], "encoders": [], "steps": [], "prompts": []}
