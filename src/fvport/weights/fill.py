# SPDX-License-Identifier: Apache-2.0
"""The files of a converted release: weight files, configs and copied folders, written where `tree.py` says."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fvport.errors import BlockedError, FvportError
from fvport.weights import manifest, scan
from fvport.weights.conversion import Conversion, Made
from fvport.weights.crew import Crew
from fvport.weights.declaration import Part
from fvport.weights.kinds import kind_of
from fvport.weights.stream import Copier, Range, Shard, index, moves, shards


@dataclass(frozen=True)
class Options:
    """`link`: passthrough folders as links; `sync`: wait for the disk; `scan`: look for NaN in what is moved."""

    link: bool = False
    sync: bool = False
    scan: bool = True


@dataclass
class Written:
    """What lies in the tree. `made` False: it was there already, as it should be."""

    tree: Path
    made: bool
    files: dict[str, int] = field(default_factory=dict)
    resumed: list[str] = field(default_factory=list)
    nan: dict[str, int] = field(default_factory=dict)  # {component.tensor: count, or 0 where it was not counted}
    notes: list[str] = field(default_factory=list)


def copied_files(plan: Conversion, part: Part) -> list[str]:
    """Files of a passthrough folder, relative to it; nothing for other components."""
    if not part.copied:
        return []
    folder = plan.root / part.folder
    found = sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    names = [path.as_posix() for path in found if not any(word.startswith(".") for word in path.parts)]
    chosen = [name for name in names if not part.only or name in part.only]
    lacking = sorted(set(part.only) - set(chosen))
    if lacking or not chosen:
        what = f"{part.name} needs {', '.join(lacking) or 'at least one file'} in {part.folder}, which is not there"
        raise BlockedError(what, where=str(folder), todo="Fetch the whole release, or correct the declaration")
    return chosen


def fill(plan: Conversion, part: Path, options: Options, said: Callable[[int, int], None], result: Written) -> None:
    """Write everything into the folder `part`; what is there already under its own name stays. `said(done, total)`
    is told of bytes, `result` what was found."""
    work = {name: component_shards(plan, name) for name in plan.tensors}
    if any(not made.moves_bytes for made_list in plan.tensors.values() for made in made_list):
        from fvport.weights import arithmetic

        arithmetic.need_numpy()
    writer = _Writer(plan, part, options, said, result)
    for name in work:
        (part / name).mkdir(exist_ok=True)
    every = [(name, shard) for name, files in work.items() for shard in files]
    writer.crew.run(partial(task, name, shard) for name, shard in every for task in (writer.shard, writer.look))
    for name, files in work.items():
        if len(files) > 1:
            text(part / name / f"{_stem(plan.declaration.parts[name])}.safetensors.index.json", index(files))
    for item in plan.declaration.parts.values():
        writer.texts_and_copies(item)
    text(part / "model_index.json", model_index(plan))
    result.resumed.sort()


def component_shards(plan: Conversion, name: str) -> list[Shard]:
    """The weight files of one component."""
    metadata: dict[str, str] = {}
    for file in dict.fromkeys(source.file for made in plan.tensors[name] for source in made.sources):
        metadata |= plan.metadata.get(file, {})
    metadata.setdefault("format", "pt")  # transformers refuses a file that does not say so
    return shards(plan.tensors[name], _stem(plan.declaration.parts[name]), metadata, plan.declaration.shard_bytes)


def _stem(part: Part) -> str:
    return "model" if part.library == "transformers" else "diffusion_pytorch_model"


@dataclass
class _Writer:
    """What the tasks of one run share; `told` guards what they tell."""

    plan: Conversion
    part: Path
    options: Options
    said: Callable[[int, int], None]
    result: Written
    done: int = 0
    crew: Crew = field(default_factory=Crew)
    told: threading.Lock = field(default_factory=threading.Lock)

    def tell(self, count: int) -> None:
        if self.crew.stopped.is_set():
            raise KeyboardInterrupt  # another task failed, or the user ended the run
        with self.told:
            self.done += count
            self.said(self.done, self.plan.bytes)

    def shard(self, name: str, shard: Shard) -> None:
        """Write one file beside its name, then rename it."""
        final = self.part / name / shard.name
        if final.is_file() and final.stat().st_size == shard.size:
            self.result.resumed.append(f"{name}/{shard.name}")
            self.result.nan |= _kept_nan(final)
            self.tell(shard.size - len(shard.header))
            return
        unfinished = final.with_name(f".{shard.name}.unfinished")
        copier = Copier(self.plan.root, self.tell)
        try:
            with open(unfinished, "wb", buffering=0) as stream:
                stream.write(shard.header)
                os.ftruncate(stream.fileno(), shard.size)
                for place, piece in moves(shard):
                    copier.copy(stream.fileno(), place, piece)
                found = self._compute(name, shard, unfinished, stream.fileno())
            if found:
                text(final.with_name(f".{shard.name}.nan"), found)
                self.result.nan |= found
            os.replace(unfinished, final)
        finally:
            copier.close()
            unfinished.unlink(missing_ok=True)

    def _compute(self, name: str, shard: Shard, file: Path, target: int) -> dict[str, int]:
        """Fill in what does not move; gives {component.tensor: how many NaN} of it."""
        found: dict[str, int] = {}
        for made, start in zip(shard.tensors, shard.starts, strict=True):
            if made.moves_bytes:
                continue
            if made.tensor.bits:
                os.posix_fallocate(target, start, made.tensor.bits // 8)
            if count := _computed(self.plan, made, file, start, self.part):
                found[f"{name}.{made.name}"] = count
            self.tell(made.tensor.bits // 8)
        return found

    def look(self, name: str, shard: Shard) -> None:
        """Look for NaN in what moves into one file. It stops no conversion: what prevents it is a note."""
        if not self.options.scan:
            return
        problem = ""
        try:
            for tensor in scan.with_nan(self.plan.root, shard.tensors, self.crew.stopped):
                self.result.nan.setdefault(f"{name}.{tensor}", 0)
        except ImportError:
            problem = "numpy is not installed: nothing was looked for a NaN"
        except (OSError, FvportError) as error:
            problem = f"looking for NaN ended early ({error})"
        with self.told:
            if problem and problem not in self.result.notes:
                self.result.notes.append(problem)

    def texts_and_copies(self, item: Part) -> None:
        """A component's config, and its folder where it is copied as it is."""
        folder = self.part / item.name
        folder.mkdir(exist_ok=True)
        copier = Copier(self.plan.root)
        try:
            for name in copied_files(self.plan, item):
                source, target = self.plan.root / item.folder / name, folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                if self.options.link:
                    target.symlink_to(os.path.relpath(source, target.parent))
                    continue
                with open(target, "wb", buffering=0) as stream:
                    copier.copy(stream.fileno(), 0, Range(f"{item.folder}/{name}", 0, source.stat().st_size))
        finally:
            copier.close()
        if not item.copied or item.config is not None:
            text(folder / config_name(item), self.plan.config(item))


