# SPDX-License-Identifier: Apache-2.0
"""Weight sets: files of one folder that hold one set of tensors (a file, shards with an index, numbered shards)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fvport.errors import BlockedError
from fvport.weights import manifest
from fvport.weights.manifest import TensorInfo, Weights

PICKLES = (".bin", ".pt", ".pth", ".ckpt")
READ = (".safetensors", *PICKLES)
UNREAD = {
    ".gguf": "GGUF, quantised",
    ".h5": "Keras",
    ".msgpack": "Flax",
    ".onnx": "ONNX",
    ".npz": "NumPy",
    ".distcp": "a torch distributed checkpoint",
    ".nemo": "NeMo",
    ".pdparams": "Paddle",
}
CONFIG_NAMES = tuple(f"{word}config.json" for word in ("", "scheduler_", "tokenizer_", "preprocessor_", "processor_"))
TRAINING_FILE = re.compile(
    r"(optimizer|optim_|scheduler|scaler|rng_state|random_states?|training_args|trainer_state)\w*"
)
NUMBERED = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.\w+)")
TWINS = {"pytorch_model": ("model", "diffusion_pytorch_model")}  # the same weights as a pickle and as safetensors
DEFAULTS = ("diffusion_pytorch_model", "pytorch_model", "model")
MAX_FILES = 50_000


@dataclass(frozen=True)
class WeightSet:
    """One set of tensors. `folder`: relative to the release ("." for its root); `stem`: what its files are called."""

    folder: str
    stem: str
    weights: Weights


# --- what lies in a folder -------------------------------------------------------------------------------------------


def here(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))


def weight_files(folder: Path) -> list[str]:
    """Names of the weight files in `folder` itself, without training state."""
    return [f.name for f in here(folder) if f.suffix in READ and not TRAINING_FILE.fullmatch(f.stem)]


def training_files(folder: Path) -> list[str]:
    return [f.name for f in here(folder) if f.suffix in READ and TRAINING_FILE.fullmatch(f.stem)]


def unread(folder: Path) -> list[str]:
    """Weight files in a format that is not read here, each with its word."""
    return [f"{file.name} ({UNREAD[file.suffix]})" for file in here(folder) if file.suffix in UNREAD]


def files(folder: Path) -> tuple[tuple[str, int], ...]:
    """(path relative to `folder`, bytes) of every file in it, links followed; caches and hidden files are left out."""
    found = []
    for file in folder.rglob("*"):
        relative = file.relative_to(folder)
        if file.is_file() and not any(part.startswith(".") for part in relative.parts):
            found.append((relative.as_posix(), file.stat().st_size))
    return tuple(sorted(found))


def config(folder: Path) -> dict[str, Any]:
    found = next((folder / name for name in CONFIG_NAMES if (folder / name).is_file()), None)
    return manifest.read_json(found) if found else {}


def folders(root: Path) -> Iterator[Path]:
    """`root` and the folders in it that are not hidden, in order. BlockedError where there are too many files."""
    seen, count = set(), 0
    for top, inner, names in os.walk(root, followlinks=True):
        real = os.path.realpath(top)
        inner[:] = sorted(name for name in inner if not name.startswith((".", "__"))) if real not in seen else []
        seen.add(real)
        count += len(names) + len(inner)
        if count > MAX_FILES:
            raise BlockedError(f"holds more than {MAX_FILES} files", where=str(root), todo="Give one release's folder")
        yield Path(top)


# --- sets ------------------------------------------------------------------------------------------------------------


def of_folder(folder: Path, relative: str, by_library: bool) -> list[WeightSet]:
    """The sets of one folder. `by_library`: its config names a class, whose library chooses among the safetensors."""
    names = weight_files(folder)
    found: list[WeightSet] = []
    if by_library and any(name.endswith(".safetensors") for name in names):
        weights = manifest.read_weights(folder)
        found.append(WeightSet(relative, stem(next(iter(weights.files))), weights))
        names = [name for name in names if not name.endswith(".safetensors")]
    for index in _indexes(folder):
        if not any(item.stem == stem(index.name) for item in found):
            weights = manifest.read_index(index, located=False)
            found.append(WeightSet(relative, stem(index.name), weights))
            names = [name for name in names if name not in weights.files]
    read = [*names, *(f"{item.stem}.safetensors" for item in found)]
    for word, members in _groups(folder, names).items():
        if all(name.endswith(PICKLES) for name in members) and _twin(word, read):
            continue
        weights = manifest.together(folder, {name: manifest.read_file(folder / name, False) for name in members})
        if len(members) > 1:
            weights = replace(weights, concerns=(f"{len(members)} numbered shards and no index",))
        found.append(WeightSet(relative, word, weights))
    return found


def read_pickles(folder: Path) -> Weights:
    """The pickled weights of a component's folder, as its library chooses them; Weights({}) where there are none."""
    found = of_folder(folder, ".", False)
    names = [*DEFAULTS, *(item.stem for item in found)]
    chosen = next((item for name in names for item in found if item.stem == name), WeightSet(".", "", Weights({})))
    others = ", ".join(item.stem for item in found if item is not chosen)
    words = (f"also holds {others}",) if others else ()
    return replace(chosen.weights, concerns=(*chosen.weights.concerns, *words))


