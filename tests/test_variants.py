# SPDX-License-Identifier: Apache-2.0
"""Variants: one port, several releases. Each is registered, checked and judged by itself, and named in what is red."""

from __future__ import annotations

import ast
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import bake_helpers as bakes
import gate_support as g
import pytest
from workspace_helpers import make_port, small_fastvideo, snapshot

from fvport import checks, gate, spec, variants
from fvport import evidence as ev
from fvport.checks import _call, parity, smoke
from fvport.checks import _fields as fields
from fvport.errors import BlockedError, UsageError
from fvport.evidence import Evidence, Item
from fvport.parity import strengths
from fvport.report import terminal
from fvport.scaffold import variant as scaffold
from fvport.spec import Port
from fvport.weights import converter, prep
from fvport.workspace import names, registration

DECLARED = """
[[variants]]
name = "distilled"
weights = "official_weights/toy_distilled"
call = { num_inference_steps = 1 }
[variants.preset]
num_inference_steps = { value = 4, source = "the model card" }
"""
LOCK = "tests/local_tests/toy/variants/distilled/port.lock.json"


def locked(**hashes: str) -> str:
    """A lock of both components, with these hashes in place of the base's."""
    files = {"transformer": "transformer/config.json", "scheduler": "scheduler/scheduler_config.json"}
    return json.dumps(
        {
            "components": {
                name: {"files": [{"name": file, "size": 1, "blake3": hashes.get(name, "blake3:0")}]}
                for name, file in files.items()
            }
        }
    )


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Port:
    """The toy port with a variant, every record of both green. The stubs depend on the call too."""
    made = g.make(tmp_path, g.TOML + DECLARED)
    (made.root / LOCK).parent.mkdir(parents=True)
    (made.root / LOCK).write_text(locked(transformer="blake3:1"))
    stub = g.Stub(["port:components", "port:official", "port:presets"], ["transformer", "scheduler"])
    g.stub_checks(monkeypatch, **dict.fromkeys(spec.CHECKS, stub))
    g.all_green(made)
    for name in variants.checks(made.of("distilled")):
        g.green(made.of("distilled"), name, variant="distilled")
    return made


def rows(port: Port, check: str) -> dict[str, gate.Row]:
    return {row.variant: row for row in gate.decide(port).rows if row.check == check}


# --- the declaration and its view ------------------------------------------------------------------------------------


def test_a_variant_is_the_port_on_another_release(port: Port) -> None:
    """Weights, call, preset, folders and records are its own; components and code are the port's."""
    view = port.of("distilled")
    assert (view.key, view.preset_name) == ("toy_distilled", "toy_distilled")
    assert view.official.pipeline.call == {**port.official.pipeline.call, "num_inference_steps": 1}
    assert {key: value.value for key, value in view.presets["distilled"].items()} == {
        "height": 32,
        "num_inference_steps": 4,
    }
    assert view.official_weights.name == view.load_tree.name == "toy_distilled"
    assert view.lock_file == port.root / LOCK
    assert ev.folder(view) == ev.folder(port) / "distilled"
    assert view.components is port.components
    same, other = "port:components", ("port:official", "port:presets")
    assert ev.digest(view, same) == ev.digest(port, same)
    assert all(ev.digest(view, name) != ev.digest(port, name) for name in other)


