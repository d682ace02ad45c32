# SPDX-License-Identifier: Apache-2.0
"""What a trace's first pass costs: statistics and sketches at every module's boundary, against the same run without.

`python -m benchmarks.trace MODE LAYERS` is the measured process: load, three forwards, one of them traced where asked.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import Run, run

WIDTH, TOKENS, DEEP, SHALLOW = 768, 512, 12, 3


def case(scratch: Path, quick: bool) -> Any:
    """Ours: a traced forward; baselines: the bare forward, and keeping every activation (what a plain hook does)."""
    from benchmarks.cases import Case

    root = Path(__file__).resolve().parent.parent

    def process(mode: str, layers: int) -> Run:
        return run([sys.executable, "-m", "benchmarks.trace", mode, layers], cwd=root)

    deep = SHALLOW if quick else DEEP

    def detail(runs: dict[str, list[Run]]) -> dict[str, Any]:
        forward = {name: [json.loads(r.output.splitlines()[-1]) for r in found] for name, found in runs.items()}
        middle = {name: sorted(f["forward"] for f in found)[len(found) // 2] for name, found in forward.items()}
        shallow = {mode: process(mode, SHALLOW).peak_mb for mode in ("sketches", "bare")}
        extra = {
            "deep": round(max(r.peak_mb for r in runs["ours"]) - max(r.peak_mb for r in runs["bare"]), 1),
            "shallow": round(shallow["sketches"] - shallow["bare"], 1),
        }
        return {
            "layers": deep,
            "forward_seconds": middle,
            "forward_ratio": {name: round(middle["ours"] / middle[name], 3) for name in ("bare", "keep_all")},
            "extra_mb_by_depth": extra,
        }

    commands = {
        "ours": lambda: process("sketches", deep),
        "bare": lambda: process("bare", deep),
        "keep_all": lambda: process("keep_all", deep),
    }
    return Case(commands, detail)


def main(mode: str, layers: int) -> int:
    import torch

    from fvport.parity import probe, record

    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer
    blocks = [layer(WIDTH, 12, 4 * WIDTH, batch_first=True, dropout=0.0) for _ in range(layers)]
    model = torch.nn.Sequential(*blocks)  # in training mode: the fused path of inference would skip the submodules
    given = torch.randn(1, TOKENS, WIDTH)
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        model(given)
        times = []
        for number in range(3):
            clock = time.perf_counter()
            if mode == "bare":
                model(given)
            elif mode == "sketches":
                with record.Recorder(model, probe.Store(Path(folder) / f"{number}.bin")) as recorder:
                    model(given)
                recorder.finish()
            else:
                _keep_all(model, given)
            times.append(time.perf_counter() - clock)
    print(json.dumps({"forward": sorted(times)[1]}))
    return 0


def _keep_all(model: Any, given: Any) -> None:
    """Every module's output, copied and held until the end."""
    held: list[Any] = []
    hooks = [
        m.register_forward_hook(lambda mod, args, out: held.append(out.clone()) if hasattr(out, "clone") else None)
        for m in model.modules()
    ]
    model(given)
    for hook in hooks:
        hook.remove()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
