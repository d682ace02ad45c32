# SPDX-License-Identifier: Apache-2.0
"""`inspect` and `keys`: what is known of a checkpoint without reading a tensor, against libraries that read headers
or tensors. Checkpoints are sparse: their headers are real, their values are holes.
"""

from __future__ import annotations

import json
import resource
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.cases import BIN, FVPORT, Case
from benchmarks.measure import Run, run

GOAL = 0.5  # seconds for the whole process on 100 GB
GB = 10**9
Names = dict[str, tuple[int, ...]]

HEADERS = """
import sys, pathlib, json
from safetensors import safe_open
for path in sorted(pathlib.Path(sys.argv[1]).rglob("*.safetensors")):
    with safe_open(path, "np") as file:
        shapes = {name: (file.get_slice(name).get_dtype(), file.get_slice(name).get_shape()) for name in file.keys()}
configs = [json.loads(path.read_text()) for path in pathlib.Path(sys.argv[1]).rglob("*.json")]
"""
# The check's own comparison, with the rules and the native names from a file: what a child process says of FastVideo is
# kept by digest, and how long that takes is another question.
KEYS = """
import json, pathlib, sys
from fvport.checks.keys import compare
from fvport.spec import Component
from fvport.weights import manifest, sides
from fvport.weights.mapping import Rules
table = json.loads(pathlib.Path(sys.argv[2]).read_text())
side = sides.Side(None, Component("transformer", "dit", "port"))
side.weights = manifest.read_weights(pathlib.Path(sys.argv[1]))
side.rules = Rules.from_fastvideo({p: tuple(t) if isinstance(t, list) else t for p, t in table["rules"].items()})
side.native = {name: (tuple(shape), dtype) for name, (shape, dtype) in table["native"].items()}
items = compare(side)
assert [item.verdict for item in items] == ["pass"], items
print(items[0].metrics)
"""
# The same question by somebody who loads the tensors: a shard at a time, so that memory is one shard's.
LOADED = """
import json, pathlib, re, sys
from safetensors.numpy import load_file
table = json.loads(pathlib.Path(sys.argv[2]).read_text())
shapes = {}
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.safetensors")):
    shapes.update({name: value.shape for name, value in load_file(path).items()})
found = {}
for name, shape in shapes.items():
    for pattern, target in table["rules"].items():
        if re.match(pattern, name):
            goal = target[0] if isinstance(target, list) else target
            found.setdefault(re.sub(pattern, goal, name), []).append(shape)
            break
    else:
        found[name] = [shape]
joined = {name: [sum(s[0] for s in parts), *parts[0][1:]] for name, parts in found.items()}
assert joined == {name: shape for name, (shape, _) in table["native"].items()}
"""
RULES: dict[str, Any] = {
    r"^blocks\.(\d+)\.attn\.to_q\.(.*)$": [r"blocks.\1.attn.to_qkv.\2", 0, 3],
    r"^blocks\.(\d+)\.attn\.to_k\.(.*)$": [r"blocks.\1.attn.to_qkv.\2", 1, 3],
    r"^blocks\.(\d+)\.attn\.to_v\.(.*)$": [r"blocks.\1.attn.to_qkv.\2", 2, 3],
    r"^blocks\.(\d+)\.attn\.to_out\.0\.(.*)$": r"blocks.\1.attn.to_out.\2",
    r"^blocks\.(\d+)\.ff\.net\.0\.proj\.(.*)$": r"blocks.\1.mlp.fc_in.\2",
    r"^blocks\.(\d+)\.ff\.net\.2\.(.*)$": r"blocks.\1.mlp.fc_out.\2",
    r"^blocks\.(\d+)\.norm(\d)\.(.*)$": r"blocks.\1.norm\2.\3",
    r"^embed\.proj\.(.*)$": r"embed.proj_in.\1",
}


