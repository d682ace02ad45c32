# SPDX-License-Identifier: Apache-2.0
"""Some blocks of a component: which stay, what their config becomes, and what cannot be cut is blocked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fvport.checks import Options
from fvport.errors import BlockedError, UsageError
from fvport.parity import blocks, blocks_cut
from fvport.tiny.release import Part

WIDTH = 3


class Net(torch.nn.Module):
    """A list of layers, one of another width where `wide` says so, between two layers that are no blocks."""

    def __init__(self, num_layers: int = 2, wide: int = -1, layer_types: Any = None, refiner_layers: int = 0) -> None:
        super().__init__()
        self.embed = torch.nn.Sequential(torch.nn.Linear(2, WIDTH), torch.nn.Linear(WIDTH, WIDTH))
        self.blocks = torch.nn.ModuleList(torch.nn.Linear(WIDTH, 5 if n == wide else WIDTH) for n in range(num_layers))
        self.refiner = torch.nn.ModuleList(torch.nn.Linear(WIDTH, 1) for _ in range(refiner_layers))
        self.out = torch.nn.Linear(WIDTH, 1)


def release(folder: Path, **config: Any) -> Part:
    """A component's folder with two files of weights and an index, as large releases have."""
    torch.manual_seed(1)
    folder.mkdir(parents=True)
    tensors = Net(**config).state_dict()
    half = len(tensors) // 2
    for number, names in enumerate((list(tensors)[:half], list(tensors)[half:]), 1):
        save_file({n: tensors[n] for n in names}, str(folder / f"model-0000{number}-of-00002.safetensors"))
    (folder / "model.safetensors.index.json").write_text("{}")
    (folder / "config.json").write_text(json.dumps({"_class_name": "Net", **config}))
    return Part("net", folder, Net, config)


def test_the_chosen_blocks_move_up_with_their_own_weights(tmp_path: Path) -> None:
    """0, 1 and the last of six are 0, 1 and 2 of three: with its own bytes, and what lies around kept."""
    part = release(tmp_path / "net", num_layers=6, layer_types=list("abcdef"))
    made = blocks_cut.cut(part, [0, 1, -1], tmp_path / "cut")
    whole = {n: t for file in (tmp_path / "net").glob("*.safetensors") for n, t in load_file(file).items()}
    found = load_file(tmp_path / "cut" / "model.safetensors")
    assert made.chosen == {"blocks": [0, 1, 5]}
    assert torch.equal(found["blocks.2.weight"], whole["blocks.5.weight"])
    assert torch.equal(found["blocks.1.weight"], whole["blocks.1.weight"])
    assert torch.equal(found["embed.1.weight"], whole["embed.1.weight"])
    assert set(found) == set(Net(3).state_dict())
    config = json.loads((tmp_path / "cut" / "config.json").read_text())
    assert config == {"_class_name": "Net", "num_layers": 3, "layer_types": ["a", "b", "f"]}
    assert not (tmp_path / "cut" / "model.safetensors.index.json").exists()


def test_each_list_of_layers_that_the_config_names_is_cut(tmp_path: Path) -> None:
    """Two lists with depths of their own: -1 is the last of each."""
    part = release(tmp_path / "net", num_layers=5, refiner_layers=3)
    made = blocks_cut.cut(part, [0, -1], tmp_path / "cut")
    assert made.chosen == {"blocks": [0, 4], "refiner": [0, 2]}
    assert made.depths == {"blocks": 5, "refiner": 3}


def test_a_depth_that_only_a_default_states_counts(tmp_path: Path) -> None:
    """The release's file may leave it out; the cut's says it."""
    part = release(tmp_path / "net")
    part.config["num_layers"] = 2
    made = blocks_cut.cut(part, [-1], tmp_path / "cut")
    assert made.chosen == {"blocks": [1]}  # and not `embed`, which is as long
    assert json.loads((tmp_path / "cut" / "config.json").read_text()) == {"_class_name": "Net", "num_layers": 1}


