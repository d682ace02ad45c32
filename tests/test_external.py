# SPDX-License-Identifier: Apache-2.0
"""Hybrid wrappers: the external model outside of the owned state, its folder the one that production resolves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import weights_support as ws

from fvport import evidence as ev
from fvport import gate, spec
from fvport.checks import Options, keys
from fvport.checks import _external as hybrid
from fvport.errors import BlockedError, FvportError, UsageError
from fvport.models import native
from fvport.weights import convert, prep

WRAPPER = """
[components.text_encoder]
kind = "text_encoder"
mode = "external"
official = "oracle:build_text_encoder"
native = "fastvideo.models.encoders.demo:DemoTextEncoder"
config = "fastvideo.configs.models.encoders.demo:DemoTextConfig"
weights = "text_encoder"
path = "fastvideo/models/encoders/demo.py"
reason = "Gemma is called as its library has it: accepted by the maintainers in review 12"
external = "text_encoder/gemma"
external_field = "gemma_model_path"

[components.text_encoder_connector]
kind = "conditioner"
mode = "external"
official = "oracle:build_text_encoder_connector"
native = "fastvideo.models.encoders.demo:DemoConnector"
weights = "text_encoder"
path = "fastvideo/models/encoders/demo.py"
part = "connector"
scope = "implementation_subcomponent"
reason = "the connector of text_encoder alone"
"""
OWNED = {"connector.proj.weight": np.ones((4, 8), np.float32)}
OUTSIDE = {f"layers.{n}.mlp.up.weight": np.ones((8, 4), np.float32) for n in range(3)}


class Both(ws.Native):
    """The stand-in for the native side, with what the production loader put on the arch config."""

    arch: dict[str, Any] | None = None
    root: Path | None = None

    def meta(self) -> dict[str, Any]:
        return super().meta()

    def ask(self, port: spec.Port, what: str, name: str, device: str = "auto") -> Any:
        if what == "schema":
            path = str(port.load_tree / "text_encoder" / "gemma")
            return {"arch": {"gemma_model_path": path} if self.arch is None else self.arch}
        return super().ask(port, what, name, device)


def make(tmp_path: Path, text: str = WRAPPER, field: str = "") -> spec.Port:
    """A locked port whose release has a connector and, in its folder or at the root, another library's model."""
    ws.release(tmp_path / "official_weights/demo")
    release = tmp_path / "official_weights/demo"
    index = json.loads((release / "model_index.json").read_text())
    index["text_encoder"] = ["transformers", "DemoOfficial"]
    if field:
        index["gemma_model_path"] = field
    ws.save_json(release / "model_index.json", index)
    ws.save(release / "text_encoder/model.safetensors", OWNED)
    ws.save_json(release / "text_encoder/config.json", {"architectures": ["DemoOfficial"], "hidden_size": 8})
    place = release / ("gemma" if field else "text_encoder/gemma")
    ws.save(place / "model.safetensors", OUTSIDE)
    ws.save_json(place / "config.json", {"architectures": ["GemmaModel"]})
    for name, content in (
        ("tests/local_tests/demo/port.toml", ws.PORT + text),
        ("fastvideo/models/schedulers/flow.py", ws.SCHEDULER),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    port = spec.load(tmp_path)
    prep.run(port)
    return port


@pytest.fixture
def sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Both:
    """The native side: it owns the connector alone."""
    stand_in = Both(monkeypatch, tmp_path, OWNED)
    stand_in.names, stand_in.state = {}, dict(OWNED)
    return stand_in


def checked(port: spec.Port) -> dict[str, tuple[str, str]]:
    """{item: (verdict, reason)} of `keys` on the wrapper."""
    record = keys.run(port, Options(components=("text_encoder",)))
    return {item.name: (item.verdict, item.reason) for item in record.items}


def test_only_the_connector_is_owned_and_the_rest_is_found_where_the_pipeline_means(
    tmp_path: Path, sides: Both
) -> None:
    """Green: the owned weights are compared strictly, the external ones lie beside them in lock and load tree."""
    port = make(tmp_path)
    assert [c.name for c in keys.sides.components(port)] == ["transformer", "text_encoder"]
    found = checked(port)
    assert found["text_encoder: keys"][0] == "pass"
    assert found["text_encoder: external"][0] == "pass"
    assert "review 12" in found["text_encoder: external"][1]
    assert "text_encoder: external" in keys.expected(port)
    assert (port.load_tree / "text_encoder/gemma/model.safetensors").is_file()
    config = json.loads((port.load_tree / "text_encoder/config.json").read_text())
    assert config["architectures"] == ["DemoTextEncoder"]
    lock = json.loads((port.folder / "port.lock.json").read_text())["components"]["text_encoder"]["files"]
    assert {"text_encoder/gemma/model.safetensors"} <= {file["name"] for file in lock}


def test_a_root_field_is_resolved_to_a_folder_of_the_release(tmp_path: Path, sides: Both) -> None:
    """`model_index:FIELD` is read on both sides, and its folder is in the load tree too."""
    port = make(tmp_path, WRAPPER.replace('"text_encoder/gemma"', '"model_index:gemma_model_path"'), field="gemma")
    sides.arch = {"gemma_model_path": str(port.load_tree / "gemma")}
    assert checked(port)["text_encoder: external"][0] == "pass"
    assert json.loads((port.load_tree / "model_index.json").read_text())["gemma_model_path"] == "gemma"
    lock = json.loads((port.folder / "port.lock.json").read_text())["components"]["text_encoder"]["files"]
    assert "gemma/model.safetensors" in {file["name"] for file in lock}


ELSEWHERE = {
    "another folder": ({"gemma_model_path": "text_encoder"}, "the pipeline means text_encoder/gemma"),
    "a hub id": ({"gemma_model_path": "google/gemma-3-12b"}, "that is no folder"),
    "nothing": ({"gemma_model_path": ""}, "leaves gemma_model_path empty"),
    "no such field": ({"other": 1}, "has no field gemma_model_path"),
}


@pytest.mark.parametrize("case", ELSEWHERE)
def test_a_path_that_the_loader_resolves_elsewhere_is_red(tmp_path: Path, sides: Both, case: str) -> None:
    """The direct class may be right: what production hands over is what counts."""
    port = make(tmp_path)
    sides.arch, said = ELSEWHERE[case]
    verdict, reason = checked(port)["text_encoder: external: path"]
    assert verdict == "fail"
    assert said in reason


def test_an_equal_copy_elsewhere_is_not_the_same_path(tmp_path: Path, sides: Both) -> None:
    """A folder of the same content outside of the port is red, and its machine path is not in the record."""
    port = make(tmp_path)
    other = tmp_path.parent / f"{tmp_path.name}_other" / "gemma"
    ws.save(other / "model.safetensors", OUTSIDE)
    sides.arch = {"gemma_model_path": str(other)}
    verdict, reason = checked(port)["text_encoder: external: path"]
    assert verdict == "fail"
    assert "outside of the port" in reason
    assert str(tmp_path.parent) not in reason


def test_external_parameters_in_the_owned_state_are_red(tmp_path: Path, sides: Both) -> None:
    """A wrapper that holds the other model as a submodule is red twice: no source, and named for what they are."""
    port = make(tmp_path)
    sides.state |= {f"gemma.{name}": array for name, array in OUTSIDE.items()}
    found = checked(port)
    assert found["text_encoder: missing"][0] == "fail"
    assert "3 tensors of the external model" in found["text_encoder: external: owned state"][1]


HEADED = {f"model.language_model.{name}": (8, 4) for name in OUTSIDE} | {
    **{f"model.vision_tower.layers.{n}.mlp.up.weight": (4, 2) for n in range(3)},
    **{f"model.audio_tower.layers.{n}.mlp.up.weight": (6, 2) for n in range(9)},
    "model.language_model.norm.weight": (8,),
    "lm_head.weight": (16, 8),
}
HELD = {
    "the base model, without its head's prefix": {f"lm.{name}": (8, 4) for name in OUTSIDE}
    | {"lm.norm.weight": (8,)}
    | {f"lm.audio_tower.layers.{n}.mlp.up.weight": (6, 2) for n in range(9)},
    "one tower, less than half of the names": {f"eyes.layers.{n}.mlp.up.weight": (4, 2) for n in range(3)},
    "all, under its own names": {f"lm.{name}": shape for name, shape in HEADED.items()},
}


@pytest.mark.parametrize("held", HELD)
def test_an_external_model_is_known_without_its_heads_prefix(held: str) -> None:
    """A checkpoint's `model.layers.0` held as `lm.layers.0` is the external model's too, and so is one tower of it."""
    owned = {name: (shape, "F32") for name, shape in HELD[held].items()}
    found = hybrid._inside(owned, HEADED, ())
    assert [kind for kind, _ in found] == ["owned state"]
    assert f"{len(owned)} tensors of the external model" in found[0][1]


def test_a_connector_with_a_name_in_common_is_no_external_model() -> None:
    """A norm, a layer or two of that shape, or another shape: the connector's own, which `keys` wants a source for."""
    for own in (
        {"connector.norm.weight": (8,)},
        {"connector.layers.0.mlp.up.weight": (8, 4), "connector.norm.weight": (8,)},
        {f"connector.{name}": (8, 5) for name in OUTSIDE},
        {f"connector.blocks.{n}.up.weight": (8, 4) for n in range(3)},
    ):
        assert hybrid._inside({name: (shape, "F32") for name, shape in own.items()}, HEADED, ()) == []


def test_an_exclude_lets_no_external_tensor_off(tmp_path: Path, sides: Both) -> None:
    """A single one of the other model's that a native: exclude takes from `keys` is red, and named."""
    text = WRAPPER.replace(
        "[components.text_encoder_connector]",
        '[components.text_encoder.mapping.exclude]\n"native:^lm[.]" = "not loaded"\n\n'
        "[components.text_encoder_connector]",
    )
    port = make(tmp_path, text)
    ws.save(
        port.official_weights / "text_encoder/gemma/model.safetensors",
        {f"model.{name}": array for name, array in OUTSIDE.items()},
    )
    sides.state |= {"lm.layers.0.mlp.up.weight": OUTSIDE["layers.0.mlp.up.weight"]}
    found = hybrid.problems(port, port.component("text_encoder"))
    assert "1 tensors of the external model that a native: exclude lets off" in dict(found)["owned state"]
    assert "lm.layers.0.mlp.up.weight" in dict(found)["owned state"]


def test_another_external_model_than_the_locked_one_is_refused(tmp_path: Path, sides: Both) -> None:
    """Its bytes decide the conditioning as much as the connector's do."""
    port = make(tmp_path, WRAPPER.replace('"text_encoder/gemma"', '"model_index:gemma_model_path"'), field="gemma")
    ws.save(port.official_weights / "gemma/model.safetensors", {name: 2 * array for name, array in OUTSIDE.items()})
    with pytest.raises(BlockedError, match=r"gemma/model\.safetensors"):
        prep.verify(port, ("text_encoder",))


def test_the_weights_of_a_part_are_locked(tmp_path: Path, sides: Both) -> None:
    """A part is loaded from the whole's files: others are refused, and a record that no lock stood behind is stale."""
    port = make(tmp_path)
    part, name = "text_encoder_connector", "weights:text_encoder_connector"
    locked = ev.digest(port, name)
    assert locked.startswith("blake3:")
    assert gate._weights_reasons(port, {name: "absent"}) == [
        f"stale: the weights of {part} are not locked (fvport prep)"
    ]
    prep.verify(port, (part,))
    ws.save(port.official_weights / "text_encoder/model.safetensors", {k: 2 * v for k, v in OWNED.items()})
    with pytest.raises(BlockedError, match=r"text_encoder/model\.safetensors"):
        prep.verify(port, (part,))
    assert "differs" in ev.digest(port, name)


def test_a_connector_key_that_is_lost_is_red(tmp_path: Path, sides: Both) -> None:
    """The owned weights are strictly checked like any component's."""
    port = make(tmp_path)
    sides.state = {"connector.other.weight": OWNED["connector.proj.weight"]}
    assert {"text_encoder: missing", "text_encoder: unexpected"} <= checked(port).keys()


def test_a_reason_that_nobody_wrote_is_red(tmp_path: Path, sides: Both) -> None:
    """What a bake leaves there is no reason."""
    text = WRAPPER.replace("Gemma is called as its library has it", "FVPORT-DECIDE: why an external class is accepted")
    assert checked(make(tmp_path, text))["text_encoder: external: reason"][0] == "fail"


def test_a_field_that_leads_out_of_the_release_is_refused(tmp_path: Path, sides: Both) -> None:
    """An absolute path works on one machine only."""
    text = WRAPPER.replace('"text_encoder/gemma"', '"model_index:gemma_model_path"')
    port = make(tmp_path, text, field="gemma")
    index = port.official_weights / "model_index.json"
    index.write_text(index.read_text().replace('"gemma"', '"/elsewhere/gemma"'))
    with pytest.raises(FvportError, match="outside of the release"):
        convert.build_load_tree(port, verify=False)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('external = "text_encoder/gemma"', 'external = "../gemma"', "must be"),
        ('external = "text_encoder/gemma"', 'external = "google/gemma"', "must be"),
        ('external_field = "gemma_model_path"', "", "must name the arch config field"),
        ('external = "text_encoder/gemma"', "", "needs external"),
        ('native = "fastvideo.models.encoders.demo:DemoTextEncoder"', "", "is a class"),
        ('reason = "the connector of text_encoder alone"', "", "needs a written reason"),
        ('scope = "implementation_subcomponent"', "", "implementation_subcomponent"),
    ],
)
def test_a_declaration_that_says_too_little_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    """One sentence with file, line and key."""
    file = tmp_path / "tests/local_tests/demo/port.toml"
    file.parent.mkdir(parents=True)
    file.write_text((ws.PORT + WRAPPER).replace(old, new))
    with pytest.raises(UsageError, match=said):
        spec.load(tmp_path)


def test_a_part_is_what_production_loaded_in_the_whole() -> None:
    """The connector alone is the submodule of the loaded wrapper; a name that is none is said with those that are."""
    import torch

    port_file = spec.Component("c", "conditioner", "external", part="connector")
    whole = torch.nn.Module()
    whole.connector = torch.nn.Linear(2, 2)
    assert native._part(port_file, whole) is whole.connector
    with pytest.raises(FvportError, match="it has connector"):
        native._part(spec.Component("c", "conditioner", "external", part="other"), whole)
