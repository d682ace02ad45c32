# SPDX-License-Identifier: Apache-2.0
"""The official side's own process: `python -I oracle_runner.py JOB.json`. Run by its path, imports nothing of fvport.

Importing `fastvideo` or `fvport`, or opening any Python file of the port other than its oracle.py, raises. What
oracle.py computes is written as safetensors and JSON into the job's folder.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.util
import json
import os
import sys
import traceback
import types
from pathlib import Path
from typing import Any

BLOCKED = ("fastvideo", "fvport")
LATE = 7919  # added to the seed for the inputs that are answered last
TRACE = ("probe", "record", "oracle_trace")  # in the order in which one needs another
CONTRACT = {  # an encoder's: files beside this one, or in the folder of that name
    "probe": "probe.py",
    "record": "record.py",
    "root": "../contract/root.py",
    "oracle_contract": "oracle_contract.py",
}


class IsolationError(ImportError):
    """The official side reached for the port or for FastVideo."""


class _Guard(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] in BLOCKED:
            raise IsolationError(f"the oracle must not import {name}: two sides that share code prove nothing")


def guard(root: Path, oracle: Path, allowed: list[Path]) -> None:
    """No blocked package by name, no Python file of the port by path (but `oracle` and `allowed` folders)."""
    sys.meta_path.insert(0, _Guard())
    sys.path[:] = [entry for entry in sys.path if not _inside(Path(entry or "."), [root]) or _installed(Path(entry))]
    package = Path(__file__).resolve().parent.parent

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event != "open" or not args or not isinstance(args[0], (str, bytes, os.PathLike)):
            return
        text = os.fsdecode(args[0])
        if not text.endswith((".py", ".pyc", ".so")):
            return
        path = Path(os.path.abspath(text))
        if path == oracle or path.parent == oracle.parent / "__pycache__" or _inside(path, allowed):
            return
        fastvideo = "fastvideo" in path.parts and "site-packages" in path.parts
        if fastvideo or _inside(path, [package]) or (_inside(path, [root]) and not _installed(path)):
            raise IsolationError(f"the oracle must not read {path}: two sides that share code prove nothing")

    sys.addaudithook(hook)


def _inside(path: Path, folders: list[Path]) -> bool:
    return any(path == folder or folder in path.parents for folder in folders)


def _installed(path: Path) -> bool:
    """The environment's own files, which may lie under the port's root (`.fvport/env`)."""
    return _inside(path, [Path(sys.prefix), Path(sys.base_prefix)]) or "site-packages" in path.parts


def install(stand_ins: str) -> None:
    """Let missing modules of the official code be stood in for, as the port's helper file says."""
    module = types.ModuleType("_fvport_upstream")
    exec(compile(stand_ins, "<upstream stand-ins>", "exec"), module.__dict__)  # noqa: S102 - the port's own helper file
    module.install()


def settings() -> None:
    """Determinism and full fp32: equal to what `fvport.fastvideo_api.apply_settings` sets on the native side."""
    import torch

    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")


