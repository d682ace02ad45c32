# SPDX-License-Identifier: Apache-2.0
"""A small encoder with every part that the walk looks at, and a fault for each stage; torch only."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fvport.contract import root
from fvport.contract.red import Red
from fvport.parity.probe import measures

WIDTH, HEADS, LAYERS, VOCABULARY, PAD = 16, 2, 3, 40, 0


@dataclass
class BaseEncoderOutput:
    last_hidden_state: Any = None
    pooler_output: Any = None
    hidden_states: Any = None


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 32), nn.GELU(), nn.Linear(32, WIDTH))

    def forward(self, x: Any, bias: Any) -> Any:
        q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in self.qkv(self.norm(x)).chunk(3, -1))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2))
        return x + self.mlp(x)


class Encoder(nn.Module):
    """`fault` names what is wrong with it; '' is the official one."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        torch.manual_seed(3)
        self.fault = fault
        self.embed, self.place = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(64, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.final_norm, self.pooler = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)
        with torch.no_grad():
            for p in self.parameters():
                p.add_(torch.randn_like(p) * 0.3)
        if fault == "layer":
            with torch.no_grad():
                self.layers[1].out.weight[0] *= 1.1
        self.eval()

    def forward(
        self, input_ids: Any, attention_mask: Any = None, position_ids: Any = None, output_hidden_states: bool = False
    ) -> Any:
        fault = self.fault
        positions = (
            torch.arange(input_ids.shape[1])[None].expand(input_ids.shape) if position_ids is None else position_ids
        )
        if fault == "positions of row 0":
            positions = positions[:1].expand(positions.shape)
        if fault == "positions from one" and position_ids is None:
            positions = positions + 1
        x = self.embed(input_ids) + self.place(positions)
        bias = None
        if attention_mask is not None and fault != "mask ignored":
            real = attention_mask.bool()
            real = real[:1].expand(real.shape) if fault == "mask of row 0" else real
            real = ~real if fault == "mask inverted" else real
            bias = torch.zeros(real.shape).masked_fill(~real, -1e9)[:, None, None, :]
            bias = attention_mask.float()[:, None, None, :] if fault == "mask dtype" else bias
        states = [x]
        with torch.autocast("cpu", torch.bfloat16) if fault == "autocast" else contextlib.nullcontext():
            for layer in self.layers:
                x = layer(x, None if bias is None else bias.to(x))
                states.append(x)
        last = x if fault == "final norm" else self.final_norm(x.to(self.final_norm.weight))
        if fault == "last layer":
            last = self.final_norm(states[-2])
        index = -1 if fault == "pooled token" else 0
        pooled = torch.tanh(self.pooler(last[:, index]))
        last = last.double() if fault == "output dtype" else last
        states = states[1:] if fault == "states late" else states[:-1] if fault == "states short" else states
        return BaseEncoderOutput(last, pooled, tuple(states) if output_hidden_states else None)


def call(model: Any, case: dict[str, Any], fault: str = "") -> dict[str, Any]:
    given = dict(case)
    if fault == "mask handed inverted":
        given["attention_mask"] = 1 - given["attention_mask"]
    if fault == "mask not handed":
        given.pop("attention_mask")
    if fault == "positions not handed":
        given.pop("position_ids", None)
    with torch.no_grad():
        out = model(**given, output_hidden_states=True)
    found = {"last_hidden_state": out.last_hidden_state, "pooled": out.pooler_output}
    found |= {f"hidden_states.{i:02d}": state for i, state in enumerate(out.hidden_states)}
    if fault == "fields swapped":
        found["hidden_states.00"], found["hidden_states.02"] = found["hidden_states.02"], found["hidden_states.00"]
    if fault == "field missing":
        del found["pooled"]
    return found


def inputs() -> dict[str, dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)

    def batch(length: int, *valid: int, left: bool = False) -> dict[str, Any]:
        ids = torch.full((len(valid), length), PAD)
        mask = torch.zeros(len(valid), length, dtype=torch.long)
        for row, count in enumerate(valid):
            place = slice(length - count, length) if left else slice(0, count)
            ids[row, place] = torch.randint(2, VOCABULARY, (count,), generator=generator)
            mask[row, place] = 1
        return {"input_ids": ids, "attention_mask": mask}

    left = batch(9, 9, 5, left=True)
    left["position_ids"] = (left["attention_mask"].cumsum(1) - 1).clamp(min=0)
    return {"ragged": batch(10, 10, 4), "left": left, "one": batch(6, 6)}


def red(fault: str, where: str = "model", trace: dict[str, Any] | None = None) -> Red:
    """Both sides run. `where`: the fault is the model's, or the test's call's."""
    official, native = Encoder(), Encoder(fault if where == "model" else "")
    cases, side = inputs(), fault if where == "call" else ""
    theirs, given, answers, outputs, floors = {}, {}, {}, {}, {}
    double = Encoder().double()
    for name, case in cases.items():
        calls: list[Any] = []
        with root.watched(official, calls):
            outputs[name] = call(official, case)
        exact = call(double, case)
        floors[name] = {n: measures(t, exact[n])["rel_l2"] for n, t in outputs[name].items()}
        theirs[name], answers[name], given[name] = root.kept(calls[-1].given), root.about(calls[-1].answer), calls[-1]
    case = root.chosen({n: c.given for n, c in given.items()})
    behaviour = root.behave(official, given[case].given, given[case].answer)
    mine = {name: call(native, c, side) for name, c in cases.items()}

    def run(name: str) -> dict[str, Any]:
        return call(native, cases[name], side)

    made = Red("", native, run, outputs, mine, theirs, answers, floors, behaviour, case, trace or {})
    made.case = next((name for name in outputs if made.bad(name)), "ragged")
    return made
