# SPDX-License-Identifier: Apache-2.0
"""Modules without modules of their own, as FastVideo has them: a constructor call and the import that it needs."""

from __future__ import annotations

import re
from typing import Any

Json = dict[str, Any]
CONTAINERS = ("ModuleList", "Sequential", "ModuleDict")
LINEAR = "from fastvideo.layers.linear import ReplicatedLinear"
NORMS = "from fastvideo.layers.layernorm import {}"
TORCH_NAMES = {"NonDynamicallyQuantizableLinear": "Linear"}  # torch keeps this one to itself


def is_container(node: Json) -> bool:
    return _is_torch(node) and node["cls"] in CONTAINERS


def leaf(node: Json, plain: bool = False) -> tuple[str, str] | None:
    """(constructor call, import line or '') of a module that needs no class of the port's; None for any other.

    `plain`: a linear layer that must answer with one tensor (inside nn.Sequential), which FastVideo's does not.
    """
    if node["children"]:
        return None
    if _is_torch(node):
        cls = TORCH_NAMES.get(node["cls"], node["cls"])
        if "weight_g" in node["parameters"]:  # weight normalisation as torch had it first: a hook, no module
            return f"nn.utils.weight_norm(nn.{cls}({_arguments(node, node['repr'])}))", ""
        if cls == "Linear" and not plain:
            return _linear(node), LINEAR
        return f"nn.{cls}({_arguments(node, node['repr'])})", ""
    if node["cls"] == "FP32LayerNorm" and node["base"] == "LayerNorm":
        return f"FP32LayerNorm({_arguments(node, node['base_repr'])})", NORMS.format("FP32LayerNorm")
    if node["cls"] == "RMSNorm" and node["home"].startswith("diffusers.") and set(node["parameters"]) <= {"weight"}:
        return _rms(node), NORMS.format("RMSNorm")
    if node["cls"] == "FP32SiLU":
        return "nn.SiLU()", ""
    return None


def _is_torch(node: Json) -> bool:
    return str(node["home"]).startswith("torch.nn.modules")  # torch.nn.utils has modules of another making


def _linear(node: Json) -> str:
    rows, columns = node["parameters"]["weight"]
    return f"ReplicatedLinear({columns}, {rows}{'' if 'bias' in node['parameters'] else ', bias=False'})"


def _rms(node: Json) -> str:
    dims = node["attributes"].get("dim") or node["parameters"].get("weight") or [0]
    size = (node["parameters"].get("weight") or list(dims))[0]
    weight = "" if "weight" in node["parameters"] else ", has_weight=False"
    return f"RMSNorm({size}, eps={node['attributes'].get('eps', 1e-6)!r}{weight})"


def _arguments(node: Json, said: str) -> str:
    """torch says a module's arguments in its repr; a norm does not say there that it has no bias."""
    if node["cls"] in ("LayerNorm", "FP32LayerNorm"):
        said = said.split(", bias=")[0]
        if "weight" in node["parameters"] and "bias" not in node["parameters"]:
            said += ", bias=False"
    return re.sub(r"padding_mode=(\w+)", r'padding_mode="\1"', said)  # torch leaves its quotes out


def subclass_base(node: Json) -> tuple[str, str]:
    """(torch base, its arguments) of a class that changes what a torch layer does; ('', '') where there is none."""
    if node["base"] in ("", *CONTAINERS) or node["children"]:
        return "", ""
    return node["base"], _arguments({**node, "cls": node["base"]}, node["base_repr"])
