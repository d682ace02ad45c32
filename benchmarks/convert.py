# SPDX-License-Identifier: Apache-2.0
"""Converting a sharded checkpoint of 4 GiB, against `cp` of the same bytes and against load_file + save_file.

Three declarations on one checkpoint: renames only; dim-0 splits and merges (byte moves as well); transposes and casts
on a third of the bytes. `cp` and ours hand the data to the system in the same way; the pair with `sync` waits for the
disk on both sides. Every run begins with clean pages and no target.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import Case
from benchmarks.measure import Run, run

LAYERS, WIDTH, SHARDS = 32, 2048, 4
QUICK_LAYERS = 2
CODE = "from fvport.weights.converter import main; import sys; main(sys.argv[1], sys.argv[2:])"
LOAD_SAVE = """
import sys, pathlib
from safetensors.torch import load_file, save_file
source, target, mode = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
target.mkdir(parents=True)
import torch
for file in sorted(source.glob("*.safetensors")):
    made = {}
    held = load_file(file)
    for name, tensor in held.items():
        name = name.replace("layers.", "blocks.")
        if mode != "rename" and ".qkv." in name:
            for word, part in zip(("q", "k", "v"), tensor.chunk(3)):
                made[name.replace("qkv", word)] = part.clone()
        elif mode != "rename" and ".gate." in name:
            other = held[name.replace("blocks.", "layers.").replace("gate", "up")]
            made[name.replace("gate", "gate_up")] = torch.cat([tensor, other])
        elif mode != "rename" and ".up." in name:
            continue
        elif mode == "arithmetic" and ".down." in name:
            made[name] = tensor.t().contiguous()
        elif mode == "arithmetic" and ".out." in name:
            made[name] = tensor.to(torch.float16)
        else:
            made[name] = tensor
    save_file(made, target / file.name, metadata={"format": "pt"})
