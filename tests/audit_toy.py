# SPDX-License-Identifier: Apache-2.0
"""A toy official class and native classes of it for the census's tests: right, wrong, raising, blind to its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from fvport.audit.case import Case, normal


class Official(torch.nn.Module):
    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.width = width
        self.norm = torch.nn.LayerNorm(width)
        self.linear = torch.nn.Linear(width, width)

    def forward(self, x: Any) -> Any:
        return self.linear(self.norm(x))

    def save_pretrained(self, folder: str) -> None:
        save_file(self.state_dict(), str(Path(folder) / "model.safetensors"))
        record = {"width": self.width, "extra": 1}
        (Path(folder) / "config.json").write_text(json.dumps(record))


class Native(Official):
    """The same function."""


class Wrong(Official):
    """Forgets the bias: what an edit can mend."""

    def forward(self, x: Any) -> Any:
        return self.linear(self.norm(x)) - self.linear.bias


class Raises(Official):
    def forward(self, x: Any) -> Any:
        raise RuntimeError("no such path")


class Writes(Official):
    def forward(self, x: Any) -> Any:
        answer = super().forward(x)
        x.add_(1.0)
        return answer


class Remembers(Official):
    """Right the first time."""

    calls = 0

    def forward(self, x: Any) -> Any:
        self.calls += 1
        return super().forward(x) * (1.0 if self.calls == 1 else 1.01)


class Blind(Official):
    """Right, but not by its parameters: the negative control must notice."""

    def __init__(self, width: int = 6) -> None:
        super().__init__(width)
        self.kept: dict[str, Any] = {}

    def load_state_dict(self, state: Any, strict: bool = True, assign: bool = False) -> Any:
        self.kept = {key: value.clone() for key, value in state.items()}
        return super().load_state_dict(state, strict, assign)

    def forward(self, x: Any) -> Any:
        y = torch.nn.functional.layer_norm(x, (self.width,), self.kept["norm.weight"], self.kept["norm.bias"])
        return torch.nn.functional.linear(y, self.kept["linear.weight"], self.kept["linear.bias"])


def call(model: Any, given: dict[str, Any]) -> dict[str, Any]:
    return {"y": model(given["x"])}


def case(native: str, name: str = "toy") -> Case:
    """A case of the toy pair; `native` is the name of one of the classes above."""
    return Case(
        name,
        f"{__name__}:Official",
        f"{__name__}:{native}",
        "plain",
        lambda generator: {"x": normal(generator, 4, 6)},
        call,
        call,
        config={"width": 6},
        build=lambda cls, record: cls(record["width"]),
    )
