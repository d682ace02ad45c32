# SPDX-License-Identifier: Apache-2.0
"""Write a twin: official names and layout, every parameter drawn from one seed, into a folder that appears at once."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fvport import __version__, progress
from fvport.errors import FvportError, UsageError
from fvport.tiny import configs, shrink, values
from fvport.tiny import release as releases
from fvport.tiny.shrink import Overrides, Twin

if TYPE_CHECKING:
    from fvport.spec import Port

RECORD = ".fvport-tiny.json"  # says that this folder was made here and may be replaced


@dataclass
class Made:
    """What `fvport tiny` answers."""

    out: Path
    seed: int
    twins: dict[str, Twin]
    copied: tuple[str, ...] = ()
    bytes: int = 0
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        twins = {name: twin.to_json() for name, twin in self.twins.items()}
        plain = {"out": str(self.out), "seed": self.seed, "bytes": self.bytes, "copied": list(self.copied)}
        return {**plain, "components": twins, "notes": self.notes}

    def text(self) -> str:
        lines = [f"{self.out}: {self.bytes / 1e6:.1f} MB, every parameter drawn from seed {self.seed}"]
        for name, twin in self.twins.items():
            lines.append(f"\n{name} ({twin.part.cls.__name__}): {twin.before:,} -> {twin.after:,} parameters")
            lines += [f"  {key}: {_short(a)} -> {_short(b)}" for key, (a, b) in twin.shrunk.items()]
            lines += [f"  not shrunk: {key}: {why}" for key, why in twin.kept.items()]
            lines += [f"  note: {words}" for words in twin.notes]
        lines += [f"\ncopied as they are: {', '.join(self.copied)}"] if self.copied else []
        return "\n".join([*lines, *(f"note: {words}" for words in self.notes)])


def run(
    source: Path,
    out: Path,
    *,
    seed: int = 0,
    limit: int = 0,
    overrides: Overrides | None = None,
    port: Port | None = None,
) -> Made:
    """Shrink `source` into `out`. FvportError where a component stays above `limit` parameters (0: no limit)."""
    source, out = Path(source), Path(out)
    refuse_other(source, out)
    _quiet()
    release = releases.read(source, port)
    twins = shrink.plan(release, overrides)
    over = {name: twin for name, twin in twins.items() if limit and twin.after > limit}
    for name, twin in over.items():
        why = "; ".join([f"{k}: {v}" for k, v in twin.kept.items()] + twin.notes) or "no rule knows its large keys"
        todo = f"Set more keys: --set {name}.KEY=VALUE"
        raise FvportError(f"{name} still has {twin.after:,} parameters, over {limit:,} ({why})", todo=todo)
    made = Made(out, seed, twins, release.copied)
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        _fill(beside, release, made)
        record = {"made_by": f"fvport {__version__}", "seed": seed, "components": made.to_json()["components"]}
        (beside / RECORD).write_text(json.dumps(record, indent=1, default=str) + "\n", encoding="utf-8")
        beside.chmod(0o755)  # mkdtemp makes private folders
        made.bytes = sum(p.stat().st_size for p in beside.rglob("*") if p.is_file())
        if out.exists():
            shutil.rmtree(out)
        os.replace(beside, out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return made


def refuse_other(source: Path, out: Path) -> None:
    """UsageError unless `out` is free, empty, or a twin made before; never the source or a folder around or in it."""
    ours, theirs = out.resolve(), source.resolve()
    if ours == theirs or ours in theirs.parents or theirs in ours.parents:
        raise UsageError("the twin would lie in, around or over its source", where=str(out), todo="Choose another OUT")
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / RECORD).is_file())):
        what = "this exists and was not made by fvport tiny, so it is left alone"
        raise UsageError(what, where=str(out), todo="Choose another OUT")


def _fill(folder: Path, release: releases.Release, made: Made) -> None:
    import torch

    moved = progress.Moved("tiny", unit="components")
    for count, (name, twin) in enumerate(made.twins.items()):
        moved.at(count, len(made.twins))
        place = folder / name if release.whole else folder
        torch.manual_seed(made.seed)
        model = values.randomise(twin.part.build(twin.config).float(), name, made.seed)
        model.save_pretrained(str(place))
        twin.notes += [words for words in (configs.put(twin, place), _lost_names(twin.part.folder, place)) if words]
        beside = twin.part.folder / "generation_config.json"
        if beside.is_file():
            shutil.copyfile(beside, place / beside.name)
    progress.clear()
    for name in release.copied:
        shutil.copytree(release.folder / name, folder / name)
    if release.whole:
        shutil.copyfile(release.folder / "model_index.json", folder / "model_index.json")
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o644)  # written for the owner only, which a container's user may not be


def _lost_names(official: Path, twin: Path) -> str:
    """Words where the release's own files call their tensors otherwise than the library writes them today."""
    from fvport.weights import manifest

    def names(folder: Path) -> set[str]:
        found: set[str] = set()
        for file in folder.glob("*.safetensors"):
            found |= set(manifest.read_header(file))
        return {".".join("*" if w.isdigit() else w for w in n.split(".")) for n in found}

    theirs, ours = names(official), names(twin)
    if not theirs or theirs == ours:
        return ""
    only = [next(iter(sorted(a - b)), "none") for a, b in ((theirs, ours), (ours, theirs))]
    return f"names differ from the release's files: only there {only[0]}; only in the twin {only[1]}"


def _quiet() -> None:
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for one in (diffusers_logging, transformers_logging):
        one.disable_progress_bar()  # a bar for a megabyte says nothing
        one.set_verbosity_error()


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
