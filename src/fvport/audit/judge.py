# SPDX-License-Identifier: Apache-2.0
"""Inside a case's fork: the official side in float32 and float64, the native side, the port's own comparison."""

from __future__ import annotations

import copy
import json
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from fvport.audit.case import Case
from fvport.parity import compare, oracle_runner, tree
from fvport.spec import Tolerance

FACTOR = 3.0
NOISE = 0.02  # the negative control's, on every native parameter


def judge(case: Case, *, control: bool = False) -> dict[str, Any]:
    """Verdict, figures and the finding of one case as JSON. Whatever a side raises is told, not raised."""
    import torch

    from fvport import fastvideo_api
    from fvport.audit import findings

    fastvideo_api.apply_settings()
    clock = time.monotonic()
    side = official_side(case)
    seconds = {"official": round(time.monotonic() - clock, 2)}
    clock = time.monotonic()
    fastvideo_api.init_distributed()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="fvport_audit_") as scratch:
        folder = Path(scratch) / "model" / case.loader
        write(case, side.model, folder)
        answer, module = attempt(case, side, folder)
        seconds["native"] = round(time.monotonic() - clock, 2)
        if control and answer["verdict"] == "equal":
            answer["control"] = controlled(case, side, module)
        if answer["verdict"] != "equal":
            answer |= findings.explain(case, side, folder, answer, attempt)
    return {**answer, "sides": seconds}


class Side:
    """The official model, its inputs and its outputs."""

    def __init__(self, model: Any, given: dict[str, Any], outputs: compare.Outputs) -> None:
        self.model, self.given, self.outputs = model, given, outputs


def official_side(case: Case) -> Side:
    """Drawn weights, drawn inputs, and what the official class answers in float32 and float64 (else under noise)."""
    import torch

    from fvport.audit import official

    model = official.build(case)
    given = case.inputs(torch.Generator().manual_seed(case.seed + 1))
    plain, containers = answer(case, model, given, torch.float32)
    outputs = compare.Outputs(plain, containers)
    try:
        outputs.exact, _ = answer(case, official.copied(case, model), given, torch.float64)
    except Exception as error:  # noqa: BLE001 - any operation may lack float64
        outputs.no_float64 = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    unreal = [key for key in outputs.exact if oracle_runner.Run.unreal(outputs.exact[key], plain.get(key))]
    if outputs.no_float64 or unreal:
        outputs.no_float64 = outputs.no_float64 or f"its outputs are float32 ({unreal[0]})"
        shaken = official.copied(case, model)
        generator = torch.Generator().manual_seed(case.seed + 2)
        oracle_runner.shake(shaken, generator)
        outputs.noisy, _ = answer(case, shaken, given, torch.float32, generator)
    return Side(model, given, outputs)


def answer(case: Case, model: Any, given: Any, dtype: Any, noise: Any = None) -> tuple[dict[str, Any], dict[str, str]]:
    """(outputs by name, containers) of the official side at `dtype`, on a copy of the inputs."""
    import torch

    if isinstance(model, torch.nn.Module):
        model = model.to(dtype).eval()

    def convert(tensor: Any) -> Any:
        tensor = tensor.clone()
        if not tensor.is_floating_point():
            return tensor
        return oracle_runner.ulp(tensor, noise) if noise is not None else tensor.to(dtype)

    packed: dict[str, Any] = {}
    shape = tree.pack(given, "given", packed)
    with torch.no_grad():
        return tree.outputs(case.ours(model, tree.unpack(shape, packed, convert)))


def write(case: Case, model: Any, folder: Path) -> None:
    """The checkpoint as a release has it: the official class writes it, `record` and `names` make it that release's."""
    from fvport.audit import official

    folder.mkdir(parents=True)
    official.save(case, model, folder)
    file = folder / "config.json"
    if not file.is_file():
        file = folder / "scheduler_config.json"
    record = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    record |= case.record
    record = {key: value for key, value in record.items() if value is not None or case.record.get(key, 0) is not None}
    file.write_text(json.dumps(record), encoding="utf-8")


def attempt(case: Case, side: Side, folder: Path) -> tuple[dict[str, Any], Any]:
    """(the verdict and its figures, the native object) of one build and one call of the native side."""
    from fvport.models import native_audit

    try:
        module = native_audit.build(case, folder)
    except Exception as error:  # noqa: BLE001 - the verdict
        return {"verdict": "blocked", "problem": f"the native side cannot be built: {told(error)}"}, None
    return compared(case, side, module), module


