# SPDX-License-Identifier: Apache-2.0
"""A module tree -> native source: the same submodule names on FastVideo's layers, each structure one class.

Modules of one structure (shapes included) are one class, so a list of equal blocks is one line. What `forward` does is
written where it follows from the structure (`known.py`); elsewhere one line names the decision: `boundary` finds it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from fvport.scaffold.skeleton import known, layers

Json = dict[str, Any]
WIDTH = 120
SAID = 66  # of a decision's line, so that it stays a line
NO_VALUE = ("training", "gradient_checkpointing", "is_parallelizable", "name_or_path", "warnings_issued")
COUNTS = re.compile(r"layers|blocks|depth")


@dataclass
class Writer:
    """`classes`: source of every class, in the order in which they need one another; `decisions`: what is left."""

    config: Json
    native: str
    classes: list[str] = field(default_factory=list)
    imports: set[str] = field(default_factory=set)
    decisions: list[str] = field(default_factory=list)
    made: dict[str, str] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)  # what a forward does -> the class that has it
    common: dict[str, Json] = field(default_factory=dict)  # structure -> attributes that all its modules agree on
    names: set[str] = field(default_factory=set)

    def prepare(self, node: Json) -> None:
        """Read the whole tree once: which attributes are the same in every module of a structure."""
        key = _structure(node)
        before: Json = self.common[key] if key in self.common else node["attributes"]
        self.common[key] = {k: v for k, v in node["attributes"].items() if k in before and before[k] == v}
        for child in node["children"].values():
            self.prepare(child)

    def call(self, node: Json, plain: bool = False, indent: int = 8) -> str:
        """The constructor call of a module; writes the class that it needs, once a structure."""
        if layers.is_container(node):
            return self._container(node, indent)
        if found := layers.leaf(node, plain):
            self.imports |= {found[1]} - {""}
            return found[0]
        base, arguments = layers.subclass_base(node)
        key = f"{node['home']}.{node['cls']}" if base else _structure(node)
        if key not in self.made:
            self.made[key] = self._named(node["cls"])
            self.classes.append(self._class(node, self.made[key]))
        return f"{self.made[key]}({arguments})" if base else f"{self.made[key]}(config)"

    def _named(self, cls: str) -> str:
        number, name = 1, cls
        while name in self.names or name == self.native:
            number += 1
            name = f"{cls}{number}"
        self.names.add(name)
        return name

    def _container(self, node: Json, indent: int) -> str:
        if node["cls"] == "ModuleDict":
            rows = [f"{name!r}: {self.call(child, indent=indent + 4)}" for name, child in node["children"].items()]
            return "nn.ModuleDict({" + _joined(rows, indent, 17) + "})"
        inside = node["cls"] == "Sequential"
        calls = [self.call(child, plain=inside, indent=indent + 4) for child in node["children"].values()]
        if inside:
            return f"nn.Sequential({_joined(calls, indent, 15)})"
        runs = [(text, len(list(run))) for text, run in groupby(calls)]
        if len(runs) == 1 and runs[0][1] > 1:
            return f"nn.ModuleList([{runs[0][0]} for _ in range({self._count(runs[0][1])})])"
        rows = [text if count == 1 else f"*({text} for _ in range({count}))" for text, count in runs]
        return f"nn.ModuleList([{_joined(rows, indent, 16)}])"

    def _count(self, count: int) -> str:
        """The config's own field where exactly one that counts layers has this value."""
        fits = [k for k, v in self.config.items() if v == count and type(v) is int and COUNTS.search(k)]
        return f"config.{fits[0]}" if len(fits) == 1 else str(count)

    def _class(self, node: Json, name: str) -> str:
        """A class for this structure. Where another structure has the same forward, it is written there only."""
        base, _ = layers.subclass_base(node)
        if base:
            return "\n".join([f"class {name}(nn.{base}):", "", *("    " + line for line in self.forward(node))])
        found = known.forward(node)
        does = "\n".join(found[0]) if found else f"{node['home']}.{node['cls']}"
        first = self.written.get(does, "")
        lines = [f"class {name}({first or 'nn.Module'}):", "", "    def __init__(self, config: Any) -> None:"]
        lines.append("        nn.Module.__init__(self)" if first else "        super().__init__()")
        lines += self.body(node)
        if not first:
            self.written[does] = name
            lines += ["", *("    " + line for line in self.forward(node))]
        return "\n".join(lines)

    def body(self, node: Json) -> list[str]:
        """Assignments of a constructor: parameters and buffers of its own, then its modules in the official order.

        Where a person writes the forward, the plain values that the official module holds stand before them.
        """
        lines = []
        if known.forward(node) is None:
            values = self.common.get(_structure(node), {}).items()
            lines += [f"        self.{name} = None" for name in node.get("empty", ())]
            lines += [
                line for k, v in values if k not in NO_VALUE and len(line := f"        self.{k} = {v!r}") <= WIDTH
            ]
        for name, shape in node["parameters"].items():
            lines.append(f"        self.{name} = nn.Parameter(torch.empty({_shape(shape)}))")
        for name, shape in node["buffers"].items():
            lines.append(f'        self.register_buffer("{name}", torch.zeros({_shape(shape)}))')
        if node["parameters"] or node["buffers"]:
            self.imports.add("import torch")
        for name, child in node["children"].items():
            text = self.call(child)
            line = f"        self.{name} = {text}"
            if not name.isidentifier():
                line = f'        self.add_module("{name}", {text})'
            lines.append(line if len(line.split("\n")[0]) <= WIDTH else _broken(line))
        return lines

    def forward(self, node: Json) -> list[str]:
        if found := known.forward(node):
            self.imports |= set(found[1])
            return found[0]
        names = ", ".join(node["children"]) or ", ".join(node["parameters"]) or "no modules of its own"
        said = f"forward of {node['cls']} ({names}"
        said = said if len(said) <= SAID else said[: SAID - 4] + " ..."
        self.decisions.append(said + ")")
        taken = [arg.rstrip("=") + ("=None" if arg.endswith("=") else "") for arg in node["arguments"]]
        taken = [arg for number, arg in enumerate(taken) if not _after_default(taken, number)]
        return [
            _signature(taken),
            f'    raise NotImplementedError("FVPORT-DECIDE: {said})")',
        ]