def test_a_process_is_told_its_variant_by_the_environment(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """Children load the view that the check is about; the gate always judges the whole port."""
    with spec.seen_as(port.of("distilled")):
        seen = spec.load(port.root)
        assert seen.variant == "distilled"
        assert {row.variant for row in gate.decide(seen).rows} == {"", "distilled"}
    assert spec.load(port.root).variant == ""
    monkeypatch.setenv(spec.VARIANT, "distiled")
    with pytest.raises(UsageError, match=r'no variant "distiled".*Did you mean "distilled"'):
        spec.load(port.root)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("num_frames = 1", "num_frames is 1, and the base's is 5"),
        ("height = 16", "height is 16, and the base's is 32"),
        ("width = 16", "width is 16, and the base's is 32"),
        ("num_inference_steps = 1", "num_inference_steps is 1, its preset's 4 and the base's 2"),
        ("num_frames = 3, height = 64, num_inference_steps = 2", ""),
    ],
)
def test_a_variants_call_shows_no_less_than_the_bases(tmp_path: Path, call: str, words: str) -> None:
    """One frame, a smaller size or one step would leave out checks that the base has: red, with both figures."""
    base = g.make(tmp_path, g.TOML + DECLARED.replace("num_inference_steps = 1", call))
    found = [item for item in _call.weaker(base.of("distilled")) if item.verdict == "fail"]
    assert [words in item.reason and "variant distilled" in item.reason for item in found] == [True] * bool(words)
    assert _call.weaker(base) == []


def test_one_step_is_a_call_where_the_variants_preset_says_so(tmp_path: Path) -> None:
    """A model distilled to one step is generated with one; another call of the base makes its record stale."""
    view = g.make(tmp_path, g.TOML + DECLARED.replace("value = 4", "value = 1")).of("distilled")
    assert _call.weaker(view) == []
    (name,) = _call.inputs(view)
    before = ev.digest(view, name)
    view.file.write_text(view.file.read_text().replace("num_frames = 5", "num_frames = 9"))
    assert ev.digest(spec.load(view.root).of("distilled"), name) != before != "absent"


# --- the gate --------------------------------------------------------------------------------------------------------


def test_the_gate_asks_for_every_variant(port: Port) -> None:
    """Green with all records of both; a row each, but for what is about the port's files."""
    verdict = gate.decide(port)
    assert verdict.verdict == "pass", [(row.label, row.reasons) for row in verdict.rows]
    assert len(verdict.rows) == 2 * len(spec.CHECKS) - len(variants.OF_THE_PORT)
    assert "parity [distilled]" in terminal.gate(verdict)


def test_a_variant_without_evidence_keeps_the_gate_shut(port: Port) -> None:
    """No record of one check of the variant, and what to run names the variant."""
    (ev.folder(port.of("distilled")) / "pipeline.json").unlink()
    verdict = gate.decide(port)
    assert verdict.verdict == "blocked"
    assert verdict.next_step == "fvport check pipeline --variant distilled"
    assert rows(port, "pipeline")[""].verdict == "pass"


def test_a_variant_that_is_declared_later_shuts_the_gate(port: Port) -> None:
    """Nothing ran for it: every one of its rows is blocked, and the base's stay green."""
    text = DECLARED.replace('"distilled"', '"refiner"').replace("toy_distilled", "toy_refiner")
    more = g.edit(port, "tests/local_tests/toy/port.toml", "", text)
    verdict = gate.decide(more)
    assert verdict.verdict == "blocked"
    assert {row.variant for row in verdict.red} == {"refiner"}
    assert "parity [refiner]: blocked" in terminal.gate(verdict)


def test_another_release_or_call_makes_only_the_variant_stale(port: Port) -> None:
    """What the variant says of itself is in its own digests, and in no one else's."""
    changed = g.edit(port, "tests/local_tests/toy/port.toml", "call = { num_inference_steps = 1 }", "")
    found = rows(changed, "pipeline")
    assert (found[""].verdict, found["distilled"].verdict) == ("pass", "blocked")
    assert "port:official changed" in found["distilled"].reasons[0]


def test_the_bases_record_is_none_of_the_variants(port: Port) -> None:
    """A record that was copied over is refused by what it says of itself."""
    shutil.copy(ev.folder(port) / "parity.json", ev.folder(port.of("distilled")) / "parity.json")
    row = rows(port, "parity")["distilled"]
    assert (row.verdict, row.state) == ("fail", "refused")
    shutil.copy(ev.folder(port.of("distilled")) / "keys.json", ev.folder(port) / "keys.json")
    assert 'variant "distilled" of port' in rows(port, "keys")[""].reasons[0]


