# SPDX-License-Identifier: Apache-2.0
"""A small official transformer and a native one with fused projections and other names, and both sides' records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fvport.parity import oracle_trace, probe, record, trace
from fvport.parity.pairs import sources
from fvport.weights.mapping import Rules

DIM, HEADS, LAYERS = 16, 2, 3
RULES = Rules.from_fastvideo(
    {
        r"^blocks\.(\d+)\.attn\.to_q\.(.*)$": (r"blocks.\1.attn.qkv.\2", 0, 3),
        r"^blocks\.(\d+)\.attn\.to_k\.(.*)$": (r"blocks.\1.attn.qkv.\2", 1, 3),
        r"^blocks\.(\d+)\.attn\.to_v\.(.*)$": (r"blocks.\1.attn.qkv.\2", 2, 3),
        r"^blocks\.(\d+)\.ff\.net\.0\.(.*)$": r"blocks.\1.mlp.fc_in.\2",
        r"^blocks\.(\d+)\.ff\.net\.2\.(.*)$": r"blocks.\1.mlp.fc_out.\2",
    }
)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(DIM, DIM) for _ in range(4))

    def forward(self, x: Any, rope: Any) -> Any:
        q, k, v = (f(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for f in (self.to_q, self.to_k, self.to_v))
        q, k = (t * rope[0] + torch.cat([-t[..., 4:], t[..., :4]], -1) * rope[1] for t in (q, k))
        scores = (q @ k.transpose(-1, -2)) / (DIM // HEADS) ** 0.5
        return self.to_out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(DIM, 1e-6), nn.LayerNorm(DIM, 1e-6)
        self.attn = Attention()
        self.ff = nn.Module()
        self.ff.net = nn.Sequential(nn.Linear(DIM, 32), nn.GELU(approximate="tanh"), nn.Linear(32, DIM))
        self.table = nn.Parameter(torch.randn(2, DIM) / 4)

    def forward(self, x: Any, rope: Any) -> Any:
        x = x + self.attn(self.norm1(x) * (1 + self.table[0]) + self.table[1], rope)
        return x + self.ff.net(self.norm2(x))


class Official(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, DIM)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm_out, self.proj_out = nn.LayerNorm(DIM, 1e-6), nn.Linear(DIM, 8)
        self.place = nn.Embedding(16, DIM)

    def forward(self, hidden: Any) -> Any:
        x = self.embed(hidden) + self.place(torch.arange(hidden.shape[1]))
        return self.proj_out(self.norm_out(_through(self.blocks, x, rotary(hidden.shape[1], 10000.0, hidden.dtype))))


def _through(blocks: Any, x: Any, rope: Any) -> Any:
    for block in blocks:
        x = block(x, rope)
    return x


def rotary(length: int, theta: float, dtype: Any = torch.float32) -> tuple[Any, Any]:
    angles = torch.outer(torch.arange(length).double(), theta ** (-torch.arange(4).double() / 4)).repeat(1, 2)
    return angles.cos().float().to(dtype), angles.sin().float().to(dtype)


class FusedAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.to_out = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
        self.scale = (DIM // HEADS) ** -0.5

    def forward(self, x: Any, freqs: Any) -> tuple[Any, None]:
        q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        q, k = (t * freqs[0] + torch.cat([-t[..., 4:], t[..., :4]], -1) * freqs[1] for t in (q, k))
        return self.to_out(F.scaled_dot_product_attention(q, k, v, scale=self.scale).transpose(1, 2).flatten(2)), None


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc_in, self.act, self.fc_out = nn.Linear(DIM, 32), nn.GELU(approximate="tanh"), nn.Linear(32, DIM)

    def forward(self, x: Any) -> Any:
        return self.fc_out(self.act(self.fc_in(x)))


class NativeBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(DIM, 1e-6), nn.LayerNorm(DIM, 1e-6)
        self.attn, self.mlp = FusedAttention(), Mlp()
        self.table = nn.Parameter(torch.zeros(2, DIM))

    def forward(self, x: Any, freqs: Any) -> Any:
        x = x + self.attn(self.norm1(x) * (1 + self.table[0]) + self.table[1], freqs)[0]
        return x + self.mlp(self.norm2(x))


class Native(nn.Module):
    theta = 10000.0
    first = 0  # index of the first place

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, DIM)
        self.blocks = nn.ModuleList(NativeBlock() for _ in range(LAYERS))
        self.norm_out, self.proj_out = nn.LayerNorm(DIM, 1e-6), nn.Linear(DIM, 8)
        self.place = nn.Embedding(16, DIM)

    def forward(self, hidden: Any) -> Any:
        x = self.embed(hidden) + self.place(torch.arange(hidden.shape[1]) + self.first)
        return self.proj_out(self.norm_out(_through(self.blocks, x, rotary(hidden.shape[1], self.theta, hidden.dtype))))


def official() -> Official:
    torch.manual_seed(0)
    model = Official().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return model


def native(of: Official) -> Native:
    """The native model with the official weights, as a loader would fill it."""
    model, state = Native().eval(), dict(of.named_parameters())
    with torch.no_grad():
        for name, found in sources(RULES, state, dict(model.named_parameters())).items():
            model.get_parameter(name).copy_(torch.cat([state[s] for s in found], 0))
    return model


class _Run:
    """What `oracle_runner.Run` is to a tracer, in this process."""

    name = "net"

    def __init__(self, job: dict[str, Any]) -> None:
        from fvport.parity import oracle_runner, tree

        self.job, self.tree = job, tree
        self.ulp, self.shake = oracle_runner.ulp, oracle_runner.shake

    def function(self, what: str) -> Any:
        def build(folder: str, dtype: Any) -> Any:
            return official().to(dtype)

        return {
            "build": build,
            "call": lambda built, case: {"out": built(case["hidden"].to(built.embed.weight.dtype))},
        }[what]


def inputs() -> dict[str, Any]:
    return {"hidden": torch.randn(2, 7, 8, generator=torch.Generator().manual_seed(5))}


def record_official(folder: Path, **job: Any) -> tuple[dict[str, Any], dict[str, Any], Any, Any]:
    """(modules, the case's record, its store, the parameters' store) of the official side, as its process does."""
    import json

    from safetensors.torch import save_file

    from fvport.parity import tree

    tensors: dict[str, Any] = {}
    trees = {"one": tree.pack(inputs(), "one", tensors)}
    save_file(tensors, str(folder / "inputs.safetensors"))
    (folder / "meta.json").write_text(json.dumps({"inputs": trees}), encoding="utf-8")
    plain = {"out": str(folder), "place": str(folder), "cases": ["one"], "dtype": "float32", "device": "cpu"}
    plain |= {"folder": "", "exact": "all", "limit": 1 << 26, "seed": 0}
    answer = oracle_trace.Tracer(_Run({**plain, **job}), record, probe).all()
    found = json.loads((folder / "case000.json").read_text(encoding="utf-8"))
    store = probe.Store.open(folder / "case000.bin")
    return answer["modules"], found, store, probe.Store.open(folder / "params.bin") if answer["params"] else None


def sides(model: Any, recorded: Any) -> trace.Sides:
    """Both sides of the one case."""
    modules, found, store, params = recorded
    names = [f"{n}.{p}".lstrip(".") for n, about in modules.items() for p in about["params"]]
    placed = sources(RULES, names, [n for n, _ in model.named_parameters()])

    def run(context: Any) -> None:
        with context, torch.no_grad():
            model(inputs()["hidden"].to(model.embed.weight.dtype))

    return trace.Sides("net", "one", model, modules, found, store, placed, run, params)
