# SPDX-License-Identifier: Apache-2.0
"""`parity`: what comparing costs beyond loading and running each side, one after the other.

Ours is a component's parity test run by hand (`pytest`, nothing kept): official side apart, its float64 floor, native
side, comparison, planted faults. Baselines, each side in a process of its own, in sequence:

    bare      load and every case's forward: official in float32, then native
    floored   the same with the official float64 run, which a measured tolerance needs

The model is the tiny Wan with a transformer of about 1 GB of random weights (`--quick`: the tiny one).
`python -m benchmarks.parity SIDE PORT` is one side alone: official, official64 or native.
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.cases import FVPORT, ROOT, Case
from benchmarks.measure import Run, run

SLUG, COMPONENT = "bench_parity", "transformer"
SEED = 20_240_229  # of the cases, as parity's own
# 16 * dim^2 parameters a layer: 15 layers are 252 million, 1.0 GB in float32.
LARGE = {"num_attention_heads": 8, "attention_head_dim": 128, "ffn_dim": 4096, "freq_dim": 256, "num_layers": 15}


def parity(scratch: Path, quick: bool) -> Case:
    """The bench; the port is made once."""
    port = _port(scratch, quick)
    said = scratch / "said.json"
    env = {"FVPORT_ENV": str(Path(sys.prefix)), "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}

    def side(name: str) -> Run:
        done = run([sys.executable, "-m", "benchmarks.parity", name, port], cwd=ROOT, env=env)
        if done.returncode:
            raise SystemExit(f"benchmarks: the {name} side alone failed:\n{done.output[-2000:]}")
        return done

    def ours() -> Run:
        for kept in ("oracle", "contract", "native", "trace"):
            shutil.rmtree(port / ".fvport" / "cache" / kept, ignore_errors=True)
        words = ["-q", "--tb=short", "-p", "no:cacheprovider", "--noconftest", "-o", "addopts=", "-c", os.devnull]
        words += ["--import-mode=importlib", f"--rootdir={port}", _test(port)]
        return run([sys.executable, "-m", "pytest", *words], cwd=port, env={**env, "FVPORT_PARITY_OUT": str(said)})

    def detail(runs: dict[str, list[Run]]) -> dict[str, Any]:
        found = json.loads(said.read_text(encoding="utf-8"))["compared"][0]
        weights = sum(file.stat().st_size for file in _weights(port))
        return {"weights_mb": round(weights / 1e6, 1), "passed": found["passed"], "seconds_of_ours": found["seconds"]}

    commands = {
        "ours": ours,
        "bare": lambda: in_sequence([side("official"), side("native")]),
        "floored": lambda: in_sequence([side("official64"), side("native")]),
    }
    return Case(commands, detail)


def in_sequence(runs: list[Run]) -> Run:
    """One after the other: times add up, and the peak is the larger one's."""
    return Run(sum(r.seconds for r in runs), max(r.peak_mb for r in runs), 0, runs[-1].output)


def _test(port: Path) -> Path:
    return next((port / "tests" / "local_tests").glob(f"*/test_{SLUG}_{COMPONENT}_parity.py"))


def _weights(port: Path) -> list[Path]:
    return list((port / "official_weights").glob(f"*/{COMPONENT}/*.safetensors"))


def _port(scratch: Path, quick: bool) -> Path:
    """Official release, bake, prep, workspace, mapping signed: all that a parity test needs."""
    from examples.tiny_wan import make_official

    official = make_official.make(scratch / "official", build=make_official.text_to_video if quick else _large)
    answers = ["model_name=Bench Parity", f"model_slug={SLUG}", f"official_weights={official}", "workload_type=t2v"]
    answers += [f"components={COMPONENT}=port,text_encoder=reuse,vae=reuse,scheduler=reuse", "gate_device=cpu"]
    port = scratch / SLUG
    for words in (
        ("new", "--no-input", "--output-dir", scratch, *answers),
        ("prep", "--port", port),
        ("workspace", "--port", port),
        ("mapping", "review", "--sign", "bench", "--port", port),
    ):
        done = run([FVPORT, *words], cwd=ROOT, env={"FVPORT_ENV": str(Path(sys.prefix))})
        if done.returncode:
            raise SystemExit(f"benchmarks: fvport {words[0]} failed:\n{done.output[-2000:]}")
    return port


def _large(seed: int) -> Any:
    """The tiny Wan pipeline with a transformer of about 1 GB."""
    from diffusers import WanPipeline, WanTransformer3DModel

    from examples.tiny_wan import make_official

    model = WanTransformer3DModel(**{**make_official.TRANSFORMER, **LARGE})
    return WanPipeline(transformer=make_official.randomise(model, COMPONENT, seed), **make_official.common(seed))


# --- one side alone -------------------------------------------------------------------------------


def main(side: str, folder: Path) -> int:
    """Load it, run every case once, say how long the forwards took."""
    import torch

    from fvport import spec

    torch.set_grad_enabled(False)
    port = spec.load(folder)
    answer: dict[str, Callable[[Any], float]] = {"native": native_side, "official": official_side}
    answer["official64"] = lambda port: official_side(port) + official_side(port, torch.float64)
    print(json.dumps({"forward": round(answer[side](port), 3)}))
    return 0


def official_side(port: Any, dtype: Any = None) -> float:
    """The official class as oracle.py builds and calls it."""
    import torch

    dtype = dtype or torch.float32
    code, folder = _module(port.folder / "oracle.py"), port.official_tree / COMPONENT
    model = getattr(code, f"build_{COMPONENT}")(folder, dtype)
    clock = time.perf_counter()
    for case in _cases(code, folder).values():
        given = {k: v.to(dtype) if v.is_floating_point() else v for k, v in case.items()}
        getattr(code, f"call_{COMPONENT}")(model, given)
    return time.perf_counter() - clock


def native_side(port: Any) -> float:
    """The native class through FastVideo's production loader, called as the port's own test calls it."""
    from fvport import fastvideo_api
    from fvport.models import native

    fastvideo_api.boot(port.root, backend=port.fastvideo.attention_backend)
    model = native.load(port, COMPONENT)
    call = _module(port.root / port.test_file(port.component(COMPONENT))).call
    code = _module(port.folder / "oracle.py")
    clock = time.perf_counter()
    for case in _cases(code, port.official_tree / COMPONENT).values():
        call(model, case)
    return time.perf_counter() - clock


def _cases(code: Any, folder: Path) -> dict[str, dict[str, Any]]:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    found: dict[str, dict[str, Any]] = getattr(code, f"inputs_{COMPONENT}")(config, SEED)
    return found


def _module(file: Path) -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(file)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