def test_a_waiver_speaks_of_one_row(port: Port) -> None:
    """A waiver of the base's check is none of the variant's."""
    for view in (port, port.of("distilled")):
        (ev.folder(view) / "ssim.json").unlink()
    waiver = '[[waivers]]\nid = "E001"\ncheck = "ssim"\nreason = "x"\napproved_by = "y"\nexpires = 2999-01-01\n'
    g.edit(port, "tests/local_tests/toy/PORT_STATUS.md", "", "| E001 | x |\n")
    waived = g.edit(port, "tests/local_tests/toy/port.toml", "[[variants]]", waiver + "[[variants]]")
    assert {v: row.verdict for v, row in rows(waived, "ssim").items()} == {"": "waived", "distilled": "blocked"}
    of = g.edit(waived, "tests/local_tests/toy/port.toml", 'id = "E001"', 'id = "E001"\nvariant = "distilled"')
    assert {v: row.verdict for v, row in rows(of, "ssim").items()} == {"": "blocked", "distilled": "waived"}


def test_a_check_left_out_is_missing_for_every_variant(port: Port) -> None:
    """A waiver of the base's row says nothing of the variant's, also where the check itself is left out."""
    waiver = '\n[[waivers]]\nid = "E001"\ncheck = "pipeline"\nreason = "r"\napproved_by = "ann"\nexpires = 2999-01-01\n'
    g.edit(port, "tests/local_tests/toy/PORT_STATUS.md", "", "| E001 | later |\n")
    left = [name for name in spec.CHECKS if name != "pipeline"]
    g.edit(port, "tests/local_tests/toy/port.toml", "[gate]\n", f"[gate]\nchecks = {json.dumps(left)}\n")
    g.edit(port, "tests/local_tests/toy/port.toml", "", waiver)
    found = rows(spec.load(port.root), "pipeline")
    assert {name: row.verdict for name, row in found.items()} == {"": "waived", "distilled": "blocked"}


def test_what_is_left_to_the_base_counts_only_where_the_base_is_green(port: Port) -> None:
    """The base's scheduler is red: the variant that shares its files is not green by it, and no row says so."""
    assert rows(port, "keys")["distilled"].verdict == "pass"
    items = [
        Item("transformer", "pass", component="transformer"),
        Item("scheduler", "fail", "wrong", component="scheduler"),
    ]
    g.green(port, "keys", items=items)
    found = rows(port, "keys")
    assert found["distilled"].verdict == "blocked"
    assert "scheduler: the files are the base's, whose own row is not green" in " ".join(found["distilled"].reasons)
    assert gate.decide(port).row("keys").verdict == "fail"  # type: ignore[union-attr]


# --- what is compared once -------------------------------------------------------------------------------------------


class Check:
    """A check's module that notes what it was asked to look at."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def expected(self, port: Port) -> list[str]:
        return ["transformer: keys", "scheduler: keys"]

    def run(self, port: Port, options: checks.Options) -> Evidence:
        self.asked.append(options.components)
        found = options.components or tuple(port.components)
        return Evidence("keys", port.slug, items=[Item(f"{name}: keys", "pass", component=name) for name in found])


def test_a_shared_component_is_compared_once(port: Port) -> None:
    """Only the variant's own transformer is looked at; the scheduler's item says that its files are the base's."""
    check, view = Check(), port.of("distilled")
    record = variants.run(view, check, "keys", checks.Options())
    assert check.asked == [("transformer",)]
    said = {item.name: item.reason for item in record.items}
    assert said == {
        "transformer: keys": "",
        "scheduler: keys": "the base's files, byte for byte: its own row says more",
    }
    variants.run(view, check, "config", checks.Options())
    variants.run(port, check, "keys", checks.Options())
    assert check.asked[1:] == [(), ()]


def test_what_was_the_bases_is_asked_for_when_the_base_changes(port: Port) -> None:
    """The variant's scheduler was left to the base's row; the base has another now: that row speaks of other files."""
    assert rows(port, "keys")["distilled"].state == "current"
    port.lock_file.write_text(locked(scheduler="blake3:9"))
    found = rows(spec.load(port.root), "keys")
    assert found["distilled"].state == "stale"
    assert variants.SHARED in " ".join(found["distilled"].reasons)