"""
RENAME = [[r"^layers\.", "blocks."]]
MOVES = [
    [r"(.*)\.qkv\.(.*)", [r"\1.q.\2", r"\1.k.\2", r"\1.v.\2"], ["split", 0, 3]],
    [[r"(.*)\.gate\.(.*)", r"(.*)\.up\.(.*)"], r"\1.gate_up.\2", ["fuse", 0]],
]
ARITHMETIC = [*MOVES, [r"(.*)\.down\.(.*)", r"\1.down.\2", ["transpose", [1, 0]]]]
ARITHMETIC += [[r"(.*)\.out\.(.*)", r"\1.out.\2", ["cast", "F16"]]]
MODES: dict[str, list[Any]] = {"rename": [], "moves": MOVES, "arithmetic": ARITHMETIC}


def convert(scratch: Path, quick: bool) -> Case:
    """Ours and the baselines on one checkpoint; the other declarations of ours are the detail."""
    source = checkpoint(scratch / "release", QUICK_LAYERS if quick else LAYERS)
    target = scratch / "target"
    for mode, rules in MODES.items():
        (scratch / f"{mode}.py").write_text(declaration(rules))

    cpu: dict[str, list[float]] = {}

    def timed(name: str, *words: object) -> Run:
        clean(target)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = run(words)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        cpu.setdefault(name, []).append(round(spent, 2))
        return done

    def ours(mode: str, *words: str) -> Run:
        name = " ".join([mode, *words])
        return timed(name, sys.executable, "-c", CODE, scratch / f"{mode}.py", source, target, *words)

    def cp(sync: bool = False) -> Run:
        if sync:
            return timed("cp_and_sync", "sh", "-c", 'cp -r "$0" "$1" && sync -f "$1"', source, target)
        return timed("cp", "cp", "-r", source, target)

    def load_save(mode: str) -> Run:
        return timed(f"load_save {mode}", sys.executable, "-c", LOAD_SAVE, source, target, mode)

    commands = {
        "ours": lambda: ours("rename"),
        "cp": cp,
        "fvport moves": lambda: ours("moves"),
        "fvport arithmetic": lambda: ours("arithmetic"),
        "fvport no_scan": lambda: ours("rename", "--no-scan"),
        "fvport sync": lambda: ours("rename", "--sync"),
        "cp_and_sync": lambda: cp(sync=True),
        "load_save": lambda: load_save("rename"),
        "load_save_moves": lambda: load_save("moves"),
        "load_save_arithmetic": lambda: load_save("arithmetic"),
    }
    size = sum(file.stat().st_size for file in source.iterdir())
    return Case(
        commands,
        lambda runs: {"bytes": size, "cpu_seconds": cpu, **_ratios(runs), **_torch(runs, scratch, source, target)},
    )


PAIRS = {
    "moves": ("fvport moves", "cp"),
    "arithmetic": ("fvport arithmetic", "cp"),
    "no_scan": ("fvport no_scan", "cp"),
    "sync": ("fvport sync", "cp_and_sync"),
    "moves_by_load_save": ("fvport moves", "load_save_moves"),
    "arithmetic_by_load_save": ("fvport arithmetic", "load_save_arithmetic"),
}


def _ratios(runs: dict[str, list[Run]]) -> dict[str, Any]:
    def median(name: str) -> float:
        return statistics.median(one.seconds for one in runs[name])

    seconds = {name: [round(one.seconds, 2) for one in found] for name, found in runs.items()}
    ratios = {name: round(median(a) / median(b), 3) for name, (a, b) in PAIRS.items()}
    return {"ratios_of": PAIRS, "ratios": ratios, "all_seconds": seconds}


def _torch(runs: dict[str, list[Run]], scratch: Path, source: Path, target: Path) -> dict[str, Any]:
    """Whether torch was imported, asked of one more run of each declaration."""
    code = CODE + "; print('torch imported:', 'torch' in sys.modules)"
    found = {}
    for mode in MODES:
        clean(target)
        done = run([sys.executable, "-c", code, scratch / f"{mode}.py", source, target])
        found[mode] = "torch imported: True" in done.output
    clean(target)
    return {"torch_imported": found}


def clean(target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    os.sync()


def declaration(rules: list[Any]) -> str:
    part = {"class": ["diffusers", "Model"], "prefix": "", "config": {}, "rename": RENAME, "rules": rules}
    return f'PIPELINE = ["diffusers", "Pipeline"]\nCOMPONENTS = { ({"transformer": part})!r}\nSHARD_BYTES = {1 << 30}\n'


def checkpoint(folder: Path, layers: int) -> Path:
    """A bf16 checkpoint in SHARDS files with an index: 128 MiB a layer, of finite values."""
    folder.mkdir(parents=True)
    d = WIDTH
    shapes = {"qkv": (3 * d, d), "out": (d, d), "gate": (4 * d, d), "up": (4 * d, d), "down": (d, 4 * d)}
    values = np.random.default_rng(0).standard_normal(1 << 23).astype(np.float32) * 0.02
    block = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()  # bf16
    table: dict[str, str] = {}
    for shard in range(SHARDS):
        mine = [layer for layer in range(layers) if layer * SHARDS // layers == shard]
        names = {f"layers.{layer}.{name}.weight": shape for layer in mine for name, shape in shapes.items()}
        if not names:
            continue
        file = f"model-{shard + 1:05d}-of-{SHARDS:05d}.safetensors"
        header, at = {}, 0
        for name, (rows, columns) in names.items():
            size = rows * columns * 2
            header[name] = {"dtype": "BF16", "shape": [rows, columns], "data_offsets": [at, at + size]}
            at += size
            table[name] = file
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(folder / file, "wb") as stream:
            stream.write(struct.pack("<Q", len(text)) + text)
            stream.writelines(block[: min(len(block), at - start)] for start in range(0, at, len(block)))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    return folder