def _indexes(folder: Path) -> list[Path]:
    found = (file for file in here(folder) if file.name.endswith(".index.json"))
    return [file for file in found if Path(file.name.removesuffix(".index.json")).suffix in READ]


def _groups(folder: Path, names: list[str]) -> dict[str, list[str]]:
    """{stem: files}: numbered shards without an index together, every other file alone. A missing number is refused."""
    groups: dict[str, list[str]] = {}
    for name in names:
        match = NUMBERED.fullmatch(name)
        groups.setdefault(f"{match[1]}{match[4]}-of-{match[3]}" if match else name, []).append(name)
    found: dict[str, list[str]] = {}
    for members in groups.values():
        match = NUMBERED.fullmatch(members[0])
        if match and len(members) != int(match[3]):
            there = {name.removeprefix(f"{match[1]}-")[:5] for name in members}
            lacking = next(n for n in range(1, int(match[3]) + 2) if f"{n:05d}" not in there)
            what = f"there are {len(members)} of {int(match[3])} shards of {match[1]}; number {lacking} is not there"
            raise BlockedError(what, where=str(folder), todo="Fetch the whole release")
        found[match[1] if match else (stem(members[0]) if stem(members[0]) not in found else members[0])] = members
    return found


def _twin(word: str, names: list[str]) -> bool:
    """Whether a pickle's weights are there as safetensors too."""
    return any(f"{other}.safetensors" in names for other in (word, *TWINS.get(word, ())))


def stem(name: str) -> str:
    """`model.safetensors.index.json`, `model-00001-of-00002.safetensors`, `model.safetensors` -> model"""
    match = NUMBERED.fullmatch(name)
    return match[1] if match else Path(name.removesuffix(".index.json")).stem


# --- what is shared --------------------------------------------------------------------------------------------------


def tied(weights: Weights) -> tuple[tuple[str, ...], ...]:
    """Groups of names for the same values: the same view of one storage. A safetensors file stores each name once; what
    its writer left out is told by `left_out`.
    """
    groups: dict[tuple[Any, ...], list[str]] = {}
    for file, tensors in weights.files.items():
        for name, info in tensors.items():
            if info.storage and info.nbytes:
                groups.setdefault((file, info.storage, info.start, info.shape, info.stride), []).append(name)
    return tuple(tuple(names) for names in groups.values() if len(names) > 1)


def overlapping(weights: Weights) -> list[str]:
    """Names that share bytes with another name without being the same tensor."""
    found: list[str] = []
    for tensors in weights.files.values():
        stored = [(info.storage, info.start, info.end, name, info) for name, info in tensors.items() if info.storage]
        reached: tuple[str, int, TensorInfo | None] = ("", 0, None)
        for storage, start, end, name, info in sorted(stored, key=lambda item: item[:4]):
            if storage == reached[0] and start < reached[1] and not _same(info, reached[2]):
                found.append(name)
            if storage != reached[0] or end > reached[1]:
                reached = (storage, end, info)
    return found


def _same(one: TensorInfo, other: TensorInfo | None) -> bool:
    return other is not None and (one.start, one.shape, one.stride) == (other.start, other.shape, other.stride)


def left_out(weights: Weights) -> dict[str, str]:
    """{name that the writer left out: the name that holds its values}, from safetensors metadata."""
    held = weights.tensors
    return {name: kept for name, kept in weights.metadata.items() if kept in held and name not in held and "." in name}


def total(tensors: Mapping[str, TensorInfo], groups: tuple[tuple[str, ...], ...]) -> int:
    """Bytes of the values, what is tied counted once."""
    again = {name for group in groups for name in group[1:]}
    return sum(info.nbytes for name, info in tensors.items() if name not in again)
