# SPDX-License-Identifier: Apache-2.0
"""`skeletons`: official classes that no archetype covers; keys green at once, and what is left to a person.

For each class: the skeleton is rendered and built on the meta device by FastVideo's own layers, its names and shapes
are held against the official state dict, and every forward that was written by itself is run beside the official block
with the same weights. `python -m benchmarks.skeletons OUT FOLDER` measures all of them in one process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks import skeleton_cases, skeleton_fills
from benchmarks.cases import ROOT, Case
from benchmarks.measure import Run

CLOSE = 2e-6  # of a block's largest value: single precision


def measure(cls: str, folder: Path) -> dict[str, Any]:
    """`{"keys", "missing", "extra", "shapes", "decisions", "written", "wrong"}` of a class, FastVideo being booted."""
    import diffusers
    import torch

    from fvport.audit import official as officials

    official = getattr(diffusers, cls)(**json.loads(json.dumps(skeleton_cases.CASES[cls]))).eval()
    officials.randomise(official, torch.Generator().manual_seed(0))
    state = official.state_dict()
    c, made, native_cls, config = _native(cls, official, folder)
    dit = c.kind == "dit"
    with torch.device("meta"):
        model = native_cls(config=config, hf_config={}) if dit else native_cls(config)
    found = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    row: dict[str, Any] = {
        "keys": len(state),
        "missing": [name for name in state if name not in found],
        "extra": [name for name in found if name not in state],
        "shapes": [name for name, shape in found.items() if name in state and shape != tuple(state[name].shape)],
        "unnamed": [name for name in state if not _named(name, made.passthrough)],
        "decisions": made.decisions,
        "lines": source_lines(c),
    }
    row["green"] = not any(row[key] for key in ("missing", "extra", "shapes", "unnamed"))
    if row["green"]:
        real = native_cls(config=config, hf_config={}) if dit else native_cls(config)
        real.load_state_dict(state)
        row["written"], row["wrong"] = compare_blocks(official, real.eval())
    if cls in skeleton_fills.FILLS:
        row["diff"] = skeleton_fills.diff(cls, c.source)
        row["filled"] = parity(cls, official, c, config, folder)
    return row


def parity(cls: str, official: Any, c: Any, config: Any, folder: Path) -> dict[str, Any]:
    """`{"left", "cases": [[difference, floor]]}`: the skeleton, its decisions filled in, beside the official."""
    import copy

    import archetypes_support as support
    import torch

    source = skeleton_fills.filled(c.source, skeleton_fills.FILLS[cls])
    native = getattr(support.module(f"{c.native_module}_filled", source, folder), c.native_class)(config, hf_config={})
    native.load_state_dict(official.state_dict())
    double, cases = copy.deepcopy(official).double(), []
    for case in skeleton_fills.inputs(cls, torch.Generator().manual_seed(2)):
        wide = {k: v.double() if torch.is_tensor(v) and k != "timestep" else v for k, v in case.items()}
        with torch.no_grad():
            theirs = official(**case, return_dict=False)[0]
            floor = _difference(theirs.double(), double(**wide, return_dict=False)[0])
            cases.append([_difference(theirs, native.eval()(**case)), floor])
    return {"left": source.count("FVPORT-DECIDE: "), "cases": cases}


def _named(name: str, patterns: list[str]) -> bool:
    import re

    return any(re.match(pattern, name) for pattern in patterns)


def _native(cls: str, official: Any, folder: Path) -> tuple[Any, Any, Any, Any]:
    """(`c` as a bake makes it, the skeleton, the native class, its config with the official values)."""
    sys.path.insert(0, str(ROOT / "tests"))
    import archetypes_support as support

    from fvport.scaffold import render, skeleton
    from fvport.scaffold.skeleton import ask, official_tree

    config = json.loads(json.dumps({k: v for k, v in dict(official.config).items() if not k.startswith("_")}))
    kind = "vae" if cls.startswith("Autoencoder") else "dit"
    tensors = {name: ("F32", tuple(tensor.shape)) for name, tensor in official.state_dict().items()}
    place, name = f"skeleton_{cls.lower()}", f"Port{cls}"
    c = SimpleNamespace(name=kind, kind=kind, library="diffusers", official_class=cls, official=f"diffusers:{cls}")
    c.__dict__.update(config=config, tensors=tensors, archetype="", is_skeleton=True, native_class=name)
    c.__dict__.update(native_module=f"fastvideo.models.{kind}s.{place}", config_class=f"{name}Config")
    c.__dict__.update(config_module=f"fastvideo.configs.models.{kind}s.{place}", arch_class=f"{name}ArchConfig")
    tree = official_tree.node(official_tree.build("diffusers", cls, config))
    ask.ASKED["diffusers", cls, json.dumps(config, sort_keys=True, default=str)] = (tree, "")
    made, why = skeleton.of(c)
    assert made, why
    p = SimpleNamespace(model=cls, slug=place, prefix="Port")
    built = support.module(c.config_module, render.render("skeleton/config.py.jinja", p, c), folder)  # type: ignore[arg-type]
    native_config = getattr(built, c.config_class)()
    native_config.update_model_arch(config)
    c.source = render.render("skeleton/native_tree.py.jinja", p, c)  # type: ignore[arg-type]
    return c, made, getattr(support.module(c.native_module, c.source, folder), name), native_config


def source_lines(c: Any) -> int:
    return len(c.source.splitlines())


def compare_blocks(official: Any, native: Any) -> tuple[list[str], dict[str, float]]:
    """(official classes whose forward was written, {module: difference} where it is another one)."""
    import torch

    ours, written, wrong = dict(native.named_modules()), set(), {}
    for name, module in official.named_modules():
        makers = INPUTS.get(type(module).__name__)
        if not makers or "FVPORT-DECIDE" in _source(ours[name]):
            continue
        for number, (args, more) in enumerate(makers(module, torch.Generator().manual_seed(1))):
            with torch.no_grad():
                difference = _difference(module(*args, **more), ours[name](*args, **more))
            if not difference <= CLOSE:
                wrong[f"{name} ({number})"] = difference
        written.add(type(module).__name__)
    return sorted(written), wrong


def _source(module: Any) -> str:
    import inspect

    return inspect.getsource(type(module).forward)


def _difference(theirs: Any, ours: Any) -> float:
    if not isinstance(theirs, tuple):
        theirs, ours = (theirs,), (ours,)
    assert len(theirs) == len(ours)
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(theirs, ours, strict=True))


def _rows(width: int, generator: Any, *shape: int) -> Any:
    import torch

    return torch.randn(*shape, width, generator=generator)


def _attention(m: Any, g: Any) -> list[Any]:
    """With itself or with a context, without a mask and with one that hides tokens of one row."""
    import torch

    wide = m.to_q.weight.shape[1]
    other = m.to_k.weight.shape[1]
    context = _rows(other, g, 2, 7) if m.is_cross_attention or other != wide else None
    hidden = _rows(wide, g, 2, 5)
    mask = torch.zeros(2, 1, 7 if context is not None else 5)
    mask[0, :, 2:] = -10000.0
    return [((hidden, context), {}), ((hidden, context), {"attention_mask": mask})]


def _steps(g: Any) -> Any:
    import torch

    return torch.rand(2, generator=g) * 999


INPUTS: dict[str, Any] = {
    "TimestepEmbedding": lambda m, g: [((_rows(m.linear_1.weight.shape[1], g, 2),), {})],
    "PixArtAlphaTextProjection": lambda m, g: [((_rows(m.linear_1.weight.shape[1], g, 2, 5),), {})],
    "FeedForward": lambda m, g: [((_rows(m.net[0].proj.weight.shape[1], g, 2, 5),), {})] if hasattr(m, "net") else [],
    "GELU": lambda m, g: [((_rows(m.proj.weight.shape[1], g, 2, 5),), {})] if hasattr(m, "proj") else [],
    "GEGLU": lambda m, g: [((_rows(m.proj.weight.shape[1], g, 2, 5),), {})],
    "SwiGLU": lambda m, g: [((_rows(m.proj.weight.shape[1], g, 2, 5),), {})],
    "LinearActivation": lambda m, g: [((_rows(m.proj.weight.shape[1], g, 2, 5),), {})],
    "Timesteps": lambda m, g: [((_steps(g),), {})],
    "AdaLayerNormZero": lambda m, g: [_modulated(m, g)],
    "AdaLayerNormZeroSingle": lambda m, g: [_modulated(m, g)],
    "AdaLayerNormContinuous": lambda m, g: [
        ((_rows(m.linear.weight.shape[0] // 2, g, 2, 5), _rows(m.linear.weight.shape[1], g, 2)), {})
    ],
    "CombinedTimestepTextProjEmbeddings": lambda m, g: [
        ((_steps(g), _rows(m.text_embedder.linear_1.weight.shape[1], g, 2)), {})
    ],
    "AdaLayerNormSingle": lambda m, g: [((_steps(g),), _single())],
    "Attention": lambda m, g: _attention(m, g) if hasattr(m, "to_q") else [],
}


def _modulated(m: Any, g: Any) -> Any:
    width = m.linear.weight.shape[1]
    return (_rows(width, g, 2, 5),), {"emb": _rows(width, g, 2)}


def _single() -> dict[str, Any]:
    import torch

    return {
        "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
        "batch_size": 2,
        "hidden_dtype": torch.float32,
    }


def main(out: Path, folder: Path) -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    import archetypes_support as support

    from fvport import fastvideo_api

    fastvideo_api.boot(support.SITE, "cpu")
    found = {cls: measure(cls, folder) for cls in skeleton_cases.CASES}
    out.write_text(json.dumps(found, indent=1), encoding="utf-8")


def skeletons(scratch: Path, quick: bool) -> Case:
    """The bench: every class once; the result is a count, not a time."""
    rows: dict[str, Any] = {}

    def ours() -> Run:
        clock = time.perf_counter()
        if not rows:
            out = scratch / "out.json"
            command = [sys.executable, "-m", "benchmarks.skeletons", str(out), str(scratch)]
            env = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(done.stderr[-2000:])
            rows.update(json.loads(out.read_text(encoding="utf-8")))
        return Run(time.perf_counter() - clock, 0.0, 0, "")

    def detail(runs: Any) -> dict[str, Any]:
        green = sum(row["green"] for row in rows.values())
        wrong = {cls: row["wrong"] for cls, row in rows.items() if row.get("wrong")}
        return {"classes": len(rows), "keys_green": green, "wrong_forwards": wrong, "rows": rows}

    return Case({"ours": ours}, detail)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