def inspect(scratch: Path, quick: bool) -> Case:
    """100 GB in 20 shards, the whole process from the command line, against the safetensors library on the same."""
    release = scratch / "release"
    size = (4 if quick else 100) * GB
    tensors = _release(release, size)
    done = run([FVPORT, "inspect", release, "--json"])
    found = json.loads(done.output)["components"]["transformer"]
    assert (len(found["tensors"]), found["bytes"]) == (len(tensors), _bytes(tensors)), "not what was made"

    def detail(runs: dict[str, list[Run]]) -> dict[str, Any]:
        seconds = sorted(one.seconds for one in runs["ours"])[len(runs["ours"]) // 2]
        held = sum(file.stat().st_blocks * 512 for file in release.rglob("*") if file.is_file())
        return {
            "bytes": _bytes(tensors),
            "bytes_on_disk": held,
            "tensors": len(tensors),
            "shards": len(list(release.rglob("*.safetensors"))),
            "goal_seconds": GOAL,
            "met": seconds < GOAL,
            "cpu_seconds": _cpu([FVPORT, "inspect", release, "--json"]),
            "fastest_seconds": round(min(one.seconds for one in runs["ours"]), 4),
        }

    commands = {
        "ours": lambda: run([FVPORT, "inspect", release, "--json"]),
        "safetensors headers": lambda: run([sys.executable, "-c", HEADERS, release]),
        "fvport help": lambda: run([FVPORT, "--help"]),
    }
    return Case(commands, detail)


def keys(scratch: Path, quick: bool) -> Case:
    """Official headers through the rules against a table of native names, against loading the tensors to ask them."""
    folder, table = scratch / "transformer", scratch / "table.json"
    total = 2**28 if quick else 4 * 2**30
    tensors = _tensors(total, width=64 if quick else 256)
    _shards(folder, tensors, 8)
    table.write_text(json.dumps({"rules": RULES, "native": _native(tensors)}))
    python = BIN / "python"

    def detail(runs: dict[str, list[Run]]) -> dict[str, Any]:
        return {"bytes": _bytes(tensors), "keys": len(tensors), "said": runs["ours"][-1].output.strip()}

    commands = {
        "ours": lambda: run([python, "-c", KEYS, folder, table]),
        "load_file and compare": lambda: run([python, "-c", LOADED, folder, table]),
        "safetensors headers alone": lambda: run([python, "-c", HEADERS, folder]),
    }
    return Case(commands, detail)


def _cpu(command: list[Any]) -> float:
    """Processor time of one run, the best of three: what the machine's other work does not change much."""
    found = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([str(word) for word in command], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return round(min(found), 3)


# --- sparse checkpoints ----------------------------------------------------------------------------------------------


def _tensors(total: int, width: int) -> Names:
    """A transformer's names with the shapes of `width`, in as many layers as fill `total` bytes of F16."""
    layer: Names = {}
    for part in ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"):
        layer |= {f"{part}.weight": (width, width), f"{part}.bias": (width,)}
    layer |= {"ff.net.0.proj.weight": (4 * width, width), "ff.net.0.proj.bias": (4 * width,)}
    layer |= {"ff.net.2.weight": (width, 4 * width), "ff.net.2.bias": (width,)}
    layer |= {"norm1.weight": (width,), "norm2.weight": (width,)}
    count = max(1, total // _bytes(layer))
    found = {f"blocks.{n}.{name}": shape for n in range(min(count, 150)) for name, shape in layer.items()}
    left = (total - _bytes(found)) // (2 * width)
    return found | {"embed.proj.weight": (max(left, 1), width)}


def _bytes(tensors: Names) -> int:
    total = 0
    for shape in tensors.values():
        count = 2
        for length in shape:
            count *= length
        total += count
    return total


def _native(tensors: Names) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, shape in tensors.items():
        name = name.replace("attn.to_out.0", "attn.to_out").replace("ff.net.0.proj", "mlp.fc_in")
        name = name.replace("ff.net.2", "mlp.fc_out").replace("embed.proj", "embed.proj_in")
        parts = 3 if any(f".to_{part}." in name for part in "qkv") else 1
        for part in "qkv":
            name = name.replace(f".to_{part}.", ".to_qkv.")
        found[name] = [[shape[0] * parts, *shape[1:]], "F16"]
    return found


def _shards(folder: Path, tensors: Names, count: int) -> None:
    """Write shards of about one size with an index: real headers, values that are holes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    table: dict[str, str] = {}
    for n, part in enumerate(_split(tensors, count), 1):
        name = f"diffusion_pytorch_model-{n:05d}-of-{count:05d}.safetensors"
        header, at = {}, 0
        for key, shape in part.items():
            size = _bytes({key: shape})
            header[key] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, at + size]}
            at += size
            table[key] = name
        raw = json.dumps(header).encode()
        with (folder / name).open("wb") as stream:
            stream.write(struct.pack("<Q", len(raw)) + raw)
            stream.truncate(8 + len(raw) + at)
    index = {"metadata": {"total_size": _bytes(tensors)}, "weight_map": table}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def _split(tensors: Names, count: int) -> Iterator[Names]:
    names = list(tensors)
    for n in range(count):
        yield {name: tensors[name] for name in names[n * len(names) // count : (n + 1) * len(names) // count]}


def _release(root: Path, size: int) -> Names:
    """A pipeline whose transformer has `size` bytes in 20 shards."""
    tensors = _tensors(size, width=5120 if size > 10 * GB else 1024)
    _shards(root / "transformer", tensors, 20)
    config = {"_class_name": "WanTransformer3DModel", "num_layers": 40}
    (root / "transformer/config.json").write_text(json.dumps(config))
    (root / "scheduler").mkdir()
    (root / "scheduler/scheduler_config.json").write_text('{"_class_name": "UniPCMultistepScheduler"}')
    index = {
        "_class_name": "WanPipeline",
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
    }
    (root / "model_index.json").write_text(json.dumps(index))
    return tensors
