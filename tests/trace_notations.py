# SPDX-License-Identifier: Apache-2.0
"""Pairs that are written in two ways, for the trace: neither a fault to it, nor what leads it away from one."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from fvport.audit.case import Case, integers, normal

WIDTH = 8


class Saved(nn.Module):
    def save_pretrained(self, folder: str) -> None:
        save_file(own(self), str(Path(folder) / "model.safetensors"))
        (Path(folder) / "config.json").write_text(json.dumps({"made": 1}))


def own(module: nn.Module) -> dict[str, Any]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


class Lends(Saved):
    """An embedding that only lends its weight: the one that runs is tied to it."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Embedding(11, WIDTH)
        self.encoder = nn.Module()
        self.encoder.embed = nn.Embedding(11, WIDTH)
        self.encoder.embed.weight = self.shared.weight
        self.encoder.fc = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Any) -> Any:
        return self.encoder.fc(self.encoder.embed(x))


class Shared(Saved):
    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Embedding(11, WIDTH)
        self.encoder = nn.Module()
        self.encoder.fc = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Any) -> Any:
        return self.encoder.fc(self.shared(x))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Any) -> Any:
        return x + self.fc(self.norm(x))


class Stream(Saved):
    def __init__(self) -> None:
        super().__init__()
        self.layers, self.last = nn.ModuleList(Layer() for _ in range(3)), nn.LayerNorm(WIDTH)

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return self.last(x)


class AddNorm(nn.LayerNorm):
    """Adds the residual, answers the norm and the sum."""

    def forward(self, x: Any, residual: Any = None) -> Any:
        total = x if residual is None else x + residual
        return super().forward(total), total


class ApartLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc = AddNorm(WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Any, residual: Any) -> Any:
        x, residual = self.norm(x, residual)
        return self.fc(x), residual


class Apart(Saved):
    """The same stream, its residual handed on beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.last = nn.ModuleList(ApartLayer() for _ in range(3)), AddNorm(WIDTH)

    def forward(self, x: Any) -> Any:
        residual = None
        for layer in self.layers:
            x, residual = layer(x, residual)
        return self.last(x, residual)[0]


class Attention(nn.Module):
    """Turned by a table before it is attended; `halves` is how the table is written."""

    def __init__(self, halves: bool) -> None:
        super().__init__()
        self.halves = halves
        self.to_q, self.to_k, self.to_v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.to_out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Any, table: Any) -> Any:
        angle = table if self.halves else table.acos()
        q, k = (f(x) * torch.cos(angle) for f in (self.to_q, self.to_k))
        return self.to_out(nn.functional.scaled_dot_product_attention(q, k, self.to_v(x)))


class Angles(Saved):
    def __init__(self, halves: bool = True) -> None:
        super().__init__()
        self.halves = halves
        self.mid = nn.Module()
        self.mid.attentions = nn.ModuleList([Attention(halves)])

    def forward(self, x: Any) -> Any:
        angle = torch.linspace(0.3, 2.8, x.shape[1])[:, None].expand(-1, WIDTH).to(x)
        return self.mid.attentions[0](x, angle if self.halves else angle.cos())


class Cosines(Angles):
    def __init__(self) -> None:
        super().__init__(halves=False)


@dataclass(frozen=True)
class Packed:
    x: Any


class Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(WIDTH, WIDTH)

    def forward(self, packed: Packed) -> Any:
        return self.fc(packed.x)


class Frozen(Saved):
    """Hands its parts on in a frozen dataclass."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.part = nn.LayerNorm(WIDTH), Part()

    def forward(self, x: Any) -> Any:
        return self.part(Packed(self.norm(x)))


def call(model: Any, given: dict[str, Any]) -> dict[str, Any]:
    return {"y": model(given["x"])}


FLOATS = Case(
    "toy",
    f"{__name__}:Stream",
    f"{__name__}:Apart",
    "plain",
    lambda generator: {"x": normal(generator, 2, 5, WIDTH)},
    call,
    call,
    build=lambda cls, record: cls(),
)
NOTATIONS = {
    "tied": replace(
        FLOATS,
        official=f"{__name__}:Lends",
        native=f"{__name__}:Shared",
        inputs=lambda generator: {"x": integers(generator, 11, 2, 5)},
    ),
    "apart": FLOATS,
    "table": replace(FLOATS, official=f"{__name__}:Angles", native=f"{__name__}:Cosines"),
    "frozen": replace(FLOATS, official=f"{__name__}:Frozen", native=f"{__name__}:Frozen"),
}
CASES = [
    ("tied", "embedding.shifted", "shared"),
    ("apart", "missing.norm_weight-last", "last"),
    ("apart", "norm.skipped-last", "last"),
    ("apart", "missing.bias-middle", "layers.1.fc"),
    ("table", "attention.scale_1/d", "mid.attentions.0"),
    ("table", "missing.bias-last", "mid.attentions.0.to_out"),
    ("frozen", "missing.weight-first", "part.fc"),
    ("frozen", "eps.10.0-all", "norm"),
]


def case(notation: str) -> Case:
    return NOTATIONS[notation]