def by_path(name: str, file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Run:
    """One component's job: inputs once, then the official model in float32, in float64, under noise if needed."""

    def __init__(self, job: dict[str, Any], oracle: Any, tree: Any) -> None:
        self.job, self.oracle, self.tree = job, oracle, tree
        self.name, self.out = job["component"], Path(job["out"])
        self.meta: dict[str, Any] = {"notes": [], "no_float64": "", "cases": [], "modified": []}

    def function(self, kind: str) -> Any:
        found = getattr(self.oracle, f"{kind}_{self.name}", None)
        if found is None:
            raise AttributeError(f"oracle.py has no {kind}_{self.name}")
        return found

    def all(self) -> dict[str, Any]:
        import torch
        from safetensors.torch import load_file, save_file

        if self.job.get("late"):
            self.inputs, self.trees = load_file(self.job["late"]["file"]), self.job["late"]["inputs"]
        else:
            self.inputs, self.trees = self.drawn(self.job["seed"])
            self.draw_late()
        save_file(self.inputs, str(self.out / "inputs.safetensors"))
        self.meta["cases"], self.meta["inputs"] = list(self.trees), self.trees
        plain = self.forward(torch.float32)
        self.save("float32", plain)
        try:
            exact = self.forward(torch.float64)
        except IsolationError:
            raise
        except Exception as error:  # noqa: BLE001 - any operation may lack float64
            self.meta["no_float64"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            exact = {}
        self.save("float64", exact)
        unreal = [key for key in exact if self.unreal(exact[key], plain.get(key))]
        if self.meta["no_float64"] or unreal:
            self.meta["no_float64"] = self.meta["no_float64"] or f"its outputs are float32 ({unreal[0]})"
            self.save("noise", self.forward(torch.float32, noise=True))
        return self.meta

    def drawn(self, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """({name: tensor}, {case: tree}) of `inputs_NAME` for a seed."""
        cases = self.function("inputs")(self.job["config"], seed)
        if not isinstance(cases, dict) or not cases:
            raise ValueError(f"inputs_{self.name} returned no case")
        tensors: dict[str, Any] = {}
        return tensors, {case: self.tree.pack(value, case, tensors) for case, value in cases.items()}

    def draw_late(self) -> None:
        """Inputs of another seed, whose outputs are computed only when the native side has answered them.

        The first case that the seed changes; none where inputs do not follow from the seed.
        """
        from safetensors.torch import save_file

        tensors, trees = self.drawn(self.job["seed"] + LATE)
        for case, tree in trees.items():
            own = {key: tensor for key, tensor in tensors.items() if key == case or key.startswith(f"{case}/")}
            if any(key not in self.inputs or not same(tensor, self.inputs[key]) for key, tensor in own.items()):
                save_file(own, str(self.out / "late.safetensors"))
                self.meta["late"] = {case: tree}
                return

    @staticmethod
    def unreal(exact: Any, plain: Any) -> bool:
        """A float64 run that gave float32 values bit for bit is the float32 run again: no floor follows from it."""
        import torch

        return (
            plain is not None
            and exact.dtype == torch.float32
            and exact.shape == plain.shape
            and bool((exact == plain).all())
        )

    def forward(self, dtype: Any, noise: bool = False) -> dict[str, Any]:
        """{"case/output": tensor} for every case, on a fresh build."""
        import torch

        device = self.job["device"]
        built = self.function("build")(self.job["folder"], dtype)
        built = built.to(device) if isinstance(built, torch.nn.Module) else built
        if isinstance(built, torch.nn.Module):
            built.eval()
        generator = torch.Generator("cpu").manual_seed(self.job["seed"] + 1)
        if noise:
            shake(built, generator)
        results: dict[str, Any] = {}
        self.containers: dict[str, dict[str, str]] = {}
        watch = contract(built) if self.job.get("contract") and dtype == torch.float32 and not noise else None
        for case, tree in self.trees.items():

            def convert(tensor: Any) -> Any:
                tensor = tensor.clone()
                if tensor.is_floating_point():
                    tensor = tensor.to(dtype)
                    tensor = ulp(tensor, generator) if noise else tensor
                return tensor.to(device)

            given = self.tree.unpack(tree, self.inputs, convert)
            before: dict[str, Any] = {}
            self.tree.pack(given, case, before)
            with torch.no_grad(), watch.case(case) if watch else contextlib.nullcontext():
                value = self.function("call")(built, given)
            after: dict[str, Any] = {}
            self.tree.pack(given, case, after)
            self.changed(before, after)
            tensors, containers = self.tree.outputs(value)
            self.containers[case] = containers
            results |= {f"{case}/{name}": tensor for name, tensor in tensors.items()}
        if dtype == torch.float32 and not noise:
            self.meta["containers"] = self.containers
        if watch:
            self.meta["contract"] = watch.finish(self.out)
        return results

    def changed(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        for name, tensor in before.items():
            if (name not in after or not same(tensor, after[name])) and name not in self.meta["modified"]:
                self.meta["modified"].append(name)

    def save(self, name: str, tensors: dict[str, Any]) -> None:
        from safetensors.torch import save_file

        own = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
        save_file(own, str(self.out / f"{name}.safetensors"))


def same(a: Any, b: Any) -> bool:
    return a.shape == b.shape and bool(a.eq(b).all())


def ulp(tensor: Any, generator: Any) -> Any:
    import torch

    step = torch.rand(tensor.shape, generator=generator, dtype=torch.float32).mul(2).sub(1).mul(2.0**-23)
    return tensor * (1 + step.to(tensor.device, torch.float64)).to(tensor.dtype)


def shake(built: Any, generator: Any) -> None:
    """Each floating parameter by up to one ulp: rounding noise of the size that arithmetic makes in each layer."""
    import torch

    if isinstance(built, torch.nn.Module):
        with torch.no_grad():
            for parameter in built.parameters():
                if parameter.is_floating_point():
                    parameter.copy_(ulp(parameter.detach().cpu(), generator).to(parameter.device))


def contract(built: Any) -> Any:
    """Looks at the official encoder while it runs (`oracle_contract`)."""
    model = sys.modules["_fvport_record"].root_of(built)
    return sys.modules["_fvport_oracle_contract"].Contract(sys.modules["_fvport_root"], model)


def traced(run: Run) -> dict[str, Any]:
    """The activations of some cases (`oracle_trace`)."""
    probe, record, tracer = (sys.modules[f"_fvport_{name}"] for name in TRACE)
    run.ulp, run.shake = ulp, shake  # type: ignore[attr-defined]
    seen: dict[str, Any] = tracer.Tracer(run, record, probe).all()
    return seen


def main(file: str) -> int:
    job = json.loads(Path(file).read_text(encoding="utf-8"))
    out, oracle = Path(job["out"]), Path(job["oracle"])
    tree = by_path("_fvport_tree", Path(__file__).with_name("tree.py"))
    if job["what"] == "trace":  # before the guard, which forbids every file of this package
        for name in TRACE:
            by_path(f"_fvport_{name}", Path(__file__).with_name(f"{name}.py"))
    if any(one.get("contract") for one in job.get("jobs", [job])):
        for name, path in CONTRACT.items():
            by_path(f"_fvport_{name}", Path(__file__).parent / path)
    end_with_parent()
    try:
        settings()
        stand_ins = Path(job["stand_ins"]).read_text(encoding="utf-8") if job.get("stand_ins") else ""
        guard(Path(job["root"]), oracle, [Path(entry) for entry in job["allowed"]])
        sys.path[:0] = job["import_path"]
        if stand_ins:  # read before and run after the guard: they may not reach for the port either
            install(stand_ins)
        module = by_path("oracle", oracle)
        if job["what"] == "component":
            answer: dict[str, Any] = Run(job, module, tree).all()
        elif job["what"] == "components":
            answer = {"done": [one["component"] for one in job["jobs"] if alone(one, module, tree, oracle)]}
        elif job["what"] == "trace":
            answer = traced(Run(job, module, tree))
        else:
            answer = {"value": getattr(module, job["what"])(*job["arguments"])}
        answer["python"] = sys.version.split()[0]
    except BaseException as error:  # noqa: BLE001 - the parent tells the user
        answer = failure(error, oracle)
    write(answer, out)
    return 0


def alone(job: dict[str, Any], oracle: Any, tree: Any, file: Path) -> bool:
    """One of several components: what goes wrong with it is written in its own folder."""
    import torch

    torch.manual_seed(torch.random.default_generator.initial_seed())  # as in a process of its own
    try:
        answer = {**Run(job, oracle, tree).all(), "python": sys.version.split()[0]}
    except Exception as error:  # noqa: BLE001 - the others go on
        answer = failure(error, file)
    write(answer, Path(job["out"]))
    return "error" not in answer


def failure(error: BaseException, oracle: Path) -> dict[str, Any]:
    traceback.print_exc()
    words = f"{type(error).__name__}: {' '.join(str(error).split())[:600]}"
    return {"error": words, "line": line_in(error, oracle), "isolation": isinstance(error, IsolationError)}


def write(answer: dict[str, Any], out: Path) -> None:
    part = out / "meta.part"
    part.write_text(json.dumps(answer, default=str), encoding="utf-8")
    os.replace(part, out / "meta.json")


def end_with_parent() -> None:
    """SIGKILL when the process that asked is gone (Linux)."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
    except (OSError, AttributeError):
        pass


def line_in(error: BaseException, oracle: Path) -> str:
    """`oracle.py:41 in call_transformer: ...` for the innermost frame of oracle.py; '' when it was never reached."""
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename) == oracle:
        return f"oracle.py:{error.lineno}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == oracle]
    return f"oracle.py:{frames[-1].lineno} in {frames[-1].name}" if frames else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
