# SPDX-License-Identifier: Apache-2.0
"""The official side's activations, for `fvport trace`: runs in the oracle's own process, beside `oracle_runner`.

For each case three runs: the tested precision, with statistics, sketches and (within a limit) exact tensors; float64
freely, whose distance is what the official model drifts from itself at each boundary; and float64 with the first run's
inputs put into every module, whose distance is each module's own rounding error: the floor of a local comparison.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Tracer:
    """One job: `cases`, `place` (the oracle's kept result with its inputs), `dtype`, `limit` in bytes, `exact`."""

    def __init__(self, run: Any, record: Any, probe: Any) -> None:
        self.run, self.record, self.probe, self.job = run, record, probe, run.job
        self.out = Path(self.job["out"])

    def all(self) -> dict[str, Any]:
        import torch
        from safetensors.torch import load_file

        place = Path(self.job["place"])
        self.run.inputs = load_file(str(place / "inputs.safetensors"))
        self.run.trees = json.loads((place / "meta.json").read_text(encoding="utf-8"))["inputs"]
        tested = getattr(torch, self.job["dtype"])
        answer: dict[str, Any] = {"cases": self.job["cases"], "modules": {}, "exact": "float64"}
        built = self.built(tested)
        root = self.record.root_of(built)
        if root is None:
            return answer | {"no_modules": f"build_{self.run.name} returned a {type(built).__name__} without modules"}
        answer["modules"] = self.record.about(root)
        answer["params"] = self.params(root)
        runs = {case: self.plain(built, root, case, tested) for case in self.job["cases"]}
        del built, root
        try:
            self.exactly(runs, torch.float64, noise=False)
        except ImportError:
            raise
        except Exception as error:  # noqa: BLE001 - any operation may lack float64
            answer["exact"] = f"noise ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
            self.exactly(runs, tested, noise=True)
        for case, found in runs.items():
            file = self.out / f"{self.slot(case)}.json"
            file.write_text(json.dumps(found), encoding="utf-8")
        return answer

    def slot(self, case: str) -> str:
        return f"case{self.job['cases'].index(case):03d}"

    def built(self, dtype: Any) -> Any:
        import torch

        built = self.run.function("build")(self.job["folder"], dtype)
        root = self.record.root_of(built)
        if root is not None:
            root.to(self.job["device"]).eval()
        if isinstance(root, torch.nn.Module) and dtype == torch.float64:
            root.double()
        return built

    def call(self, built: Any, case: str, dtype: Any, around: Any, noise: Any = None) -> None:
        import torch

        def convert(tensor: Any) -> Any:
            tensor = tensor.clone()
            if tensor.is_floating_point() and dtype in (torch.float32, torch.float64):
                tensor = tensor.to(dtype)
            return (noise(tensor) if noise else tensor).to(self.job["device"])

        given = self.run.tree.unpack(self.run.trees[case], self.run.inputs, convert)
        with around, torch.no_grad():
            self.run.function("call")(built, given)

    def plain(self, built: Any, root: Any, case: str, dtype: Any) -> dict[str, Any]:
        store = self.probe.Store(self.out / f"{self.slot(case)}.bin")
        exact = "all" if self.job["exact"] == "all" else set(self.job["exact"])
        recorder = self.record.Recorder(root, store, exact, int(self.job["limit"]))
        self.call(built, case, dtype, recorder)
        recorder.finish()
        return {"modules": recorder.modules, "order": recorder.order, "complete": not recorder.full}

    def exactly(self, runs: dict[str, Any], dtype: Any, noise: bool) -> None:
        """Adds `drift` {name: relative L2 of the free run} and `local` {"name call": measures} to each case."""
        import torch

        built = self.built(dtype)
        root = self.record.root_of(built)
        shaken = None
        if noise:
            generator = torch.Generator("cpu").manual_seed(self.job["seed"] + 1)
            self.run.shake(root, generator)

            def shaken(tensor: Any) -> Any:
                return self.run.ulp(tensor, generator) if tensor.is_floating_point() else tensor

        names = set(dict(root.named_modules()))
        for case, found in runs.items():
            scratch = self.out / f"{self.slot(case)}.exact.bin"
            recorder = self.record.Recorder(root, self.probe.Store(scratch))
            self.call(built, case, dtype, recorder, shaken)
            store = self.probe.Store.open(self.out / f"{self.slot(case)}.bin")
            found["drift"] = self.drift(store, recorder.marks)
            scratch.unlink(missing_ok=True)
            forced = self.record.Forced(root, store, lambda name: (name,), names)
            self.call(built, case, dtype, forced, shaken)
            results = forced.results.items()
            found["local"] = {f"{name} {call}": r["output"] for (name, call), r in results if r["output"]}
            found["local_in"] = {f"{name} {call}": _largest(r["inputs"]) for (name, call), r in results}

    def drift(self, store: Any, marks: Any) -> dict[str, float]:
        """Distance of each boundary's sketch from the exact run's, by the sketch's key without its head."""
        found = {}
        for key, exact in marks.items():
            if key in store:
                found[key.partition("/")[2]] = self.probe.apart(store.get(key), exact)
        return found

    def params(self, root: Any) -> bool:
        """The parameters themselves, where they fit the limit, for the tests of a weight's cause."""
        named = dict(root.state_dict())
        size = sum(t.numel() * t.element_size() for t in named.values() if hasattr(t, "numel"))
        if size > int(self.job["limit"]):
            return False
        store = self.probe.Store(self.out / "params.bin")
        for name, tensor in named.items():
            store.put(name, tensor)
        store.close()
        return True


def _largest(inputs: list[Any]) -> float:
    return max((measures["rel_l2"] for _, measures in inputs), default=0.0)
