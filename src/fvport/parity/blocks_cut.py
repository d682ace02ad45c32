# SPDX-License-Identifier: Apache-2.0
"""A component with some of its blocks: real weights at full width, the config's depth made to fit, nothing invented.

    cut(part, [0, 1, -1], folder)     blocks 0, 1 and the last become 0, 1 and 2 of a model that has three

What counts as a block is read off the weights (a list of layers as long as a depth that the config states), and whether
the cut is right off the official class: built on the meta device from both configs, the names and shapes of the whole,
cut in the same way, must be those of the cut model.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fvport.errors import BlockedError, UsageError
from fvport.tiny import keys
from fvport.tiny.release import Part, words
from fvport.weights import manifest

BLOCK = re.compile(r"^([^0-9]*?)\.?\b(\d+)\.")  # the outermost list: `blocks.3.`, `encoder.block.3.`


@dataclass(frozen=True)
class Cut:
    """Which blocks stay, by list; `config` is the component's config with the new depths."""

    depths: dict[str, int]  # list of layers -> how many the whole has
    chosen: dict[str, list[int]]  # list of layers -> indices in the whole, in the cut's order
    config: dict[str, Any] = field(default_factory=dict)

    def renamed(self, name: str) -> str | None:
        """A tensor's name in the cut; None where its block is left out."""
        found = BLOCK.match(name)
        if found is None or found[1] not in self.chosen:
            return name
        index = int(found[2])
        if index not in self.chosen[found[1]]:
            return None
        start, end = found.span(2)
        return f"{name[:start]}{self.chosen[found[1]].index(index)}{name[end:]}"


def plan(names: list[str], config: dict[str, Any], written: dict[str, Any], asked: list[int]) -> Cut:
    """What to cut. `config` has every default filled in, `written` is what the release's file says and the cut will.

    UsageError for an index that no block has, BlockedError where no depth of the config is found.
    """
    lengths = _lengths(names)
    patch: dict[str, Any] = {}
    depths: dict[str, int] = {}
    for prefix, level in keys.levels(config):
        for key, value in level.items():
            lists = [p for p, n in lengths.items() if keys.integer(value) and n == value]
            if keys.DEPTH.search(key) and lists:
                depths |= dict.fromkeys(lists, value)
                chosen = indices(asked, value)
                patch[prefix + key] = len(chosen)
                patch |= _along(prefix, level, value, chosen)
    if not depths:
        what = "no depth of its config is the length of a list of layers in its weights, so no block can be left out"
        raise BlockedError(what, todo="Compare it whole: fvport check parity")
    return Cut(depths, {p: indices(asked, n) for p, n in depths.items()}, keys.patched(written, patch))


def _lengths(names: Iterable[str]) -> dict[str, int]:
    """How many entries each outermost list has; one whose numbers have gaps is none."""
    counts: dict[str, set[int]] = {}
    for name in names:
        if found := BLOCK.match(name):
            counts.setdefault(found[1], set()).add(int(found[2]))
    return {prefix: len(held) for prefix, held in counts.items() if held == set(range(len(held)))}


def indices(asked: list[int], count: int) -> list[int]:
    """Blocks in their order, negative ones from the end. UsageError for one that is not there or named twice."""
    found = [index + count if index < 0 else index for index in asked]
    for index, real in zip(asked, found, strict=True):
        if not 0 <= real < count:
            raise UsageError(f"there is no block {index} (it has {count}: 0 to {count - 1}, or -1 to -{count})")
    return sorted(set(found))


def _along(prefix: str, level: dict[str, Any], count: int, chosen: list[int]) -> dict[str, Any]:
    """Lists with an entry a layer are cut with them; a list of layers' numbers would need to be counted anew."""
    patch = {}
    for key, value in level.items():
        if not isinstance(value, list | tuple):
            continue
        if keys.integers(value) and keys.LAYER_INDEX.search(key) and max(value) < count:
            patch[prefix + key] = [chosen.index(v) for v in value if v in chosen]
        elif len(value) == count and keys.LAYER_LIST.search(key):
            patch[prefix + key] = [value[index] for index in chosen]
    return patch


def cut(part: Part, asked: list[int], folder: Path) -> Cut:
    """Write the cut component to `folder`. BlockedError where the official class would be more than shorter."""
    files = sorted(part.folder.glob("*.safetensors"))
    if not files:
        raise BlockedError("its weights are no safetensors", where=str(part.folder), todo="Compare it whole")
    held = {name: file for file in files for name in manifest.read_header(file)}
    written = json.loads((part.folder / "config.json").read_text(encoding="utf-8"))
    made = settled(part, plan(list(held), part.config, written, asked))
    folder.mkdir(parents=True)
    for file in part.folder.iterdir():
        if file.is_file() and not file.name.endswith((".safetensors", ".safetensors.index.json", "config.json")):
            shutil.copyfile(file, folder / file.name)
    (folder / "config.json").write_text(json.dumps(made.config, indent=2) + "\n", encoding="utf-8")
    _write(held, made, folder / _whole_name(part.folder, files))
    return made


def settled(part: Part, made: Cut) -> Cut:
    """`made` with the lists that the class itself shortens, built on the meta device from both configs.

    BlockedError where more than the left out blocks is missing then, or where the class names its lists otherwise.
    """
    whole = _shapes(part, part.config)
    short = _shapes(part, {**part.config, **{k: v for k, v in made.config.items() if k in part.config}})
    lengths = _lengths(short)
    strange = [prefix for prefix in made.chosen if prefix not in lengths]
    if strange:
        what = f"its files hold a list {strange[0]}, which {part.cls.__name__} has under another name"
        raise BlockedError(what, todo="Compare it whole: fvport check parity")
    chosen = {prefix: kept for prefix, kept in made.chosen.items() if lengths[prefix] == len(kept)}
    made = replace(made, chosen=chosen, depths={prefix: made.depths[prefix] for prefix in chosen})
    wanted = {new: shape for name, shape in whole.items() if (new := made.renamed(name)) is not None}
    odd = sorted(name for name in wanted.keys() | short.keys() if wanted.get(name) != short.get(name))
    if odd or not chosen:
        other = f"another {odd[0]}" if odd else "as many"
        what = f"the blocks are not alike: {part.cls.__name__} of that depth has {other}"
        raise BlockedError(what, todo="Choose other blocks (most often 0 must be among them), or compare it whole")
    return made


def _shapes(part: Part, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    import torch

    try:
        with torch.device("meta"):
            return {name: tuple(t.shape) for name, t in part.build(config).state_dict().items()}
    except Exception as error:  # noqa: BLE001 - the class's own words about a config
        what = f"{part.cls.__name__} cannot be built on the meta device to see what a cut leaves: {words(error)}"
        raise BlockedError(what, todo="Compare it whole: fvport check parity") from None


def _write(held: dict[str, Path], made: Cut, target: Path) -> None:
    """The chosen tensors alone are read, each from its file."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    tensors = {}
    for file in sorted(set(held.values())):
        with safe_open(str(file), framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - no mapping
                if (new := made.renamed(name)) is not None:
                    tensors[new] = opened.get_tensor(name)
    save_file(tensors, str(target), metadata={"format": "pt"})


def _whole_name(folder: Path, files: list[Path]) -> str:
    index = next(iter(folder.glob("*.safetensors.index.json")), None)
    return index.name.removesuffix(".index.json") if index else files[0].name