def _broken(line: str) -> str:
    """A line that is too long, its outermost call's arguments on a line of their own."""
    head, opening, rest = line.partition("([" if "ModuleList([" in line else "(")
    inside, closing = rest[: -len(opening)], rest[-len(opening) :]
    return f"{head}{opening}\n            {inside}\n        {closing}"


def _after_default(taken: list[str], number: int) -> bool:
    """An argument without default behind one that has it (keyword only in the official class)."""
    return "=" not in taken[number] and any("=" in arg for arg in taken[:number])


def _signature(taken: list[str]) -> str:
    line = f"def forward(self, {', '.join([*taken, '**kwargs'])}):"
    if len(line) + 4 <= WIDTH:
        return line
    rows = [f"            {arg}," for arg in ["self", *taken, "**kwargs"]]
    return "\n".join(["def forward(", *rows, "    ):"])


def _shape(shape: list[int]) -> str:
    return ", ".join(map(str, shape)) if shape else "()"


def _joined(rows: list[str], indent: int, used: int) -> str:
    flat = ", ".join(rows)
    if len(flat) + indent + used + 20 <= WIDTH and "\n" not in flat:
        return flat
    pad = " " * (indent + 4)
    return "\n" + "".join(f"{pad}{row},\n" for row in rows) + " " * indent


def _structure(node: Json) -> str:
    """What makes two modules the same class: kind, shapes, children; attributes where something written reads them."""
    reads = node["cls"] in known.BLOCKS or not node["children"]
    own = {k: node[k] for k in ("cls", "home", "repr", "base_repr", "parameters", "buffers", "processor")}
    own["attributes"] = node["attributes"] if reads else {}
    own["children"] = {name: _structure(child) for name, child in node["children"].items()}
    return json.dumps(own, sort_keys=True, default=str)


def lists_of_blocks(tree: Json) -> list[str]:
    """Names of the top module's lists that hold at least one module with modules of its own."""
    lists = ((name, child) for name, child in tree["children"].items() if child["cls"] == "ModuleList")
    return [name for name, child in lists if any(block["children"] for block in child["children"].values())]
