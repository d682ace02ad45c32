# SPDX-License-Identifier: Apache-2.0
"""The official side of an encoder's contract, seen while the oracle computes: what the model is given, how it answers,
how it behaves. Runs in the oracle's own process, beside `oracle_runner`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Contract:
    """Watches one component's run in the tested precision. What goes wrong here is told, and stops nothing."""

    def __init__(self, root: Any, model: Any) -> None:
        self.root, self.model = root, model  # the module root.py, and the official model
        self.given: dict[str, dict[str, Any]] = {}
        self.cases: dict[str, dict[str, Any]] = {}
        self.answers: dict[str, Any] = {}
        self.problem = "" if model is not None else "what build returned holds no model"

    @contextlib.contextmanager
    def case(self, name: str) -> Iterator[None]:
        calls: list[Any] = []
        with contextlib.nullcontext() if self.model is None else self.root.watched(self.model, calls):
            yield
        if not calls:
            self.problem = self.problem or f"oracle.py does not call the model itself (case {name})"
            return
        last = calls[-1]
        self.given[name], self.answers[name] = last.given, last.answer
        about = {**self.root.about(last.answer), "autocast": last.autocast, "given": _shown(last.given)}
        self.cases[name] = {**about, "calls": len(calls)}

    def finish(self, out: Path) -> dict[str, Any]:
        """Write masks and positions of each case beside the results; gives what goes into meta.json."""
        from safetensors.torch import save_file

        tensors = {
            f"{case}/{name}": value.detach().cpu().contiguous().clone()
            for case, given in self.given.items()
            for name, value in self.root.kept(given).items()
        }
        save_file(tensors, str(out / "given.safetensors"))
        behaviour: dict[str, Any] = {}
        case = self.root.chosen(self.given)
        try:
            behaviour = self.root.behave(self.model, self.given[case], self.answers[case]) if case else {}
        except Exception as error:  # noqa: BLE001 - an official class may refuse anything; the outputs stand by themselves
            self.problem = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        self.given, self.answers = {}, {}
        return {"cases": self.cases, "behaviour": behaviour, "case": case, "problem": self.problem}


def _shown(given: dict[str, Any]) -> dict[str, Any]:
    """Arguments as data: a tensor is its dtype and shape."""
    return {
        name: [str(value.dtype).removeprefix("torch."), list(value.shape)]
        if hasattr(value, "dtype")
        else repr(value)[:60]
        for name, value in given.items()
    }