def compared(case: Case, side: Side, module: Any) -> dict[str, Any]:
    """The port's comparison of a native call, and of a second one: a call may leave no state and change no input."""
    from fvport.models import native_audit

    results: list[compare.Result] = []
    for time_ in ("", "again/"):
        given = copy.deepcopy(side.given)
        try:
            tensors, containers = tree.outputs(native_audit.call(case, module, given))
        except Exception as error:  # noqa: BLE001 - the verdict
            when = " when it was called again" if time_ else ""
            return {"verdict": "blocked", "problem": f"the native side raised{when} {told(error)}"}
        if changed := modified(side.given, given):
            return {"verdict": "differs", "problem": f"the native side changed its inputs in place ({changed})"}
        rows = compare.compare_outputs(side.outputs, compare.Outputs(tensors, containers), Tolerance(factor=FACTOR))
        for row in rows:
            row.output = time_ + row.output
        results += rows
        if not all(row.ok for row in rows):
            break
    return verdict(results)


def told(error: BaseException) -> str:
    """One sentence for an exception: type, message, and the innermost line of FastVideo that it came through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "fastvideo" in Path(f.filename).parts]
    text = f"{type(error).__name__}: {' '.join(str(error).split())[:600]}"
    if not frames:
        return text
    parts = Path(frames[-1].filename).parts
    return f"{text} (at {'/'.join(parts[parts.index('fastvideo') :])}:{frames[-1].lineno})"


def modified(before: Any, after: Any) -> str:
    """The names of input tensors that a call changed, or ''."""
    import torch

    first: dict[str, Any] = {}
    second: dict[str, Any] = {}
    tree.pack(before, "input", first)
    tree.pack(after, "input", second)
    return ", ".join(name for name in first if name not in second or not torch.equal(first[name], second[name]))


def verdict(results: list[compare.Result]) -> dict[str, Any]:
    """`{"verdict", "worst", "floor", "floor_from", "problem", "outputs"}` from the comparison's results."""
    bad = [result for result in results if not result.ok]
    top = max(results, key=lambda result: (not result.ok, result.use))
    figures: dict[str, Any] = {"outputs": len(results), "problem": f"{top.output} {top.problem}" if bad else ""}
    if "rel_l2" in top.metrics:
        budget = {m: FACTOR * top.metrics[f"floor_{m}"] for m in compare.MEASURES}
        measure = max(compare.MEASURES, key=lambda m: top.metrics[m] / budget[m])
        figures["worst"] = {
            "output": top.output,
            "measure": measure,
            "value": top.metrics[measure],
            "times_budget": top.metrics[measure] / budget[measure],
            "rel_l2": top.metrics["rel_l2"],
        }
        figures |= {"floor": top.metrics[f"floor_{measure}"], "floor_from": top.metrics["floor_from"]}
    elif top.metrics:
        figures |= {"worst": {"output": top.output, "different": top.metrics.get("different")}, "floor": 0.0}
    return {"verdict": "differs" if bad else "equal", **figures}


def controlled(case: Case, side: Side, module: Any) -> dict[str, Any]:
    """The same comparison with noise on every native parameter (a scheduler's tables): it must not be equal."""
    import torch

    generator = torch.Generator().manual_seed(7)
    if isinstance(module, torch.nn.Module):
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.is_floating_point():
                    parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter) * NOISE)
    else:
        shake_tables(module, generator)
    found = compared(case, side, module)
    return {"caught": found["verdict"] != "equal", "worst": found.get("worst"), "problem": found.get("problem", "")}


def shake_tables(scheduler: Any, generator: Any) -> None:
    """A scheduler has no parameters: its sigmas and timesteps are shaken each time they are set."""
    import torch

    original = scheduler.set_timesteps

    def set_timesteps(*args: Any, **kwargs: Any) -> None:
        original(*args, **kwargs)
        for name in ("sigmas", "timesteps"):
            table = getattr(scheduler, name)
            if table.is_floating_point():
                setattr(scheduler, name, table * (1 + NOISE * torch.randn(table.shape, generator=generator)).to(table))

    scheduler.set_timesteps = set_timesteps