def test_blocks_that_are_not_alike_are_blocked(tmp_path: Path) -> None:
    """The class of the new depth makes its block 1 wide; the one that would move there is not. Nothing is written."""
    part = release(tmp_path / "net", num_layers=4, wide=1)
    with pytest.raises(BlockedError, match=r"not alike.*blocks\.1"):
        blocks_cut.cut(part, [0, 2], tmp_path / "cut")
    assert not (tmp_path / "cut").exists()


def test_a_class_that_names_its_blocks_otherwise_is_blocked(tmp_path: Path) -> None:
    """What the files call `blocks` could then not be compared with what the class makes of the cut."""
    part = release(tmp_path / "net", num_layers=4)
    for file in part.folder.glob("*.safetensors"):
        save_file({f"model.{n}": t for n, t in load_file(file).items()}, str(file))
    with pytest.raises(BlockedError, match="under another name"):
        blocks_cut.cut(part, [0], tmp_path / "cut")


def test_lists_of_layer_numbers_are_counted_anew() -> None:
    """Layers 1 and 3 of four are the second of two, where 0 and 3 stay."""
    names = [f"blocks.{n}.weight" for n in range(4)]
    config = {"num_layers": 4, "skip_layers": [1, 3], "sizes": [8, 8]}
    made = blocks_cut.plan(names, config, config, [0, 3])
    assert made.config == {"num_layers": 2, "skip_layers": [1], "sizes": [8, 8]}


def test_a_list_inside_a_block_is_none() -> None:
    """Names within a block keep their numbers."""
    names = [f"encoder.block.{n}.layer.{m}.weight" for n in range(3) for m in range(2)]
    made = blocks_cut.plan(names, {"num_layers": 3}, {"num_layers": 3}, [2])
    assert made.renamed("encoder.block.2.layer.1.weight") == "encoder.block.0.layer.1.weight"
    assert made.renamed("encoder.block.1.layer.1.weight") is None
    assert made.renamed("shared.weight") == "shared.weight"


@pytest.mark.parametrize(
    "config", [{"depths": [2, 2], "width": 4}, {"num_layers": 7}, {"num_heads": 4}], ids=["levels", "other", "none"]
)
def test_without_a_depth_nothing_is_cut(config: dict[str, Any]) -> None:
    """A depth that no list of layers has, or none at all."""
    names = [f"blocks.{n}.weight" for n in range(4)]
    with pytest.raises(BlockedError, match="no depth of its config"):
        blocks_cut.plan(names, config, config, [0])


def test_what_names_no_block_is_wrong_use() -> None:
    """Words, nothing, and blocks that are not there."""
    assert blocks.parse("0,1,-1") == [0, 1, -1]
    for text in ("", "first", "0;1"):
        with pytest.raises(UsageError, match="names no blocks"):
            blocks.parse(text)
    assert blocks_cut.indices([-1, 0, 3], 4) == [0, 3]
    with pytest.raises(UsageError, match=r"no block 4 \(it has 4: 0 to 3"):
        blocks_cut.indices([0, 4], 4)
    with pytest.raises(UsageError, match="no block -5"):
        blocks_cut.indices([-5], 4)


def test_blocks_are_those_of_one_component() -> None:
    """Of no other check, and not of a whole port."""
    port: Any = None
    for check, components in (("keys", ("net",)), ("parity", ()), ("parity", ("net", "other"))):
        with pytest.raises(UsageError, match="goes with one component"):
            blocks.run(port, check, "0,1", Options(components=components))


@pytest.mark.heavy
def test_one_block_of_the_demo_is_compared_alone(port: Any) -> None:
    """The last block of two: green, said to be one of two, and no word of it in the port's own evidence."""
    kept = port.root / ".fvport" / "evidence" / "tiny_wan" / "parity.json"
    before = kept.read_bytes()
    ran = port.fvport("check", "parity", "transformer", "--blocks=-1", "--json")
    found = ran.json()
    assert (ran.code, found["verdict"]) == (0, "pass"), ran.out
    assert found["notes"][0].startswith("only blocks 1 of the 2 of blocks were compared")
    assert kept.read_bytes() == before
    twin = port.root / ".fvport" / "blocks" / "transformer"
    names = set(load_file(next(twin.glob("official_weights/*/transformer/*.safetensors"))))
    assert any(name.startswith("blocks.0.") for name in names)
    assert not any(name.startswith("blocks.1.") for name in names)