def test_the_strength_of_a_shared_component_is_the_bases(port: Port) -> None:
    """parity of a variant is not asked for the strength of what it shares; of what it does not share it is."""
    view = port.of("distilled")
    own = Item(f"transformer: {strengths.MARK}", "pass", component="transformer")
    ev.write(view, Evidence("parity", port.slug, items=[own], variant="distilled"))
    assert parity.outdated(view) == []
    (port.root / LOCK).write_text(locked(scheduler="blake3:9"))
    assert parity.outdated(view) == ["scheduler: its strength was not measured"]


@pytest.mark.parametrize("lock", ["{}", locked(scheduler=""), locked(scheduler="blake3:9")])
def test_what_is_not_locked_is_not_shared(port: Port, lock: str) -> None:
    """A component counts as the base's only by the digests of all its files."""
    (port.root / LOCK).write_text(lock)
    assert "scheduler" not in variants.shared(port.of("distilled"))
    assert variants.shared(port) == []


def test_a_variant_that_is_the_base_whole_is_a_risk(port: Port) -> None:
    """The base's release under another name: only call and preset are its own, and a reader is told."""
    (port.root / LOCK).write_text(locked())
    assert any("distilled: every component is the base's" in risk for risk in gate.decide(port).risks)


def test_a_check_runs_for_the_base_and_each_variant(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """One record each; one of them alone where it is named; the port's files are no variant's."""
    ran: list[str] = []
    monkeypatch.setattr(checks, "run_check", lambda view, name, options: ran.append(view.variant))
    checks.run_all(port, "keys")
    checks.run_all(port, "keys", variant="distilled")
    checks.run_all(port, "boundary")
    assert ran == ["", "distilled", "distilled", ""]
    with pytest.raises(UsageError, match="no variant"):
        checks.run_all(port, "keys", variant="x")
    with pytest.raises(UsageError, match="boundary is about the port's files"):
        checks.run_all(port, "boundary", variant="distilled")


def test_prep_and_convert_go_through_the_variants(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variant's release is locked and converted as its own, by what the environment tells the children."""
    seen: list[tuple[str, str]] = []

    def run(view: Port, *_: Any) -> str:
        seen.append((view.variant, spec.load(view.root).variant))
        return view.key

    for room in (prep, converter):
        monkeypatch.setattr(room, "run", run)
        assert room.of_variants(port) == {"distilled": "toy_distilled"}
    assert seen == [("distilled", "distilled")] * 2


# --- registration, presets, resolution -------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Port:
    """A hand-made port with a variant on a small FastVideo tree."""
    small_fastvideo(tmp_path)
    made = make_port(tmp_path)
    text = '\n[[variants]]\nname = "distilled"\nweights = "official_weights/tiny_wan_distilled"\n'
    made.file.write_text(made.file.read_text() + text)
    return spec.load(tmp_path)


def test_every_variant_is_registered_and_taken_back(tree: Port) -> None:
    """A block each with its own config, preset and class, also for one that came later; undo restores every byte."""
    before, view = snapshot(tree.root), tree.of("distilled")
    registration.apply(tree.root, replace(tree, variants=()))
    missing = [str(problem) for problem in registration.check(tree.root, view)]
    assert any("TinyWanDistilledPipelineConfig" in problem for problem in missing)
    registration.apply(tree.root, tree)
    found = {names.literal(names.keyword(call, "default_preset")) for call in names.register_calls(tree.root)}
    assert {"tiny_wan_default", "tiny_wan_distilled"} <= found
    for one in (tree, view):
        assert [str(problem) for problem in registration.check(tree.root, one)] == []
    assert registration.apply(tree.root, tree).files == []
    registration.undo(tree.root, tree)
    assert snapshot(tree.root) == before


def test_a_block_of_a_variant_that_is_declared_no_more_is_red(tree: Port) -> None:
    """Deleting a red variant's table does not take its registration out of what users get."""
    registration.apply(tree.root, tree)
    text = tree.file.read_text()
    tree.file.write_text(text[: text.index("[[variants]]")])
    said = [str(problem) for problem in registration.check(tree.root, spec.load(tree.root))]
    assert any("TinyWanDistilledPipelineConfig" in one and "declares no such variant" in one for one in said)


WRONG = (
    ('default_preset="tiny_wan_distilled"', 'default_preset="tiny_wan_default"', "default_preset must be"),
    ('pipeline_cls_name="TinyWanDistilledPipeline"', 'pipeline_cls_name="TinyWanPipeline"', "pipeline_cls_name must"),
    ('name == "tinywandistilledpipeline"', 'name == "tinywanpipeline"', "no detector matches"),
)


def test_a_variants_wrong_registration_is_named(tree: Port) -> None:
    """The base's preset, class or detector in the variant's block is red for the variant, not for the base."""
    registration.apply(tree.root, tree)
    file = tree.root / names.REGISTRY
    right = file.read_text()
    for old, new, words in WRONG:
        assert old in right
        file.write_text(right.replace(old, new))
        assert any(words in problem.what for problem in registration.judge_block(tree.root, tree.of("distilled")))
        assert registration.judge_block(tree.root, tree) == []


def test_a_release_that_resolves_to_another_variant_is_red(port: Port) -> None:
    """The base's class, config or preset for the variant's folder, and the other way round: each is named."""
    base = {"config": {"class": "m:ToyPipelineConfig"}, "pipeline": {"class": "m:ToyPipeline"}, "preset": "toy_default"}
    of = {
        "config": {"class": "m:ToyDistilledPipelineConfig"},
        "pipeline": {"class": "m:ToyDistilledPipeline"},
        "preset": "toy_distilled",
    }
    view = port.of("distilled")
    for own, right, wrong in ((port, base, of), (view, of, base)):
        assert list(smoke._of_the_variant(own, "load tree", right)) == []
        said = [finding.what for finding in smoke._of_the_variant(own, "load tree", wrong)]
        assert len(said) == 3
        assert ("variant distilled has" if own.variant else "the base has") in said[0]
    assert list(smoke._of_the_variant(replace(port, variants=()), "load tree", of)) == []


def test_a_load_tree_of_the_bases_pipeline_is_red(port: Port) -> None:
    """The variant's tree must name the variant's pipeline class, though the base's is one of the port's too."""
    view = port.of("distilled")
    folder = port.root / "fastvideo/pipelines/basic/toy"
    (folder / "toy_distilled_pipeline.py").write_text(
        "class ToyDistilledPipeline:\n    pass\n\n\nEntryClass = ToyDistilledPipeline\n"
    )
    view.load_tree.mkdir(parents=True)
    for name, wrong in (("ToyFvPipeline", True), ("ToyDistilledPipeline", False)):
        (view.load_tree / "model_index.json").write_text(json.dumps({"_class_name": name}))
        found = list(smoke.tree_names_the_port(smoke.Seen(view, {})))
        assert any("ToyDistilledPipeline" in finding.what for finding in found) == wrong


def test_a_variants_wrong_preset_is_red(port: Port) -> None:
    """Another value in presets_distilled.py, a preset that is not registered, and the base's preset for its folder."""
    view = port.of("distilled")
    right = {"height": 32, "num_inference_steps": 4}

    def judged(defaults: dict[str, Any], selected: dict[str, Any], name: str = "toy_distilled") -> list[str]:
        known = [*right, "max_sequence_length"]  # which SamplingParam has, and the preset leaves to the pipeline config
        native = {"registered": {name: {"defaults": defaults}}, "fields": known, "selected": selected}
        return [item.reason for item in fields.preset_items(view, {}, native) if item.verdict == "fail"]

    assert judged(right, right) == []
    assert "num_inference_steps is 50" in judged({**right, "num_inference_steps": 50}, right)[0]
    assert 'preset "toy_distilled" is not registered' in judged(right, right, "toy_default")[0]
    assert "is 50 for the load tree of variant distilled" in judged(right, {**right, "num_inference_steps": 50})[0]


# --- fvport variant add ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def baked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("variants")
    bakes.release(out / "w")
    return bakes.bake(out, official_weights=str(out / "w"))


@pytest.fixture
def ours(baked: Path, tmp_path: Path) -> Port:
    return spec.load(shutil.copytree(baked, tmp_path / "port", symlinks=True))


def other(tmp_path: Path, **parts: Any) -> Path:
    shift = {**bakes.SCHEDULER, "shift": 8.0}
    changed = {**bakes.WAN, "scheduler": (*bakes.WAN["scheduler"][:2], shift, {}), **parts}
    return bakes.release(tmp_path / "d", components=changed)


def test_a_variant_is_added_by_one_command(ours: Port, tmp_path: Path) -> None:
    """Config with its own shift, pipeline, preset, example and test of its own name; port.toml says it all."""
    before = bakes.files(ours.root)
    added = scaffold.add(ours, "distilled", other(tmp_path), ["num_inference_steps=4", "guidance_scale=1.0"])
    after = bakes.files(ours.root)
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"tests/local_tests/tiny_wan/port.toml", "docs/inference/tiny_wan.md"}
    assert set(after) - set(before) | changed == set(added.files)
    for name in added.files:
        if name.endswith(".py"):
            ast.parse(after[name])
    text = {name: data.decode() for name, data in after.items()}
    config = text["fastvideo/configs/pipelines/tiny_wan_distilled.py"]
    assert "class TinyWanDistilledPipelineConfig(TinyWanPipelineConfig):" in config
    assert "flow_shift: float | None = 8.0" in config
    presets = text["fastvideo/pipelines/basic/tiny_wan/presets_distilled.py"]
    assert 'name="tiny_wan_distilled"' in presets
    assert 'model_family="tiny_wan"' in presets
    assert '"num_inference_steps": 4,  # given when' in presets
    assert (
        'MODEL = "converted_weights/tiny_wan_distilled"' in text["examples/inference/basic/basic_tiny_wan_distilled.py"]
    )
    view = spec.load(ours.root).of("distilled")
    assert view.official.pipeline.call["guidance_scale"] == 1.0
    assert view.presets["distilled"]["height"].value == ours.presets["default"]["height"].value
    assert (ours.root / view.official.weights).resolve() == (tmp_path / "d").resolve()
    assert added.own == ["scheduler"]


@pytest.mark.parametrize(
    ("name", "words", "error"),
    [
        ("base", [], "none of base"),
        ("Fast Wan", [], "is no slug"),
        ("distilled", ["num_inference_step=4"], 'Did you mean "num_inference_steps"'),
        ("distilled", ["guidance_scale"], "is not key=value"),
        ("distilled", ["guidance_scale=[1]"], "is no number and no text"),
    ],
)
def test_a_wrong_variant_is_refused_whole(ours: Port, tmp_path: Path, name: str, words: list[str], error: str) -> None:
    """One sentence, and nothing is written."""
    before = bakes.files(ours.root)
    with pytest.raises(UsageError, match=error):
        scaffold.add(ours, name, other(tmp_path), words)
    assert bakes.files(ours.root) == before


def test_another_model_is_no_variant(ours: Port, tmp_path: Path) -> None:
    """Another class is a port of its own; a release that is not there is said so."""
    cls = ("diffusers", "AutoencoderKLHunyuanVideo", {"_class_name": "AutoencoderKLHunyuanVideo"}, {"w": (2, 2)})
    with pytest.raises(
        UsageError, match="vae is AutoencoderKLHunyuanVideo in the variant, AutoencoderKLWan in the port"
    ):
        scaffold.add(ours, "distilled", other(tmp_path, vae=cls))
    with pytest.raises(BlockedError, match="there is no release here"):
        scaffold.add(ours, "distilled", tmp_path / "nothing")
    with pytest.raises(UsageError, match="is not NAME=FOLDER"):
        scaffold.parse(["distilled"])