def _kept_nan(final: Path) -> dict[str, int]:
    file = final.with_name(f".{final.name}.nan")
    return manifest.read_json(file) if file.is_file() else {}


def _computed(plan: Conversion, made: Made, target: Path, start: int, scratch: Path) -> int:
    from fvport.weights import arithmetic

    bench = arithmetic.Workbench(plan.root, scratch)
    try:
        return arithmetic.compute(bench, made, target, start)
    finally:
        bench.close()


def config_name(part: Part) -> str:
    """The file name that the component's loader wants."""
    kind, _ = kind_of(part.name, part.cls, part.library)
    names = {"scheduler": "scheduler_config.json", "tokenizer": "tokenizer_config.json"}
    return names.get(kind, "preprocessor_config.json" if kind == "processor" else "config.json")


def model_index(plan: Conversion) -> dict[str, Any]:
    """model_index.json with the official classes. FastVideo wants the version's key, and none wrote this."""
    declared = plan.declaration
    index_: dict[str, Any] = {"_class_name": declared.pipeline[1], "_diffusers_version": "", **declared.index}
    return index_ | {name: [part.library, part.cls] for name, part in declared.parts.items()}


def text(file: Path, value: Any) -> None:
    with open(file, "w", encoding="utf-8", newline="\n") as stream:
        stream.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
